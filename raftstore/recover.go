package raftstore

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"github.com/hashicorp/raft"

	"stellar.io/stellar/ipam"
)

// Survivor is what a stopped node's store holds. Of the survivors of a cluster that
// has lost its quorum, the one with the highest term, and of those with the highest
// index, has every entry that was ever acknowledged, if any of them has.
type Survivor struct {
	Node       ipam.NodeID
	Cluster    string
	Generation uint64
	LastTerm   uint64
	LastIndex  uint64
	Servers    int // in its latest configuration
	Voters     int
}

// RecoverOptions are the options of Recover.
type RecoverOptions struct {
	Merge  Merge  // live is nil; nil: the survivor's state as it is
	Adjust Adjust // live is nil; nil: nothing is changed
}

// Recovered tells what Recover did.
type Recovered struct {
	Survivor        // before
	Index    uint64 // of the state afterwards
	Backup   string // directory that holds the store as it was
}

// Examine says what the store of a stopped node holds. It changes nothing of that, but
// does what Open does to a store of an older format. It returns Open's errors or
// ErrFollower.
func Examine(cfg Config) (Survivor, error) {
	cfg = cfg.withDefaults()
	f, err := openStopped(cfg)
	if err != nil {
		return Survivor{}, fmt.Errorf("examine store: %w", err)
	}
	_, sv, err := replay(cfg, f)
	if err = errors.Join(err, f.bolt.Close()); err != nil {
		return sv, fmt.Errorf("examine store: %w", err)
	}
	return sv, nil
}

// Recover makes the stopped node's store the start of the cluster's next life: its
// one voter, reached at cfg.Address, with Merge's and Adjust's changes, which must
// raise the generation. All that its log holds counts as committed. The store is copied first
// and changed in one step, so Recover may be killed and called again. The stores of the
// nodes that are left are of a former life. It returns Open's errors,
// ErrFollower or ErrRefused.
func Recover(ctx context.Context, cfg Config, opts RecoverOptions) (Recovered, error) {
	cfg = cfg.withDefaults()
	f, err := openStopped(cfg)
	if err != nil {
		return Recovered{}, fmt.Errorf("recover store: %w", err)
	}
	res, err := recoverFiles(ctx, cfg, f, opts)
	if err = errors.Join(err, f.bolt.Close()); err != nil {
		return res, fmt.Errorf("recover store: %w", err)
	}
	return res, nil
}

// openStopped opens a store that no process runs, and keeps others out.
func openStopped(cfg Config) (files, error) {
	if err := cfg.Validate(); err != nil {
		return files{}, err
	}
	there, err := Initialized(cfg.Dir)
	if err != nil {
		return files{}, err
	}
	if !there {
		return files{}, fmt.Errorf("%s: %w", cfg.Dir, ErrNotFound)
	}
	id, err := readIdentity(cfg.Dir)
	if err != nil {
		return files{}, err
	}
	if id.Node != cfg.NodeID {
		return files{}, fmt.Errorf("%s: %w: it belongs to node %s, this is %s", cfg.Dir, ErrForeign, id.Node.Short(), cfg.NodeID.Short())
	}
	if id.Follows {
		return files{}, fmt.Errorf("%s: %w", cfg.Dir, ErrFollower)
	}
	return openFiles(cfg, cfg.Dir, false)
}

func recoverFiles(ctx context.Context, cfg Config, f files, opts RecoverOptions) (Recovered, error) {
	var res Recovered
	st, sv, err := replay(cfg, f)
	res.Survivor = sv
	if err != nil {
		return res, err
	}
	if err := context.Cause(ctx); err != nil {
		return res, err
	}
	if res.Backup, err = copyStore(cfg.Dir); err != nil {
		return res, fmt.Errorf("copy the store first: %w", err)
	}
	res.Index = sv.LastIndex + 1
	if st, err = execute(st, nil, opts.Merge, opts.Adjust, res.Index); err != nil {
		return res, err
	}
	if err := recordRecovery(cfg, f, st, sv); err != nil {
		return res, err
	}
	return res, nil
}

// recordRecovery writes the recovered state as a snapshot: with it the library
// forgets the configurations in the log, at the moment when it gets its name.
func recordRecovery(cfg Config, f files, st *ipam.State, sv Survivor) error {
	_, trans := raft.NewInmemTransport(raft.ServerAddress(cfg.Address))
	defer trans.Close()
	sink, err := f.snapshots.Create(raft.SnapshotVersionMax, st.Index(), sv.LastTerm, raft.Configuration{
		Servers: []raft.Server{{
			Suffrage: raft.Voter, ID: raft.ServerID(cfg.NodeID), Address: raft.ServerAddress(cfg.Address),
		}},
	}, st.Index(), trans)
	if err != nil {
		return err
	}
	if _, err := st.Snapshot().WriteTo(sink); err != nil {
		return errors.Join(err, sink.Cancel())
	}
	if err := sink.Close(); err != nil {
		return err
	}
	// The entries below the snapshot mean nothing any more.
	first, err := f.bolt.FirstIndex()
	if err != nil {
		return err
	}
	last, err := f.bolt.LastIndex()
	if err != nil || first == 0 {
		return err
	}
	return f.bolt.DeleteRange(first, last)
}

// replay makes the state from the latest snapshot and the whole log.
func replay(cfg Config, f files) (*ipam.State, Survivor, error) {
	sv := Survivor{Node: cfg.NodeID}
	m := newFSM(nil)
	list, err := f.snapshots.List()
	if err != nil {
		return nil, sv, err
	}
	var config raft.Configuration
	if len(list) > 0 {
		meta, data, err := f.snapshots.Open(list[0].ID)
		if err != nil {
			return nil, sv, fmt.Errorf("%w: %w", ErrCorrupt, err)
		}
		if err := m.Restore(data); err != nil {
			return nil, sv, fmt.Errorf("%w: %w", ErrCorrupt, err)
		}
		sv.LastIndex, sv.LastTerm, config = meta.Index, meta.Term, meta.Configuration
	}
	last, err := f.bolt.LastIndex()
	if err != nil {
		return nil, sv, err
	}
	for i := sv.LastIndex + 1; i <= last; i++ {
		var l raft.Log
		if err := f.bolt.GetLog(i, &l); err != nil {
			return nil, sv, fmt.Errorf("%w: entry %d: %w", ErrCorrupt, i, err)
		}
		switch l.Type {
		case raft.LogCommand:
			if a, ok := m.Apply(&l).(applied); ok && a.err != nil {
				return nil, sv, a.err
			}
		case raft.LogConfiguration:
			config = raft.DecodeConfiguration(l.Data)
		}
		sv.LastIndex, sv.LastTerm = l.Index, l.Term
	}
	c, ok := m.state.Cluster()
	if !ok {
		return nil, sv, fmt.Errorf("%w: it has not yet got the cluster's state", ErrNotFound)
	}
	sv.Cluster, sv.Generation = c.ID, c.Generation
	sv.Servers, sv.Voters = len(config.Servers), len(voters(config.Servers))
	return m.state, sv, nil
}

// copyStore copies the store beside itself. Its lock is held, so nothing changes.
func copyStore(dir string) (string, error) {
	to := fmt.Sprintf("%s.before-recover-%s", dir, time.Now().UTC().Format("20060102T150405.000"))
	if err := os.Mkdir(to, 0o700); err != nil {
		return "", err
	}
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(dir, path)
		if err != nil || rel == "." {
			return err
		}
		if d.IsDir() {
			return os.Mkdir(filepath.Join(to, rel), 0o700)
		}
		return copyFile(path, filepath.Join(to, rel))
	})
	return to, errors.Join(err, syncDirs(to), syncDir(filepath.Dir(to)))
}

// syncDirs makes the names in a directory and all below it durable.
func syncDirs(dir string) error {
	return filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || !d.IsDir() {
			return err
		}
		return syncDir(path)
	})
}

func copyFile(from, to string) (err error) {
	src, err := os.Open(from)
	if err != nil {
		return err
	}
	defer src.Close()
	dst, err := os.OpenFile(to, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	_, err = io.Copy(dst, src)
	return errors.Join(err, dst.Sync(), dst.Close())
}
