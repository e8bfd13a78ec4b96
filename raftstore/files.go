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
	bolt      *sumStore
	log       *logStore
	snapshots *snapshotStore
}

// openFiles opens the files in dir, and makes them when create is set. Files of the
// first format are given what they lack.
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
	if f.bolt, err = openBolt(cfg, dir, create); err != nil {
		return f, err
	}
	f.log = &logStore{LogStore: f.bolt}
	inner, err := raft.NewFileSnapshotStoreWithLogger(dir, snapshots, newHCLog(cfg.Logger))
	f.snapshots = &snapshotStore{SnapshotStore: inner, dir: filepath.Join(dir, snapshotDir)}
	if err == nil {
		err = os.Chmod(filepath.Join(dir, snapshotDir), 0o700)
	}
	switch {
	case err != nil:
	case create:
		f.bolt.mark, err = createMark(dir, marked{})
	default:
		err = openOld(cfg, f, dir)
	}
	if err != nil {
		return f, errors.Join(err, f.bolt.Close())
	}
	return f, nil
}

// openBolt opens the file of the log and the stable values.
func openBolt(cfg Config, dir string, create bool) (*sumStore, error) {
	path := filepath.Join(dir, logFile)
	if !create && !cfg.Verified {
		err := checkBolt(path, cfg.LockTimeout)
		if errors.Is(err, fs.ErrNotExist) {
			err = fmt.Errorf("%w: %w", ErrCorrupt, err)
		}
		if err != nil {
			return nil, err
		}
	}
	open := func() (*raftboltdb.BoltStore, error) { return newBolt(cfg, path) }
	bolt, err := open()
	switch {
	case errors.Is(err, bolterrors.ErrTimeout):
		return nil, fmt.Errorf("%s: %w", path, ErrLocked)
	case errors.Is(err, bolterrors.ErrInvalid), errors.Is(err, bolterrors.ErrChecksum), errors.Is(err, bolterrors.ErrVersionMismatch):
		return nil, fmt.Errorf("%s: %w: %w", path, ErrCorrupt, err)
	case err != nil:
		return nil, err
	}
	return &sumStore{open: open, bolt: bolt, log: cfg.Logger}, nil
}

func newBolt(cfg Config, path string) (*raftboltdb.BoltStore, error) {
	return raftboltdb.New(raftboltdb.Options{
		Path: path,
		BoltOptions: &bbolt.Options{
			Timeout:        cfg.LockTimeout, // 0 would wait for ever
			NoFreelistSync: true,            // the free list is not written with each commit
			FreelistType:   bbolt.FreelistMapType,
		},
		MsgpackUseNewTimeFormat: true,
	})
}

// openOld checks the files of a store that was there, and brings those of the first
// format up to the present one.
func openOld(cfg Config, f files, dir string) error {
	id, err := readIdentity(dir)
	if err != nil {
		return err
	}
	f.bolt.old = id.Format < format
	if !f.bolt.old {
		if f.bolt.mark, err = openMark(dir); err != nil {
			return err
		}
	}
	if !cfg.Verified {
		err = verifyFiles(cfg, f, dir, id)
	}
	if err != nil {
		return err
	}
	if !f.bolt.old {
		return f.bolt.verifyMark()
	}
	if err := f.bolt.upgrade(dir); err != nil {
		return fmt.Errorf("give the store checksums: %w", err)
	}
	id.Format = format
	return writeIdentity(dir, id)
}

// verifyFiles checks that snapshots and log are whole, and that they connect. The log
// may be empty where a snapshot, or the leader of a node that joins, has the rest. A
// damaged snapshot does not matter when an older one and the log, or the log alone,
// hold all of it: it is set aside.
func verifyFiles(cfg Config, f files, dir string, id identity) error {
	base, damaged, err := f.snapshots.examine(dir)
	if err != nil {
		return err
	}
	mayBeEmpty := len(damaged) == 0 && (base > 0 || id.Joined)
	if err := verifyLog(f.bolt, base, mayBeEmpty); err != nil {
		if len(damaged) > 0 {
			err = fmt.Errorf("%w (snapshot %s cannot be read either)", err, damaged[0])
		}
		return err
	}
	for _, name := range damaged {
		cfg.Logger.Error("a snapshot is damaged, and set aside; the log has what it held", "snapshot", name)
		if err := setAside(dir, name); err != nil {
			return err
		}
	}
	return nil
}

// verifyLog reads every entry, so that damage shows before Raft runs on it. The log is
// short (Config.TrailingLogs). Up to the snapshot entries may be missing: a restored
// snapshot leaves a hole before it. Behind it none may.
func verifyLog(b raft.LogStore, snapshot uint64, mayBeEmpty bool) error {
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
	if first > snapshot+1 {
		return fmt.Errorf("%w: the log begins at %d, the snapshot ends at %d", ErrCorrupt, first, snapshot)
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
