package raftstore

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"github.com/hashicorp/raft"
	"golang.org/x/sys/unix"

	"stellar.io/stellar/internal/failpoint"
	"stellar.io/stellar/ipam"
)

// Init makes the store of a new cluster, whose one voter is this node and whose
// first entry is env: it must make the cluster (ipam.InitCluster), and none of its
// commands may be refused. It happens once: ErrExists. It may be killed at any
// point: the store is made beside its place, is complete and durable before it is
// moved there, and what a killed Init left behind is removed by the next. It runs
// nothing and returns when the store is durable.
func Init(ctx context.Context, cfg Config, env ipam.Envelope) error {
	cfg = cfg.withDefaults()
	if err := cfg.Validate(); err != nil {
		return fmt.Errorf("init store: %w", err)
	}
	data, err := firstEntry(env)
	if err != nil {
		return fmt.Errorf("init store: %w", err)
	}
	if err := initAt(ctx, cfg, func(dir string) error { return makeStore(cfg, dir, data) }); err != nil {
		return fmt.Errorf("init store %s: %w", cfg.Dir, err)
	}
	return nil
}

// InitJoin makes the store of a node that joins a cluster: empty, it waits for the
// leader, which has to add the node (AddServer). It is as safe as Init.
func InitJoin(ctx context.Context, cfg Config) error {
	cfg = cfg.withDefaults()
	if err := cfg.Validate(); err != nil {
		return fmt.Errorf("init store: %w", err)
	}
	if err := initAt(ctx, cfg, func(dir string) error { return makeEmpty(cfg, dir) }); err != nil {
		return fmt.Errorf("init store %s: %w", cfg.Dir, err)
	}
	return nil
}

// firstEntry tries the envelope on an empty state.
func firstEntry(env ipam.Envelope) ([]byte, error) {
	data, err := env.Encode()
	if err != nil {
		return nil, err
	}
	s := ipam.New()
	out, err := s.Apply(firstIndex, data)
	if err != nil {
		return nil, err
	}
	for _, r := range out.Results {
		err = errors.Join(err, r.Err)
	}
	if _, ok := s.Cluster(); !ok && err == nil {
		err = fmt.Errorf("%w: the first entry makes no cluster", ipam.ErrInvalid)
	}
	return data, err
}

const (
	firstTerm  = 1
	firstIndex = 2 // after the configuration, which the library puts at 1
)

// initAt lets fill make a store and moves it to its place.
func initAt(ctx context.Context, cfg Config, fill func(dir string) error) error {
	parent := filepath.Dir(cfg.Dir)
	unlock, err := lockDir(parent)
	if err != nil {
		return err
	}
	defer unlock()
	switch there, err := Initialized(cfg.Dir); {
	case err != nil:
		return err
	case there:
		return ErrExists
	}
	pattern := "." + filepath.Base(cfg.Dir) + ".init-"
	if err := removeLeftovers(parent, pattern); err != nil {
		return err
	}
	tmp, err := os.MkdirTemp(parent, pattern)
	if err != nil {
		return err
	}
	if err := fill(tmp); err != nil {
		return errors.Join(err, os.RemoveAll(tmp))
	}
	if err := ctx.Err(); err != nil {
		return errors.Join(err, os.RemoveAll(tmp))
	}
	if err := failpoint.Err(failpoint.InitFilled); err != nil {
		return errors.Join(err, os.RemoveAll(tmp))
	}
	// The kernel refuses this when the place is taken by anything but an empty
	// directory (os.Rename refuses that too).
	if err := unix.Rename(tmp, cfg.Dir); err != nil {
		return errors.Join(os.NewSyscallError("rename", err), os.RemoveAll(tmp))
	}
	if err := failpoint.Err(failpoint.InitMoved); err != nil {
		return err
	}
	return syncDir(parent)
}

// lockDir keeps a second Init out until the returned function is called.
func lockDir(dir string) (unlock func() error, err error) {
	d, err := os.Open(dir)
	if err != nil {
		return nil, err
	}
	if err := unix.Flock(int(d.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		if errors.Is(err, unix.EWOULDBLOCK) {
			err = ErrLocked
		}
		return nil, errors.Join(err, d.Close())
	}
	return d.Close, nil
}

// removeLeftovers removes what a killed Init has left in dir.
func removeLeftovers(dir, prefix string) error {
	names, err := filepath.Glob(filepath.Join(dir, prefix+"*"))
	if err != nil {
		return err
	}
	for _, n := range names {
		if err := os.RemoveAll(n); err != nil {
			return err
		}
	}
	return nil
}

// makeStore writes a complete store into the empty directory dir. The first entry
// goes into the log as the leader of term 1 would have put it there and died before
// it was committed: the node commits it when it is elected at its first start.
func makeStore(cfg Config, dir string, data []byte) error {
	if err := writeIdentity(dir, identity{Format: format, Node: cfg.NodeID}); err != nil {
		return err
	}
	f, err := openFiles(cfg, dir, true)
	if err != nil {
		return err
	}
	_, trans := raft.NewInmemTransport(raft.ServerAddress(cfg.Address))
	defer trans.Close()
	err = raft.BootstrapCluster(cfg.raft(), f.bolt, f.bolt, f.snapshots, trans, raft.Configuration{
		Servers: []raft.Server{{
			Suffrage: raft.Voter, ID: raft.ServerID(cfg.NodeID), Address: raft.ServerAddress(cfg.Address),
		}},
	})
	if err == nil {
		e := newEntry(data)
		e.Index, e.Term = firstIndex, firstTerm
		err = f.bolt.StoreLog(&e)
	}
	return errors.Join(err, f.bolt.Close(), syncDir(filepath.Join(dir, snapshotDir)), syncDir(dir))
}

// makeEmpty writes a store without a single entry into the empty directory dir.
func makeEmpty(cfg Config, dir string) error {
	if err := writeIdentity(dir, identity{Format: format, Node: cfg.NodeID, Joined: true}); err != nil {
		return err
	}
	f, err := openFiles(cfg, dir, true)
	if err != nil {
		return err
	}
	return errors.Join(f.bolt.Close(), syncDir(filepath.Join(dir, snapshotDir)), syncDir(dir))
}
