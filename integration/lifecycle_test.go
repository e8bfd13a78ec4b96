package integration

import (
	"fmt"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"stellar.io/stellar/internal/testx"
	"stellar.io/stellar/internal/testx/faults"
)

func TestTaskRestartKeepsAddress(t *testing.T) {
	n := startNode(t, nodeOptions{})
	first := n.start("a")
	n.start("b")
	for range 5 {
		if err := n.containerd.KillTask("default", "a"); err != nil {
			t.Fatal(err)
		}
		if e := n.await("a", "bound"); e.Address != first.Address {
			faults.Safety(t, "without a task: %s, want %s", e.Address, first.Address)
		}
		if err := n.containerd.StartTask("default", "a"); err != nil {
			t.Fatal(err)
		}
		if e := n.await("a", "attached"); e.Address != first.Address || e.MAC != first.MAC {
			faults.Safety(t, "after restart: %+v, was %+v", e, first)
		}
		n.reaches("b", first.Address)
	}
}

func TestAgentKilled(t *testing.T) {
	n := startNode(t, nodeOptions{})
	a, b := n.start("a"), n.start("b")
	lost := n.pinging("a", b.Address)
	for range 3 {
		_ = n.stopAgent(syscall.SIGKILL)
		time.Sleep(200 * time.Millisecond)
		n.startAgent()
		n.cli("status", "--wait", "--timeout", "30s")
		for id, before := range map[string]endpoint{"a": a, "b": b} {
			after := n.await(id, "attached")
			if after.Address != before.Address || after.HostIfname != before.HostIfname {
				faults.Safety(t, "%s is %+v, was %+v", id, after, before)
			}
			if after.Ready != "adopted" {
				t.Errorf("%s is %+v, not adopted", id, after)
			}
		}
	}
	wantNoLoss(t, "agent killed three times", lost)
	// What happened while it was away is made up for.
	_ = n.stopAgent(syscall.SIGKILL)
	n.runContainer(testx.Run{ID: "c", Labels: networked()})
	if err := n.containerd.Remove("default", "a"); err != nil {
		t.Fatal(err)
	}
	n.startAgent()
	c := n.await("c", "attached")
	if c.Ready != "late" {
		t.Errorf("grade %q of a container that ran before the agent, want late", c.Ready)
	}
	if c.Address == a.Address || c.Address == b.Address {
		faults.Safety(t, "%s was given again", c.Address)
	}
	n.await("a", "")
	n.reaches("b", c.Address)
}

func TestAgentStopsCleanly(t *testing.T) {
	n := startNode(t, nodeOptions{})
	_, b := n.start("a"), n.start("b")
	lost := n.pinging("a", b.Address)
	start := time.Now()
	if err := n.stopAgent(syscall.SIGTERM); err != nil {
		t.Errorf("agent ended with %v", err)
	}
	if took := time.Since(start); took > 5*time.Second {
		t.Errorf("took %s to end", took)
	}
	time.Sleep(2 * time.Second)
	wantNoLoss(t, "agent stopped", lost)
	n.reaches("a", "192.0.2.254")
}

func TestContainerdKilled(t *testing.T) {
	n := startNode(t, nodeOptions{})
	a, b := n.start("a"), n.start("b")
	lost := n.pinging("a", b.Address)
	if err := n.containerd.Kill9(); err != nil {
		t.Fatal(err)
	}
	n.eventually(10*time.Second, "status tells", func() error {
		out, _ := n.run("status")
		if !strings.Contains(out, "WARN") || !strings.Contains(out, "containerd") {
			return fmt.Errorf("%s", out)
		}
		return nil
	})
	// An exit that containerd never reports is seen all the same.
	c := n.endpoints()["default/a"]
	if c.State != "attached" {
		t.Errorf("a is %+v while containerd is away", c)
	}
	if err := n.containerd.Start(); err != nil {
		t.Fatal(err)
	}
	n.cli("status", "--wait", "--timeout", "30s")
	wantNoLoss(t, "containerd killed", lost)
	for id, before := range map[string]endpoint{"a": a, "b": b} {
		if after := n.await(id, "attached"); after.Address != before.Address || after.HostIfname != before.HostIfname {
			faults.Safety(t, "%s is %+v, was %+v", id, after, before)
		}
	}
	n.start("d")
}

func TestExitMissedByContainerd(t *testing.T) {
	n := startNode(t, nodeOptions{})
	a := n.start("a")
	b := n.start("b")
	pid, err := n.containerd.TaskPID("default", "a")
	if err != nil {
		t.Fatal(err)
	}
	if err := n.containerd.Kill9(); err != nil {
		t.Fatal(err)
	}
	if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	n.eventually(2*time.Second, "the link of the dead container is gone", func() error {
		if out := n.host.Run(t, "ip", "-br", "link"); strings.Contains(out, a.HostIfname) {
			return fmt.Errorf("%s", out)
		}
		return nil
	})
	if err := n.containerd.Start(); err != nil {
		t.Fatal(err)
	}
	if e := n.await("a", "bound"); e.Address != a.Address {
		t.Errorf("address %s, want %s", e.Address, a.Address)
	}
	if e := n.await("b", "attached"); e.Address != b.Address {
		t.Errorf("address %s, want %s", e.Address, b.Address)
	}
}

// TestExecsCauseNothing: an exec's exit is not the container's.
func TestExecsCauseNothing(t *testing.T) {
	n := startNode(t, nodeOptions{})
	before := n.start("a")
	b := n.start("b")
	lost := n.pinging("b", before.Address)
	history := n.cli("events", "-o", "json")
	const total, atOnce = 1000, 8
	var wg sync.WaitGroup
	for w := range atOnce {
		wg.Go(func() {
			for range total / atOnce {
				if out, err := n.exec("a", "true"); err != nil {
					t.Errorf("exec by %d: %v: %s", w, err, out)
					return
				}
			}
		})
	}
	wg.Wait()
	wantNoLoss(t, "1,000 execs", lost)
	if after := n.cli("events", "-o", "json"); after != history {
		t.Errorf("execs caused events:\n%s\nbefore:\n%s", after, history)
	}
	if after := n.await("a", "attached"); after != before {
		faults.Safety(t, "endpoint %+v, was %+v", after, before)
	}
	_ = b
}

func TestLabelChangesOnRunningContainer(t *testing.T) {
	n := startNode(t, nodeOptions{})
	n.runContainer(testx.Run{ID: "a"})
	b := n.start("b")
	label := func(pairs ...string) {
		t.Helper()
		if out, err := n.containerd.Ctr(append([]string{"containers", "label", "a"}, pairs...)...); err != nil {
			t.Fatalf("%v: %s", err, out)
		}
	}
	label("stellar.io/network=true")
	if e := n.await("a", "attached"); e.Ready != "late" {
		t.Errorf("grade %q, want late", e.Ready)
	}
	n.reaches("a", b.Address)
	label("unrelated=1")
	n.reaches("a", b.Address)
	label("stellar.io/network=")
	n.await("a", "")
	if out, err := n.exec("a", "ip", "link", "show", "eth0"); err == nil {
		t.Errorf("the interface is still there: %s", out)
	}
}

// TestRecordDeletedWhileTaskRuns: a record can go before its task; the address
// stays with who speaks with it.
func TestRecordDeletedWhileTaskRuns(t *testing.T) {
	n := startNode(t, nodeOptions{})
	a, b := n.start("a"), n.start("b")
	pid, err := n.containerd.TaskPID("default", "a")
	if err != nil {
		t.Fatal(err)
	}
	lost := n.pinging("b", a.Address)
	n.deleteRecord("default", "a")
	n.eventually(quiet, "the reason is shown", func() error {
		if e := n.endpoints()["default/a"]; e.State != "attached" || !strings.Contains(e.Reason, "deleted") {
			return fmt.Errorf("%+v", e)
		}
		return nil
	})
	if c := n.start("c"); c.Address == a.Address {
		faults.Safety(t, "%s was given to another", c.Address)
	}
	wantNoLoss(t, "record deleted", lost)
	if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	n.await("a", "")
	if out := n.cli("ipam", "show", a.Address); !strings.Contains(out, "cooling") {
		t.Errorf("after the task's end:\n%s", out)
	}
	_ = b
}
