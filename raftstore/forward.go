package raftstore

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"time"

	"github.com/hashicorp/raft"

	"stellar.io/stellar/internal/failpoint"
	"stellar.io/stellar/ipam"
)

// ask sends a request to the leader and returns its answer. An error that wraps
// ErrUnknownOutcome means that the leader may have done it; it is what the leader
// said, or that no answer came.
func (s *Store) ask(ctx context.Context, r *raft.Raft, leader ipam.NodeID, addr string, q request) (answerMsg, error) {
	ctx, cancel := s.whileMember(ctx, r)
	defer cancel()
	return s.askOnly(ctx, leader, addr, q)
}

// askOnly is ask for a context that ends with this node's part in the cluster.
func (s *Store) askOnly(ctx context.Context, leader ipam.NodeID, addr string, q request) (answerMsg, error) {
	if leader == s.cfg.NodeID {
		return answerMsg{}, ErrNoLeader // just elected, or just deposed: it never asks itself
	}
	q.node, q.follows = s.cfg.NodeID, s.following != nil
	data, err := q.encode()
	if err != nil {
		return answerMsg{}, err
	}
	to, addr := s.via(leader, addr)
	a := s.answerTo(ctx, to, addr, data)
	return a, a.err
}

// answerTo sends a request to a node and returns its answer, whose error is one of
// those that ask describes.
func (s *Store) answerTo(ctx context.Context, to ipam.NodeID, addr string, data []byte) answerMsg {
	b, err := s.cfg.Forward(ctx, to, addr, data)
	var a answerMsg
	if err == nil {
		a, err = decodeAnswer(b)
	}
	switch {
	case err == nil && a.err == nil:
	case err == nil:
		a.err = fmt.Errorf("leader %s: %w", to.Short(), a.err)
	case errors.Is(err, ErrRefused):
		a.err = fmt.Errorf("leader %s: %w", to.Short(), err)
	case errors.Is(err, ErrNotSent):
		a.err = fmt.Errorf("%w: leader %s: %w", ErrNoLeader, to.Short(), err)
	default:
		if errors.Is(context.Cause(ctx), errReplaced) {
			err = errReplaced
		}
		a.err = fmt.Errorf("%w: leader %s: %w", ErrUnknownOutcome, to.Short(), err)
	}
	return a
}

// via returns who is asked for the leader: on a follower the server that it follows.
func (s *Store) via(leader ipam.NodeID, addr string) (ipam.NodeID, string) {
	if s.following == nil {
		return leader, addr
	}
	return s.following.via(leader, addr)
}

// passOn sends a follower's request to the leader.
func (s *Store) passOn(ctx context.Context, q request) (answerMsg, error) {
	r, err := s.begin()
	if err != nil {
		return answerMsg{err: err}, nil
	}
	defer s.proposals.Done()
	addr, leader := s.leaderOf(r)
	if s.following != nil || leader == "" || s.cfg.Forward == nil || s.removed(r) {
		return answerMsg{err: s.notLeader(r)}, nil
	}
	ctx, cancel := s.whileLed(ctx, r, leader)
	defer cancel()
	q.passed = true
	data, err := q.encode()
	if err != nil {
		return answerMsg{}, err
	}
	return s.answerTo(ctx, nodeID(leader), string(addr), data), nil
}

// forwardProposal proposes through the leader and waits until the entry is applied
// here. That is known by the entry's tag, also when the leader's answer is lost.
func (s *Store) forwardProposal(ctx context.Context, r *raft.Raft, data []byte) ([]ipam.Result, error) {
	addr, leader := s.leaderOf(r)
	if leader == "" || nodeID(leader) == s.cfg.NodeID || s.removed(r) {
		return nil, s.notLeader(r)
	}
	if err := failpoint.Err(failpoint.RaftForward); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrBusy, err)
	}
	t := s.newTag()
	seen := s.fsm.expect(t)
	defer s.fsm.unexpect(t)
	ctx, cancel := s.whileMember(ctx, r)
	defer cancel()
	type asked struct {
		index uint64
		err   error
	}
	answers := make(chan asked, 1)
	go func() { // ends with ctx at the latest, as Config.Forward promises
		actx, acancel := s.whileLed(ctx, r, leader)
		defer acancel()
		a, err := s.askOnly(actx, nodeID(leader), string(addr), request{kind: ForwardPropose, tag: t, envelope: data})
		failpoint.Hit(failpoint.RaftForwarded)
		answers <- asked{a.index, err}
	}()
	select {
	case a := <-seen:
		return a.results, a.err
	case <-ctx.Done():
		return nil, fmt.Errorf("%w: %w", ErrUnknownOutcome, context.Cause(ctx))
	case a := <-answers:
		if a.err != nil {
			return nil, a.err
		}
		if err := s.fsm.wait(ctx, a.index); err != nil {
			return nil, fmt.Errorf("%w: committed at %d, not applied here: %w", ErrUnknownOutcome, a.index, err)
		}
	}
	select {
	case a := <-seen:
		return a.results, a.err
	default: // a snapshot brought it here, without its results
		return nil, fmt.Errorf("%w: committed, its results came in a snapshot", ErrUnknownOutcome)
	}
}

const (
	// ledPoll is how often a question to a leader looks whether it still leads.
	ledPoll = 50 * time.Millisecond
	// ledGrace is how long a leader that was replaced may still answer: when it hands
	// over in order, its answer comes a moment after its successor is known.
	ledGrace = 2 * ledPoll
)

// errReplaced ends a question to a leader that was replaced.
var errReplaced = errors.New("another node leads by now")

// whileLed returns a context that also ends, with errReplaced, when this node knows of
// another leader than the one that is asked: one that was cut off never answers, and
// what it was asked can be asked of the other.
func (s *Store) whileLed(ctx context.Context, r *raft.Raft, leader raft.ServerID) (context.Context, context.CancelFunc) {
	ctx, cancel := context.WithCancelCause(ctx)
	go func() { // ends with the context
		t := time.NewTicker(ledPoll)
		defer t.Stop()
		var since time.Time
		for {
			select {
			case now := <-t.C:
				switch _, other := s.leaderOf(r); {
				case other == "" || other == leader:
					since = time.Time{}
				case since.IsZero():
					since = now
				case now.Sub(since) >= ledGrace:
					cancel(errReplaced)
					return
				}
			case <-ctx.Done():
				return
			}
		}
	}()
	return ctx, func() { cancel(context.Canceled) }
}

// newTag returns a tag that no other proposal has, of this process or any other.
func (s *Store) newTag() (t tag) {
	copy(t[:8], s.tagBase[:])
	binary.BigEndian.PutUint64(t[8:], s.tagCount.Add(1))
	return t
}

// forwardChange makes a membership change through the leader.
func (s *Store) forwardChange(ctx context.Context, r *raft.Raft, c Change) error {
	addr, leader := s.leaderOf(r)
	if leader == "" || s.cfg.Forward == nil {
		return s.notLeader(r)
	}
	_, err := s.ask(ctx, r, nodeID(leader), string(addr), request{kind: ForwardChange, change: c})
	return err
}

// HandleForward executes a request that another node's Config.Forward has sent, and
// returns the answer for it. It forwards nothing but what comes from a follower, which
// it passes on to the leader. It returns an error only for what is
// not a request (ErrRequest): whatever happened to the request is in the answer. The
// caller has checked that the sender may ask for it (InspectForward).
func (s *Store) HandleForward(ctx context.Context, data []byte) (answer []byte, err error) {
	q, err := decodeRequest(data)
	if err != nil {
		return nil, fmt.Errorf("handle forward: %w", err)
	}
	if q.follows && !q.passed && !s.leads() {
		a, err := s.passOn(ctx, q)
		return a.encode(), err
	}
	var a answerMsg
	switch q.kind {
	case ForwardPropose:
		a.index, a.err = s.proposeFor(ctx, q)
	case ForwardRead:
		a.index, a.err = s.readFor(ctx, q.node)
	case ForwardChange:
		a.err = s.change(ctx, q.change, false)
	}
	return a.encode(), nil
}

// proposeFor proposes for another node.
func (s *Store) proposeFor(ctx context.Context, q request) (uint64, error) {
	if _, err := ipam.DecodeEnvelope(q.envelope); err != nil {
		return 0, err // committed, it would stop every node
	}
	if err := failpoint.Err(failpoint.RaftReceived); err != nil {
		return 0, fmt.Errorf("%w: %w", ErrBusy, err)
	}
	r, err := s.begin()
	if err != nil {
		return 0, err
	}
	switch {
	case r == nil:
		s.proposals.Done()
		return 0, ErrNoLeader // this node follows another
	case !s.hears(r, q):
		s.proposals.Done()
		return 0, ErrRemoved // it would wait for an entry that it never gets
	}
	a := s.apply(ctx, r, taggedEntry(q.envelope, q.tag[:]))
	failpoint.Hit(failpoint.RaftAnswer)
	if a.err == nil {
		s.tellOf(r, q.node, a.index)
	}
	return a.index, a.err
}

// leads reports whether this node leads.
func (s *Store) leads() bool {
	s.mu.Lock()
	r := s.raft
	s.mu.Unlock()
	return leadTerm(r) != 0
}

// hears reports whether the sender of a proposal will be told of its entry: a member
// of Raft, or a registered node that follows a server.
func (s *Store) hears(r *raft.Raft, q request) bool {
	if !q.follows {
		return member(r, raft.ServerID(q.node))
	}
	known := false
	s.View(func(st *ipam.State) {
		n, ok := st.Node(q.node)
		known = ok && !n.Removed
	})
	return known
}

// readFor answers a linearizable read of another node.
func (s *Store) readFor(ctx context.Context, node ipam.NodeID) (uint64, error) {
	r, err := s.begin()
	if err != nil {
		return 0, err
	}
	defer s.proposals.Done()
	if r == nil {
		return 0, ErrNoLeader
	}
	index, err := s.readIndex(ctx, r)
	if err == nil {
		s.tellOf(r, node, index)
	}
	return index, err
}

// tellOf lets a node that waits for an entry know at once that it is committed.
func (s *Store) tellOf(r *raft.Raft, node ipam.NodeID, index uint64) {
	var l raft.Log
	term := leadTerm(r)
	if s.trans == nil || term == 0 || !member(r, raft.ServerID(node)) || s.log.GetLog(index, &l) != nil {
		return
	}
	s.trans.hint(raft.ServerID(node), term, index, l.Term)
}
