package integration

import (
	"fmt"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"stellar.io/stellar/internal/testx"
	"stellar.io/stellar/internal/testx/faults"
)

// statusOf waits until n's list of nodes gives a node that status.
func (n *node) statusOf(name, status string) {
	n.t.Helper()
	n.eventually(quiet, n.name+" shows "+name+" as "+status, func() error {
		out := n.cli("node", "ls", "--no-headers")
		for line := range strings.Lines(out) {
			if f := strings.Fields(line); strings.TrimSuffix(f[0], "*") == name && slices.Contains(f, status) {
				return nil
			}
		}
		return errorText(out)
	})
}

// TestClusterForcedRemoval: the subnet of a node that was removed by force is
// nobody's, or free when its end was vouched for, and stays so when the node comes
// back. It finds itself fenced; what runs there keeps its packets.
func TestClusterForcedRemoval(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name  string
		flags []string
		cut   bool // the node is cut off, and alive; else its agent is killed
		state string
	}{
		{"killed", []string{"--force"}, false, "quarantined"},
		{"killed and called dead", []string{"--force", "--dead"}, false, "free"},
		{"cut off", []string{"--force"}, true, "quarantined"},
		{"cut off and called dead", []string{"--force", "--dead"}, true, "free"},
	} {
		t.Run(tt.name, func(t *testing.T) { testForcedRemoval(t, tt.cut, tt.state, tt.flags...) })
	}
}

func testForcedRemoval(t *testing.T, cut bool, state string, flags ...string) {
	const subnet = "172.16.8.0/22"
	lan := testx.NewLAN(t, 4)
	var nodes []*node
	for i := range 4 {
		nodes = append(nodes, newNode(t, lan, i, nodeOptions{}))
	}
	a, b, c, d := nodes[0], nodes[1], nodes[2], nodes[3]
	rest := []*node{a, b}
	a.startAgent("--init")
	a.cli("status", "--wait", "--timeout", "30s")
	for _, n := range []*node{b, c} {
		n.startAgent()
		n.join(a, a.token())
	}
	awaitVoters(t, nodes[:3])
	for _, n := range nodes[:3] {
		n.routed(nodes[:3]...)
	}
	keep, mate := c.start("keep"), c.start("mate")
	far := a.start("far")
	watchKernels(t, nodes...)
	lost := c.pinging(keep.Container, mate.Address)
	heal := func() {}
	if cut {
		heal = c.cut("input", "output")
	} else {
		_ = c.stopAgent(syscall.SIGKILL)
	}
	for _, n := range rest { // whichever leads
		n.statusOf("c", "lost")
		if out := n.cli("raft", "peers", "-o", "json"); strings.Contains(out, `"state": ""`) {
			t.Errorf("raft peers on %s:\n%s", n.name, out)
		}
	}
	if cut {
		// Alone, it attaches from its own subnet.
		c.runContainer(testx.Run{ID: "alone", Labels: networked()})
		c.await("alone", "provisional")
	}
	_, others := leaderIn(t, rest, a)
	others[0].cli(append([]string{"node", "rm", "-y", "c"}, flags...)...)
	gone(rest, subnet)
	wantSubnet(rest, subnet, state)

	// Who joins now gets a subnet that nobody ever held.
	d.startAgent()
	d.join(b, b.token())
	if s := d.subnetOf("d"); s != "172.16.12.0/22" {
		faults.Safety(t, "d has %s", s)
	}

	if cut {
		heal()
	} else {
		c.startAgent()
	}
	c.eventually(quiet, "it knows that it was removed", func() error {
		if out, _ := c.run("status"); !strings.Contains(out, "removed from the cluster") {
			return errorText(out)
		}
		return nil
	})
	c.runContainer(testx.Run{ID: "new", Labels: networked()})
	c.eventually(quiet, "the new container is refused", func() error {
		es, err := c.list()
		if err != nil {
			return err
		}
		e := es["default/new"]
		if e.Address != "" {
			t.Fatal(faults.Violation("attached by a node that was removed: %+v", e))
		}
		if !strings.Contains(e.Reason, "removed") {
			return fmt.Errorf("%+v", e)
		}
		return nil
	})
	c.reaches(keep.Container, mate.Address)
	c.reaches(keep.Container, "192.0.2.254")
	for _, n := range []*node{b, d} {
		n.committed(time.Now(), unique("after"))
	}
	b.reaches(b.start(unique("after")).Container, far.Address)
	wantSubnet([]*node{a, b, d}, subnet, state)
	if es, err := c.list(); err != nil {
		t.Error(err)
	} else if e := es["default/new"]; e.Address != "" {
		faults.Safety(t, "attached by a node that was removed: %+v", e)
	}
	wantNoLoss(t, "removed and back", lost)
	sameState(t, []*node{a, b, d})
}
