package integration

import (
	"context"
	"fmt"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"stellar.io/stellar/internal/testx"
	"stellar.io/stellar/internal/testx/faults"
)

// underLoad starts containers on every node, one after the other, until stop is called,
// which returns them with the nodes that they run on.
func underLoad(t *testing.T, nodes []*node) (stop func() map[string]*node) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	var tasks sync.WaitGroup
	var mu sync.Mutex
	started := map[string]*node{}
	for _, n := range nodes {
		tasks.Go(func() {
			for i := 0; ctx.Err() == nil; i++ {
				id := fmt.Sprintf("load-%s-%d", n.name, i)
				if err := n.containerd.Run(testx.Run{ID: id, Labels: networked()}); err != nil {
					t.Errorf("%s: %v", id, err)
					return
				}
				mu.Lock()
				started[id] = n
				mu.Unlock()
				select {
				case <-ctx.Done():
				case <-time.After(500 * time.Millisecond):
				}
			}
		})
	}
	return func() map[string]*node {
		cancel()
		tasks.Wait()
		return started
	}
}

// TestClusterRollingUpgrade: one node after the other is restarted onto a new build
// while containers are made on all of them. No packet, address or lease is lost.
func TestClusterRollingUpgrade(t *testing.T) {
	const version = "v9.9.9-next"
	next := filepath.Join(t.TempDir(), "stellar-next")
	if err := buildBinary(next, "-ldflags", "-X main.version="+version); err != nil {
		t.Fatal(err)
	}
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
	stop := underLoad(t, nodes)
	for i, n := range nodes {
		if err := n.stopAgent(syscall.SIGTERM); err != nil {
			t.Errorf("%s: %v", n.name, err)
		}
		n.build = next
		n.startAgent()
		n.cli("status", "--wait", "--timeout", "30s")
		if e := n.await(eps[i].Container, "attached"); e.Address != eps[i].Address {
			faults.Safety(t, "after the restart %+v, was %+v", e, eps[i])
		}
		awaitVoters(t, nodes)
		if out := nodes[0].cli("node", "ls", "--linearizable"); strings.Count(out, version) != i+1 {
			t.Errorf("node ls after %s was upgraded:\n%s", n.name, out)
		}
	}
	started := stop()
	for _, f := range lost {
		wantNoLoss(t, "rolling upgrade", f)
	}
	seen := map[string]string{}
	for id, n := range started {
		address := n.replicated(id)
		if other, twice := seen[address]; twice {
			faults.Safety(t, "%s and %s both have %s", id, other, address)
		}
		seen[address] = id
	}
	for i, n := range nodes {
		if e := n.await(eps[i].Container, "attached"); e.Address != eps[i].Address {
			faults.Safety(t, "at the end %+v, was %+v", e, eps[i])
		}
	}
	t.Logf("%d containers were started meanwhile, each has its lease", len(started))
	if len(started) < 10 {
		t.Errorf("%d containers are no load", len(started))
	}
	sameState(t, nodes)
}
