package integration

import (
	"context"
	"fmt"
	"net/netip"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"stellar.io/stellar/api"
	"stellar.io/stellar/api/client"
	"stellar.io/stellar/internal/testx"
	"stellar.io/stellar/internal/testx/faults"
)

// pod is a namespace of a CNI client.
type pod struct {
	on      *node
	id      string
	ns      *testx.NetNS
	address string
}

// startPods attaches count namespaces on n, some at once, and has them watched.
func (n *node) startPods(t *testing.T, k *kernels, prefix string, count int) []pod {
	t.Helper()
	c := n.client()
	pods := make([]pod, count)
	for i := range pods {
		pods[i] = pod{on: n, id: fmt.Sprintf("%s-%s-%d", prefix, n.name, i), ns: testx.NewNetNS(t)}
		k.add(t, pods[i].ns)
	}
	inParallel(len(pods), 16, func(i int) {
		got, err := c.AddAttachment(context.Background(), api.AttachmentSpec{Attachment: api.Attachment{
			Network: "stellar", ContainerID: pods[i].id, Ifname: "eth0", NetNS: "/run/netns/" + pods[i].ns.Name,
		}})
		if err != nil {
			t.Errorf("ADD %s: %v", pods[i].id, err)
			return
		}
		pods[i].address = got.Address.Addr().String()
	})
	if t.Failed() {
		t.FailNow()
	}
	return pods
}

// inParallel calls f for 0 to count-1, so many at once.
func inParallel(count, atOnce int, f func(i int)) {
	var tasks sync.WaitGroup
	turns := make(chan struct{}, atOnce)
	for i := range count {
		turns <- struct{}{}
		tasks.Go(func() {
			defer func() { <-turns }()
			f(i)
		})
	}
	tasks.Wait()
}

// wantHeld waits until c's node says of each pod that it has its address, replicated.
func wantHeld(ctx context.Context, c *client.Client, pods []pod) error {
	for _, p := range pods {
		addr, err := netip.ParseAddr(p.address)
		if err != nil {
			return err
		}
		a, err := c.Address(ctx, addr)
		if err != nil {
			return err
		}
		if err := holds(a, p.id); err != nil {
			return err
		}
	}
	return nil
}

// wantUsed returns nil when, as c's node sees it, as many addresses are used in each
// node's subnet as that node has pods.
func wantUsed(ctx context.Context, c *client.Client, pods []pod) error {
	want := map[string]int{}
	for _, p := range pods {
		want[p.on.name]++
	}
	subnets, err := c.Subnets(ctx)
	if err != nil {
		return err
	}
	for _, s := range subnets {
		if s.State == api.SubnetHeld && s.Used == want[s.Node] {
			delete(want, s.Node)
		}
	}
	if len(want) > 0 {
		return fmt.Errorf("not yet, or more: %v of %+v", want, subnets)
	}
	return nil
}

// wantReachable pings every pod from one of another node. The kernel's table of
// neighbours is one for all namespaces of the machine, and has room for 1,024: each
// ping takes its own out again.
func wantReachable(t *testing.T, pods []pod) {
	t.Helper()
	from := map[*node]*testx.NetNS{}
	for _, p := range pods {
		from[p.on] = p.ns
	}
	inParallel(len(pods), 32, func(i int) {
		for n, ns := range from {
			if n == pods[i].on {
				continue
			}
			if out, err := ns.Output("ping", "-c", "1", "-w", "5", pods[i].address); err != nil {
				t.Errorf("%s (%s on %s) is not reached from %s: %v %s", pods[i].id, pods[i].address, pods[i].on.name, n.name, err, out)
			}
			_, _ = pods[i].ns.Output("ip", "neigh", "flush", "all")
			_, _ = pods[i].on.host.Output("ip", "neigh", "flush", "to", pods[i].address)
			break
		}
	})
}

// TestFaultBackupRestore (namespaces and CNI calls): a backup, then 500 leases and a
// node more, then the restore. Nothing is held twice, everybody is reached, all holders
// have claimed what they run and every node's replica says so within 30 s; what is
// attached afterwards gets none of their addresses. Long: twenty times.
func TestFaultBackupRestore(t *testing.T) {
	const limit = 30 * time.Second
	rounds := 1
	if longFaults() {
		rounds = 20
	}
	lan := testx.NewLAN(t, 4)
	var nodes []*node
	for i := range 4 {
		nodes = append(nodes, newNode(t, lan, i, nodeOptions{}))
	}
	a, b, c, d := nodes[0], nodes[1], nodes[2], nodes[3]
	a.startAgent("--init")
	a.cli("status", "--wait", "--timeout", "30s")
	for _, n := range []*node{b, c} {
		n.startAgent()
		n.join(a, a.token())
	}
	awaitVoters(t, nodes[:3])
	watched := watchKernels(t, nodes...)
	var pods []pod
	for _, n := range nodes[:3] {
		pods = append(pods, n.startPods(t, watched, "before", 3)...)
	}
	file := filepath.Join(t.TempDir(), "backup")
	a.cli("raft", "snapshot", "save", file)
	d.startAgent()
	d.join(a, a.token())
	for n, count := range map[*node]int{a: 200, b: 150, c: 100, d: 50} {
		pods = append(pods, n.startPods(t, watched, "after", count)...)
	}
	clients := map[*node]*client.Client{}
	for _, n := range nodes {
		n.routed(nodes...)
		clients[n] = n.client()
	}
	for round := range rounds {
		began := time.Now()
		b.cli("raft", "snapshot", "restore", "-y", file)
		restored := time.Now()
		for _, n := range nodes {
			n.eventually(2*limit, "every lease is claimed, as "+n.name+" sees it", func() error {
				return wantUsed(context.Background(), clients[n], pods)
			})
		}
		a.claimed(len(nodes))
		took, claimed := time.Since(restored), len(pods)
		for _, n := range nodes { // who has which takes longer to ask than to claim
			if err := wantHeld(context.Background(), clients[n], pods); err != nil {
				t.Errorf("as %s sees it: %v", n.name, err)
			}
			if g := n.generation(); g != 2+round {
				t.Errorf("%s has generation %d", n.name, g)
			}
		}
		if took > limit {
			t.Errorf("re-claimed after %s, at most %s", took, limit)
		}
		for _, n := range nodes {
			pods = append(pods, n.startPods(t, watched, fmt.Sprintf("then-%d", round), 2)...)
		}
		seen := map[string]string{}
		for _, p := range pods {
			if other := seen[p.address]; other != "" {
				faults.Safety(t, "%s has the address of %s: %s", p.id, other, p.address)
			}
			seen[p.address] = p.id
		}
		a.eventually(quiet, "nothing is wrong", func() error {
			out, err := a.run("ipam", "check")
			if err == nil && !strings.Contains(out, "no problems") {
				err = fmt.Errorf("%s", out)
			}
			return err
		})
		wantReachable(t, pods)
		a.cli("cluster", "end-reclaim", "-y")
		sameState(t, nodes)
		faults.Report(t, faults.Namespaces, "backup, 500 leases and a node more, restore", "restored in %s, %d leases on %d nodes re-claimed %s later: 0 doubled, all reachable",
			restored.Sub(began).Round(time.Millisecond), claimed, len(nodes), took.Round(time.Millisecond))
	}
}
