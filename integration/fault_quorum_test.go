package integration

import (
	"fmt"
	"strings"
	"syscall"
	"testing"
	"time"

	"stellar.io/stellar/internal/testx"
	"stellar.io/stellar/internal/testx/faults"
)

// longFaults reports whether the fault tests are to run in their long form.
func longFaults() bool { return faults.Long() }

// withoutQuorum is for how long a node stands alone.
func withoutQuorum() time.Duration {
	if longFaults() {
		return 10 * time.Minute
	}
	return 30 * time.Second
}

// keeps returns nil when an endpoint has its address, with a quorum or without.
func keeps(now, was endpoint) error {
	switch {
	case now.Address != was.Address:
		return faults.Violation("%+v, was %+v", now, was)
	case now.State != "attached" && now.State != "provisional":
		return fmt.Errorf("%+v", now)
	}
	return nil
}

// TestFaultWithoutQuorum (real containerd): both peers of a node die, and its own
// agent is killed and started again, so that all it knows is its journal, the kernel
// and what it remembers of its subnet. What runs keeps its address and its packets, a
// task that is started anew gets the same address, new containers get provisional
// ones, the routes to the others stay. When the others are back everything is
// replicated and nothing is held twice.
func TestFaultWithoutQuorum(t *testing.T) {
	nodes := startCluster(t, 3)
	awaitVoters(t, nodes)
	a, b, c := nodes[0], nodes[1], nodes[2]
	for _, n := range nodes {
		n.routed(nodes...)
	}
	eps := map[*node]endpoint{}
	for _, n := range nodes {
		eps[n] = n.start(unique("run-" + n.name))
	}
	again := a.start(unique("again"))
	kept := []endpoint{eps[a], again}
	watchKernels(t, nodes...)
	lost := a.pinging(eps[a].Container, eps[b].Address)
	for _, n := range []*node{b, c, a} {
		_ = n.stopAgent(syscall.SIGKILL)
	}
	gone := time.Now()
	a.startAgent()
	began := time.Now()
	for _, e := range kept {
		a.eventually(quiet, e.Container+" is adopted", func() error {
			es, err := a.list()
			if err != nil {
				return err
			}
			return keeps(es["default/"+e.Container], e)
		})
	}
	t.Logf("served from the journal %s after the start", time.Since(began).Round(10*time.Millisecond))
	a.routed(nodes...)

	if err := a.containerd.KillTask("default", again.Container); err != nil {
		t.Fatal(err)
	}
	a.await(again.Container, "bound")
	if err := a.containerd.StartTask("default", again.Container); err != nil {
		t.Fatal(err)
	}
	seen := map[string]string{eps[a].Address: eps[a].Container, again.Address: again.Container}
	var fresh []endpoint
	for until := began.Add(withoutQuorum()); time.Now().Before(until); time.Sleep(time.Second) {
		if len(fresh) == 100 {
			continue // enough of them: the rest is waiting
		}
		id := unique("alone")
		a.runContainer(testx.Run{ID: id, Labels: networked()})
		e := a.await(id, "provisional")
		if other := seen[e.Address]; other != "" {
			faults.Safety(t, "%s has the address of %s: %+v", id, other, e)
		}
		seen[e.Address] = id
		fresh = append(fresh, e)
	}
	a.eventually(quiet, "the started task has its address again", func() error {
		return keeps(a.endpoints()["default/"+again.Container], again)
	})
	a.reaches(fresh[0].Container, eps[c].Address)
	if out, err := a.run("status"); err != nil && !strings.Contains(out, "leader") {
		t.Errorf("status: %v\n%s", err, out)
	}
	wantNoLoss(t, "no quorum", lost)

	alone := time.Since(gone)
	for _, n := range []*node{b, c} {
		n.startAgent()
	}
	back := time.Now()
	all := append(append(kept, fresh...), eps[b], eps[c])
	for _, n := range nodes {
		n.eventually(time.Minute, n.name+" is ready", func() error { _, err := n.run("status", "--wait", "--timeout", "5s"); return err })
		n.leased(all...)
	}
	replicated := time.Since(back)
	a.checked()
	sameState(t, nodes)
	faults.Report(t, faults.RealContainerd, fmt.Sprintf("containers started during %s without quorum", alone.Round(time.Second)),
		"%d attached, all replicated %s after its return, 0 doubled", len(fresh), replicated.Round(100*time.Millisecond))
}
