package integration

import (
	"strings"
	"syscall"
	"testing"
	"time"

	"stellar.io/stellar/internal/testx"
	"stellar.io/stellar/internal/testx/faults"
)

// TestClusterContactLimit: a node that has heard no leader for too long hands out
// nothing new, also after a restart, and says why. What it has handed out goes on.
func TestClusterContactLimit(t *testing.T) {
	const limit = 15 * time.Second
	nodes := startCluster(t, 3)
	awaitVoters(t, nodes)
	a, b, c := nodes[0], nodes[1], nodes[2]
	if err := c.stopAgent(syscall.SIGTERM); err != nil {
		t.Error(err)
	}
	c.flags = append(c.flags, "--config", writeConfig(t, "[cluster]\ncontact-limit = \""+limit.String()+"\""))
	c.returns()
	before := c.start("before")
	lost := c.pinging("before", "192.0.2.254")

	for _, n := range []*node{a, b} {
		_ = n.stopAgent(syscall.SIGKILL)
	}
	c.runContainer(testx.Run{ID: "in-time", Labels: networked()})
	c.await("in-time", "provisional")
	time.Sleep(limit + 2*time.Second)
	refused := func(id string) {
		t.Helper()
		c.runContainer(testx.Run{ID: id, Labels: networked()})
		c.eventually(quiet, id+" is refused", func() error {
			e := c.endpoints()["default/"+id]
			if e.Address != "" {
				t.Fatal(faults.Violation("attached: %+v", e))
			}
			if !strings.Contains(e.Reason, "no contact with a leader for") {
				return errorText(e.State + ": " + e.Reason)
			}
			return nil
		})
	}
	refused("late")
	if out, err := c.run("status"); err == nil || !strings.Contains(out, "no contact with a leader for") {
		t.Errorf("status: %v\n%s", err, out)
	}
	// A new task of a container that has an address is nothing new.
	wantNoLoss(t, "no leader", lost)
	if err := c.containerd.KillTask("default", "before"); err != nil {
		t.Fatal(err)
	}
	c.await("before", "bound")
	if err := c.containerd.StartTask("default", "before"); err != nil {
		t.Fatal(err)
	}
	c.eventually(quiet, "the task has its network", func() error {
		return keeps(c.endpoints()["default/before"], before)
	})
	c.reaches("before", "192.0.2.254")

	_ = c.stopAgent(syscall.SIGKILL)
	c.startAgent()
	c.eventually(quiet, "it is up again", func() error { _, err := c.list(); return err })
	refused("after-restart")

	for _, n := range []*node{a, b} {
		n.returns()
	}
	for _, id := range []string{"late", "after-restart"} {
		c.awaitLong(id, "attached")
	}
	c.reaches("late", before.Address)
	sameState(t, nodes)
}
