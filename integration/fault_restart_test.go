package integration

import (
	"errors"
	"fmt"
	"strings"
	"syscall"
	"testing"
	"time"

	"stellar.io/stellar/internal/testx"
	"stellar.io/stellar/internal/testx/faults"
)

// kept checks that endpoints are what they were.
func (n *node) kept(before []endpoint) {
	n.t.Helper()
	for _, was := range before {
		if e := n.awaitLong(was.Container, "attached"); e.Address != was.Address || e.MAC != was.MAC || e.HostIfname != was.HostIfname {
			faults.Safety(n.t, "%+v, was %+v", e, was)
		}
	}
}

// TestFaultRestarts: agent and containerd are ended, with and without notice, under a
// ping each 10 ms between their containers.
func TestFaultRestarts(t *testing.T) {
	faults.Seed(t, "./integration")
	const rounds = 4
	n := startNode(t, nodeOptions{})
	before := []endpoint{n.start("a"), n.start("b"), n.start("c")}
	watchKernels(t, n)
	agents := n.pinging("a", before[1].Address)
	for i := range rounds {
		if sig := []syscall.Signal{syscall.SIGKILL, syscall.SIGTERM}[i%2]; sig == syscall.SIGKILL {
			_ = n.stopAgent(sig)
		} else if err := n.stopAgent(sig); err != nil {
			t.Errorf("the agent ended with %v", err)
		}
		time.Sleep(500 * time.Millisecond)
		n.returns()
		n.kept(before)
	}
	sent, missing := agents()
	containerds := n.pinging("a", before[1].Address)
	for i := range rounds {
		end := n.containerd.Kill9
		if i%2 == 1 {
			end = n.containerd.Stop
		}
		if err := end(); err != nil {
			t.Fatal(err)
		}
		time.Sleep(500 * time.Millisecond)
		if err := n.containerd.Start(); err != nil {
			t.Fatal(err)
		}
		n.cli("status", "--wait", "--timeout", "60s")
		n.kept(before)
		n.start(unique("new"))
	}
	sent2, missing2 := containerds()
	if missing+missing2 > 0 {
		faults.Safety(t, "%d of %d pings lost with the agent, %d of %d with containerd", missing, sent, missing2, sent2)
	}
	if sent < 100 || sent2 < 100 {
		t.Errorf("%d and %d pings prove nothing", sent, sent2)
	}
	n.cli("ipam", "check")
	faults.Report(t, faults.RealContainerd, "agent restarted, killed and stopped, under a 10 ms ping", "%d times: %d of %d packets lost, 0 addresses changed", rounds, missing, sent)
	faults.Report(t, faults.RealContainerd, "containerd restarted, killed and stopped, under a 10 ms ping", "%d times: %d of %d packets lost, 0 addresses changed", rounds, missing2, sent2)
}

// TestFaultContainerdAway: containerd is away for long. What runs goes on; an exit is
// seen all the same; on its return everything is as it was, and what is new is served.
func TestFaultContainerdAway(t *testing.T) {
	faults.Seed(t, "./integration")
	away := 30 * time.Second
	if faults.Long() {
		away = 5 * time.Minute
	}
	n := startNode(t, nodeOptions{})
	before := []endpoint{n.start("a"), n.start("b")}
	dies := n.start("dies")
	pid, err := n.containerd.TaskPID("default", "dies")
	if err != nil {
		t.Fatal(err)
	}
	watchKernels(t, n)
	lost := n.pinging("a", before[1].Address)
	if err := n.containerd.Kill9(); err != nil {
		t.Fatal(err)
	}
	gone := time.Now()
	if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	n.eventually(10*time.Second, "the link of what has ended is gone", func() error {
		if out := n.host.Run(t, "ip", "-br", "link"); strings.Contains(out, dies.HostIfname) {
			return errors.New(out)
		}
		return nil
	})
	for time.Since(gone) < away {
		for _, was := range before {
			if e := n.endpoints()["default/"+was.Container]; e.State != "attached" || e.Address != was.Address {
				t.Fatal(faults.Violation("without containerd %+v, was %+v", e, was))
			}
		}
		time.Sleep(time.Second)
	}
	if err := n.containerd.Start(); err != nil {
		t.Fatal(err)
	}
	n.cli("status", "--wait", "--timeout", "60s")
	n.kept(before)
	if e := n.awaitLong("dies", "bound"); e.Address != dies.Address {
		faults.Safety(t, "%+v, was %+v", e, dies)
	}
	n.runContainer(testx.Run{ID: "new", Labels: networked()})
	fresh := n.awaitLong("new", "attached")
	sent, missing := lost()
	if missing > 0 || fresh.Address == dies.Address {
		faults.Safety(t, "%d of %d pings lost, the new container has %s", missing, sent, fresh.Address)
	}
	n.cli("ipam", "check")
	faults.Report(t, faults.RealContainerd, fmt.Sprintf("containerd away for %s", away), "%d of %d packets lost, 0 addresses changed", missing, sent)
}
