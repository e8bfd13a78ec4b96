package raftstore

import (
	"context"
	"errors"
	"sync"
	"time"

	"github.com/hashicorp/raft"

	"stellar.io/stellar/ipam"
)

// leadPoll is how often lead looks at the term; a change of leadership wakes it at once.
const leadPoll = 100 * time.Millisecond

// lead does, while this node leads, what only a leader may do, and ends it with the
// leadership: it looks at state and term itself, because the library's channel
// leaves out changes that follow each other quickly.
func (s *Store) lead(ctx context.Context, r *raft.Raft) {
	if s.trans == nil {
		return // nobody to lead
	}
	t := time.NewTicker(leadPoll)
	defer t.Stop()
	var term uint64
	end := func() {}
	defer func() { end() }()
	for {
		if now := leadTerm(r); now != term {
			end()
			term, end = now, func() {}
			if now != 0 {
				end = s.asLeader(ctx, r)
			}
		}
		select {
		case <-r.LeaderCh():
		case <-t.C:
		case <-ctx.Done():
			return
		}
	}
}

// asLeader starts the leader's work. The function it returns ends it and waits.
func (s *Store) asLeader(ctx context.Context, r *raft.Raft) func() {
	ctx, cancel := context.WithCancel(ctx)
	var tasks sync.WaitGroup
	tasks.Go(func() { s.runPilot(ctx, r) })
	tasks.Go(func() { s.keepAddresses(ctx, r) })
	return func() {
		cancel()
		tasks.Wait()
	}
}

// addressEvery is how often the leader compares the configuration's addresses.
const addressEvery = time.Second

// keepAddresses brings the addresses in the configuration up to date with those that
// the nodes have announced, and forgets contacts of nodes that have gone.
func (s *Store) keepAddresses(ctx context.Context, r *raft.Raft) {
	t := time.NewTicker(addressEvery)
	defer t.Stop()
	for {
		list := servers(r)
		s.trans.contacts.keep(list)
		for _, srv := range list {
			if err := s.keepAddress(ctx, r, srv); err != nil && ctx.Err() == nil &&
				!errors.Is(err, ErrNoLeader) && !errors.Is(err, ErrUnknownOutcome) {
				s.cfg.Logger.Warn("cannot change a peer's address, will retry", "peer", nodeID(srv.ID).Short(), "error", err)
			}
		}
		select {
		case <-t.C:
		case <-ctx.Done():
			return
		}
	}
}

func (s *Store) keepAddress(ctx context.Context, r *raft.Raft, srv raft.Server) error {
	id := nodeID(srv.ID)
	addr := s.addressOf(id)
	if addr == "" || addr == string(srv.Address) {
		return nil
	}
	s.cfg.Logger.Info("raft peer has a new address", "peer", id.Short(), "was", string(srv.Address), "is", addr)
	return s.reconfigure(ctx, r, Change{Op: ChangeAdd, Node: id, Address: addr}, false)
}

// addressOf returns the address that a node has announced, "" when none is known.
func (s *Store) addressOf(id ipam.NodeID) string {
	if s.cfg.AddressOf == nil {
		return ""
	}
	addr, ok := s.cfg.AddressOf(id)
	if !ok {
		return ""
	}
	return addr
}
