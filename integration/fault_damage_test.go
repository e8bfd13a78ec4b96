package integration

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"stellar.io/stellar/internal/testx/faults"
)

// spoil flips a bit in every place of a file of the data directory that has the text.
func (n *node) spoil(name, text string) {
	n.t.Helper()
	path := filepath.Join(n.dir, "data", name)
	data, err := os.ReadFile(path)
	if err != nil {
		n.t.Fatal(err)
	}
	found := false
	for at := range data {
		if bytes.HasPrefix(data[at:], []byte(text)) {
			data[at] ^= 1
			found = true
		}
	}
	if !found {
		n.t.Fatalf("%s has no %q", name, text)
	}
	if err := os.WriteFile(path, data, 0o600); err != nil {
		n.t.Fatal(err)
	}
}

// TestFaultDamagedStore: a node whose store is damaged takes no part in anything, says
// how it can come back, keeps its containers' networks, and comes back as another
// incarnation with its subnet and all that runs. A damaged journal costs no more than
// a restart.
func TestFaultDamagedStore(t *testing.T) {
	nodes := startCluster(t, 3)
	awaitVoters(t, nodes)
	a, c := nodes[0], nodes[2]
	c.mayLog = "level=ERROR"
	e, other := c.start(unique("kept")), a.start(unique("other"))
	a.eventually(quiet, "they reach each other", func() error {
		_, err := a.exec(other.Container, "ping", "-c", "1", "-w", "1", e.Address)
		return err
	})
	c.eventually(quiet, "it knows the other nodes", func() error {
		data, err := os.ReadFile(filepath.Join(c.dir, "data", "peers.json"))
		if err == nil && !strings.Contains(string(data), a.address()) {
			err = errors.New(string(data))
		}
		return err
	})
	watchKernels(t, nodes...)
	lost := a.pinging(other.Container, e.Address)

	_ = c.stopAgent(syscall.SIGKILL)
	c.spoil("raft/raft.db", "default") // the network of each command
	c.startAgent()
	if why := c.reason("store"); !strings.Contains(why, "stellar cluster join 192.0.2.") || !strings.Contains(why, "--replace c") {
		t.Errorf("status: %s", why)
	}
	if out, err := c.run("cluster", "init"); err == nil {
		t.Errorf("cluster init made a cluster beside the damaged one: %s", out)
	}
	if out, err := c.tryJoin(a, a.token()); err == nil || !strings.Contains(err.Error(), "--replace c") {
		t.Errorf("join without --replace: %v %s", err, out)
	}
	moved, err := filepath.Glob(filepath.Join(c.dir, "data", "raft.damaged-*", "raft.db"))
	if err != nil || len(moved) != 1 {
		t.Errorf("set aside: %v, %v", moved, err)
	}
	if out, err := c.tryJoin(a, a.token(), "--replace", "c"); err != nil {
		t.Fatalf("%v\n%s\n%s", err, out, c.tail())
	}
	c.cli("status", "--wait", "--timeout", "60s")
	if now := c.await(e.Container, "attached"); now.Address != e.Address || now.MAC != e.MAC || now.HostIfname != e.HostIfname {
		faults.Safety(t, "after the return %+v, was %+v", now, e)
	}
	second := c.start(unique("second"))
	if second.Address == e.Address {
		faults.Safety(t, "%s twice", e.Address)
	}
	awaitVoters(t, nodes)

	_ = c.stopAgent(syscall.SIGKILL)
	c.spoil("journal", "STLRJRNL")
	c.startAgent()
	c.cli("status", "--wait", "--timeout", "60s")
	for _, was := range []endpoint{e, second} {
		if now := c.await(was.Container, "attached"); now.Address != was.Address {
			faults.Safety(t, "after the journal's loss %+v, was %+v", now, was)
		}
	}
	third := c.start(unique("third"))
	if third.Address == e.Address || third.Address == second.Address {
		faults.Safety(t, "%s twice", third.Address)
	}
	a.eventually(quiet, "they still reach each other", func() error {
		_, err := a.exec(other.Container, "ping", "-c", "1", "-w", "1", third.Address)
		return err
	})
	sameState(t, nodes)
	sent, missing := lost()
	if missing > 0 {
		faults.Safety(t, "%d of %d pings lost", missing, sent)
	}
	if sent < 50 {
		t.Errorf("%d pings prove nothing", sent)
	}
	faults.Report(t, faults.Both, "damaged store, damaged journal of one of 3 nodes", "rejoined with its subnet: %s", fmt.Sprintf("%d of %d pings lost", missing, sent))
}
