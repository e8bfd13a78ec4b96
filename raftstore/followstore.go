package raftstore

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io/fs"
	mathrand "math/rand/v2"
	"os"
	"path/filepath"
	"time"

	"github.com/hashicorp/raft"

	"stellar.io/stellar/ipam"
)

// A follower is a Store like any other, with the same promises, that has no part in
// Raft: it neither votes nor keeps a log, and costs the leader nothing. It is made by
// InitFollow, opened by Open, and run by Run. It needs of its configuration
//
//	Dir, NodeID  its own
//	Followers    Dial connects to a server's stream; its Accept is not called
//	Forward      to its server's HandleForward, which passes on to the leader: proposals,
//	             linearizable reads and membership changes
//	AddressOf    optional: where servers are now
//
// and a server needs Followers too, whose Accept returns the followers' connections.
//
// Many followers may run in one process: each costs the memory of its state (about
// 300 KB for 1,024 nodes' subnets), one connection and six goroutines, and no file is
// written more often than every half a minute (see saveSoon), so that no test has to
// share its disk. For a thousand of them:
//
//	for i := range 1021 {
//		cfg := raftstore.Config{Dir: …, NodeID: id(i), Followers: dialer(i), Forward: …}
//		raftstore.InitFollow(ctx, cfg, map[ipam.NodeID]string{server: address, …})
//		s, _ := raftstore.Open(cfg)
//		go s.Run(ctx)
//	}
//
// and ViewAndWatch of each tells when it has seen a change. Stats shows which server it
// follows (Following) and how far behind that it is (Behind).

// InitFollow makes the store of a node that is to follow one of the servers, given with
// their addresses. It is as safe as Init.
func InitFollow(ctx context.Context, cfg Config, servers map[ipam.NodeID]string) error {
	cfg = cfg.withDefaults()
	if err := cfg.Validate(); err != nil {
		return fmt.Errorf("init store: %w", err)
	}
	err := initAt(ctx, cfg, func(dir string) error {
		return writeIdentity(dir, identity{Format: formatFollower, Node: cfg.NodeID, Follows: true, Servers: servers})
	})
	if err != nil {
		return fmt.Errorf("init store %s: %w", cfg.Dir, err)
	}
	return nil
}

// Follows reports whether this is a follower's store.
func (s *Store) Follows() bool { return s.following != nil }

// Follows reports whether the store in dir is a follower's.
func Follows(dir string) (bool, error) {
	id, err := readIdentity(dir)
	return id.Follows, err
}

// openFollower opens a follower's store. A snapshot that is damaged is set aside: the
// next server sends another.
func openFollower(cfg Config, id identity) (*Store, error) {
	unlock, err := lockWithin(cfg.Dir, cfg.LockTimeout)
	if err != nil {
		return nil, fmt.Errorf("open store: %s: %w", cfg.Dir, err)
	}
	s := &Store{
		cfg: cfg, fsm: newFSM(cfg.OnApply),
		started: make(chan struct{}), ended: make(chan struct{}),
	}
	s.following = &follower{s: s, unlock: unlock, told: id.Servers}
	if _, err := rand.Read(s.tagBase[:]); err != nil {
		return nil, fmt.Errorf("open store: %w", errors.Join(err, unlock()))
	}
	st, err := readState(cfg.Dir)
	switch {
	case err == nil:
		s.fsm.state = st
		s.following.savedAt = st.Index()
	case !errors.Is(err, fs.ErrNotExist):
		path := filepath.Join(cfg.Dir, stateFile)
		aside := path + ".damaged-" + time.Now().UTC().Format("20060102T150405")
		cfg.Logger.Warn("the snapshot of a follower is damaged and was set aside; a server sends another", "aside", aside, "error", err)
		if err := os.Rename(path, aside); err != nil {
			return nil, fmt.Errorf("open store: %w", errors.Join(err, unlock()))
		}
	}
	return s, nil
}

// lockWithin is lockDir for somebody who waits.
func lockWithin(dir string, patience time.Duration) (unlock func() error, err error) {
	for end := time.Now().Add(patience); ; time.Sleep(10 * time.Millisecond) {
		unlock, err = lockDir(dir)
		if !errors.Is(err, ErrLocked) || time.Now().After(end) {
			return unlock, err
		}
	}
}

// readState reads what a follower has saved.
func readState(dir string) (*ipam.State, error) {
	f, err := os.Open(filepath.Join(dir, stateFile))
	if err != nil {
		return nil, err
	}
	st, _, err := readBackup(f)
	return st, errors.Join(err, f.Close())
}

const (
	// saveSoon is the pause between two saves when something that all nodes should know
	// has come, saveLate when only leases and the time have, each up to a half more; and
	// never is more than a fiftieth of the time spent with saving. What is saved serves a
	// node that starts and finds no server; its disk is there for its containers' leases.
	saveSoon  = 30 * time.Second
	saveLate  = 5 * time.Minute
	saveShare = 50
)

// keepSaved writes the state to the disk now and then, so that a node that starts
// without a server knows what it knew.
func (f *follower) keepSaved(ctx context.Context) {
	t := time.NewTicker(time.Second)
	defer t.Stop()
	var took time.Duration
	last, share := time.Time{}, 1.0
	for {
		select {
		case <-t.C:
		case <-ctx.Done():
			return
		}
		pause := saveLate
		if f.wide.Load() {
			pause = saveSoon
		}
		pause = time.Duration(share * float64(pause))
		if f.s.fsm.index() == f.saved() || time.Since(last) < max(pause, saveShare*took) {
			continue
		}
		begin := time.Now()
		f.wide.Store(false)
		if err := f.save(); err != nil {
			f.s.cfg.Logger.Warn("the state cannot be saved, will retry", "error", err)
			f.wide.Store(true)
		}
		last, took, share = time.Now(), time.Since(begin), 1+mathrand.Float64()/2
	}
}

func (f *follower) saved() uint64 {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.savedAt
}

// save writes the state beside the last one and puts it in its place, durably.
func (f *follower) save() (err error) {
	if f.s.fsm.index() == f.saved() {
		return nil
	}
	path := filepath.Join(f.s.cfg.Dir, stateFile)
	file, err := os.OpenFile(path+".new", os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	term, _ := f.s.term()
	info, err := f.s.writeBackup(file, term)
	if err == nil {
		err = file.Sync()
	}
	if err = errors.Join(err, file.Close()); err == nil {
		err = os.Rename(path+".new", path)
	}
	if errors.Is(err, ipam.ErrNotInitialized) {
		return os.Remove(path + ".new") // there is nothing to save
	}
	if err != nil {
		return err
	}
	f.mu.Lock()
	f.savedAt = info.Index
	f.mu.Unlock()
	return syncDir(f.s.cfg.Dir)
}

// term returns the term that this node knows of; false before Run.
func (s *Store) term() (uint64, bool) {
	if f := s.following; f != nil {
		f.mu.Lock()
		defer f.mu.Unlock()
		if f.standing == nil {
			return 0, f.running.Load()
		}
		return f.standing.term, f.running.Load()
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.raft == nil {
		return 0, false
	}
	return s.raft.CurrentTerm(), true
}

// stats are Stats of a follower.
func (f *follower) stats() Stats {
	s := f.s
	st := Stats{State: "following", FSMError: s.fsm.err(), LastContact: f.contact()}
	s.mu.Lock()
	switch {
	case s.stopping:
		st.State = "shutdown"
	case !f.running.Load():
		st.State = "starting"
	}
	s.mu.Unlock()
	switch {
	case st.FSMError != nil:
		st.State = "stopped"
	case f.removed():
		st.State = "removed"
	}
	addr, id := f.leader()
	st.Leader, st.LeaderAddress = nodeID(id), string(addr)
	st.AppliedIndex = s.fsm.index()
	f.mu.Lock()
	defer f.mu.Unlock()
	st.Following, st.Received, st.SnapshotIndex = f.server, f.snapshots, f.savedAt
	if st.Heard = -1; !f.heard.IsZero() {
		st.Heard = time.Since(f.heard)
	}
	st.LastIndex, st.CommitIndex = max(f.serverAt, st.AppliedIndex), max(f.serverAt, st.AppliedIndex)
	st.Behind = st.LastIndex - st.AppliedIndex
	if f.standing != nil {
		st.Term, st.Servers, st.Voters = f.standing.term, len(f.standing.members), len(voters(f.standing.members))
	}
	return st
}

// peers are Peers of a follower: Raft's members, as its server has told.
func (f *follower) peers() []Peer {
	f.mu.Lock()
	st := f.standing
	f.mu.Unlock()
	if st == nil {
		return nil
	}
	_, leader := f.leader()
	peers := make([]Peer, 0, len(st.members))
	for _, m := range st.members {
		p := Peer{ID: nodeID(m.ID), Address: string(m.Address), Voter: m.Suffrage == raft.Voter, TrailsLeaderBy: -1, LastContact: -1}
		if a := f.s.addressOf(p.ID); a != "" {
			p.Address = a
		}
		if m.ID == leader {
			p.State, p.LastContact, p.TrailsLeaderBy = "leader", f.contact(), 0
		}
		peers = append(peers, p)
	}
	f.s.named(peers)
	return peers
}

// FollowerStat is a follower, as the server that it follows knows it.
type FollowerStat struct {
	Node   ipam.NodeID
	Behind uint64 // commands that it was not sent yet, at most
}

// SlowestBehind returns how many commands the slowest of those that follow this node was
// not sent yet, at most.
func (s *Store) SlowestBehind() (most uint64) {
	for _, f := range s.FollowedBy() {
		most = max(most, f.Behind)
	}
	return most
}

// FollowedBy returns those that follow this node.
func (s *Store) FollowedBy() []FollowerStat {
	f := s.followed.Load()
	if f == nil {
		return nil
	}
	last := s.fsm.index()
	f.ring.mu.Lock()
	defer f.ring.mu.Unlock()
	out := make([]FollowerStat, 0, len(f.ring.streams))
	for st := range f.ring.streams {
		out = append(out, FollowerStat{st.hello.node, last - min(last, st.at.Load())})
	}
	return out
}
