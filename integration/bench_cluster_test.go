package integration

import (
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
	benchIdleCluster(b, t, trio)
	benchThroughput(b, t, trio)
	benchFailover(b, t, trio)
}

// benchLeases measures leases and attaches on the leader, on the followers and on the
// node that is alone, in turns.
func benchLeases(b *testing.B, t *table, trio []*node, alone *node) {
	leader, followers := leaderIn(b, trio, trio[0])
	logs := map[*node]*logTail{}
	var bound, attached [3]samples // leader, followers, alone
	runs := scaled(clusterRuns)
	p := newProgress("ctr run on four nodes", runs)
	for i := range benchWarm/5 + runs {
		for _, n := range append([]*node{leader, alone}, followers...) {
			where := map[*node]int{leader: 0, followers[0]: 1, followers[1]: 1, alone: 2}[n]
			if logs[n] == nil {
				logs[n] = &logTail{path: n.log}
			}
			id := fmt.Sprintf("lease%d", i)
			n.runContainer(testx.Run{ID: id, Labels: networked()})
			told := logs[n].attached(b, n, "default/"+id)
			n.mustBeLeased(id)
			took, ok := logs[n].bound[id]
			if err := n.remove(id); err != nil || !ok {
				b.Fatalf("%s on %s, bound: %t, %v", id, n.name, ok, err)
			}
			if i >= benchWarm/5 {
				bound[where].add(took)
				attached[where].add(told.duration("total"))
			}
		}
		p.done(i)
	}
	t.spread("lease, journal and commit, on the leader of three", "ms", bound[0], bar{p50: 2})
	t.spread("  on the followers", "ms", bound[1], bar{p50: 2})
	t.spread("  on one node alone", "ms", bound[2], bar{})
	t.spread("/tasks/create → endpoint up, on one node alone", "ms", attached[2], bar{})
	for i, where := range []string{"the leader of three", "the followers"} {
		t.spread("  on "+where, "ms", attached[i], bar{})
		t.value("  more than alone, at the median", "ms", len(attached[i]), attached[i].quantile(0.5)-attached[2].quantile(0.5), bar{p50: nearAlone})
	}
}

// benchIdleCluster measures what a cluster costs that has nothing to do.
func benchIdleCluster(b *testing.B, t *table, trio []*node) {
	leader, others := leaderIn(b, trio, trio[0])
	pause := time.Duration(scaled(int(clusterIdle/time.Second))) * time.Second
	before := map[*node]time.Duration{}
	for _, n := range trio {
		before[n] = cpuTime(b, n.agent.Process.Pid)
	}
	began := time.Now()
	p := newProgress("idle, seconds", int(pause/time.Second))
	for time.Since(began) < pause {
		time.Sleep(min(time.Second, pause-time.Since(began)))
		p.done(int(time.Since(began) / time.Second))
	}
	took := time.Since(began)
	share := func(n *node) float64 {
		return 100 * (cpuTime(b, n.agent.Process.Pid) - before[n]).Seconds() / took.Seconds()
	}
	t.value(fmt.Sprintf("processor time of an idle leader of three, %s, of one core", pause), "%", 1, share(leader), bar{})
	t.value("  of its followers", "%", len(others), (share(others[0])+share(others[1]))/2, bar{})
}
