package integration

import (
	"fmt"
	"syscall"
	"testing"
	"time"

	"stellar.io/stellar/internal/testx/faults"
)

// TestFaultFollowersKilled: agents of three servers and two followers are killed at
// random under load.
func TestFaultFollowersKilled(t *testing.T) {
	const kills = 20
	b := startFaults(t, 5, faultOptions{follow: 2})
	b.load()
	for range kills {
		time.Sleep(b.upTo(1500 * time.Millisecond))
		n := b.nodes[b.rng.IntN(len(b.nodes))]
		_ = n.stopAgent(syscall.SIGKILL)
		time.Sleep(b.upTo(time.Second))
		n.returns()
	}
	faults.Report(t, faults.Both, "kill -9 of a random node under load, 3 servers and 2 followers", "%d kills: %s", kills, b.finish())
}

// TestFaultFollowersApart: a follower is cut off from its server, from the leader, from
// all; its server from the other servers; half of what it is sent is lost. Every node
// goes on giving addresses, alone or not.
func TestFaultFollowersApart(t *testing.T) {
	const length = 6 * time.Second
	b := startFaults(t, 5, faultOptions{follow: 2})
	servers, follower := b.nodes[:3], b.nodes[3]
	b.load()
	for _, c := range []struct {
		name  string
		begin func(leader, server *node)
	}{
		{"from its server", func(_, server *node) { apart([]*node{follower}, []*node{server}) }},
		{"from the leader", func(leader, _ *node) { apart([]*node{follower}, []*node{leader}) }},
		{"from all", func(_, _ *node) { apart([]*node{follower}, append([]*node{b.nodes[4]}, servers...)) }},
		{"its server from the other servers", func(_, server *node) {
			var others []*node
			for _, n := range servers {
				if n != server {
					others = append(others, n)
				}
			}
			apart([]*node{server}, others)
		}},
		{"10% loss", func(_, _ *node) {
			for _, n := range servers {
				n.deaf(10, follower)
			}
			follower.deaf(10, servers...)
		}},
		{"50% loss", func(_, _ *node) {
			for _, n := range servers {
				n.deaf(50, follower)
			}
			follower.deaf(50, servers...)
		}},
	} {
		leader, _ := leaderIn(t, servers, servers[0])
		server := follower.server(servers)
		since := b.hist.now()
		c.begin(leader, server)
		time.Sleep(length)
		for _, n := range b.nodes {
			if b.hist.acked(n.name, since) == 0 {
				t.Errorf("a follower apart %s: %s has acknowledged nothing", c.name, n.name)
			}
		}
		acked := b.hist.acked(follower.name, since)
		b.heal()
		b.settled()
		faults.Report(t, faults.Both, "a follower apart: "+c.name, "%s: %d calls acknowledged on it meanwhile", length, acked)
	}
	faults.Report(t, faults.Both, "a follower apart, all classes", "%s", b.finish())
}

// TestFollowersRestored: a backup is restored; a follower that joined before it and one
// that joined after it go on with what they hold, in the new generation.
func TestFollowersRestored(t *testing.T) {
	servers, followers, all := startFollowed(t)
	f, g := followers[0], followers[1]
	for _, n := range all {
		n.routed(all...)
	}
	before := f.start(unique("before"))
	file := t.TempDir() + "/backup"
	servers[0].cli("raft", "snapshot", "save", file)
	eps := []endpoint{before, f.start(unique("after")), g.start(unique("after")), servers[1].start(unique("server"))}
	for _, e := range eps {
		servers[0].leased(e)
	}
	had := servers[0].subnets()
	lost := f.pinging(before.Container, eps[2].Address)
	servers[0].cli("raft", "snapshot", "restore", "-y", file)
	for _, n := range all {
		n.eventually(quiet, n.name+" is in the new generation", func() error {
			if g := n.generation(); g != 2 {
				return fmt.Errorf("generation %d", g)
			}
			return nil
		})
		n.leased(eps...)
	}
	servers[0].eventually(quiet, "all has been claimed", func() error {
		if now := servers[0].subnets(); fmt.Sprint(now) != fmt.Sprint(had) {
			return fmt.Errorf("%v, was %v", now, had)
		}
		return nil
	})
	servers[0].cli("cluster", "end-reclaim", "-y")
	f.replicated(f.start(unique("new")).Container)
	g.replicated(g.start(unique("new")).Container)
	wantNoLoss(t, "a restore with followers", lost)
	sameState(t, all)
}
