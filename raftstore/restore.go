package raftstore

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/hashicorp/raft"

	"stellar.io/stellar/internal/failpoint"
	"stellar.io/stellar/ipam"
)

// Adjust says what must be changed in a restored or recovered state before anybody
// sees it: the next generation, and what the live state has that must not be lost
// (epochs, tombstones, the hand-out mark). live is nil when there is none. The
// envelope is executed on the restored state; each of its commands must succeed. It
// must not keep the states or change them.
type Adjust func(restored, live *ipam.State) (ipam.Envelope, error)

// Merge makes the state that is put in place of what a backup or a survivor holds
// (ipam.State.ForRestore); live is nil when there is none. It must neither keep the
// states nor change them. Adjust is executed on its result.
type Merge func(restored, live *ipam.State) (*ipam.State, error)

// RestoreOptions are the options of SnapshotRestore.
type RestoreOptions struct {
	Merge  Merge  // nil: the snapshot as it is
	Adjust Adjust // nil: nothing is changed
}

// Restored tells what SnapshotRestore did.
type Restored struct {
	Snapshot SnapshotInfo
	Index    uint64 // of the state after the restore
	Backup   string // file that holds the state before it
}

// backupNew begins the name of a backup that is being written.
const backupNew = ".new-"

// backupsKept is how many automatic backups stay.
const backupsKept = 3

// SnapshotRestore replaces the state of the whole cluster by a snapshot file's, with
// Adjust's changes in it. It runs on the leader (ErrNoLeader elsewhere). The file is
// read, checked and adjusted on a state of its own first, and the present state is
// saved: until both have succeeded nothing has changed. It returns SnapshotInspect's
// errors, ErrOtherCluster, ErrRefused, or ErrUnknownOutcome when it may have been
// restored. Proposals are refused with ErrBusy while it runs. It returns when a
// majority has the new state.
func (s *Store) SnapshotRestore(ctx context.Context, file io.Reader, opts RestoreOptions) (Restored, error) {
	res, err := s.restore(ctx, file, opts)
	if err != nil {
		return res, fmt.Errorf("restore snapshot: %w", err)
	}
	return res, nil
}

func (s *Store) restore(ctx context.Context, file io.Reader, opts RestoreOptions) (Restored, error) {
	var res Restored
	r, err := s.begin()
	if err != nil {
		return res, err
	}
	if leadTerm(r) == 0 {
		s.proposals.Done()
		return res, s.notLeader(r)
	}
	st, info, err := readBackup(file)
	s.proposals.Done()
	res.Snapshot = info
	if err != nil {
		return res, err
	}
	if err := s.ofThisCluster(info); err != nil {
		return res, err
	}
	// What is proposed from here on would be lost with the old state.
	if !s.setRestoring(true) {
		return res, fmt.Errorf("%w: another restore is running", ErrBusy)
	}
	defer s.setRestoring(false)
	if err := failpoint.Err(failpoint.BackupChecked); err != nil {
		return res, err
	}
	s.drain()
	if _, _, err := s.committedInTerm(ctx, r); err != nil {
		return res, err
	}
	if res.Backup, err = s.autoBackup(r.CurrentTerm()); err != nil {
		return res, fmt.Errorf("save the present state first: %w", err)
	}
	if err := failpoint.Err(failpoint.BackupSaved); err != nil {
		return res, err
	}
	res.Index = max(st.Index(), r.LastIndex()) + 1
	payload, err := s.adjusted(st, opts, res.Index)
	if err != nil {
		return res, err
	}
	meta := &raft.SnapshotMeta{Version: raft.SnapshotVersionMax, Index: res.Index, Size: int64(len(payload))}
	return res, s.install(ctx, r, meta, payload)
}

// ofThisCluster checks a file's cluster id against ours.
func (s *Store) ofThisCluster(info SnapshotInfo) error {
	var id string
	s.View(func(st *ipam.State) {
		c, _ := st.Cluster()
		id = c.ID
	})
	if id != info.Cluster {
		return fmt.Errorf("%w: it is of %s, this is %s", ErrOtherCluster, info.Cluster, id)
	}
	return nil
}

func (s *Store) setRestoring(on bool) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	was := s.restoring
	s.restoring = on
	return was != on
}

// adjusted executes the caller's envelope on the restored state, as the entry at
// index, and returns the result as bytes that are known to be readable: the library
// panics when it cannot read what it has been given. The index never goes back, so
// that a state's index says which is newer also over a restore.
func (s *Store) adjusted(st *ipam.State, opts RestoreOptions, index uint64) ([]byte, error) {
	s.fsm.mu.RLock()
	defer s.fsm.mu.RUnlock()
	st, err := execute(st, s.fsm.state, opts.Merge, opts.Adjust, index)
	if err != nil {
		return nil, err
	}
	var b bytes.Buffer
	if _, err := st.Snapshot().WriteTo(&b); err != nil {
		return nil, err
	}
	again, err := ipam.Restore(bytes.NewReader(b.Bytes()))
	if err != nil {
		return nil, err
	}
	if again.Hash() != st.Hash() || again.Index() != index {
		return nil, fmt.Errorf("%w: it reads back as another state", ipam.ErrSnapshotInvalid)
	}
	return b.Bytes(), nil
}

// execute returns the merged state with the adjustment applied to it, all of it or
// none.
func execute(st, live *ipam.State, merge Merge, adjust Adjust, index uint64) (*ipam.State, error) {
	var env ipam.Envelope
	var err error
	if merge != nil {
		if st, err = merge(st, live); err != nil {
			return nil, fmt.Errorf("merge: %w", err)
		}
	}
	if adjust != nil {
		if env, err = adjust(st, live); err != nil {
			return nil, fmt.Errorf("adjust: %w", err)
		}
	}
	data, err := env.Encode()
	if err != nil {
		return nil, fmt.Errorf("adjust: %w", err)
	}
	out, err := st.Apply(index, data)
	if err != nil {
		return nil, fmt.Errorf("adjust: %w", err)
	}
	for i, res := range out.Results {
		if res.Err != nil {
			err = errors.Join(err, fmt.Errorf("%w: command %d: %w", ErrRefused, i, res.Err))
		}
	}
	if err != nil {
		return nil, err
	}
	return st, st.Check()
}

// restoreTimeout bounds the wait for the library to begin; what follows takes as long
// as followers need to fetch the snapshot.
const restoreTimeout = 10 * time.Second

// install hands the checked snapshot to the library.
func (s *Store) install(ctx context.Context, r *raft.Raft, meta *raft.SnapshotMeta, payload []byte) error {
	failpoint.Hit(failpoint.BackupRestore)
	done := make(chan error, 1)
	go func() { done <- r.Restore(meta, bytes.NewReader(payload), restoreTimeout) }() // ends with Raft at the latest
	var err error
	select {
	case err = <-done:
	case <-ctx.Done():
		return fmt.Errorf("%w: %w", ErrUnknownOutcome, context.Cause(ctx))
	}
	switch {
	case err == nil:
		failpoint.Hit(failpoint.BackupRestored)
		s.cfg.Logger.Info("restored a snapshot", "index", meta.Index)
		return nil
	case errors.Is(err, raft.ErrNotLeader), errors.Is(err, raft.ErrLeadershipTransferInProgress):
		return fmt.Errorf("%w: %w", ErrNoLeader, err)
	}
	return fmt.Errorf("%w: %w", ErrUnknownOutcome, err)
}

// autoBackup saves the state before it is replaced, durably, and forgets the oldest
// of earlier such files.
func (s *Store) autoBackup(term uint64) (path string, err error) {
	dir := filepath.Join(s.cfg.Dir, backupDir)
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return "", err
	}
	f, err := os.CreateTemp(dir, backupNew)
	if err != nil {
		return "", err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, os.Remove(f.Name()))
		}
	}()
	info, err := s.writeBackup(f, term)
	if err := errors.Join(err, f.Sync(), f.Close()); err != nil {
		return "", err
	}
	path = filepath.Join(dir, fmt.Sprintf("before-restore-%020d.snapshot", info.Index))
	if err := os.Rename(f.Name(), path); err != nil {
		return "", err
	}
	return path, errors.Join(pruneBackups(dir), syncDir(dir))
}

func pruneBackups(dir string) error {
	list, err := os.ReadDir(dir)
	if err != nil {
		return err
	}
	list = slices.DeleteFunc(list, func(e os.DirEntry) bool { return !strings.HasPrefix(e.Name(), "before-restore-") })
	for ; len(list) > backupsKept; list = list[1:] {
		err = errors.Join(err, os.Remove(filepath.Join(dir, list[0].Name())))
	}
	return err
}
