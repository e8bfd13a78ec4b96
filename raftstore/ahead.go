package raftstore

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/hashicorp/raft"

	"stellar.io/stellar/ipam"
)

// lookAhead shows the leader's state by View until this node's own has reached it.
// It reports whether the state is ahead of what was shown.
func (f *fsm) lookAhead(st *ipam.State) bool {
	f.telling.Lock()
	defer f.telling.Unlock()
	f.mu.Lock()
	newer := f.failed == nil && st.Index() > f.state.Index() && (f.ahead == nil || st.Index() > f.ahead.Index())
	if newer {
		f.ahead = st
		f.wake()
	}
	f.mu.Unlock()
	if newer {
		f.onApply(st.Index(), nil)
	}
	return newer
}

// overtake drops the leader's state when this node's own has reached it. It reports
// whether what was just applied is news to those who look. The caller holds mu.
func (f *fsm) overtake() bool {
	if f.ahead == nil {
		return true
	}
	news := f.state.Index() > f.ahead.Index()
	if f.state.Index() >= f.ahead.Index() {
		f.ahead = nil
	}
	return news
}

// aheadAt returns the index of the leader's state that is shown, 0 when it is not.
func (f *fsm) aheadAt() uint64 {
	f.mu.RLock()
	defer f.mu.RUnlock()
	if f.ahead == nil {
		return 0
	}
	return f.ahead.Index()
}

const (
	followPoll  = 50 * time.Millisecond  // how often a follower looks at its leader
	followGrace = 150 * time.Millisecond // what a follower leaves to Raft before it fetches
	followAsk   = 2 * time.Second        // how long the leader may take to say how far it is
	followRetry = time.Second            // after a failure
)

// follow keeps View from showing what is long past: after a start with peers, and
// after a time without a leader, it asks the leader how far it is, and when Raft has
// not brought this node there soon, fetches the leader's state and shows that.
func (s *Store) follow(ctx context.Context, r *raft.Raft) {
	if s.cfg.FetchState == nil || s.trans == nil {
		return
	}
	t := time.NewTicker(followPoll)
	defer t.Stop()
	away := true
	for {
		select {
		case <-t.C:
		case <-ctx.Done():
			return
		}
		addr, leader := r.LeaderWithID()
		contact := lastContact(r, time.Now())
		switch {
		case r.State() == raft.Leader:
			away = false
		case leader == "" || contact < 0 || contact > s.cfg.HeartbeatTimeout:
			away = true
		case away:
			away = !s.catchUp(ctx, r, nodeID(leader), string(addr))
			if away && !sleep(ctx, followRetry) {
				return
			}
		}
	}
}

// catchUp reports whether View shows all that the leader had committed.
func (s *Store) catchUp(ctx context.Context, r *raft.Raft, leader ipam.NodeID, addr string) bool {
	ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	if s.cfg.Forward != nil {
		actx, acancel := context.WithTimeout(ctx, followAsk)
		index, err := s.leaderIndex(actx, r, leader, addr)
		acancel()
		if err == nil {
			wctx, wcancel := context.WithTimeout(ctx, followGrace)
			err = s.fsm.wait(wctx, index)
			wcancel()
		}
		if err == nil {
			return true
		}
	} else if !sleep(ctx, followGrace) {
		return false
	}
	err := s.fetch(ctx, leader, addr)
	if err != nil && ctx.Err() == nil {
		s.cfg.Logger.Warn("cannot fetch the leader's state, will retry", "leader", leader.Short(), "error", err)
	}
	return err == nil
}

// fetch shows the leader's state, when it is newer than ours and of our cluster.
func (s *Store) fetch(ctx context.Context, leader ipam.NodeID, addr string) error {
	body, err := s.cfg.FetchState(ctx, leader, addr)
	if err != nil {
		return err
	}
	st, info, err := readBackup(body)
	if err = errors.Join(err, body.Close()); err != nil {
		return err
	}
	if err := s.sameCluster(info); err != nil {
		return err
	}
	if s.fsm.lookAhead(st) {
		s.cfg.Logger.Info("showing the leader's state until raft has caught up", "leader", leader.Short(), "index", st.Index())
	}
	return nil
}

// sameCluster checks a snapshot's cluster and generation against ours, if there is one yet.
func (s *Store) sameCluster(info SnapshotInfo) (err error) {
	s.View(func(st *ipam.State) {
		c, ok := st.Cluster()
		switch {
		case !ok:
		case c.ID != info.Cluster:
			err = fmt.Errorf("%w: it is of %s, this is %s", ErrOtherCluster, info.Cluster, c.ID)
		case info.Generation < c.Generation:
			err = fmt.Errorf("%w: generation %d, this is %d", ErrOtherCluster, info.Generation, c.Generation)
		}
	})
	return err
}

// sleep waits; it returns false when ctx ended first.
func sleep(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-ctx.Done():
		return false
	}
}
