package integration

import (
	"slices"
	"testing"
	"time"
)

// manySmall is as many nodes as fit into a test's time with the race detector.
const manySmall = 128

// TestManyNodes: three servers and many followers, over TLS, in processes of their own.
// All of them see each change of a subnet, also while some followers do not read, and
// while a server is dead; in the end all have the same state.
func TestManyNodes(t *testing.T) {
	m := newMany(t, manySmall, 2)
	took := m.follow()
	t.Logf("%d followers: one has its state after %.0f ms, the slowest after %.0f ms", len(took), took.quantile(0.5), took.quantile(1))
	if all := m.following(); len(all) != manyServers {
		t.Errorf("followers of each server: %v, want some of each", all)
	}
	s := m.changes(6, m.crowds)
	t.Logf("a change is seen by each after %.1f ms, p99 %.1f ms", s.proposed.quantile(0.5), s.proposed.quantile(0.99))
	m.equal(m.crowds)

	burst := m.burst(m.crowds[0], 100, 3*time.Second)
	caught := m.stopped(m.crowds[1], 6*time.Second, func() {
		s := m.changes(4, m.crowds[:1])
		t.Logf("while %d do not read: p99 %.1f ms", m.crowds[1].count, s.proposed.quantile(0.99))
	})
	if b := burst(); b.Leases == 0 {
		t.Error("no lease was made meanwhile")
	}
	t.Logf("those that did not read have caught up in %.0f ms", caught.quantile(1))
	m.equal(m.crowds)

	killed, seen := m.killLeader()
	t.Logf("leader killed: the next change is seen by all in %.0f ms", seen.quantile(1))
	if worst := seen.quantile(1); worst > 5000 {
		t.Errorf("a follower took %.0f ms to see the first change after its server's death, want at most 5 s", worst)
	}
	i := slices.Index(m.servers, killed)
	if n := m.following()[manyID(i)]; n != 0 {
		t.Errorf("%d still follow a dead server", n)
	}
	m.startServer(i)
	m.changes(2, m.crowds)
	m.equal(m.crowds)
}
