package integration

import (
	"fmt"
	"slices"
	"strings"
	"syscall"
	"testing"

	"stellar.io/stellar/internal/testx"
	"stellar.io/stellar/internal/testx/faults"
)

// TestClusterSubnetReuse: in a plan of four subnets, all held, that of a node which was
// removed by force is the only one that a fifth node could get. It gets none until the
// operator has vouched for the machine's end, then this one at a higher epoch. The
// machine that comes back after all is fenced: its containers, started again, do not get
// the addresses that are others' now, and no packet to those goes astray.
func TestClusterSubnetReuse(t *testing.T) {
	const subnet = "172.16.0.128/26"
	lan := testx.NewLAN(t, 5)
	var nodes []*node
	for i := range 5 {
		nodes = append(nodes, newNode(t, lan, i, nodeOptions{}))
	}
	a, c, e := nodes[0], nodes[2], nodes[4]
	rest := []*node{a, nodes[1], nodes[3]}
	a.startAgent()
	a.cli("cluster", "init", "--network", "172.16.0.0/24", "--subnet-prefix", "26")
	a.cli("status", "--wait", "--timeout", "30s")
	for _, n := range nodes[1:4] {
		n.startAgent()
		n.join(a, a.token())
	}
	awaitVoters(t, nodes[:3]) // so that the two that are left of them have a quorum
	watchKernels(t, nodes...)
	old := []endpoint{c.start(unique("old")), c.start(unique("old"))}
	far := a.start(unique("far"))
	leadsTo(t, rest, subnet, "192.0.2.3")
	first := a.epochNumbers(subnet)

	_ = c.stopAgent(syscall.SIGKILL)
	_, others := leaderIn(t, rest, nodes[1])
	others[0].eventually(quiet, "c is removed", func() error {
		_, err := others[0].run("node", "rm", "-y", "--force", "c")
		return err
	})
	gone(rest, subnet)
	wantSubnet(rest, subnet, "quarantined")
	e.startAgent()
	for _, n := range []*node{a, others[0]} { // whoever leads
		out, err := e.tryJoin(n, n.token())
		if err == nil || !strings.Contains(err.Error(), "no available subnets") || !strings.Contains(err.Error(), "stellar ipam release") {
			t.Fatalf("join while the only subnet is quarantined: %v %s", err, out)
		}
	}
	wantSubnet(rest, subnet, "quarantined")
	if out := a.cli("node", "ls"); strings.Contains(out, e.address()) {
		t.Errorf("the refused node is a member:\n%s", out)
	}

	// The machine is off.
	for _, was := range old {
		if err := c.containerd.KillTask("default", was.Container); err != nil {
			t.Fatal(err)
		}
	}
	others[0].cli("ipam", "release", "-y", subnet)
	wantSubnet(rest, subnet, "free")
	e.join(a, a.token())
	leadsTo(t, rest, subnet, "192.0.2.5")
	if s := e.subnetOf("e"); s != subnet {
		t.Fatalf("e has %s", s)
	}
	if now := a.epochNumbers(subnet); slices.Compare(now[:], first[:]) <= 0 {
		t.Errorf("epoch %v, it was %v", now, first)
	}
	had := map[string]bool{old[0].Address: true, old[1].Address: true}
	var lost []func() (int, int)
	for range old {
		now := e.start(unique("new"))
		if !had[now.Address] {
			t.Errorf("%s has %s, want one of %v: nothing could be doubled", now.Container, now.Address, had)
		}
		lost = append(lost, a.pinging(far.Container, now.Address))
	}

	c.startAgent() // switched on after all
	c.eventually(quiet, "it knows that it was removed", func() error {
		if out, _ := c.run("status"); !strings.Contains(out, "removed from the cluster") {
			return errorText(out)
		}
		return nil
	})
	for _, was := range old {
		if err := c.containerd.StartTask("default", was.Container); err != nil {
			t.Fatal(err)
		}
	}
	id := unique("returned")
	c.runContainer(testx.Run{ID: id, Labels: networked()})
	for _, name := range []string{old[0].Container, old[1].Container, id} {
		c.eventually(quiet, name+" is refused", func() error {
			got, err := c.list()
			if err != nil {
				return err
			}
			if got := got["default/"+name]; got.State == "attached" || !strings.Contains(got.Reason, "removed") {
				return fmt.Errorf("%+v", got)
			}
			return nil
		})
		if out, err := c.exec(name, "ip", "address", "show", "eth0"); err == nil {
			faults.Safety(t, "%s has a network on the node that was removed:\n%s", name, out)
		}
	}
	leadsTo(t, rest, subnet, "192.0.2.5")
	for _, l := range lost {
		wantNoLoss(t, "the subnet's last holder is back", l)
	}
	sameState(t, append(rest, e))
}

// leadsTo waits until all of nodes have one route to a subnet, by way of via.
func leadsTo(t *testing.T, nodes []*node, subnet, via string) {
	t.Helper()
	for _, n := range nodes {
		n.eventually(quiet, n.name+" has a route to "+subnet+" via "+via, func() error {
			out := n.host.Run(t, "ip", "route", "show", subnet)
			if !strings.Contains(out, "via "+via+" ") || strings.Count(out, "via") != 1 {
				return errorText(out)
			}
			return nil
		})
	}
}

// epochNumbers are generation and counter of a subnet's epoch, as n's replica says.
func (n *node) epochNumbers(subnet string) (e [2]int) {
	n.t.Helper()
	if _, err := fmt.Sscanf(n.epochOf(subnet), "%d.%d", &e[0], &e[1]); err != nil {
		n.t.Fatalf("epoch %q: %v", n.epochOf(subnet), err)
	}
	return e
}
