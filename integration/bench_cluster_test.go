package integration

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	"stellar.io/stellar/internal/testx"
)

const (
	clusterRuns = 60 // ctr run on each node
	clusterIdle = 30 * time.Second
	nearAlone   = 1.5 // ms that an attach in a cluster may take longer than on one node
)

// benchCluster measures three nodes on real containerd, beside one that is alone.
func benchCluster(b *testing.B, t *table) {
	file := filepath.Join(scratch(b), "agent.toml")
	if err := os.WriteFile(file, []byte("cool-down = \"2s\"\n"), 0o600); err != nil {
		b.Fatal(err)
	}
	lan := testx.NewLAN(b, 4)
	var nodes []*node
	for i := range lan.Hosts {
		nodes = append(nodes, newNode(b, lan, i, nodeOptions{flags: []string{"--config", file, "--debug"}}))
	}
	trio, alone := nodes[:3], nodes[3]
	for _, n := range []*node{trio[0], alone} {
		n.startAgent("--init")
		n.cli("status", "--wait", "--timeout", "30s")
	}
	var typed time.Time
	for _, n := range trio[1:] {
		n.startAgent()
		typed = time.Now()
		n.join(trio[0], trio[0].token())
	}
	for _, n := range trio {
		n.routed(trio...)
	}
	trio[0].voters(3)
	t.value("third node joins → all three vote", "s", 1, time.Since(typed).Seconds(), bar{})
	benchLeases(b, t, trio, alone)
	benchAttaches(b, t, trio, alone)
	benchIdleCluster(b, t, trio)
	benchFailover(b, t, trio)
}

// Where something was measured.
const (
	onLeader = iota
	onFollower
	onAlone
	places
)

// inTurns calls fn for each node again and again, with where that is. What fn returns
// is collected by place, after some turns to warm up.
func inTurns(b *testing.B, what string, trio []*node, alone *node, fn func(n *node, id string) time.Duration) (out [places]samples) {
	b.Helper()
	leader, followers := leaderIn(b, trio, trio[0])
	runs := scaled(clusterRuns)
	p := newProgress(what+" on four nodes", runs)
	for i := range benchWarm/5 + runs {
		for _, n := range append([]*node{leader, alone}, followers...) {
			where := map[*node]int{leader: onLeader, followers[0]: onFollower, followers[1]: onFollower, alone: onAlone}[n]
			took := fn(n, fmt.Sprintf("%s%d", what, i))
			if i >= benchWarm/5 {
				out[where].add(took)
			}
		}
		p.done(i)
	}
	return out
}

// benchLeases measures the leases of containers that are made and not started: on few
// processors the start of one takes them from its own lease.
func benchLeases(b *testing.B, t *table, trio []*node, alone *node) {
	logs := map[*node]*logTail{alone: {path: alone.log}}
	for _, n := range trio {
		logs[n] = &logTail{path: n.log}
	}
	bound := inTurns(b, "lease", trio, alone, func(n *node, id string) (took time.Duration) {
		if err := n.containerd.Create(testx.Run{ID: id, Labels: networked()}); err != nil {
			b.Fatal(err)
		}
		n.eventually(quiet, id+" is bound", func() error {
			var ok bool
			err := logs[n].read()
			if took, ok = logs[n].bound[id]; !ok && err == nil {
				err = errors.New("the log has no such line")
			}
			return err
		})
		if _, err := n.containerd.Ctr("-n", "default", "containers", "rm", id); err != nil {
			b.Fatal(err)
		}
		return took
	})
	t.spread("lease, journal and commit, on the leader of three", "ms", bound[onLeader], bar{p50: 2})
	t.spread("  on the followers", "ms", bound[onFollower], bar{p50: 2})
	t.spread("  on one node alone", "ms", bound[onAlone], bar{})
}

// benchAttaches measures attaches of containers that are run.
func benchAttaches(b *testing.B, t *table, trio []*node, alone *node) {
	logs := map[*node]*logTail{alone: {path: alone.log}}
	for _, n := range trio {
		logs[n] = &logTail{path: n.log}
	}
	attached := inTurns(b, "run", trio, alone, func(n *node, id string) time.Duration {
		n.runContainer(testx.Run{ID: id, Labels: networked()})
		told := logs[n].attached(b, n, "default/"+id)
		n.mustBeLeased(id)
		if err := n.remove(id); err != nil {
			b.Fatal(err)
		}
		return told.duration("total")
	})
	t.spread("/tasks/create → endpoint up, on one node alone", "ms", attached[onAlone], bar{})
	for i, where := range []string{onLeader: "the leader of three", onFollower: "the followers"} {
		t.spread("  on "+where, "ms", attached[i], bar{})
		t.value("  more than alone, at the median", "ms", len(attached[i]), attached[i].quantile(0.5)-attached[onAlone].quantile(0.5), bar{p50: nearAlone})
	}
}

// benchIdleCluster measures what a cluster costs that has nothing to do.
func benchIdleCluster(b *testing.B, t *table, trio []*node) {
	leader, others := leaderIn(b, trio, trio[0])
	rest := time.Duration(scaled(int(clusterIdle/time.Second))) * time.Second
	before := map[*node]time.Duration{}
	for _, n := range trio {
		before[n] = cpuTime(b, n.agent.Process.Pid)
	}
	took := pause("idle", rest)
	share := func(n *node) float64 {
		return 100 * (cpuTime(b, n.agent.Process.Pid) - before[n]).Seconds() / took.Seconds()
	}
	t.value(fmt.Sprintf("processor time of an idle leader of three, %s, of one core", rest), "%", 1, share(leader), bar{})
	t.value("  of its followers", "%", len(others), (share(others[0])+share(others[1]))/2, bar{})
}
