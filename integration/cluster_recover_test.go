package integration

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"stellar.io/stellar/internal/testx"
	"stellar.io/stellar/internal/testx/faults"
)

// following is what `raft stats` says of a node that follows a server.
type following struct {
	Server     string
	Connected  bool
	LastBeatMs *float64
}

// follows asks the node alone whom it follows.
func (n *node) follows() (f following, err error) {
	n.t.Helper()
	text, err := n.run("raft", "stats", "-o", "json")
	var s struct {
		State     string
		Following *following
	}
	if err == nil {
		err = json.Unmarshal([]byte(text), &s)
	}
	if err == nil && (s.State != "following" || s.Following == nil) {
		err = errors.New(text)
	}
	if err != nil {
		return f, err
	}
	return *s.Following, nil
}

// followedBy is how many nodes follow n, as it says.
func (n *node) followedBy() (count int) {
	n.t.Helper()
	var s struct{ Followers *struct{ Count int } }
	if err := json.Unmarshal([]byte(n.cli("raft", "stats", "-o", "json")), &s); err != nil || s.Followers == nil {
		n.t.Fatalf("%+v, %v", s, err)
	}
	return s.Followers.Count
}

// TestFollowersRecover (real containerd): two of three servers are lost with their
// disks, and the third, which is behind them, is recovered. The followers, of which it
// has never heard of one, find it without being told anything, claim what they hold and
// what they gave meanwhile, and lose no packet; they then give new addresses, none twice.
// Made servers, they are the quorum that was lost.
func TestFollowersRecover(t *testing.T) {
	lan := testx.NewLAN(t, 5)
	var nodes []*node
	for i := range 5 {
		nodes = append(nodes, newNode(t, lan, i, nodeOptions{}))
	}
	a, b, c, f, g := nodes[0], nodes[1], nodes[2], nodes[3], nodes[4]
	servers, dead, alive := nodes[:3], nodes[:2], nodes[2:]
	a.startAgent("--init")
	a.cli("status", "--wait", "--timeout", "30s")
	for _, n := range servers[1:] {
		n.startAgent()
		n.join(a, a.token())
	}
	f.startAgent()
	f.joinToFollow(b)
	awaitVoters(t, servers)
	c.eventually(quiet, "c has the cluster's key", func() error {
		_, err := os.Stat(filepath.Join(c.dir, "data", "tls", "ca.key"))
		return err
	})
	held := map[*node][]endpoint{c: {c.start(unique("run-c"))}, f: {f.start(unique("run-f"))}}
	c.leased(held[f]...)

	// What c does not know: a follower, its subnet, and leases.
	_ = c.stopAgent(syscall.SIGTERM)
	g.startAgent()
	g.joinToFollow(a)
	for _, n := range []*node{f, g} {
		held[n] = append(held[n], n.start(unique("since-"+n.name)))
		n.replicated(held[n][len(held[n])-1].Container)
		n.routed(nodes...)
	}
	watchKernels(t, alive...)
	lost := map[string]func() (int, int){
		"from one follower to another":          f.pinging(held[f][0].Container, held[g][0].Address),
		"from a follower to what it gave since": f.pinging(held[f][0].Container, held[f][1].Address),
		"from a follower to the survivor":       f.pinging(held[f][0].Container, held[c][0].Address),
	}

	for _, n := range dead {
		_ = n.stopAgent(syscall.SIGKILL)
	}
	for _, n := range dead {
		if err := os.RemoveAll(filepath.Join(n.dir, "data")); err != nil {
			t.Fatal(err)
		}
	}
	for _, n := range []*node{f, g} {
		n.eventually(quiet, n.name+" says that it follows nobody", func() error {
			s, err := n.follows()
			if err != nil || s.Connected || s.Server != "" || s.LastBeatMs == nil {
				return fmt.Errorf("%+v, %v", s, err)
			}
			return nil
		})
		id := unique("alone-" + n.name)
		n.runContainer(testx.Run{ID: id, Labels: networked()})
		held[n] = append(held[n], n.await(id, "provisional"))
	}
	// f goes on meanwhile; g is stopped to be looked at, and is none to recover.
	_ = g.stopAgent(syscall.SIGTERM)
	for _, how := range []string{"--dry-run", "-y"} {
		if out, err := g.offline("raft", "recover", how); err == nil || !strings.Contains(err.Error(), "follows a server") {
			t.Errorf("recover %s on a follower: %v\n%s", how, err, out)
		}
	}

	if out, err := c.offline("raft", "recover", "-y"); err != nil || !strings.Contains(out, "Recovered:   yes") {
		t.Fatalf("recover: %v\n%s", err, out)
	}
	c.startAgent()
	c.cli("status", "--wait", "--timeout", "30s")
	g.startAgent()
	for _, n := range []*node{f, g} {
		n.eventually(quiet, n.name+" follows c", func() error {
			s, err := n.follows()
			if err != nil || !s.Connected || s.Server != c.name {
				return fmt.Errorf("%+v, %v", s, err)
			}
			return nil
		})
	}
	c.eventually(2*quiet, "those that live have claimed", func() error {
		out, _ := c.run("status")
		if !strings.Contains(out, "3 of 5 nodes have claimed what they hold, missing: a, b") {
			return errors.New(out)
		}
		return nil
	})
	if count := c.followedBy(); count != 2 {
		t.Errorf("%d nodes follow c, want 2", count)
	}
	for _, n := range alive {
		if g := n.generation(); g != 2 {
			t.Errorf("%s is in generation %d", n.name, g)
		}
		n.routed(alive...)
		for _, es := range held {
			n.leased(es...)
		}
	}
	if s := c.subnets(); s["172.16.12.0/22"] != "d held" || s["172.16.16.0/22"] != "e held" || len(s) != 5 {
		t.Errorf("subnets %v", s)
	}
	c.cli("cluster", "end-reclaim", "-y")
	for _, n := range dead {
		c.cli("node", "rm", n.name, "--force", "--dead", "-y")
	}
	given := map[string]string{}
	for _, n := range alive {
		for _, was := range held[n] {
			if e := n.await(was.Container, "attached"); e.Address != was.Address {
				faults.Safety(t, "%+v, was %+v", e, was)
			}
		}
		id := n.start(unique("new-" + n.name)).Container
		n.replicated(id)
		for _, e := range n.endpoints() {
			if other := given[e.Address]; other != "" {
				t.Errorf("%s is given to %s and %s", e.Address, e.Container, other)
			}
			given[e.Address] = e.Container
		}
	}
	if len(given) != 9 {
		t.Errorf("addresses %v, want 9", given)
	}
	for what, lost := range lost {
		wantNoLoss(t, what, lost)
	}
	sameState(t, alive)

	if out, err := c.run("raft", "promote", f.name); err == nil || !strings.Contains(err.Error(), "d is a server now, but has no vote yet") {
		t.Errorf("the first of two: %s %v", out, err)
	}
	f.cli("status", "--wait", "--timeout", "30s")
	c.cli("raft", "promote", g.name)
	awaitVoters(t, alive)
	sameState(t, alive)
}
