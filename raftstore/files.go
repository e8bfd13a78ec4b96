package raftstore

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"runtime/debug"

	"github.com/hashicorp/raft"
	raftboltdb "github.com/hashicorp/raft-boltdb/v2"
	"go.etcd.io/bbolt"
	bolterrors "go.etcd.io/bbolt/errors"
)

// files are the open files of a store.
type files struct {
	bolt      *raftboltdb.BoltStore
	log       *logStore
	snapshots *snapshotStore
}

// openFiles opens the files in dir, and makes them when create is set.
func openFiles(cfg Config, dir string, create bool) (f files, err error) {
	// bbolt maps the file: damaged pages show as panics and faults.
	defer debug.SetPanicOnFault(debug.SetPanicOnFault(true))
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("%w: %s: %v", ErrCorrupt, logFile, p)
			if f.bolt != nil {
				err = errors.Join(err, f.bolt.Close())
			}
		}
	}()
	path := filepath.Join(dir, logFile)
	if !create {
		err := checkBolt(path, cfg.LockTimeout)
		if errors.Is(err, fs.ErrNotExist) {
			err = fmt.Errorf("%w: %w", ErrCorrupt, err)
		}
		if err != nil {
			return f, err
		}
	}
	f.bolt, err = raftboltdb.New(raftboltdb.Options{
		Path: path,
		BoltOptions: &bbolt.Options{
			Timeout:        cfg.LockTimeout, // 0 would wait for ever
			NoFreelistSync: true,            // the free list is not written with each commit
			FreelistType:   bbolt.FreelistMapType,
		},
		MsgpackUseNewTimeFormat: true,
	})
	switch {
	case errors.Is(err, bolterrors.ErrTimeout):
		return f, fmt.Errorf("%s: %w", path, ErrLocked)
	case errors.Is(err, bolterrors.ErrInvalid), errors.Is(err, bolterrors.ErrChecksum), errors.Is(err, bolterrors.ErrVersionMismatch):
		return f, fmt.Errorf("%s: %w: %w", path, ErrCorrupt, err)
	case err != nil:
		return f, err
	}
	f.log = &logStore{LogStore: f.bolt}
	inner, err := raft.NewFileSnapshotStoreWithLogger(dir, snapshots, newHCLog(cfg.Logger))
	f.snapshots = &snapshotStore{SnapshotStore: inner}
	if err == nil {
		err = os.Chmod(filepath.Join(dir, snapshotDir), 0o700)
	}
	if err == nil && !create {
		err = verifyFiles(f, dir)
	}
	if err != nil {
		return f, errors.Join(err, f.bolt.Close())
	}
	return f, nil
}

// verifyFiles checks that the log is whole. It may be empty where a snapshot, or
// the leader of a node that joins, has the rest.
func verifyFiles(f files, dir string) error {
	list, err := f.snapshots.List()
	if err != nil {
		return err
	}
	if len(list) > 0 {
		return verifyLog(f.bolt, list[0].Index, true)
	}
	id, err := readIdentity(dir)
	if err != nil {
		return err
	}
	return verifyLog(f.bolt, 0, id.Joined)
}

// verifyLog reads every entry, so that damage shows before Raft runs on it, where
// it would be a panic. The log is short (Config.TrailingLogs). Up to the snapshot
// entries may be missing: a restored snapshot leaves a hole before it.
func verifyLog(b *raftboltdb.BoltStore, snapshot uint64, mayBeEmpty bool) error {
	first, err := b.FirstIndex()
	if err != nil {
		return err
	}
	last, err := b.LastIndex()
	if err != nil {
		return err
	}
	if first == 0 || last < first {
		if mayBeEmpty {
			return nil
		}
		return fmt.Errorf("%w: empty log", ErrCorrupt)
	}
	term := uint64(1)
	for i := first; i <= last; i++ {
		var l raft.Log
		err := b.GetLog(i, &l)
		if errors.Is(err, raft.ErrLogNotFound) && i <= snapshot {
			i = snapshot
			continue
		}
		if err != nil {
			return fmt.Errorf("%w: entry %d: %w", ErrCorrupt, i, err)
		}
		if l.Index != i || l.Term < term {
			return fmt.Errorf("%w: entry %d of term %d is in the place of %d", ErrCorrupt, l.Index, l.Term, i)
		}
		term = l.Term
		if err := verifyEntry(&l); err != nil {
			return err
		}
	}
	return nil
}

// verifyEntry checks what can be checked of one entry. It may panic.
func verifyEntry(l *raft.Log) error {
	switch l.Type {
	case raft.LogCommand:
		return checkEntry(l)
	case raft.LogConfiguration:
		raft.DecodeConfiguration(l.Data) // panics when it is damaged
	case raft.LogNoop, raft.LogBarrier:
		if len(l.Data) > 0 || len(l.Extensions) > 0 {
			return fmt.Errorf("%w: entry %d has data and no command", ErrCorrupt, l.Index)
		}
	default:
		return fmt.Errorf("%w: entry %d is of type %d", ErrCorrupt, l.Index, l.Type)
	}
	return nil
}

// sweep removes snapshots and backups that a crash has left half written. The lock of
// the log keeps other processes out.
func sweep(dir string) error {
	var err error
	for _, pattern := range []string{filepath.Join(snapshotDir, "*.tmp"), filepath.Join(backupDir, backupNew+"*")} {
		left, _ := filepath.Glob(filepath.Join(dir, pattern)) // the pattern is right
		for _, path := range left {
			err = errors.Join(err, os.RemoveAll(path))
		}
	}
	return err
}

// logSize returns the size of the log's file, 0 if it cannot be told.
func logSize(dir string) int64 {
	st, err := os.Stat(filepath.Join(dir, logFile))
	if err != nil {
		return 0
	}
	return st.Size()
}
