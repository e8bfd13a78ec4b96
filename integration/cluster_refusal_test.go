package integration

import (
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"

	"stellar.io/stellar/internal/testx"
)

// plan is what a refusal must not change: who is a member and who has what.
func (n *node) plan() string {
	n.t.Helper()
	return n.cli("node", "ls") + n.cli("ipam", "ls")
}

// unchanged runs what must be refused and compares the plan before and after.
func (n *node) unchanged(what string, try func()) {
	n.t.Helper()
	before := n.plan()
	try()
	if after := n.plan(); after != before {
		n.t.Errorf("%s changed\n%sto\n%s", what, before, after)
	}
}

// revoked is a token that n has made and taken back.
func (n *node) revoked() (token string) {
	n.t.Helper()
	list := func() string { return n.cli("cluster", "token", "ls", "-o", "name") }
	before := list()
	token = n.token()
	for line := range strings.Lines(list()) {
		if !strings.Contains(before, line) {
			n.cli("cluster", "token", "revoke", "-y", strings.TrimSpace(line))
			return token
		}
	}
	n.t.Fatalf("no new token in\n%s", list())
	return ""
}

// TestJoinBadInput: what a machine brings to a join can be wrong in many ways.
func TestJoinBadInput(t *testing.T) {
	lan := testx.NewLAN(t, 3)
	a, b, c := newNode(t, lan, 0, nodeOptions{}), newNode(t, lan, 1, nodeOptions{}), newNode(t, lan, 2, nodeOptions{})
	a.startAgent("--init")
	a.cli("status", "--wait", "--timeout", "30s")
	b.startAgent()
	b.join(a, a.token())
	refused := func(what string, at *node, want string, flags ...string) {
		t.Helper()
		a.unchanged(what, func() {
			t.Helper()
			if out, err := c.tryJoin(at, a.token(), flags...); err == nil || !strings.Contains(err.Error(), want) {
				t.Errorf("%s: %v %s; want %q", what, err, out, want)
			}
		})
	}

	c.flags = []string{"--node-name", "b"}
	c.startAgent()
	refused("a name that is taken", a, "name is taken")
	_ = c.stopAgent(syscall.SIGTERM)
	c.wipe()
	c.flags = nil
	c.startAgent()

	refused("an address where nobody is", &node{name: "x"}, "192.0.2.24:9640")
	var stranger net.Listener
	err := lan.Outside.Do(func() (err error) {
		stranger, err = net.Listen("tcp", "192.0.2.254:9640")
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	go func() {
		for {
			conn, err := stranger.Accept()
			if err != nil {
				return
			}
			_, _ = conn.Write([]byte("SSH-2.0-Stranger\r\n"))
			conn.Close()
		}
	}()
	defer stranger.Close()
	refused("an address of something else", &node{name: "^"}, "192.0.2.254:9640") // as node.address counts
	refused("somebody to replace who does not exist", a, "not found", "--replace", "z")

	c.host.Run(t, "ip", "route", "add", "172.16.5.0/24", "via", "192.0.2.254")
	refused("a host that uses another node's subnet", a, "the host uses 172.16.5.0/24")
	c.host.Run(t, "ip", "route", "del", "172.16.5.0/24")

	// One that it would get itself is passed over.
	c.host.Run(t, "ip", "route", "add", "172.16.8.0/24", "via", "192.0.2.254")
	c.join(b, b.token())
	if out := a.cli("ipam", "ls"); !strings.Contains(out, "172.16.12.0/22") {
		t.Errorf("ipam ls:\n%s", out)
	}
	if out := a.cli("ipam", "show", "172.16.8.2"); !strings.Contains(out, "host of c") {
		t.Errorf("ipam show:\n%s", out)
	}
	sameState(t, []*node{a, b, c})
}

// TestJoinClockOff: a machine whose clock is an hour off, either way, is told so and is no
// member; with the right time the same token lets it in.
func TestJoinClockOff(t *testing.T) {
	lan := testx.NewLAN(t, 2)
	a, b := newNode(t, lan, 0, nodeOptions{}), newNode(t, lan, 1, nodeOptions{})
	a.startAgent("--init")
	a.cli("status", "--wait", "--timeout", "30s")
	set := b.clock(buildShifted(t))
	token := a.token()
	b.startAgent()
	for _, by := range []time.Duration{time.Hour, -time.Hour} {
		set(by)
		a.unchanged("a clock off by "+by.String(), func() {
			out, err := b.tryJoin(a, token)
			if m := regexp.MustCompile(`clock is off by (\S+)`).FindStringSubmatch(fmt.Sprint(err)); m == nil || !strings.Contains(err.Error(), "set its clock") {
				t.Errorf("clock off by %s: %v %s", by, err, out)
			} else if off, err := time.ParseDuration(m[1]); err != nil || (off-time.Hour).Abs() > time.Minute {
				t.Errorf("clock off by %s: said to be off by %s", by, m[1])
			}
		})
		if out, _ := b.run("status"); !strings.Contains(out, "waiting for") {
			t.Errorf("clock off by %s: it does not wait for a cluster:\n%s", by, out)
		}
	}
	set(0)
	b.join(a, token)
	sameState(t, []*node{a, b})
}

// wipe removes the data directory of a node whose agent is stopped.
func (n *node) wipe() {
	n.t.Helper()
	if err := os.RemoveAll(filepath.Join(n.dir, "data")); err != nil {
		n.t.Fatal(err)
	}
}

// TestWipedAndCloned: a data directory that is gone, and one that is there twice.
func TestWipedAndCloned(t *testing.T) {
	lan := testx.NewLAN(t, 3)
	a, b, c := newNode(t, lan, 0, nodeOptions{}), newNode(t, lan, 1, nodeOptions{}), newNode(t, lan, 2, nodeOptions{})
	a.startAgent("--init")
	a.cli("status", "--wait", "--timeout", "30s")
	b.startAgent()
	b.join(a, a.token())
	run := b.start("run")
	a.leased(run)
	a.routed(b)

	// Cloned: to another machine, and to one that says it is the same.
	c.containerd.Address = b.containerd.Address // never reached
	clone := &node{t: t, name: "b", host: c.host, dir: c.dir, containerd: c.containerd}
	if err := os.CopyFS(filepath.Join(c.dir, "data"), os.DirFS(filepath.Join(b.dir, "data"))); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(filepath.Join(c.dir, "data"), 0o700); err != nil {
		t.Fatal(err)
	}
	machine := filepath.Join(t.TempDir(), "machine-id")
	if err := os.WriteFile(machine, []byte(strings.Repeat("c", 32)+"\n"), 0o444); err != nil {
		t.Fatal(err)
	}
	a.unchanged("a clone", func() {
		args := strings.Join(clone.args(), " ")
		other := "mount --bind " + machine + " /etc/machine-id && exec timeout 20 " + binary + " " + args
		if out, err := c.host.Output("unshare", "-m", "sh", "-c", other); err == nil || !strings.Contains(out, "belongs to another machine") {
			t.Errorf("on another machine: %v\n%s", err, out)
		}
		out, err := c.host.Output("timeout", append([]string{"20", binary}, clone.args()...)...)
		if err == nil || !strings.Contains(out, "another machine runs with this node's identity") {
			t.Errorf("on a copy of the machine: %v\n%s", err, out)
		}
	})
	a.routed(b)

	// Wiped: what runs belongs to an identity that is no more.
	_ = b.stopAgent(syscall.SIGKILL)
	b.wipe()
	a.eventually(quiet, "b is lost", func() error {
		if out := a.cli("node", "ls"); !strings.Contains(out, "lost") {
			return errors.New(out)
		}
		return nil
	})
	b.mayLog = "the kernel has endpoints of node"
	a.unchanged("a wiped node", func() {
		out, err := b.host.Output("timeout", append([]string{"20", binary}, b.args("--init")...)...)
		if err == nil || !strings.Contains(out, "the kernel has endpoints of node") {
			t.Errorf("a new cluster beside endpoints of another identity: %v\n%s", err, out)
		}
		b.startAgent()
		if out, err := b.tryJoin(a, a.token()); err == nil || !strings.Contains(err.Error(), "stellar agent cleanup") {
			t.Errorf("beside endpoints of another identity: %v %s", err, out)
		}
	})
	_ = b.stopAgent(syscall.SIGTERM)
	if out, err := b.host.Output(binary, "agent", "cleanup", "--yes", "--data-dir", b.dir+"/data", "--run-dir", b.dir+"/run"); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	b.startAgent()
	a.unchanged("a name that is taken", func() {
		if out, err := b.tryJoin(a, a.token()); err == nil || !strings.Contains(err.Error(), "name is taken") {
			t.Errorf("without --replace: %v %s", err, out)
		}
	})
	if out, err := b.tryJoin(a, a.token(), "--replace", "b"); err != nil || !strings.Contains(out, "172.16.4.0/22") {
		t.Fatalf("with --replace: %v\n%s", err, out)
	}
	e := b.await("run", "attached")
	a.leased(e)
	b.reaches("run", "172.16.0.1")
	sameState(t, []*node{a, b})
}

// TestQuorumIsKept: what would leave fewer voters than are needed to decide is
// refused, whoever is asked, and changes nothing.
func TestQuorumIsKept(t *testing.T) {
	nodes := startCluster(t, 3)
	awaitVoters(t, nodes)
	leader, others := leaderIn(t, nodes, nodes[0])
	dead, alive := others[0], others[1]
	_ = dead.stopAgent(syscall.SIGKILL)
	leader.eventually(quiet, "it is known to be gone", func() error {
		if out := leader.cli("raft", "peers"); !strings.Contains(out, "silent") {
			return os.ErrDeadlineExceeded
		}
		return nil
	})
	leader.unchanged("a removal that loses the quorum", func() {
		leader.refuses(7, "are needed", "node", "rm", "-y", alive.name)
		leader.refuses(7, "quorum", "raft", "remove", "-y", alive.name)
		leader.refuses(7, "quorum", "raft", "demote", "-y", alive.name)
		alive.refuses(7, "quorum", "raft", "remove", "-y", leader.name)
		alive.refuses(7, "are needed", "cluster", "leave", "-y")
		alive.refuses(7, "are needed", "node", "rm", "-y", leader.name)
	})
	alive.start("still")
	dead.startAgent()
	awaitVoters(t, nodes)
	sameState(t, nodes)

	// With three that answer one may go, by its own wish.
	if out := dead.cli("cluster", "leave", "-y"); !strings.Contains(out, dead.name) {
		t.Errorf("leave:\n%s", out)
	}
	leader.eventually(quiet, "it has left", func() error {
		if out := leader.cli("node", "ls", "--no-headers"); strings.Count(out, "\n") != 2 {
			return errors.New(out)
		}
		return nil
	})
}
