package integration

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"stellar.io/stellar/internal/testx"
	"stellar.io/stellar/internal/testx/faults"
)

// gone waits until none of nodes has a route to a subnet.
func gone(nodes []*node, subnet string) {
	for _, n := range nodes {
		n.t.Helper()
		n.eventually(quiet, n.name+" has no route to "+subnet, func() error {
			if out := n.host.Run(n.t, "ip", "route", "show", subnet); strings.TrimSpace(out) != "" {
				return errorText(out)
			}
			return nil
		})
	}
}

type errorText string

func (e errorText) Error() string { return string(e) }

// wantSubnet waits until all of nodes say that the subnet is in the state.
func wantSubnet(nodes []*node, subnet, state string) {
	for _, n := range nodes {
		n.t.Helper()
		n.eventually(quiet, subnet+" is "+state, func() error {
			out, err := n.run("ipam", "ls", "-o", "wide")
			if err != nil {
				return err
			}
			for line := range strings.Lines(out) {
				if strings.Contains(line, subnet) && strings.Contains(line, state) {
					return nil
				}
			}
			return errorText(out)
		})
	}
}

// epochOf is the epoch at which n's replica says that a subnet is held.
func (n *node) epochOf(subnet string) (epoch string) {
	n.t.Helper()
	var list struct {
		Items []struct{ Subnet, Epoch string }
	}
	if err := json.Unmarshal([]byte(n.cli("ipam", "ls", "-o", "json")), &list); err != nil {
		n.t.Fatal(err)
	}
	for _, s := range list.Items {
		if s.Subnet == subnet {
			return s.Epoch
		}
	}
	return ""
}

// TestClusterRemoval: a live node that runs nothing is taken out, one that runs
// something is not, and a dead one is replaced by a machine that has lost its disk.
func TestClusterRemoval(t *testing.T) {
	t.Parallel()
	nodes := startCluster(t, 4)
	a, b, c, d := nodes[0], nodes[1], nodes[2], nodes[3]
	awaitVoters(t, nodes[:3])
	for _, n := range nodes {
		n.routed(nodes...)
	}
	keep := a.start("keep")

	// Of a node that runs something nothing is taken.
	c.start("busy")
	a.eventually(quiet, "a knows of it", func() error {
		if out := a.cli("node", "ls"); !strings.Contains(out, "172.16.8.0/22") {
			return errorText(out)
		}
		return nil
	})
	if _, err := a.run("node", "rm", "-y", "c"); err == nil || !strings.Contains(err.Error(), "--force") {
		t.Errorf("node rm of a node with endpoints: %v", err)
	}

	a.cli("node", "rm", "-y", "d")
	rest := []*node{a, b, c}
	gone(rest, "172.16.12.0/22")
	wantSubnet(rest, "172.16.12.0/22", "free")
	_ = d.stopAgent(syscall.SIGTERM)

	// b loses its disk, and comes back in its own place.
	_ = b.stopAgent(syscall.SIGKILL)
	epoch := a.epochOf("172.16.4.0/22")
	old := b.host.Run(t, "ip", "-br", "address", "show", "stellar0")
	if err := os.RemoveAll(filepath.Join(b.dir, "data")); err != nil {
		t.Fatal(err)
	}
	b.startAgent()
	if out, err := b.tryJoin(a, a.token()); err == nil || !strings.Contains(err.Error(), "taken") {
		t.Errorf("join by a name that is taken: %v %s", err, out)
	}
	if out, err := b.tryJoin(a, a.token(), "--replace", "b"); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	b.cli("status", "--wait", "--timeout", "30s")
	if now := b.host.Run(t, "ip", "-br", "address", "show", "stellar0"); now != old {
		t.Errorf("stellar0 is %q, was %q", now, old)
	}
	if now := a.epochOf("172.16.4.0/22"); now == epoch || now == "" {
		faults.Safety(t, "taken over at epoch %q, it was %q before", now, epoch)
	}
	e := b.start("again")
	a.reaches("keep", e.Address)
	b.reaches("again", keep.Address)
	sameState(t, rest)
	awaitVoters(t, rest)
}

// TestClusterLeaderLeaves: it does not while it runs something; then it hands over,
// leaves, and is missed by nobody. It can come back as a new member.
func TestClusterLeaderLeaves(t *testing.T) {
	t.Parallel()
	nodes := startCluster(t, 3)
	awaitVoters(t, nodes)
	for _, n := range nodes {
		n.routed(nodes...)
	}
	leader, rest := leaderIn(t, nodes, nodes[0])
	leader.start("busy")
	if _, err := leader.run("cluster", "leave", "-y"); err == nil || !strings.Contains(err.Error(), "--force") {
		t.Errorf("left with an endpoint: %v", err)
	}
	if now, _ := leaderIn(t, nodes, rest[0]); now != leader {
		t.Errorf("%s leads after the refusal, %s led", now.name, leader.name)
	}
	subnet := leader.subnetOf(leader.name)
	if err := leader.containerd.Remove("default", "busy"); err != nil {
		t.Fatal(err)
	}
	leader.await("busy", "")
	e := rest[0].start("keep")
	lost := rest[1].pingingFrom(e.Address)
	leader.cli("agent", "log-level", "debug")
	leader.eventually(quiet, "it leaves", func() error { // its lease is released a moment later
		_, err := leader.run("cluster", "leave", "-y")
		return err
	})
	// After an election another would lead as well, only later.
	if log := leader.tail(); !strings.Contains(log, "starting leadership transfer") {
		t.Errorf("%s led and has left without handing over", leader.name)
	}
	gone(rest, subnet)
	wantSubnet(rest, subnet, "free")
	now, _ := leaderIn(t, nodes, rest[0])
	if now == leader {
		t.Errorf("%s still leads", leader.name)
	}
	for _, n := range rest {
		n.committed(time.Now(), unique("after"))
		if out := n.cli("raft", "peers"); strings.Count(out, "\n") != 3 {
			t.Errorf("raft peers on %s:\n%s", n.name, out)
		}
	}
	wantNoLoss(t, "the leader leaves", lost)
	sameState(t, rest)
	leader.eventually(quiet, "it knows that it has left", func() error {
		if out, _ := leader.run("status"); !strings.Contains(out, "removed") {
			return errorText(out)
		}
		return nil
	})

	if err := leader.stopAgent(syscall.SIGTERM); err != nil {
		t.Error(err)
	}
	if err := os.RemoveAll(filepath.Join(leader.dir, "data")); err != nil {
		t.Fatal(err)
	}
	leader.startAgent()
	leader.join(rest[0], rest[1].token())
	back := leader.start("back")
	rest[0].reaches("keep", back.Address)
	sameState(t, nodes)
}

// subnetOf is what n's list of nodes says of a node.
func (n *node) subnetOf(name string) (subnet string) {
	n.t.Helper()
	for s, holder := range n.subnets() {
		if holder == name+" held" {
			subnet = s
		}
	}
	if subnet == "" {
		n.t.Fatalf("%s has no subnet: %v", name, n.subnets())
	}
	return subnet
}

// pingingFrom starts a container that pings addr until the returned function is called.
func (n *node) pingingFrom(addr string) func() (int, int) {
	n.t.Helper()
	e := n.start(unique("ping"))
	return n.pinging(e.Container, addr)
}

// TestClusterDrain: what runs goes on, nothing new begins until the end of it.
func TestClusterDrain(t *testing.T) {
	nodes := startCluster(t, 2)
	a, b := nodes[0], nodes[1]
	before := b.start("before")
	a.cli("node", "drain", "b")
	if out := a.cli("node", "ls"); !strings.Contains(out, "draining") {
		t.Errorf("node ls:\n%s", out)
	}
	b.eventually(quiet, "b knows", func() error {
		if out := b.cli("node", "ls"); !strings.Contains(out, "draining") {
			return errorText(out)
		}
		return nil
	})
	b.runContainer(testx.Run{ID: "new", Labels: networked()})
	b.eventually(quiet, "the new container is refused", func() error {
		if e := b.endpoints()["default/new"]; !strings.Contains(e.Reason, "drain") {
			return errorText(e.State + ": " + e.Reason)
		}
		return nil
	})
	b.reaches("before", "192.0.2.254")
	// A new task of a container that has an address is nothing new.
	if err := b.containerd.KillTask("default", "before"); err != nil {
		t.Fatal(err)
	}
	b.await("before", "bound")
	if err := b.containerd.StartTask("default", "before"); err != nil {
		t.Fatal(err)
	}
	if e := b.await("before", "attached"); e.Address != before.Address {
		faults.Safety(t, "after its restart %+v, was %+v", e, before)
	}
	if e := b.endpoints()["default/new"]; e.Address != "" || e.State == "attached" {
		t.Errorf("on a draining node: %+v", e)
	}
	b.cli("node", "drain", "b", "--off")
	b.awaitLong("new", "attached")
	b.reaches("new", "192.0.2.254")
}

// TestClusterLeaveByForce: even with endpoints, which keep their packets; the subnet
// is quarantined and the cluster goes on.
func TestClusterLeaveByForce(t *testing.T) {
	t.Parallel()
	nodes := startCluster(t, 3)
	awaitVoters(t, nodes)
	for _, n := range nodes {
		n.routed(nodes...)
	}
	leader, rest := leaderIn(t, nodes, nodes[0])
	subnet := leader.subnetOf(leader.name)
	stays := leader.start("stays")
	lost := leader.pinging("stays", "192.0.2.254")
	leader.cli("cluster", "leave", "-y", "--force")
	gone(rest, subnet)
	wantSubnet(rest, subnet, "quarantined")
	leader.runContainer(testx.Run{ID: "new", Labels: networked()})
	leader.eventually(quiet, "the new container is refused", func() error {
		es, err := leader.list()
		if e := es["default/new"]; err != nil || e.Address != "" || !strings.Contains(e.Reason, "removed") {
			return errorText(e.State + " " + e.Address + ": " + e.Reason)
		}
		return nil
	})
	wantNoLoss(t, "left by force", lost)
	if e := leader.endpoints()["default/stays"]; e.Address != stays.Address {
		faults.Safety(t, "what stays: %+v, was %+v", e, stays)
	}
	for _, n := range rest {
		n.committed(time.Now(), unique("after"))
	}
	sameState(t, rest)
}
