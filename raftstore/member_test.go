package raftstore

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"stellar.io/stellar/ipam"
)

func TestForm(t *testing.T) {
	for _, count := range []int{3, 5} {
		t.Run(fmt.Sprint(count), func(t *testing.T) {
			b := newBed(t, func(c *Config) { c.Voters = count })
			b.form(count, count)
			b.same()
			l := b.anyLeader()
			peers := l.Peers()
			if len(peers) != count {
				t.Fatalf("peers: %+v", peers)
			}
			for i, p := range peers {
				want := "follower"
				if p.ID == l.id {
					want = "leader"
				}
				if p.Node != b.node(p.ID).host || !p.Voter || p.State != want || p.TrailsLeaderBy < 0 || p.TrailsLeaderBy > 5 || p.Address != b.node(p.ID).address {
					t.Errorf("peer %d: %+v", i, p)
				}
			}
			for _, n := range b.nodes {
				waitIn(t, 2*time.Second, func() bool {
					st := n.Stats()
					return st.Voters == count && st.Leader == l.id && st.Ahead == 0
				})
			}
		})
	}
}

func (b *bed) node(id ipam.NodeID) *member1 {
	for _, n := range b.nodes {
		if n.id == id {
			return n
		}
	}
	b.t.Fatalf("no node %s", id)
	return nil
}

func within(t testing.TB, d time.Duration) context.Context {
	ctx, cancel := context.WithTimeout(t.Context(), d)
	t.Cleanup(cancel)
	return ctx
}

// TestMembershipRefusals: what would lose the quorum is refused with the arithmetic,
// on any node, and nothing changes.
func TestMembershipRefusals(t *testing.T) {
	b := newBed(t, func(c *Config) { c.Voters = -1 })
	b.form(2, 1)
	ctx := within(t, 30*time.Second)
	l, f := b.nodes[0], b.nodes[1]

	expect := func(what string, err, want error, text string) {
		t.Helper()
		if !errors.Is(err, want) || err != nil && !strings.Contains(err.Error(), text) {
			t.Errorf("%s: %v, want %v with %q", what, err, want, text)
		}
	}
	expect("second voter", l.Promote(ctx, f.id, false), ErrQuorum, "of 2 voters both must answer")
	expect("second voter, by itself", f.Promote(ctx, f.id, false), ErrQuorum, "of 2 voters both must answer")
	expect("unknown", l.Promote(ctx, idOf(9), false), ErrNotMember, "")
	expect("unknown demote", f.Demote(ctx, idOf(9), false), ErrNotMember, "")
	expect("last voter", l.Demote(ctx, l.id, true), ErrQuorum, "last voter")
	expect("last voter removed", l.Remove(ctx, l.id, true), ErrQuorum, "last voter")
	expect("address taken", l.AddServer(ctx, idOf(9), f.address), ipam.ErrInvalid, f.id.Short())
	expect("no address", l.AddServer(ctx, idOf(9), ""), ipam.ErrInvalid, "")
	expect("to a non-voter", l.TransferLeader(ctx, f.id), ErrNotReady, "does not vote")
	expect("to nobody", l.TransferLeader(ctx, ""), ErrNotReady, "")
	expect("again", l.AddServer(ctx, f.id, f.address), nil, "")
	expect("remove unknown", f.Remove(ctx, idOf(9), false), nil, "")

	b.f.kill(f.host, b.hosts())
	waitIn(t, 5*time.Second, func() bool { return l.Peers()[1].State == "silent" })
	expect("silent", l.Promote(ctx, f.id, false), ErrNotReady, "has not answered")
	if st := l.Stats(); st.Voters != 1 || st.Servers != 2 {
		t.Errorf("something changed: %+v", st)
	}
	mustPropose(t, l.Store, tickEnvelope())

	b.f.isolate(f.host, b.hosts(), false)
	b.waitLeader(f)
	if err := l.Promote(ctx, f.id, true); err != nil {
		t.Fatal(err)
	}
	b.join(2)
	if err := b.nodes[2].Promote(ctx, idOf(2), false); err != nil {
		t.Fatal(err)
	}
	l = b.anyLeader()
	victim := b.follower()
	b.f.kill(victim.host, b.hosts())
	waitIn(t, 5*time.Second, func() bool {
		for _, p := range l.Peers() {
			if p.ID == victim.id {
				return p.State == "silent"
			}
		}
		return false
	})
	var other *member1
	for _, n := range b.nodes {
		if n != l && n != victim {
			other = n
		}
	}
	expect("removal of one of two", l.Remove(ctx, other.id, false), ErrQuorum, "of 2 voters 2 must answer, and only 1 would ("+l.id.Short()+" answers, "+victim.id.Short()+" does not)")
	expect("removal of the dead one", l.Remove(ctx, victim.id, false), nil, "")
}

func tickEnvelope() ipam.Envelope {
	return ipam.Envelope{Commands: []ipam.Command{ipam.Tick{Elapsed: time.Millisecond}}}
}

// TestLeave: leaders and followers that are removed or demoted, under load.
func TestLeave(t *testing.T) {
	// Without contact for so long nodes ask for an election: who leads before has been
	// handed the leadership.
	const silence = 3 * time.Second
	b := newBed(t, func(c *Config) { c.HeartbeatTimeout, c.ElectionTimeout = silence, silence })
	b.form(3, 3)
	ctx := within(t, 60*time.Second)
	handsOver := func(what string, leave func(*member1) error) {
		t.Helper()
		old, began := b.anyLeader(), time.Now()
		if err := leave(old); err != nil {
			t.Fatal(err)
		}
		waitIn(t, 5*silence, func() bool { l := b.leader(); return l != nil && l != old })
		if took := time.Since(began); took >= silence {
			t.Errorf("%s: another leads after %s, elected", what, took)
		}
	}
	handsOver("demoted", func(l *member1) error { return l.Demote(ctx, l.id, false) })
	// Eligible and well, it is promoted again to make three.
	waitIn(t, 10*time.Second, func() bool { l := b.leader(); return l != nil && l.Stats().Voters == 3 })

	old := b.anyLeader()
	handsOver("removed", func(l *member1) error { return l.Remove(ctx, l.id, false) })
	waitIn(t, 5*time.Second, func() bool { return old.Stats().State == "removed" })
	if _, err := old.Propose(ctx, tickEnvelope()); !errors.Is(err, ErrNoLeader) || errors.Is(err, ErrUnknownOutcome) {
		t.Errorf("propose on a removed node: %v", err)
	}
	old.View(func(st *ipam.State) {
		if _, ok := st.Cluster(); !ok {
			t.Error("a removed node shows nothing")
		}
	})
	term := b.anyLeader().Stats().Term
	time.Sleep(2 * time.Second)
	l := b.anyLeader()
	if st := l.Stats(); st.Term != term || st.Servers != 2 {
		t.Errorf("the removed node disturbs: %+v, term was %d", st, term)
	}
	mustPropose(t, l.Store, tickEnvelope())
}

// TestUnsteadyNodeDoesNotVote: with the default times, a node that is away for a second
// again and again does not vote, nor does the one that would be promoted with it. Once
// it is steady, both do.
func TestUnsteadyNodeDoesNotVote(t *testing.T) {
	b := newBed(t, func(c *Config) { c.StabilizeTime, c.DeadTime = 0, 0 })
	b.form(1, 1)
	l := b.nodes[0]
	b.join(1)
	unsteady := b.join(2)
	for range 3 {
		b.f.isolate(unsteady.host, b.hosts(), true)
		time.Sleep(time.Second)
		b.f.isolate(unsteady.host, b.hosts(), false)
		time.Sleep(time.Second)
		if st := l.Stats(); st.Voters != 1 || st.Servers != 3 {
			t.Fatalf("%d of %d vote", st.Voters, st.Servers)
		}
	}
	began := time.Now()
	waitIn(t, 15*time.Second, func() bool { return l.Stats().Voters == 3 })
	t.Logf("promoted %s after the last gap", (time.Since(began) + time.Second).Round(time.Millisecond))
}

// TestShortSilenceKeepsVote: a voter that is away for less than DeadTime keeps its vote,
// however long it was well before, and although another could take its place.
func TestShortSilenceKeepsVote(t *testing.T) {
	b := newBed(t, func(c *Config) { c.DeadTime = 4 * time.Second })
	b.form(4, 3)
	time.Sleep(4 * time.Second)
	l := b.anyLeader()
	votes := func(id ipam.NodeID) bool {
		for _, p := range b.anyLeader().Peers() {
			if p.ID == id {
				return p.Voter
			}
		}
		return false
	}
	var away *member1
	for _, n := range b.nodes {
		if n != l && votes(n.id) {
			away = n
		}
	}
	b.f.isolate(away.host, b.hosts(), true)
	for end := time.Now().Add(2 * time.Second); time.Now().Before(end); time.Sleep(50 * time.Millisecond) {
		if !votes(away.id) {
			t.Fatalf("lost its vote after %s", 2*time.Second-time.Until(end))
		}
	}
	b.f.isolate(away.host, b.hosts(), false)
	b.waitLeader(away)
}

// TestReplaceVoters: a voter that should not vote changes places with another, also when
// it leads; a dead one too, and comes back as a non-voter.
func TestReplaceVoters(t *testing.T) {
	b := newBed(t, nil)
	b.form(4, 3)
	old := b.anyLeader()
	b.mu.Lock()
	b.unfit[old.id] = true
	b.mu.Unlock()
	votes := func(id ipam.NodeID) bool {
		l := b.leader()
		if l == nil {
			return true
		}
		for _, p := range l.Peers() {
			if p.ID == id {
				return p.Voter
			}
		}
		return false
	}
	threeWithout := func(id ipam.NodeID) func() bool {
		return func() bool { l := b.leader(); return l != nil && l.Stats().Voters == 3 && !votes(id) }
	}
	waitIn(t, 15*time.Second, threeWithout(old.id))
	if b.anyLeader() == old {
		t.Error("the draining node leads")
	}
	b.mu.Lock()
	b.unfit[old.id] = false
	b.mu.Unlock()
	time.Sleep(time.Second)
	if votes(old.id) {
		t.Error("a fourth voter")
	}

	var victim *member1
	for _, n := range b.nodes {
		if n != b.anyLeader() && votes(n.id) {
			victim = n
		}
	}
	b.f.kill(victim.host, b.hosts())
	waitIn(t, 15*time.Second, threeWithout(victim.id))
	if st := b.anyLeader().Stats(); st.Servers != 4 {
		t.Errorf("somebody was removed: %+v", st)
	}
	b.f.isolate(victim.host, b.hosts(), false)
	b.waitLeader(victim)
	b.same()
}

// TestAddressChange: a node that comes back elsewhere is reached at once where it
// says it is, and the configuration follows.
func TestAddressChange(t *testing.T) {
	b := newBed(t, nil)
	b.form(3, 3)
	for _, n := range []*member1{b.follower(), b.anyLeader()} {
		n.stop()
		b.f.forget(n.address)
		b.f.forget("rpc:" + n.address)
		n.address = strings.Replace(n.address, "10.0.0.", "10.9.9.", 1)
		b.mu.Lock()
		b.moved[n.id] = n.address
		b.mu.Unlock()
		n.restart()
		b.waitLeader(n)
		waitIn(t, 10*time.Second, func() bool {
			l := b.leader()
			if l == nil {
				return false
			}
			for _, srv := range servers(l.raft) {
				if nodeID(srv.ID) == n.id {
					return string(srv.Address) == n.address
				}
			}
			return false
		})
	}
	// The configuration alone is enough now.
	b.mu.Lock()
	clear(b.moved)
	b.mu.Unlock()
	for _, n := range b.nodes {
		n.stop()
	}
	for _, n := range b.nodes {
		n.restart()
	}
	b.anyLeader()
	b.same()
}

// TestWipedNode: a node that has lost its disk comes back as a new one; its old self
// is removed and does not return.
func TestWipedNode(t *testing.T) {
	b := newBed(t, nil)
	b.form(3, 3)
	ctx := within(t, 30*time.Second)
	lost := b.follower()
	lost.stop()
	mustProposeAny(t, b, 10)
	b.join(7)
	b.retry(func() error { return b.anyLeader().Remove(ctx, lost.id, false) })
	waitIn(t, 10*time.Second, func() bool { l := b.leader(); return l != nil && l.Stats().Voters == 3 })
	b.same()
	if err := b.anyLeader().Remove(ctx, lost.id, false); err != nil {
		t.Error(err)
	}
	// Its old disk in the old place: nobody listens to it.
	term := b.anyLeader().Stats().Term
	lost.restart()
	time.Sleep(2 * time.Second)
	if st := b.anyLeader().Stats(); st.Term != term || lost.Stats().Leader != "" {
		t.Errorf("a removed node takes part: %+v, %+v", st, lost.Stats())
	}
}

func mustProposeAny(t testing.TB, b *bed, count int) {
	t.Helper()
	for range count {
		b.retry(func() error {
			_, err := b.anyLeader().Propose(within(t, 5*time.Second), tickEnvelope())
			return err
		})
	}
}
