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
	"time"

	"stellar.io/stellar/internal/testx"
	"stellar.io/stellar/internal/testx/faults"
)

// subnets returns who has each subnet that somebody has, as n's replica says.
func (n *node) subnets() map[string]string {
	n.t.Helper()
	var list struct {
		Items []struct{ Subnet, Node, State string }
	}
	if err := json.Unmarshal([]byte(n.cli("ipam", "ls", "-o", "json")), &list); err != nil {
		n.t.Fatal(err)
	}
	out := map[string]string{}
	for _, s := range list.Items {
		if s.State != "free" {
			out[s.Subnet] = s.Node + " " + s.State
		}
	}
	return out
}

// leased waits until n's replica says that each address has its container.
func (n *node) leased(eps ...endpoint) {
	n.t.Helper()
	for _, e := range eps {
		n.eventually(quiet*2, e.Address+" is replicated as "+e.Container+"'s", func() error {
			text, err := n.run("ipam", "show", e.Address, "-o", "json")
			if err != nil {
				return err
			}
			var a struct {
				State       string
				Provisional bool
				Owner       struct{ Container string }
			}
			if err := json.Unmarshal([]byte(text), &a); err != nil {
				return err
			}
			switch {
			case a.Owner.Container != e.Container:
				return faults.Violation("%s is not %s's: %s", e.Address, e.Container, text)
			case a.State != "attached" && a.State != "bound" || a.Provisional:
				return fmt.Errorf("%s", text)
			}
			return nil
		})
	}
}

// generation is the cluster's, as n knows it.
func (n *node) generation() (g int) {
	n.t.Helper()
	var s struct{ Generation int }
	if err := json.Unmarshal([]byte(n.cli("raft", "stats", "-o", "json")), &s); err != nil {
		n.t.Fatal(err)
	}
	return s.Generation
}

// TestClusterRestore: a backup is restored after more leases and another node have
// come. No subnet has two holders, what runs keeps its lease, nothing is handed out
// before the end of the re-claim, and then a join works.
func TestClusterRestore(t *testing.T) {
	lan := testx.NewLAN(t, 4)
	var nodes []*node
	for i := range 4 {
		nodes = append(nodes, newNode(t, lan, i, nodeOptions{}))
	}
	a, b, c, d := nodes[0], nodes[1], nodes[2], nodes[3]
	a.startAgent("--init")
	a.cli("status", "--wait", "--timeout", "30s")
	b.startAgent()
	b.join(a, a.token())
	eps := []endpoint{a.start(unique("before-a")), b.start(unique("before-b"))}
	file := filepath.Join(t.TempDir(), "backup")
	b.cli("raft", "snapshot", "save", file)

	c.startAgent()
	c.join(b, b.token())
	eps = append(eps, a.start(unique("after-a")), b.start(unique("after-b")), c.start(unique("after-c")))
	trio := nodes[:3]
	awaitVoters(t, trio)
	for _, n := range trio {
		n.routed(trio...)
		n.leased(eps...)
	}
	had := a.subnets()
	watchKernels(t, nodes...)
	lost := a.pinging(eps[0].Container, eps[4].Address)

	// Any node takes the file; the leader restores it.
	_, others := leaderIn(t, trio, a)
	if out := others[0].cli("raft", "snapshot", "restore", "-y", file, "-o", "json"); !strings.Contains(out, `"generation": 2`) {
		t.Errorf("restore: %s", out)
	}
	for _, n := range trio {
		n.eventually(quiet, n.name+" is in the new generation", func() error {
			if g := n.generation(); g != 2 {
				return fmt.Errorf("generation %d", g)
			}
			return nil
		})
		if now := n.subnets(); fmt.Sprint(now) != fmt.Sprint(had) {
			t.Errorf("%s: subnets %v, before the restore %v", n.name, now, had)
		}
		n.leased(eps...) // the holders' journals have what the backup has not
		n.routed(trio...)
	}
	wantNoLoss(t, "restore", lost)
	sameState(t, trio)

	// A token of before the restore that the backup does not know is not honoured, and
	// nothing is handed out.
	d.startAgent()
	token := b.token()
	if out, err := d.tryJoin(b, token); err == nil || !strings.Contains(err.Error(), "end-reclaim") {
		t.Errorf("join during the re-claim: %v %s", err, out)
	}
	if now := a.subnets(); fmt.Sprint(now) != fmt.Sprint(had) {
		t.Errorf("subnets %v, before %v", now, had)
	}
	fresh := c.start(unique("reclaim")) // in a subnet that is held already
	others[0].cli("cluster", "end-reclaim", "-y")
	d.join(b, token)
	for _, n := range nodes {
		n.routed(nodes...)
	}
	now := a.subnets()
	if now["172.16.12.0/22"] != "d held" || len(now) != 4 {
		t.Errorf("subnets %v", now)
	}
	e := d.start(unique("new"))
	for _, at := range nodes {
		at.leased(append(eps, fresh, e)...)
	}
	a.reaches(eps[0].Container, e.Address)
	sameState(t, nodes)
}

// offline calls the CLI on n's host without an agent to speak to.
func (n *node) offline(args ...string) (string, error) {
	n.t.Helper()
	args = append(args, "--data-dir", filepath.Join(n.dir, "data"), "--run-dir", filepath.Join(n.dir, "run"), "--node-name", n.name)
	return n.host.Output(binary, args...)
}

// claimed waits until n, in the generation, says that all members have claimed what
// they hold.
func (n *node) claimed(members int) {
	n.t.Helper()
	n.eventually(2*quiet, "all have claimed", func() error {
		out, _ := n.run("status")
		if !strings.Contains(out, fmt.Sprintf("all %d nodes have claimed", members)) {
			return errors.New(out)
		}
		return nil
	})
}

// TestClusterRecover (real containerd): a voter is off while a node joins, then the
// other two are gone. The third is recovered offline and leads alone. The node that it
// has never heard of, and the two when they are back after all, are taken back by
// themselves: their subnets are claimed, what runs keeps its address and its packets,
// and only after the end of the re-claim a new node joins.
func TestClusterRecover(t *testing.T) {
	lan := testx.NewLAN(t, 5)
	var nodes []*node
	for i := range 5 {
		nodes = append(nodes, newNode(t, lan, i, nodeOptions{}))
	}
	trio := nodes[:3]
	a, b, c, d, e := nodes[0], nodes[1], nodes[2], nodes[3], nodes[4]
	a.startAgent("--init")
	a.cli("status", "--wait", "--timeout", "30s")
	for _, n := range trio[1:] {
		n.startAgent()
		n.join(a, a.token())
	}
	awaitVoters(t, trio)
	c.eventually(quiet, "c has the cluster's key", func() error {
		_, err := os.Stat(filepath.Join(c.dir, "data", "tls", "ca.key"))
		return err
	})
	eps := map[*node]endpoint{}
	for _, n := range trio {
		n.routed(trio...)
		eps[n] = n.start(unique("run-" + n.name))
	}
	c.leased(eps[a], eps[b], eps[c])
	if out, err := c.offline("raft", "recover", "-y"); err == nil || !strings.Contains(err.Error(), "used by the agent") {
		t.Errorf("beside the running agent: %v %s", err, out)
	}
	_ = c.stopAgent(syscall.SIGTERM)
	d.startAgent()
	d.join(a, a.token())
	eps[d] = d.start(unique("run-d"))
	d.routed(trio...)

	watchKernels(t, nodes...)
	lost := c.pinging(eps[c].Container, eps[a].Address)
	lostD := d.pinging(eps[d].Container, eps[a].Address)
	_ = a.stopAgent(syscall.SIGKILL)
	_ = b.stopAgent(syscall.SIGKILL)
	if out, err := c.offline("raft", "recover", "--dry-run"); err != nil || !strings.Contains(out, "Voters:      3") {
		t.Errorf("dry run: %v\n%s", err, out)
	}
	if out, err := c.offline("raft", "recover", "-y"); err != nil || !strings.Contains(out, "Recovered:   yes") {
		t.Fatalf("recover: %v\n%s", err, out)
	}
	c.startAgent()
	c.cli("status", "--wait", "--timeout", "30s")
	if g := c.generation(); g != 2 {
		t.Errorf("generation %d", g)
	}
	if e := c.await(eps[c].Container, "attached"); e.Address != eps[c].Address {
		faults.Safety(t, "%+v, was %+v", e, eps[c])
	}
	c.leased(eps[a], eps[b], eps[c]) // those of the dead are not for others

	for _, n := range []*node{a, b} { // back after all
		n.startAgent()
	}
	began := time.Now()
	all := []*node{a, b, c, d}
	c.claimed(len(all))
	for _, n := range all {
		n.eventually(2*quiet, n.name+" is in the new generation", func() error {
			if out, err := n.run("status", "--wait", "--timeout", "5s"); err != nil {
				return errors.Join(err, errors.New(out))
			}
			if g := n.generation(); g != 2 {
				return fmt.Errorf("generation %d", g)
			}
			return nil
		})
		n.leased(eps[a], eps[b], eps[c], eps[d])
		n.routed(all...)
	}
	t.Logf("four nodes have claimed what they hold, and have the same plan, after %s", time.Since(began).Round(100*time.Millisecond))
	wantNoLoss(t, "recovery", lost)
	wantNoLoss(t, "recovery, seen from the node that was not known", lostD)
	for _, n := range all {
		if e := n.await(eps[n].Container, "attached"); e.Address != eps[n].Address {
			faults.Safety(t, "%+v, was %+v", e, eps[n])
		}
	}
	if s := c.subnets(); s["172.16.12.0/22"] != "d held" || len(s) != 4 {
		t.Errorf("subnets %v", s)
	}
	e.startAgent()
	if out, err := e.tryJoin(c, c.token()); err == nil || !strings.Contains(err.Error(), "end-reclaim") {
		t.Errorf("join during the re-claim: %v %s", err, out)
	}
	c.cli("cluster", "end-reclaim", "-y")
	e.join(c, c.token())
	awaitVoters(t, trio)
	for _, n := range nodes {
		n.routed(nodes...)
		n.start(unique("anew-" + n.name))
	}
	if s := c.subnets(); s["172.16.16.0/22"] != "e held" {
		t.Errorf("subnets %v", s)
	}
	sameState(t, nodes)
}

// TestFaultSurvivorsApart (real containerd): two survivors are recovered separately.
// Both have the next generation; when they meet, one of them is fenced, also over a
// restart of its process, and hands out nothing new. The one that the operator then
// recovers once more goes on, the other is taken back by itself.
func TestFaultSurvivorsApart(t *testing.T) {
	nodes := startCluster(t, 3)
	awaitVoters(t, nodes)
	a, b, c := nodes[0], nodes[1], nodes[2]
	eps := map[*node]endpoint{}
	for _, n := range nodes {
		n.routed(nodes...)
		n.eventually(quiet, n.name+" has the cluster's key", func() error {
			_, err := os.Stat(filepath.Join(n.dir, "data", "tls", "ca.key"))
			return err
		})
		eps[n] = n.start(unique("run-" + n.name))
	}
	c.leased(eps[a], eps[b], eps[c])
	b.leased(eps[a], eps[b], eps[c])
	watchKernels(t, nodes...)
	lost := b.pinging(eps[b].Container, eps[c].Address)
	for _, n := range nodes {
		_ = n.stopAgent(syscall.SIGKILL)
	}
	for _, n := range []*node{b, c} {
		if out, err := n.offline("raft", "recover", "-y"); err != nil {
			t.Fatalf("recover: %v\n%s", err, out)
		}
		n.startAgent()
	}
	var out, in *node
	b.eventually(quiet, "one of the two is fenced", func() error {
		for _, n := range []*node{b, c} {
			if text, _ := n.run("status"); strings.Contains(text, "without this node") {
				out, in = n, map[*node]*node{b: c, c: b}[n]
				return nil
			}
		}
		return errors.New("none is")
	})
	_ = out.stopAgent(syscall.SIGKILL)
	out.startAgent()
	if text, _ := out.run("status"); !strings.Contains(text, "without this node") {
		t.Errorf("just after a restart %s does not know that it is fenced:\n%s", out.name, text)
	}
	id := unique("fenced")
	out.runContainer(testx.Run{ID: id, Labels: networked()})
	out.eventually(quiet, "nothing new on "+out.name, func() error {
		if e := out.endpoints()["default/"+id]; e.Address != "" || !strings.Contains(e.Reason, "without this node") {
			return fmt.Errorf("%+v", e)
		}
		return nil
	})
	if text, _ := in.run("status"); strings.Contains(text, "without this node") {
		t.Errorf("both are fenced:\n%s", text)
	}
	in.start(unique("in"))

	_ = out.stopAgent(syscall.SIGTERM)
	if text, err := out.offline("raft", "recover", "-y"); err != nil {
		t.Fatalf("recover: %v\n%s", err, text)
	}
	out.startAgent()
	out.eventually(2*quiet, "the other one is taken back", func() error {
		for _, n := range []*node{b, c} {
			if text, err := n.run("raft", "stats", "-o", "json"); err != nil || !strings.Contains(text, `"generation": 3`) || !strings.Contains(text, `"leader": "`+out.name) {
				return fmt.Errorf("%s: %v %s", n.name, err, text)
			}
		}
		return nil
	})
	a.startAgent()
	out.claimed(3)
	for _, n := range nodes {
		n.leased(eps[a], eps[b], eps[c])
		n.routed(nodes...)
	}
	out.await(id, "attached")
	wantNoLoss(t, "two survivors", lost)
	out.cli("cluster", "end-reclaim", "-y")
	sameState(t, nodes)
}
