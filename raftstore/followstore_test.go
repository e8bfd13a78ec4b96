package raftstore

import (
	"errors"
	"testing"
	"time"
)

// What a follower and its server say of each other: while the stream lasts, and after.
func TestFollowerStats(t *testing.T) {
	t.Parallel()
	b := newBed(t, nil)
	b.form(1, 1)
	n, server := b.followOf(1), b.nodes[0]
	if st := server.Stats(); st.Followers != 1 || st.SnapshotsSent != 1 {
		t.Errorf("the server counts %d followers and %d snapshots, want 1 and 1", st.Followers, st.SnapshotsSent)
	}
	waitIn(t, 5*time.Second, func() bool { return server.SlowestBehind() == 0 })
	if st := n.Stats(); st.Following != server.id || st.Heard < 0 || st.Heard > followSilence {
		t.Errorf("follows %q, heard %s ago", st.Following, st.Heard)
	}
	server.stop()
	waitIn(t, 20*time.Second, func() bool { return n.Stats().Following == "" })
	before := n.Stats().Heard
	waitIn(t, 5*time.Second, func() bool { return n.Stats().Heard > before+100*time.Millisecond })
	if got := server.SlowestBehind(); got != 0 {
		t.Errorf("a server that nobody follows is %d ahead of somebody", got)
	}
	n.stop()
	n.restart()
	if st := n.Stats(); st.Heard >= 0 {
		t.Errorf("a follower that has heard nobody yet: %s ago", st.Heard)
	}
}

// A follower's store has no log: to recover from it is refused before anything is looked
// for in it.
func TestFollowerIsNotRecovered(t *testing.T) {
	t.Parallel()
	b := newBed(t, nil)
	b.form(1, 1)
	n := b.followOf(1)
	n.stop()
	if _, err := Examine(n.cfg); !errors.Is(err, ErrFollower) {
		t.Errorf("examine: %v, want %v", err, ErrFollower)
	}
	if _, err := Recover(t.Context(), n.cfg, RecoverOptions{}); !errors.Is(err, ErrFollower) {
		t.Errorf("recover: %v, want %v", err, ErrFollower)
	}
	n.restart()
	b.waitLeader(n)
	b.same()
}
