package integration

import (
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"stellar.io/stellar/api"
	"stellar.io/stellar/internal/failpoint"
	"stellar.io/stellar/internal/failpoint/failctl"
	"stellar.io/stellar/internal/testx"
)

// Failpoints of a cluster, by the operation and by the node that dies: a leads and
// has a container, b comes and goes.
var (
	joinerCrashes = []failpoint.Name{
		failpoint.JoinToken, failpoint.JoinAnswered, failpoint.JoinCertificate, failpoint.JoinInstalled, failpoint.JoinStored,
		failpoint.InitMoved, failpoint.RaftLogged, failpoint.NodeClaimed, failpoint.NodeRemembered, failpoint.RoutesApply, failpoint.RoutesApplied,
	}
	admitterCrashes = []failpoint.Name{
		failpoint.AdmitRegister, failpoint.AdmitRegistered, failpoint.AdmitSigned, failpoint.AdmitAdded,
		failpoint.MemberChange, failpoint.MemberChanged, failpoint.RaftProposed,
	}
	leaverCrashes    = []failpoint.Name{failpoint.LeaveHandOver, failpoint.LeaveBury, failpoint.LeaveBuried, failpoint.LeaveOut}
	forwarderCrashes = []failpoint.Name{failpoint.RaftForward, failpoint.RaftForwarded, failpoint.RaftApply, failpoint.RaftLogged}
	leaderCrashes    = []failpoint.Name{failpoint.RaftReceived, failpoint.RaftAnswer}
	transferCrashes  = []failpoint.Name{failpoint.TransferBegin, failpoint.TransferDone}
	promotedCrashes  = []failpoint.Name{failpoint.CAKeyReceived}
)

// clusterCrashes are all of them.
var clusterCrashes = [][]failpoint.Name{
	joinerCrashes, admitterCrashes, leaverCrashes, forwarderCrashes, leaderCrashes, transferCrashes, promotedCrashes,
}

// crashPair is a cluster of a, and of b now and then.
type crashPair struct {
	a, b  *crashBed
	token string
}

// enter has b join. dying is the node that is to end at a failpoint on the way, nil
// for none; it is started once, and b asks again, by the same token, if it must.
func (c *crashPair) enter(dying *crashBed, p failpoint.Name) {
	t := c.b.node.t
	t.Helper()
	c.token = c.a.token()
	if dying == nil {
		c.b.join(c.a.node, c.token)
		return
	}
	dying.arm(p, failctl.Crash, 1, 0)
	_, err := c.b.tryJoin(c.a.node, c.token)
	dying.awaitCrash(p)
	dying.table.Disarm()
	dying.startAgent()
	if dying == c.a {
		c.a.cli("status", "--wait", "--timeout", "30s")
	}
	if err != nil {
		if _, err := c.b.tryJoin(c.a.node, c.token); err != nil && !strings.Contains(err.Error(), "has a cluster already") {
			t.Fatalf("the join cannot be repeated: %v\n%s", err, c.b.tail())
		}
	}
	c.b.cli("status", "--wait", "--timeout", "30s")
}

// works: containers of both nodes reach each other, both have the same state, and
// nobody is a member, has a subnet or a route who should not.
func (c *crashPair) works() {
	c.b.node.t.Helper()
	id := unique("pair")
	c.b.runs(id)
	c.b.reaches(id, c.a.held[key("anchor")].String())
	c.a.reaches("anchor", c.b.held[key(id)].String())
	c.a.members("a", "b")
	sameState(c.testing(), []*node{c.a.node, c.b.node})
	c.a.check()
	c.b.check()
	c.b.removes(id)
	c.b.check()
}

func (c *crashPair) testing() *testing.T { return c.b.node.t.(*testing.T) }

// members waits until exactly these are members, with a subnet and a place in Raft.
func (b *crashBed) members(names ...string) {
	b.t.Helper()
	want := fmt.Sprint(names)
	b.eventually(quiet, "the members are "+want, func() error {
		ctx, cancel := b.ctx()
		defer cancel()
		nodes, err1 := b.api.Nodes(ctx)
		peers, err2 := b.api.RaftPeers(ctx)
		subnets, err3 := b.api.Subnets(ctx)
		if err := errors.Join(err1, err2, err3); err != nil {
			return err
		}
		var ready, inRaft, holders []string
		for _, n := range nodes {
			if n.Status == "ready" {
				ready = append(ready, n.Name)
			}
		}
		for _, p := range peers {
			inRaft = append(inRaft, p.Node)
		}
		for _, s := range subnets {
			if s.State == api.SubnetHeld {
				holders = append(holders, s.Node)
			}
		}
		for what, got := range map[string][]string{"ready": ready, "in raft": inRaft, "with a subnet": holders} {
			if got := fmt.Sprint(slices.Sorted(slices.Values(got))); got != want {
				return fmt.Errorf("%s: %s", what, got)
			}
		}
		return nil
	})
}

// leaves has b leave, and makes its host a new one that waits for a join. dying at
// p, it is started once and leaves again, if it must.
func (c *crashPair) leaves(p failpoint.Name) {
	c.b.node.t.Helper()
	if p != "" {
		c.b.arm(p, failctl.Crash, 1, 0)
	}
	_, err := c.b.run("cluster", "leave", "-y")
	if p != "" {
		c.b.awaitCrash(p)
		c.b.table.Disarm()
		c.b.startAgent()
	}
	if p == "" {
		c.b.must(err)
	} else {
		c.b.eventually(quiet, "b has left", func() error {
			_, err := c.b.run("cluster", "leave", "-y")
			return err
		})
	}
	c.a.members("a")
	c.a.check()
	c.anew()
}

// anew empties b's host.
func (c *crashPair) anew() {
	b := c.b
	b.t.Helper()
	b.table.Disarm()
	_ = b.stopAgent(syscall.SIGKILL)
	b.must(os.RemoveAll(filepath.Join(b.dir, "data")))
	if out, err := b.host.Output(binary, "agent", "cleanup", "-y"); err != nil {
		b.t.Fatalf("%v\n%s", err, out)
	}
	b.rules, b.held = "", map[string]netip.Addr{}
	b.startAgent()
}

// on has both nodes report to a subtest.
func (c *crashPair) on(t *testing.T, op string, p failpoint.Name, fn func()) {
	t.Run(op+"/"+strings.ReplaceAll(string(p), "/", "."), func(sub *testing.T) {
		c.a.node.t, c.b.node.t = sub, sub
		defer func() { c.a.node.t, c.b.node.t = t, t }()
		fn()
	})
	if t.Failed() {
		t.FailNow() // the pair is not what the next case needs
	}
}

// TestFaultCrashJoin: a node or the leader dies at each step of a join, the node at
// each of its leave.
func TestFaultCrashJoin(t *testing.T) {
	lan := testx.NewLAN(t, 2)
	c := &crashPair{a: newCrashBed(t, lan, 0), b: newCrashBed(t, lan, 1)}
	c.b.mayLog = "level=ERROR" // it is removed by its own wish; races and panics are looked for all the same
	c.a.restart("--init")
	c.a.runs("anchor")
	c.b.startAgent()
	watchKernels(t, c.a.node, c.b.node)
	began := time.Now()
	for _, p := range inOrder(t, joinerCrashes) {
		c.on(t, "joining", p, func() { c.enter(c.b, p); c.works(); c.leaves("") })
	}
	for _, p := range inOrder(t, admitterCrashes) {
		c.on(t, "admitting", p, func() { c.enter(c.a, p); c.works(); c.leaves("") })
	}
	for _, p := range inOrder(t, leaverCrashes) {
		c.on(t, "leaving", p, func() { c.enter(nil, ""); c.works(); c.leaves(p) })
	}
	crashReport(t, "joins and leaves", len(joinerCrashes)+len(admitterCrashes)+len(leaverCrashes), began)
}

// TestFaultCrashForward: a node whose proposals go to the leader dies, or the leader
// does; leaders die that hand over, and new voters.
func TestFaultCrashForward(t *testing.T) {
	lan := testx.NewLAN(t, 3)
	a, b, third := newCrashBed(t, lan, 0), newCrashBed(t, lan, 1), newCrashBed(t, lan, 2)
	c := &crashPair{a: a, b: b}
	a.restart("--init")
	a.runs("anchor")
	b.startAgent()
	c.enter(nil, "")
	watchKernels(t, a.node, b.node, third.node)
	began := time.Now()
	for _, p := range inOrder(t, forwarderCrashes) {
		c.on(t, "forwarding", p, func() { b.dies(p, c.far()); c.works() })
	}
	for _, p := range inOrder(t, leaderCrashes) {
		c.on(t, "leading", p, func() { c.leaderDies(p); c.works() })
	}
	for _, p := range promotedCrashes {
		b.arm(p, failctl.Crash, 1, 0)
		third.startAgent()
		third.join(a.node, a.token())
		b.awaitCrash(p)
		b.restart()
	}
	trio := []*crashBed{a, b, third}
	nodes := []*node{a.node, b.node, third.node}
	awaitVoters(t, nodes)
	for _, p := range transferCrashes {
		c.on(t, "handing over", p, func() { c.handOver(p, trio, nodes) })
	}
	crashReport(t, "forwarding, leading, handing over", len(forwarderCrashes)+len(leaderCrashes)+len(promotedCrashes)+len(transferCrashes), began)
}

// handOver: the leader of three ends while it hands over.
func (c *crashPair) handOver(p failpoint.Name, trio []*crashBed, nodes []*node) {
	t := c.testing()
	t.Helper()
	leader, _ := leaderIn(t, nodes, c.a.node)
	for _, n := range trio {
		if n.node == leader {
			n.arm(p, failctl.Crash, 1, 0)
			_, _ = n.run("raft", "transfer-leader")
			n.awaitCrash(p)
			n.restart()
		}
	}
	awaitVoters(t, nodes)
	c.a.members("a", "b", "c")
	sameState(t, nodes)
	for _, n := range trio {
		n.check()
	}
}

// far: a container is started on the node that does not lead.
func (c *crashPair) far() crashOp {
	id := unique("far")
	return crashOp{
		during: func() { c.b.runContainer(testx.Run{ID: id, Labels: networked()}) },
		after: func() {
			c.b.settled(id)
			c.b.reaches(id, c.a.held[key("anchor")].String())
			c.b.removes(id)
		},
	}
}

// leaderDies: the leader ends while the other node's proposal is in its hands.
func (c *crashPair) leaderDies(p failpoint.Name) {
	c.a.node.t.Helper()
	id := unique("lead")
	c.a.arm(p, failctl.Crash, 1, 0)
	c.b.runContainer(testx.Run{ID: id, Labels: networked()})
	c.a.awaitCrash(p)
	c.a.restart()
	c.b.settled(id)
	c.b.reaches(id, c.a.held[key("anchor")].String())
	c.b.removes(id)
}
