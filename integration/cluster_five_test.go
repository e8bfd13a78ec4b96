package integration

import (
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"syscall"
	"testing"
	"time"

	"stellar.io/stellar/internal/testx"
	"stellar.io/stellar/internal/testx/faults"
)

// cutFrom drops the node-to-node port's packets from and to other hosts until heal
// is called. What the nodes of one side say to each other passes.
func (n *node) cutFrom(others []*node) (heal func()) {
	n.t.Helper()
	n.host.Run(n.t, "nft", "add table inet cut")
	for hook, side := range map[string]string{"input": "saddr", "output": "daddr"} {
		n.host.Run(n.t, "nft", "add chain inet cut "+hook+" { type filter hook "+hook+" priority 0; policy accept; }")
		for _, o := range others {
			ip, _, _ := strings.Cut(o.address(), ":")
			for _, port := range []string{"sport", "dport"} {
				n.host.Run(n.t, "nft", "add rule inet cut "+hook+" ip "+side+" "+ip+" tcp "+port+" 9640 drop")
			}
		}
	}
	return func() {
		n.t.Helper()
		n.host.Run(n.t, "nft", "delete table inet cut")
	}
}

// commitIndex is that of n, by its own word.
func (n *node) commitIndex() (index uint64) {
	n.t.Helper()
	var s struct{ CommitIndex uint64 }
	if err := json.Unmarshal([]byte(n.cli("raft", "stats", "-o", "json")), &s); err != nil || s.CommitIndex == 0 {
		n.t.Fatalf("commit index %d, %v", s.CommitIndex, err)
	}
	return s.CommitIndex
}

// TestFiveNodes: five voters stand the loss of two, whichever they are, and of a
// partition only the larger side decides.
func TestFiveNodes(t *testing.T) {
	t.Parallel()
	nodes := startCluster(t, 5)
	allVote(t, nodes)
	eps := map[*node]endpoint{}
	for _, n := range nodes {
		n.routed(nodes...)
		eps[n] = n.start(unique("run-" + n.name))
	}
	for _, n := range nodes {
		for _, o := range nodes {
			n.reaches(eps[n].Container, eps[o].Address)
		}
	}
	sameState(t, nodes)

	t.Run("leader killed", func(t *testing.T) {
		leader, others := leaderIn(t, nodes, nodes[0])
		lost := others[0].pinging(eps[others[0]].Container, eps[leader].Address)
		began := time.Now()
		_ = leader.stopAgent(syscall.SIGKILL)
		t.Logf("a lease committed after %s", others[0].committed(began, unique("new")).Round(time.Millisecond))
		wantNoLoss(t, "leader killed", lost)
		leader.returns()
	})
	t.Run("two voters lost", func(t *testing.T) {
		leader, others := leaderIn(t, nodes, nodes[0])
		down := []*node{leader, others[3]}
		lost := others[0].pinging(eps[others[0]].Container, eps[leader].Address)
		for _, n := range down {
			_ = n.stopAgent(syscall.SIGKILL)
		}
		for _, n := range others[:3] {
			n.committed(time.Now(), unique("three-left"))
		}
		for _, n := range others[:3] {
			for _, d := range down {
				n.statusOf(d.name, "lost")
			}
		}
		wantNoLoss(t, "two voters lost", lost)
		for _, n := range down {
			n.returns()
		}
	})
	awaitVoters(t, nodes)
	sameState(t, nodes)

	t.Run("two and three", func(t *testing.T) {
		leader, others := leaderIn(t, nodes, nodes[0])
		small, large := []*node{leader, others[0]}, others[1:]
		lost := small[1].pinging(eps[small[1]].Container, eps[large[0]].Address)
		var heals []func()
		for _, n := range small {
			heals = append(heals, n.cutFrom(large))
		}
		for _, n := range large {
			n.committed(time.Now(), unique("majority"))
		}
		testMinority(t, small)
		for _, heal := range heals {
			heal()
		}
		wantNoLoss(t, "two and three", lost)
	})
	awaitVoters(t, nodes)
	for _, n := range nodes {
		n.committed(time.Now(), unique("healed"))
		if out := n.cli("node", "ls"); strings.Count(out, "ready") != 5 || strings.Contains(out, "draining") {
			t.Errorf("node ls on %s:\n%s", n.name, out)
		}
	}
	for _, n := range nodes { // what the minority began alone is replicated now
		for id, e := range n.endpoints() {
			if e.State == "provisional" {
				n.awaitLong(id, "attached")
			}
		}
	}
	sameState(t, nodes)
}

// testMinority: it attaches from its own subnets, decides nothing, and says so.
func testMinority(t *testing.T, small []*node) {
	t.Helper()
	small[0].eventually(quiet, "the old leader has stepped down", func() error {
		if out := small[0].cli("raft", "stats", "-o", "json"); strings.Contains(out, `"state": "leader"`) {
			return errors.New(out)
		}
		return nil
	})
	var before []uint64
	for _, n := range small {
		before = append(before, n.commitIndex())
	}
	for _, n := range small {
		id := unique("alone")
		n.runContainer(testx.Run{ID: id, Labels: networked()})
		n.eventually(quiet, "a provisional endpoint", func() error {
			if e := n.endpoints()["default/"+id]; e.State != "provisional" {
				return fmt.Errorf("%+v", e)
			}
			return nil
		})
		if out, err := n.run("node", "drain", n.name); err == nil {
			t.Errorf("the minority drained a node: %s", out)
		}
		if out, err := n.run("cluster", "token", "create"); err == nil {
			t.Errorf("the minority made a token: %s", out)
		}
		if out, err := n.run("node", "ls", "--linearizable"); err == nil {
			t.Errorf("the minority is sure of what it knows: %s", out)
		}
	}
	for i, n := range small {
		if now := n.commitIndex(); now != before[i] {
			faults.Safety(t, "%s, of the minority, has committed: %d, was %d", n.name, now, before[i])
		}
	}
}

// returns starts the agent of a node again.
func (n *node) returns() {
	n.t.Helper()
	n.startAgent()
	n.cli("status", "--wait", "--timeout", "30s")
}
