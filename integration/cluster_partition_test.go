package integration

import (
	"errors"
	"syscall"
	"testing"
	"time"

	"stellar.io/stellar/internal/testx"
)

// cut drops the node-to-node port's packets in the host's hooks until heal is called.
func (n *node) cut(hooks ...string) (heal func()) {
	n.t.Helper()
	n.host.Run(n.t, "nft", "add table inet cut")
	for _, h := range hooks {
		n.host.Run(n.t, "nft", "add chain inet cut "+h+" { type filter hook "+h+" priority 0; policy accept; }")
		for _, port := range []string{"sport", "dport"} {
			n.host.Run(n.t, "nft", "add rule inet cut "+h+" tcp "+port+" 9640 drop")
		}
	}
	return func() {
		n.t.Helper()
		n.host.Run(n.t, "nft", "delete table inet cut")
	}
}

// TestClusterPartition: the majority goes on, containers on both sides keep their
// packets, and after the healing all have the same state.
func TestClusterPartition(t *testing.T) {
	nodes := startCluster(t, 3)
	awaitVoters(t, nodes)
	eps := map[*node]endpoint{}
	for _, n := range nodes {
		n.routed(nodes...)
		eps[n] = n.start(unique("run-" + n.name))
	}
	for _, tt := range []struct {
		name  string
		hooks []string
	}{
		{"both ways", []string{"input", "output"}},
		{"nothing comes in", []string{"input"}},
		{"nothing goes out", []string{"output"}},
	} {
		leader, others := leaderIn(t, nodes, nodes[0])
		lost := others[0].pinging(eps[others[0]].Container, eps[leader].Address)
		began := time.Now()
		heal := leader.cut(tt.hooks...)
		took := others[0].committed(began, unique("majority"))
		t.Logf("%s: %s cut off, a lease of %s committed after %s", tt.name, leader.name, others[0].name, took.Round(time.Millisecond))
		if took > 4*time.Second { // not when the patience with a leader that never answers has ended
			t.Errorf("%s: a lease committed after %s", tt.name, took)
		}

		// Who is alone attaches from its own subnet, and says that it is alone.
		id := unique("alone")
		leader.runContainer(testx.Run{ID: id, Labels: networked()})
		leader.eventually(quiet, "a provisional endpoint", func() error {
			if s := leader.endpoints()["default/"+id].State; s != "provisional" {
				return errors.New(s)
			}
			return nil
		})
		leader.reaches(id, eps[others[1]].Address)
		heal()
		wantNoLoss(t, tt.name, lost)
		sameState(t, nodes)
		awaitVoters(t, nodes)
	}
}

// TestClusterRollingRestart: a restart of one node after the other under load
// loses no packet, no address and no lease.
func TestClusterRollingRestart(t *testing.T) {
	nodes := startCluster(t, 3)
	awaitVoters(t, nodes)
	var eps []endpoint
	for _, n := range nodes {
		n.routed(nodes...)
		eps = append(eps, n.start(unique("run-"+n.name)))
	}
	lost := []func() (int, int){
		nodes[0].pinging(eps[0].Container, eps[1].Address),
		nodes[1].pinging(eps[1].Container, eps[2].Address),
		nodes[2].pinging(eps[2].Container, eps[0].Address),
	}
	load := map[string]*node{}
	for i, n := range nodes {
		if err := n.stopAgent(syscall.SIGTERM); err != nil {
			t.Errorf("%s: %v", n.name, err)
		}
		for _, other := range nodes { // also where no agent runs
			id := unique("load")
			load[id] = other
			other.runContainer(testx.Run{ID: id, Labels: networked()})
		}
		n.startAgent()
		n.cli("status", "--wait", "--timeout", "30s")
		if e := n.await(eps[i].Container, "attached"); e.Address != eps[i].Address {
			t.Errorf("after the restart %+v, was %+v", e, eps[i])
		}
		awaitVoters(t, nodes)
	}
	for _, f := range lost {
		wantNoLoss(t, "rolling restart", f)
	}
	seen := map[string]string{}
	for id, n := range load {
		address := n.replicated(id)
		if other, twice := seen[address]; twice {
			t.Errorf("%s and %s both have %s", id, other, address)
		}
		seen[address] = id
	}
	sameState(t, nodes)
}
