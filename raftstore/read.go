package raftstore

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/hashicorp/raft"

	"stellar.io/stellar/ipam"
)

// LinearizableRead returns when View shows everything that was acknowledged to
// anybody before LinearizableRead was called. It writes nothing, and costs a round
// of heartbeats. On a node that does not lead it asks the leader (Config.Forward).
// It returns ErrNoLeader, ErrBusy, ErrStopped or ctx's error; the state is then what
// it was, and may be old.
func (s *Store) LinearizableRead(ctx context.Context) error {
	r, err := s.begin()
	if err != nil {
		return fmt.Errorf("linearizable read: %w", err)
	}
	defer s.proposals.Done()
	if leadTerm(r) != 0 {
		_, err = s.readIndex(ctx, r)
	} else {
		err = s.followRead(ctx, r)
	}
	if err != nil {
		return fmt.Errorf("linearizable read: %w", err)
	}
	return nil
}

// followRead reads through the leader.
func (s *Store) followRead(ctx context.Context, r *raft.Raft) error {
	addr, leader := s.leaderOf(r)
	if leader == "" || s.cfg.Forward == nil || s.removed(r) {
		return s.notLeader(r)
	}
	index, err := s.leaderIndex(ctx, r, nodeID(leader), string(addr))
	if err != nil {
		return err
	}
	return s.waitHere(ctx, r, index)
}

// leaderIndex asks the leader up to where a linearizable read must see.
func (s *Store) leaderIndex(ctx context.Context, r *raft.Raft, leader ipam.NodeID, addr string) (uint64, error) {
	ctx, cancel := s.whileLed(ctx, r, raft.ServerID(leader))
	defer cancel()
	answer, err := s.ask(ctx, r, leader, addr, request{kind: ForwardRead})
	if err != nil {
		// It reads only: that the leader may have seen it changes nothing.
		if errors.Is(err, ErrUnknownOutcome) {
			return 0, fmt.Errorf("%w: leader %s did not answer", ErrNoLeader, leader.Short())
		}
		return 0, err
	}
	return answer.index, nil
}

// waitHere waits until the commands up to index are applied, or this node's part in
// the cluster ends.
func (s *Store) waitHere(ctx context.Context, r *raft.Raft, index uint64) error {
	ctx, cancel := s.whileMember(ctx, r)
	defer cancel()
	return s.fsm.wait(ctx, index)
}

// memberPoll is how often a wait looks whether this node is still a member.
const memberPoll = 500 * time.Millisecond

// whileMember returns a context that also ends when this node's Raft does, with
// ErrShutdown, and when it is removed, with ErrRemoved: nothing will be applied then.
func (s *Store) whileMember(ctx context.Context, r *raft.Raft) (context.Context, context.CancelFunc) {
	ctx, cancel := context.WithCancelCause(ctx)
	go func() { // ends with the context
		t := time.NewTicker(memberPoll)
		defer t.Stop()
		for {
			select {
			case <-t.C:
				if s.removed(r) {
					cancel(ErrRemoved)
				}
			case <-s.ended:
				cancel(ErrShutdown)
				return
			case <-ctx.Done():
				return
			}
		}
	}()
	return ctx, func() { cancel(context.Canceled) }
}

// removed reports whether this node is not in the configuration that it knows.
func (s *Store) removed(r *raft.Raft) bool {
	if s.following != nil {
		return s.following.removed()
	}
	list := servers(r)
	_, found := findServer(list, raft.ServerID(s.cfg.NodeID))
	return len(list) > 0 && !found
}

// leaderOf returns the leader that this node knows and where it is reached; "": none.
// r is nil on a follower.
func (s *Store) leaderOf(r *raft.Raft) (raft.ServerAddress, raft.ServerID) {
	if r == nil {
		return s.following.leader()
	}
	return r.LeaderWithID()
}

const readPoll = time.Millisecond

// readIndex is Raft's ReadIndex on the leader: it returns an index such that a state
// that has reached it holds everything acknowledged before the call, and this node's
// has. The library has no call for it; each step answers one way to read old data.
func (s *Store) readIndex(ctx context.Context, r *raft.Raft) (uint64, error) {
	// A new leader does not know what was committed before it until an entry of its
	// own term is.
	term, commit, err := s.committedInTerm(ctx, r)
	if err != nil {
		return 0, err
	}
	// It may have been replaced without knowing: a majority must still follow it.
	if err := s.verify(ctx, r); err != nil {
		return 0, err
	}
	if leadTerm(r) != term {
		return 0, ErrNoLeader
	}
	return s.applyThrough(ctx, r, commit)
}

// committedInTerm waits until an entry of the term that this node leads in is
// committed, and returns the commit index.
func (s *Store) committedInTerm(ctx context.Context, r *raft.Raft) (term, commit uint64, err error) {
	for {
		if term = leadTerm(r); term == 0 {
			return 0, 0, ErrNoLeader
		}
		commit = r.CommitIndex()
		var l raft.Log
		if err := s.log.GetLog(commit, &l); err == nil && l.Term == term && leadTerm(r) == term {
			return term, commit, nil
		}
		if !sleep(ctx, readPoll) {
			return 0, 0, context.Cause(ctx)
		}
	}
}

// verify returns ErrNoLeader unless a majority of the voters has taken this node for
// its leader since verify was called. The library sends the heartbeats, but counts the
// answers of nodes that do not vote as well: a leader that is cut off together with
// some of those would pass.
func (s *Store) verify(ctx context.Context, r *raft.Raft) error {
	begin := time.Now()
	done := make(chan error, 1)
	go func() { done <- r.VerifyLeader().Error() }() // ends with leadership or Raft at the latest
	select {
	case err := <-done:
		if err != nil {
			return fmt.Errorf("%w: %w", ErrNoLeader, err)
		}
	case <-ctx.Done():
		return context.Cause(ctx)
	}
	for !s.confirmedSince(r, begin) {
		if leadTerm(r) == 0 {
			return ErrNoLeader
		}
		if !sleep(ctx, readPoll) {
			return context.Cause(ctx)
		}
	}
	return nil
}

// confirmedSince reports whether a majority of the voters, this node among them, has
// followed it after a moment.
func (s *Store) confirmedSince(r *raft.Raft, begin time.Time) bool {
	term := leadTerm(r)
	all, have := 0, 0
	for _, v := range voters(servers(r)) {
		all++
		if v.ID == raft.ServerID(s.cfg.NodeID) {
			have++
		} else if s.trans != nil {
			c := s.trans.contacts.get(v.ID)
			if c.term == term && !c.confirmed.Before(begin) {
				have++
			}
		}
	}
	return term != 0 && have > all/2
}

// applyThrough waits until all commands up to commit are applied and returns the
// index of the last applied one.
func (s *Store) applyThrough(ctx context.Context, r *raft.Raft, commit uint64) (uint64, error) {
	// The library counts an entry as applied when it has handed it over, and hands
	// over commands only: look for the last command.
	for i := commit; i > s.fsm.index(); i-- {
		var l raft.Log
		if err := s.log.GetLog(i, &l); err == nil && l.Type == raft.LogCommand {
			if err := s.waitHere(ctx, r, i); err != nil {
				return 0, err
			}
			break
		}
	}
	return s.fsm.index(), nil
}
