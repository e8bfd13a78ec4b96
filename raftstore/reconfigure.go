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

const (
	changeRetry = 10 * time.Millisecond // between two looks at the configuration
	changeTries = 20                    // refusals of one and the same configuration
)

// reconfigure changes the configuration that it has looked at, and looks again when
// another change came first. This node leads. pair: another voter follows at once.
func (s *Store) reconfigure(ctx context.Context, r *raft.Raft, c Change, pair bool) error {
	s.hear(ctx, r)
	var last uint64
	for tries := 0; ; tries++ {
		index, err := s.configIndex()
		if err != nil {
			return err
		}
		if index != last {
			last, tries = index, 0
		}
		now := servers(r)
		next, err := nextServers(now, c)
		if err != nil || next == nil {
			return err
		}
		if err := s.permitted(r, next, c, pair); err != nil {
			return err
		}
		if err := failpoint.Err(failpoint.MemberChange); err != nil {
			return fmt.Errorf("%w: %w", ErrBusy, err)
		}
		// With index the library refuses when it has another configuration: now may be
		// of a change that is under way, or index behind what is committed.
		f := submit(r, now, c, index, s.cfg.EnqueueTimeout)
		err = s.await(ctx, f)
		if err == nil {
			failpoint.Hit(failpoint.MemberChanged)
			s.settle(ctx, r, f.Index())
		}
		if err == nil || !errors.Is(err, errOther) || tries == changeTries {
			return err
		}
		select {
		case <-time.After(changeRetry):
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

// settle waits a moment until all voters that answer have a new configuration. The
// majority that has committed it need not be one that can elect a leader without this
// node: the library refuses its vote to a voter that it does not know as such.
func (s *Store) settle(ctx context.Context, r *raft.Raft, index uint64) {
	for end := time.Now().Add(s.cfg.HeartbeatTimeout); time.Now().Before(end); {
		have := true
		for _, v := range voters(servers(r)) {
			if v.ID != raft.ServerID(s.cfg.NodeID) && s.answers(v.ID) && s.trans.contacts.get(v.ID).match < index {
				have = false
			}
		}
		if have || leadTerm(r) == 0 || !sleep(ctx, readPoll) {
			return
		}
	}
}

// submit hands the change to the library.
func submit(r *raft.Raft, now []raft.Server, c Change, index uint64, timeout time.Duration) raft.IndexFuture {
	id, addr := raft.ServerID(c.Node), raft.ServerAddress(c.Address)
	old, found := findServer(now, id)
	switch c.Op {
	case ChangeAdd:
		if found && old.Suffrage == raft.Voter {
			return r.AddVoter(id, addr, index, timeout)
		}
		return r.AddNonvoter(id, addr, index, timeout)
	case ChangePromote:
		return r.AddVoter(id, old.Address, index, timeout)
	case ChangeDemote:
		return r.DemoteVoter(id, index, timeout)
	}
	return r.RemoveServer(id, index, timeout)
}

// errOther marks an error of the library that is not one of those known.
var errOther = errors.New("raft refused the change")

// await waits for a change. An error that wraps errOther means that the library
// refused it.
func (s *Store) await(ctx context.Context, f raft.Future) error {
	done := make(chan error, 1)
	go func() { done <- f.Error() }() // ends with Raft at the latest
	var err error
	select {
	case err = <-done:
	case <-ctx.Done():
		return fmt.Errorf("%w: %w", ErrUnknownOutcome, context.Cause(ctx))
	}
	switch {
	case err == nil:
		return nil
	case errors.Is(err, raft.ErrNotLeader), errors.Is(err, raft.ErrLeadershipTransferInProgress):
		return fmt.Errorf("%w: %w", ErrNoLeader, err)
	case errors.Is(err, raft.ErrEnqueueTimeout):
		return fmt.Errorf("%w: %w", ErrBusy, err)
	case errors.Is(err, raft.ErrLeadershipLost), errors.Is(err, raft.ErrRaftShutdown):
		return fmt.Errorf("%w: %w", ErrUnknownOutcome, err)
	}
	return fmt.Errorf("%w: %w", errOther, err)
}

// configIndex returns the index of the latest committed configuration: from the log,
// or from the snapshot that stands for it.
func (s *Store) configIndex() (uint64, error) {
	index := s.fsm.configAt()
	list, err := s.files.snapshots.List()
	if err != nil {
		return 0, fmt.Errorf("list snapshots: %w", err)
	}
	if len(list) > 0 {
		index = max(index, list[0].ConfigurationIndex)
	}
	return index, nil
}

// nextServers returns what the configuration would become; nil when it is so already.
func nextServers(now []raft.Server, c Change) ([]raft.Server, error) {
	id := raft.ServerID(c.Node)
	if !c.Node.Valid() {
		return nil, fmt.Errorf("%w: node id %q", ipam.ErrInvalid, c.Node)
	}
	old, found := findServer(now, id)
	next := make([]raft.Server, 0, len(now)+1)
	for _, s := range now {
		if s.ID != id {
			next = append(next, s)
		}
	}
	switch c.Op {
	case ChangeAdd:
		if c.Address == "" {
			return nil, fmt.Errorf("%w: no address", ipam.ErrInvalid)
		}
		if found && old.Address == raft.ServerAddress(c.Address) {
			return nil, nil
		}
		for _, s := range next {
			if s.Address == raft.ServerAddress(c.Address) {
				return nil, fmt.Errorf("%w: %s is the address of node %s", ipam.ErrInvalid, c.Address, nodeID(s.ID).Short())
			}
		}
		old.ID, old.Address = id, raft.ServerAddress(c.Address)
		if !found {
			old.Suffrage = raft.Nonvoter
		}
		return append(next, old), nil
	case ChangeRemove:
		if !found {
			return nil, nil
		}
		return next, nil
	case ChangePromote, ChangeDemote:
		want := raft.Voter
		if c.Op == ChangeDemote {
			want = raft.Nonvoter
		}
		if !found {
			return nil, ErrNotMember
		}
		if old.Suffrage == want {
			return nil, nil
		}
		old.Suffrage = want
		return append(next, old), nil
	}
	return nil, fmt.Errorf("%w: change %q", ipam.ErrInvalid, c.Op)
}
