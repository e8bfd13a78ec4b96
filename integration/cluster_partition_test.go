package integration

import (
	"errors"
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
