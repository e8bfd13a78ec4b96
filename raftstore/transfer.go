package raftstore

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/hashicorp/raft"

	"stellar.io/stellar/internal/failpoint"
)

// transfer makes another voter the leader: to, or the best when to is "". It returns
// when the new leader is known here.
func (s *Store) transfer(ctx context.Context, r *raft.Raft, to raft.ServerID) error {
	self := raft.ServerID(s.cfg.NodeID)
	if to == self {
		return nil
	}
	s.hear(ctx, r)
	list := servers(r)
	if to == "" {
		best, ok := s.successor(r, list)
		if !ok {
			return fmt.Errorf("%w: no other voter answers", ErrNotReady)
		}
		to = best.ID
	}
	srv, found := findServer(list, to)
	switch {
	case !found:
		return ErrNotMember
	case srv.Suffrage != raft.Voter:
		return fmt.Errorf("%w: %s does not vote", ErrNotReady, nodeID(to).Short())
	}
	if err := s.ready(r, to); err != nil {
		return err
	}
	if err := failpoint.Err(failpoint.TransferBegin); err != nil {
		return fmt.Errorf("%w: %w", ErrNotReady, err)
	}
	if err := s.await(ctx, r.LeadershipTransferToServer(to, srv.Address)); err != nil {
		if errors.Is(err, errOther) {
			return fmt.Errorf("%w: %w", ErrNotReady, err) // it did not take over in time, this node leads on
		}
		return err
	}
	err := s.waitSuccessor(ctx, r, self)
	failpoint.Hit(failpoint.TransferDone)
	return err
}

// waitSuccessor waits until another node is known to lead.
func (s *Store) waitSuccessor(ctx context.Context, r *raft.Raft, self raft.ServerID) error {
	deadline := time.Now().Add(2 * (s.cfg.ElectionTimeout + s.cfg.HeartbeatTimeout))
	t := time.NewTicker(waitPoll)
	defer t.Stop()
	for {
		if _, id := r.LeaderWithID(); id != "" && id != self {
			return nil
		}
		select {
		case now := <-t.C:
			if now.After(deadline) {
				return fmt.Errorf("%w after the hand-over", ErrNoLeader)
			}
		case <-ctx.Done():
			return fmt.Errorf("%w: %w", ErrUnknownOutcome, context.Cause(ctx))
		}
	}
}

// successor returns the voter that answers and is least behind.
func (s *Store) successor(r *raft.Raft, list []raft.Server) (raft.Server, bool) {
	var best raft.Server
	var least uint64
	found := false
	for _, v := range voters(list) {
		if v.ID == raft.ServerID(s.cfg.NodeID) || !s.answers(v.ID) {
			continue
		}
		if behind, known := s.trails(r, v.ID); known && (!found || behind < least) {
			best, least, found = v, behind, true
		}
	}
	return best, found
}

// handOver gives leadership away before a leader with peers goes.
func (s *Store) handOver(r *raft.Raft) {
	if leadTerm(r) == 0 || len(voters(servers(r))) < 2 {
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), s.cfg.ElectionTimeout)
	defer cancel()
	if err := s.transfer(ctx, r, ""); err != nil {
		s.cfg.Logger.Debug("leadership was not handed over", "error", err)
	}
}
