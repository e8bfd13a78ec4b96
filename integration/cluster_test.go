package integration

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"stellar.io/stellar/internal/testx"
	"stellar.io/stellar/internal/testx/faults"
)

// startCluster makes a cluster of size nodes: one is made, the others join.
func startCluster(t testing.TB, size int) []*node {
	t.Helper()
	return startClusterOf(t, size, nodeOptions{})
}

// startClusterOf is startCluster for nodes with options.
func startClusterOf(t testing.TB, size int, o nodeOptions) []*node {
	t.Helper()
	lan := testx.NewLAN(t, size)
	nodes := make([]*node, size)
	for i := range nodes {
		nodes[i] = newNode(t, lan, i, o)
	}
	nodes[0].startAgent("--init")
	nodes[0].cli("status", "--wait", "--timeout", "30s")
	for _, n := range nodes[1:] {
		n.startAgent()
		n.join(nodes[0], nodes[0].token())
	}
	return nodes
}

// token makes a join token.
func (n *node) token(flags ...string) string {
	n.t.Helper()
	return strings.TrimSpace(n.cli(append([]string{"cluster", "token", "create"}, flags...)...))
}

// join has n join the cluster of other and waits until n is ready.
func (n *node) join(other *node, token string) {
	n.t.Helper()
	if out, err := n.tryJoin(other, token); err != nil {
		n.t.Fatalf("%v\n%s\n%s\n%s", err, out, n.tail(), other.tail())
	}
	n.cli("status", "--wait", "--timeout", "30s")
}

func (n *node) tryJoin(other *node, token string, flags ...string) (string, error) {
	n.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	args := []string{"-a", "unix://" + filepath.Join(n.dir, "run", "stellar.sock"), "cluster", "join", other.address(), "--token-file", "-"}
	cmd := exec.CommandContext(ctx, binary, append(args, flags...)...)
	cmd.Env = append(cmd.Environ(), raceOptions)
	cmd.Stdin = strings.NewReader(token + "\n")
	var out, problems bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &problems
	if err := cmd.Run(); err != nil {
		return out.String(), fmt.Errorf("join: %w: %s", err, strings.TrimSpace(problems.String()))
	}
	return out.String(), nil
}

// address is the node-to-node port.
func (n *node) address() string { return fmt.Sprintf("192.0.2.%d:9640", n.name[0]-'a'+1) }

// routed waits until n has a route to every other node's subnet.
func (n *node) routed(others ...*node) {
	n.t.Helper()
	for _, o := range others {
		if o == n {
			continue
		}
		via := fmt.Sprintf("172.16.%d.0/22 via 192.0.2.%d", (o.name[0]-'a')*4, o.name[0]-'a'+1)
		n.eventually(quiet, n.name+" has a route to "+o.name, func() error {
			if out := n.host.Run(n.t, "ip", "route"); !strings.Contains(out, via) {
				return fmt.Errorf("no %q in\n%s", via, out)
			}
			return nil
		})
	}
}

// TestThreeNodes: three commands make a cluster in which containers reach each
// other over plain routes.
func TestThreeNodes(t *testing.T) {
	nodes := startCluster(t, 3)
	var eps []endpoint
	for i, n := range nodes {
		n.routed(nodes...)
		id := fmt.Sprintf("c%s-%d", n.name, time.Now().UnixNano())
		e := n.start(id)
		if want := fmt.Sprintf("172.16.%d.2", 4*i); e.Address != want {
			faults.Safety(t, "%s has %s, want %s", id, e.Address, want)
		}
		eps = append(eps, e)
	}
	for i, n := range nodes {
		for j, e := range eps {
			if i != j {
				n.reaches(eps[i].Container, e.Address)
			}
		}
		n.reaches(eps[i].Container, "192.0.2.254")
	}
	for _, n := range nodes {
		if out := n.cli("node", "ls"); strings.Count(out, "ready") != 3 {
			t.Errorf("node ls on %s:\n%s", n.name, out)
		}
		if out := n.cli("route", "ls", "--drift"); strings.Contains(out, "172.16") {
			t.Errorf("drift on %s:\n%s", n.name, out)
		}
	}
	sameState(t, nodes)

	// Kill a node: everything else goes on.
	lost := nodes[0].pinging(eps[0].Container, eps[1].Address)
	_ = nodes[2].stopAgent(syscall.SIGKILL)
	nodes[1].start(fmt.Sprintf("after-%d", time.Now().UnixNano()))
	wantNoLoss(t, "a node's agent killed", lost)
	nodes[2].startAgent()
	nodes[2].cli("status", "--wait", "--timeout", "30s")
	if e := nodes[2].await(eps[2].Container, "attached"); e.Address != eps[2].Address {
		faults.Safety(t, "after its return %+v, was %+v", e, eps[2])
	}
	sameState(t, nodes)
}

// sameState waits until all nodes hold the same state at the same index.
func sameState(t *testing.T, nodes []*node) {
	t.Helper()
	nodes[0].eventually(quiet, "all nodes have the same state", func() error {
		seen, at := map[string]string{}, map[uint64]string{}
		var differ error
		for _, n := range nodes {
			text, err := n.run("raft", "hash", "-o", "json")
			if err != nil {
				return err
			}
			var h struct {
				Hash  string
				Index uint64
			}
			if err := json.Unmarshal([]byte(text), &h); err != nil {
				return err
			}
			if h.Hash == "" || h.Index == 0 {
				return fmt.Errorf("%s", text)
			}
			seen[fmt.Sprintf("%s at %d", h.Hash, h.Index)] = n.name
			if other := at[h.Index]; other != "" && other != h.Hash {
				differ = faults.Violation("two states at index %d", h.Index)
			}
			at[h.Index] = h.Hash
		}
		if len(seen) != 1 {
			return errors.Join(differ, fmt.Errorf("%v", seen))
		}
		return nil
	})
}

// TestJoinRefusals: each is refused with the reason, and changes nothing.
func TestJoinRefusals(t *testing.T) {
	lan := testx.NewLAN(t, 3)
	a, b, c := newNode(t, lan, 0, nodeOptions{}), newNode(t, lan, 1, nodeOptions{}), newNode(t, lan, 2, nodeOptions{})
	a.startAgent("--init")
	a.cli("status", "--wait", "--timeout", "30s")
	b.startAgent()
	c.startAgent("--init")
	c.cli("status", "--wait", "--timeout", "30s")
	refused := func(what, want string, n, at *node, token string) {
		t.Helper()
		own, _ := n.run("node", "ls") // c has a cluster of its own, b none
		a.unchanged(what, func() {
			t.Helper()
			if out, err := n.tryJoin(at, token); err == nil || !strings.Contains(err.Error(), want) {
				t.Errorf("%s: %v %s; want %q", what, err, out, want)
			}
		})
		if now, _ := n.run("node", "ls"); now != own {
			t.Errorf("%s: %s shows\n%s, had\n%s", what, n.name, now, own)
		}
	}
	token := a.token()
	refused("a token of another cluster", "CA is not the one in the token", b, a, c.token())
	refused("a damaged token", "token", b, a, token[:len(token)-3]+"AAA")
	refused("nobody there", "cannot be reached", b, &node{name: "x"}, token)
	refused("a member of another cluster", "already", c, a, token)
	refused("a revoked token", "revoked", b, a, a.revoked())
	var taken net.Listener
	if err := b.host.Do(func() (err error) {
		taken, err = net.Listen("tcp", b.address())
		return err
	}); err != nil {
		t.Fatal(err)
	}
	refused("the port is in use", "address already in use", b, a, token)
	taken.Close()
	b.join(a, token)
	sameState(t, []*node{a, b})
	refused("joined already", "already", b, a, a.token())
	if out := a.cli("node", "ls"); strings.Count(out, "ready") != 2 {
		t.Errorf("node ls:\n%s", out)
	}
}
