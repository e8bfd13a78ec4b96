package raftstore

import (
	"errors"
	"sync"
	"testing"
	"time"

	"github.com/hashicorp/raft"

	"stellar.io/stellar/ipam"
)

// TestFarBehind: a node that was away for longer than the log reaches back gets the
// leader's snapshot, and shows the leader's state before Raft has brought it there.
func TestFarBehind(t *testing.T) {
	b := newBed(t, func(c *Config) {
		c.SnapshotThreshold, c.SnapshotInterval, c.TrailingLogs = 50, 20*time.Millisecond, 20
	})
	b.form(3, 3)
	f := b.follower()
	f.stop()
	mustProposeAny(t, b, 300)
	l := b.anyLeader()
	waitIn(t, 5*time.Second, func() bool { return l.Stats().SnapshotIndex > 200 })
	f.configure()
	f.cfg.SnapshotThreshold = 1 << 20 // none of its own
	f.start()
	begin := time.Now()
	b.waitLeader(f)
	t.Logf("caught up by a snapshot in %s", time.Since(begin).Round(time.Millisecond))
	b.same()
	waitIn(t, time.Second, func() bool { st := f.Stats(); return st.SnapshotIndex >= 200 && st.Ahead == 0 })
	// It has no entry at the snapshot's index, but entries after it; a leader that has
	// lost the answers for those begins again at the snapshot.
	mustProposeAny(t, b, 3)
	b.same()
	k, term := lastSnapshot(f.raft)
	var e raft.Log
	if err := f.files.bolt.GetLog(k, &e); !errors.Is(err, raft.ErrLogNotFound) {
		t.Errorf("entry at the snapshot: %v", err)
	}
	if !b.anyLeader().trans.tell(raft.ServerID(f.id), hint{index: k, term: term}) {
		t.Error("the follower does not know its own snapshot")
	}
	f.stop() // and its store opens again, although its log has a hole
	f.restart()
	b.waitLeader(f)
	b.same()
}

// TestAhead: while Raft's messages do not get through but the API's do, View shows
// the leader's state, once, and never an older one afterwards.
func TestAhead(t *testing.T) {
	b := newBed(t, func(c *Config) { c.CommitTimeout = 50 * time.Millisecond })
	b.form(3, 3)
	f := b.follower()
	var mu sync.Mutex
	var seen []uint64
	f.stop()
	mustProposeAny(t, b, 50)
	want := b.anyLeader().fsm.index()
	for _, o := range b.hosts() { // heartbeats and entries are slow, so Raft needs a while
		b.f.delay(o, f.host, 300*time.Millisecond)
	}
	f.configure()
	f.cfg.OnApply = func(index uint64, _ []ipam.Delta) {
		mu.Lock()
		seen = append(seen, index)
		mu.Unlock()
	}
	f.start()
	ahead := false
	shown := uint64(0)
	waitIn(t, 15*time.Second, func() bool {
		st := f.Stats()
		ahead = ahead || st.Ahead > 0
		f.View(func(s *ipam.State) {
			if s.Index() < shown {
				t.Errorf("View went back from %d to %d", shown, s.Index())
			}
			shown = s.Index()
		})
		return shown >= want && st.Ahead == 0 && f.fsm.index() >= want
	})
	if !ahead {
		t.Error("the leader's state was not shown")
	}
	for _, o := range b.hosts() {
		b.f.delay(o, f.host, 0)
	}
	b.waitLeader(f)
	b.same()
	mu.Lock()
	defer mu.Unlock()
	for i := 1; i < len(seen); i++ {
		if seen[i] <= seen[i-1] {
			t.Errorf("OnApply out of order: %v", seen)
		}
	}
}
