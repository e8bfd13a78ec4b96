package raftstore

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/hashicorp/raft"

	"stellar.io/stellar/internal/failpoint"
	"stellar.io/stellar/ipam"
)

// Propose replicates an envelope and returns its results, one for each command;
// that a command was refused is in its Result. nil means committed, durable, and
// visible to View. An error that wraps ErrUnknownOutcome (also when ctx ended
// first) means that the envelope may have been committed or may yet be; any other
// error means that it was not and never will be: ErrNoLeader, ErrBusy,
// ErrNotStarted, ErrShutdown, ErrStopped, ipam.ErrInvalid, or ctx's error.
//
// A node that does not lead sends it to the leader, once (Config.Forward).
func (s *Store) Propose(ctx context.Context, env ipam.Envelope) ([]ipam.Result, error) {
	begin := time.Now()
	results, err := s.propose(ctx, env)
	if s.cfg.OnPropose != nil {
		s.cfg.OnPropose(time.Since(begin), err)
	}
	if err != nil {
		return nil, fmt.Errorf("propose: %w", err)
	}
	return results, nil
}

func (s *Store) propose(ctx context.Context, env ipam.Envelope) ([]ipam.Result, error) {
	data, err := env.Encode()
	if err != nil {
		return nil, err
	}
	if err := context.Cause(ctx); err != nil {
		return nil, err
	}
	r, err := s.begin()
	if err != nil {
		return nil, err
	}
	if r == nil && s.cfg.Forward == nil {
		s.proposals.Done()
		return nil, ErrNoLeader
	}
	if r == nil || s.cfg.Forward != nil && r.State() != raft.Leader {
		defer s.proposals.Done()
		return s.forwardProposal(ctx, r, data)
	}
	a := s.apply(ctx, r, newEntry(data))
	return a.results, a.err
}

// apply replicates an entry from this node, which leads. The caller has called begin.
func (s *Store) apply(ctx context.Context, r *raft.Raft, entry raft.Log) applied {
	if err := failpoint.Err(failpoint.RaftPropose); err != nil {
		s.proposals.Done()
		return applied{err: fmt.Errorf("%w: %w", ErrBusy, err)}
	}
	answer := make(chan applied, 1)
	go func() {
		defer s.proposals.Done()
		f := r.ApplyLog(entry, s.cfg.EnqueueTimeout)
		if err := f.Error(); err != nil {
			answer <- applied{err: classify(err)}
			return
		}
		a := f.Response().(applied)
		failpoint.Hit(failpoint.RaftProposed)
		if a.err != nil {
			a.err = fmt.Errorf("%w: %w", ErrUnknownOutcome, a.err)
		}
		answer <- a
	}()
	select {
	case a := <-answer:
		return a
	case <-ctx.Done():
		return applied{err: fmt.Errorf("%w: %w", ErrUnknownOutcome, context.Cause(ctx))}
	}
}

// begin counts a proposal; the caller calls s.proposals.Done when it has ended. On a
// follower it returns nil without an error: it leads nobody, ever.
func (s *Store) begin() (*raft.Raft, error) {
	if err := s.fsm.err(); err != nil {
		return nil, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case s.stopping:
		return nil, ErrShutdown
	case s.raft == nil && !s.isFollowing():
		return nil, ErrNotStarted
	case s.restoring:
		return nil, fmt.Errorf("%w: a snapshot is being restored", ErrBusy)
	}
	s.proposals.Add(1)
	return s.raft, nil
}

// classify turns an error of the library into one of ours. What is not listed is
// unknown: the entry may be in a log somewhere.
func classify(err error) error {
	switch {
	case errors.Is(err, raft.ErrNotLeader), errors.Is(err, raft.ErrLeadershipTransferInProgress):
		return fmt.Errorf("%w: %w", ErrNoLeader, err)
	case errors.Is(err, raft.ErrEnqueueTimeout):
		return fmt.Errorf("%w: %w", ErrBusy, err)
	case errors.Is(err, raft.ErrAbortedByRestore):
		return fmt.Errorf("%w: %w", ErrNoLeader, err)
	}
	return fmt.Errorf("%w: %w", ErrUnknownOutcome, err)
}

// waitPoll is how often WaitLeader looks.
const waitPoll = 5 * time.Millisecond

// WaitLeader waits until there is a leader and the state of this node holds
// everything that was committed when WaitLeader was called. It returns ErrShutdown,
// ErrStopped or ctx's error.
func (s *Store) WaitLeader(ctx context.Context) error {
	select {
	case <-s.started:
	case <-ctx.Done():
		return context.Cause(ctx)
	}
	t := time.NewTicker(waitPoll)
	defer t.Stop()
	for {
		if ok, err := s.caughtUp(ctx); ok || err != nil {
			return err
		}
		select {
		case <-t.C:
		case <-ctx.Done():
			return fmt.Errorf("%w: %w", ErrNoLeader, context.Cause(ctx))
		}
	}
}

// caughtUp reports whether there is a leader and its committed entries are applied.
func (s *Store) caughtUp(ctx context.Context) (bool, error) {
	r, err := s.begin()
	if err != nil {
		return false, err
	}
	if r != nil && r.State() == raft.Leader {
		// The entries of earlier terms are committed by the first of this term.
		done := make(chan error, 1)
		go func() {
			defer s.proposals.Done()
			done <- r.Barrier(s.cfg.EnqueueTimeout).Error()
		}()
		select {
		case err := <-done:
			return err == nil, s.fsm.err() // a barrier also passes a state that has stopped
		case <-ctx.Done():
			return false, fmt.Errorf("%w: %w", ErrNoLeader, context.Cause(ctx))
		}
	}
	defer s.proposals.Done()
	leader, _ := s.leaderOf(r)
	if r == nil && s.cfg.Forward == nil {
		return false, nil
	}
	if s.cfg.Forward != nil {
		// A read of old data for a moment only: the leader is asked again.
		rctx, cancel := context.WithTimeout(ctx, s.cfg.HeartbeatTimeout)
		defer cancel()
		return leader != "" && s.followRead(rctx, r) == nil, nil
	}
	return leader != "" && r.CommitIndex() > 0 && r.AppliedIndex() >= r.CommitIndex(), nil
}
