package integration

import (
	"errors"
	"strings"
	"syscall"
	"testing"
	"time"

	"stellar.io/stellar/internal/testx"
	"stellar.io/stellar/internal/testx/faults"
)

// TestRemovedNodeReturns: a node that was removed while it was away finds itself
// fenced. What runs on it keeps its network, nothing new gets one, and the rest of
// the cluster does not speak to it.
func TestRemovedNodeReturns(t *testing.T) {
	nodes := startCluster(t, 3)
	a, c := nodes[0], nodes[2]
	for _, n := range nodes {
		n.routed(nodes...)
	}
	old := c.start("old")
	_ = c.stopAgent(syscall.SIGKILL)
	a.eventually(20*time.Second, "c is removed", func() error {
		_, err := a.run("node", "rm", "-y", "--force", "c")
		return err
	})
	c.startAgent()
	c.eventually(20*time.Second, "c knows that it was removed", func() error {
		out, _ := c.run("status") // its exit code says that it is not well
		if !strings.Contains(out, "membership") || !strings.Contains(out, "removed from the cluster") {
			return errors.New(out)
		}
		return nil
	})
	c.runContainer(testx.Run{ID: "new", Labels: networked()})
	c.eventually(20*time.Second, "the new container is refused", func() error {
		if e := c.endpoints()["default/new"]; !strings.Contains(e.Reason, "removed") || e.Address != "" {
			return errors.New(e.State + ": " + e.Reason)
		}
		return nil
	})
	// Its lease is replicated to nobody any more.
	if e := c.awaitLong("old", "provisional"); e.Address != old.Address {
		faults.Safety(t, "the old endpoint: %+v, was %+v", e, old)
	}
	c.reaches("old", "172.16.8.1")
	if out := a.cli("ipam", "ls"); !strings.Contains(out, "quarantined") {
		t.Errorf("ipam ls:\n%s", out)
	}
}
