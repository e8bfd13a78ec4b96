package raftstore

import (
	"context"
	"fmt"

	"github.com/hashicorp/raft"

	"stellar.io/stellar/ipam"
)

// ChangeOp is what a membership change does.
type ChangeOp string

// The membership changes.
const (
	ChangeAdd      ChangeOp = "add"
	ChangePromote  ChangeOp = "promote"
	ChangeDemote   ChangeOp = "demote"
	ChangeRemove   ChangeOp = "remove"
	ChangeTransfer ChangeOp = "transfer-leader"
)

// Change is one membership change, as it travels to the leader.
type Change struct {
	Op      ChangeOp
	Node    ipam.NodeID // for ChangeTransfer "" means any
	Address string      // for ChangeAdd
	Force   bool        // although a quorum would be lost, or just be met
}

// All membership calls work on any node: one that does not lead forwards them once
// (Config.Forward). They are idempotent and may be tried again. They return
// ErrNoLeader or ErrBusy when nothing was changed and the call may be tried again,
// ErrUnknownOutcome when it may have been changed, ErrQuorum, ErrNotMember and
// ErrNotReady when it was refused. They block until the change is committed.

// AddServer makes a node a member that does not vote, reached at address. For a node
// that is one already it only changes the address; its vote stays.
func (s *Store) AddServer(ctx context.Context, id ipam.NodeID, address string) error {
	return s.Change(ctx, Change{Op: ChangeAdd, Node: id, Address: address})
}

// Promote lets a member vote. It must answer and have caught up (ErrNotReady), and
// is refused when the voters that answer would be no quorum, or when it would be the
// second voter (both would be needed), unless forced.
func (s *Store) Promote(ctx context.Context, id ipam.NodeID, force bool) error {
	return s.Change(ctx, Change{Op: ChangePromote, Node: id, Force: force})
}

// Demote takes the vote from a member. A leader hands over first. The leader may
// promote the node again while it is eligible and voters are missing.
func (s *Store) Demote(ctx context.Context, id ipam.NodeID, force bool) error {
	return s.Change(ctx, Change{Op: ChangeDemote, Node: id, Force: force})
}

// Remove ends a membership. A leader hands over first. The node's state stays as it
// is; its Stats say "removed" once it has heard of it.
func (s *Store) Remove(ctx context.Context, id ipam.NodeID, force bool) error {
	return s.Change(ctx, Change{Op: ChangeRemove, Node: id, Force: force})
}

// TransferLeader makes another voter the leader: to, or the one that is most up to
// date when to is "". It returns when the new leader is known.
func (s *Store) TransferLeader(ctx context.Context, to ipam.NodeID) error {
	return s.Change(ctx, Change{Op: ChangeTransfer, Node: to})
}

// Change makes a membership change.
func (s *Store) Change(ctx context.Context, c Change) error {
	if err := s.change(ctx, c, true); err != nil {
		return fmt.Errorf("%s %s: %w", c.Op, c.Node.Short(), err)
	}
	return nil
}

func (s *Store) change(ctx context.Context, c Change, forward bool) error {
	if err := context.Cause(ctx); err != nil {
		return err
	}
	r, err := s.begin()
	if err != nil {
		return err
	}
	defer s.proposals.Done()
	if leadTerm(r) == 0 {
		if !forward || s.cfg.Forward == nil {
			return s.notLeader(r)
		}
		return s.forwardChange(ctx, r, c)
	}
	if c.Op == ChangeTransfer {
		return s.transfer(ctx, r, raft.ServerID(c.Node))
	}
	own := c.Node == s.cfg.NodeID && (c.Op == ChangeDemote || c.Op == ChangeRemove)
	if own && len(voters(servers(r))) > 1 {
		// What will be refused is refused before the leadership moves.
		s.hear(ctx, r)
		next, err := nextServers(servers(r), c)
		if err == nil && next != nil {
			err = s.permitted(r, next, c, false)
		}
		if err != nil {
			return err
		}
		if err := s.transfer(ctx, r, ""); err != nil && !c.Force {
			return fmt.Errorf("hand over: %w", err)
		}
		if leadTerm(r) == 0 {
			return s.forwardChange(ctx, r, c)
		}
	}
	return s.reconfigure(ctx, r, c, false)
}

// notLeader is the error of what only a leader can do.
func (s *Store) notLeader(r *raft.Raft) error {
	if s.removed(r) {
		return fmt.Errorf("%w: %w", ErrNoLeader, ErrRemoved)
	}
	return ErrNoLeader
}

// servers returns the latest configuration, committed or not.
func servers(r *raft.Raft) []raft.Server { return r.GetConfiguration().Configuration().Servers }

func findServer(list []raft.Server, id raft.ServerID) (raft.Server, bool) {
	for _, s := range list {
		if s.ID == id {
			return s, true
		}
	}
	return raft.Server{}, false
}

func voters(list []raft.Server) []raft.Server {
	var v []raft.Server
	for _, s := range list {
		if s.Suffrage == raft.Voter {
			v = append(v, s)
		}
	}
	return v
}
