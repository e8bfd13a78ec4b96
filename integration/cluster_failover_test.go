package integration

import (
	"encoding/json"
	"fmt"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"stellar.io/stellar/internal/testx"
	"stellar.io/stellar/internal/testx/faults"
)

// leaderIn returns the node of nodes that leads, as at says, and the others.
func leaderIn(t testing.TB, nodes []*node, at *node) (leader *node, others []*node) {
	t.Helper()
	at.eventually(quiet, "a leader", func() error {
		leader, others = nil, nil
		text, err := at.run("raft", "stats", "-o", "json")
		if err != nil {
			return err
		}
		var s struct {
			Leader string
			Item   struct{ Leader string }
		}
		if err := json.Unmarshal([]byte(text), &s); err != nil {
			return err
		}
		for _, n := range nodes {
			if n.name == s.Leader+s.Item.Leader {
				leader = n
			} else {
				others = append(others, n)
			}
		}
		if leader == nil {
			return fmt.Errorf("%s", text)
		}
		return nil
	})
	return leader, others
}

// awaitVoters waits until all of nodes vote and answer, as at says.
func awaitVoters(t testing.TB, nodes []*node) {
	t.Helper()
	nodes[0].eventually(quiet, "all nodes vote", func() error {
		leader, _ := leaderIn(t, nodes, nodes[0])
		out, err := leader.run("raft", "peers", "-o", "json")
		if err != nil {
			return err
		}
		var list struct {
			Items []struct {
				State string
				Voter bool
			}
		}
		if err := json.Unmarshal([]byte(out), &list); err != nil {
			return err
		}
		voters := 0
		for _, p := range list.Items {
			if p.Voter && (p.State == "leader" || p.State == "follower") {
				voters++
			}
		}
		if voters != len(nodes) {
			return fmt.Errorf("%s", out)
		}
		return nil
	})
}

// allVote waits until three of nodes vote, as they come to by themselves, and promotes
// the others: whichever three it was, for all joined within moments.
func allVote(t testing.TB, nodes []*node) {
	t.Helper()
	awaitVoters(t, nodes[:min(3, len(nodes))])
	if len(nodes) > 3 {
		for _, n := range nodes {
			nodes[0].cli("raft", "promote", n.name)
		}
	}
	awaitVoters(t, nodes)
}

var lastUnique atomic.Int64

// unique is a container's name that no other has.
func unique(prefix string) string {
	return fmt.Sprintf("%s-%d-%d", prefix, lastUnique.Add(1), time.Now().UnixNano()%1e6)
}

// committed starts a container and returns how long it was from since until its
// lease was replicated. Making the container counts.
func (n *node) committed(since time.Time, id string) time.Duration {
	n.t.Helper()
	n.runContainer(testx.Run{ID: id, Labels: networked()})
	n.replicated(id)
	return time.Since(since)
}

// replicated waits until the container is attached and its lease replicated, and
// returns its address.
func (n *node) replicated(id string) (address string) {
	n.t.Helper()
	n.eventually(quiet, "the lease of "+id+" is replicated", func() error {
		text, err := n.run("endpoint", "inspect", id, "-o", "json")
		if err != nil {
			return err
		}
		var e struct {
			State, Address string
			Provisional    bool
		}
		if err := json.Unmarshal([]byte(text), &e); err != nil {
			return err
		}
		// The list may say provisional for longer: it is brought up to date with
		// the next look at the container.
		if e.State != "attached" && e.State != "provisional" || e.Provisional {
			return fmt.Errorf("%s", text)
		}
		address = e.Address
		return nil
	})
	return address
}

// TestClusterLeaderKilled: other nodes commit leases again soon, and nothing
// happens to what runs.
func TestClusterLeaderKilled(t *testing.T) {
	nodes := startCluster(t, 3)
	awaitVoters(t, nodes)
	eps := map[*node]endpoint{}
	for _, n := range nodes {
		n.routed(nodes...)
		eps[n] = n.start(unique("run-" + n.name))
	}
	const kills, limit = 4, 3 * time.Second
	var worst time.Duration
	for range kills {
		leader, others := leaderIn(t, nodes, nodes[0])
		lost := others[0].pinging(eps[others[0]].Container, eps[others[1]].Address)
		began := time.Now()
		_ = leader.stopAgent(syscall.SIGKILL)
		took := others[0].committed(began, unique("new"))
		t.Logf("leader %s killed: a lease of %s committed after %s", leader.name, others[0].name, took.Round(time.Millisecond))
		worst = max(worst, took)
		wantNoLoss(t, "leader killed", lost)
		leader.startAgent()
		leader.cli("status", "--wait", "--timeout", "30s")
		if e := leader.await(eps[leader].Container, "attached"); e.Address != eps[leader].Address {
			faults.Safety(t, "after its return %+v, was %+v", e, eps[leader])
		}
		awaitVoters(t, nodes)
	}
	t.Logf("worst of %d kills: %s", kills, worst.Round(time.Millisecond))
	if worst > limit {
		t.Errorf("worst of %d kills: %s, want at most %s", kills, worst, limit)
	}
	sameState(t, nodes)
}

// TestClusterAnyNodeAnswers: commands go to whoever can carry them out.
func TestClusterAnyNodeAnswers(t *testing.T) {
	t.Parallel()
	nodes := startCluster(t, 3)
	awaitVoters(t, nodes)
	leader, others := leaderIn(t, nodes, nodes[0])
	follower := others[0]

	var peers, stats string
	for _, n := range nodes {
		peers, stats = n.cli("raft", "peers"), n.cli("raft", "stats", "-o", "json")
		if strings.Count(peers, "follower")+strings.Count(peers, "leader") < 1 {
			t.Errorf("raft peers on %s:\n%s", n.name, peers)
		}
		if out := n.cli("node", "ls"); strings.Count(out, "ready") != 3 {
			t.Errorf("node ls on %s:\n%s", n.name, out)
		}
		block := fmt.Sprintf("172.30.%d.", 4*(n.name[0]-'a'))
		n.cli("ipam", "reserve", block+"0/22", "--reason", "asked of "+n.name)
		for _, other := range nodes { // at once, whoever is asked
			if out := other.cli("ipam", "show", "--linearizable", block+"1"); !strings.Contains(out, "asked of "+n.name) {
				t.Errorf("ipam show --linearizable on %s, after it was reserved on %s:\n%s", other.name, n.name, out)
			}
			if out := other.cli("ipam", "ls", "--linearizable"); strings.Count(out, "held") != 3 {
				t.Errorf("ipam ls --linearizable on %s:\n%s", other.name, out)
			}
		}
	}
	t.Logf("raft peers:\n%s\nraft stats:\n%s", peers, stats)

	// A follower's token is as good as the leader's.
	token := follower.token()
	if out := leader.cli("cluster", "token", "ls"); !strings.Contains(out, "valid") {
		t.Errorf("token ls:\n%s\n%s", out, token[:4])
	}

	for _, to := range others {
		follower.cli("raft", "transfer-leader", to.name)
		now, _ := leaderIn(t, nodes, leader)
		if now != to {
			t.Errorf("%s leads, want %s", now.name, to.name)
		}
		for _, n := range nodes {
			n.start(unique("led-by-" + to.name))
		}
	}
	sameState(t, nodes)
}
