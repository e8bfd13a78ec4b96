package integration

import (
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"stellar.io/stellar/internal/testx"
)

const (
	readyAlone  = 1000 // programs started one after the other
	readyBursts = 2000 // programs started in bursts
	readyBurst  = 50
	readyBare   = 500 // the same without the hold, for comparison
	readyPairs  = 100 // with and without, in turns
	readyStrict = 200
	// readyMost of readyBursts must see their network.
	readyMost = 99.9 // percent: 1,998 of 2,000
)

// benchReady measures how many programs have their network at their first
// instruction, told by programs that look and exit, and what that costs.
func benchReady(b *testing.B, t *table) {
	held, bare := readyNode(b, true), readyNode(b, false)
	share := func(got, of int) float64 { return 100 * float64(got) / float64(of) }
	for _, s := range []struct {
		what, prefix string
		n            *node
		total, burst int
		bar          bar
	}{
		{"network at the first instruction, one by one", "one", held, readyAlone, 1, bar{p50: 100, atLeast: true}},
		{"  in bursts of 50", "many", held, readyBursts, readyBurst, bar{p50: readyMost, atLeast: true}},
		{"  in bursts of 50, without the hold", "bare", bare, readyBare, readyBurst, bar{}},
	} {
		total := scaled(s.total)
		p := newProgress("programs that look, "+strings.TrimPrefix(strings.TrimSpace(s.what), "network at the first instruction, "), total)
		t.value(s.what, "%", total, share(s.n.firstInstruction(p, s.prefix, total, s.burst, networked()), total), s.bar)
	}

	var with, without samples
	p := newProgress("ctr run with and without the hold", scaled(readyPairs))
	for i := range scaled(readyPairs) {
		with.add(held.timed(fmt.Sprintf("with%d", i)))
		without.add(bare.timed(fmt.Sprintf("without%d", i)))
		p.done(i)
	}
	t.spread("ctr run of a program that ends at once, held", "ms", with, bar{})
	t.spread("  without the hold", "ms", without, bar{})
	t.value("  the hold adds", "ms", len(with), max(0, with.quantile(0.5)-without.quantile(0.5)), bar{p50: 2})

	n := scaled(readyStrict)
	running, left := bare.strictByEvents(n)
	t.value("strict containers that start, by events alone", "%", n, share(running, n), bar{p50: 99, atLeast: true})
	t.value("  left running without a network", "", n, float64(left), bar{none: true})
}

// readyNode is a node whose hold is on or off.
func readyNode(b *testing.B, enabled bool) *node {
	b.Helper()
	n := startNode(b, nodeOptions{noAgent: true})
	n.startAgent("--init", "--config", n.holdConfig(enabled))
	n.cli("status", "--wait", "--timeout", "30s")
	return n
}

// timed runs a labelled container to its end.
func (n *node) timed(id string) time.Duration {
	n.t.Helper()
	start := time.Now()
	if out, err := n.containerd.Output(testx.Run{ID: id, Labels: networked(), Args: []string{"/bin/true"}}); err != nil {
		n.t.Errorf("%v: %s", err, out)
	}
	return time.Since(start)
}

// strictByEvents starts strict containers in bursts and returns how many run with
// their network a while later, and how many without.
func (n *node) strictByEvents(total int) (running, bare int) {
	n.t.Helper()
	p := newProgress("strict containers", total)
	for first := 0; first < total; first += readyBurst {
		var wg sync.WaitGroup
		last := min(first+readyBurst, total)
		for i := first; i < last; i++ {
			wg.Go(func() {
				if err := n.containerd.Run(testx.Run{ID: fmt.Sprintf("strict%d", i), Labels: networked("strict", "true")}); err != nil {
					n.t.Error(err)
				}
			})
		}
		wg.Wait()
		time.Sleep(3 * time.Second) // the patience with strict containers, and more
		for i := first; i < last; i++ {
			id := fmt.Sprintf("strict%d", i)
			_, err := n.exec(id, "true")
			_, routed := n.exec(id, "ip", "route", "get", "192.0.2.254")
			switch {
			case err == nil && routed == nil:
				running++
			case err == nil:
				bare++
			}
		}
		for i := first; i < last; i++ {
			wg.Go(func() { _ = n.containerd.Remove("default", fmt.Sprintf("strict%d", i)) })
		}
		wg.Wait()
		p.done(last)
	}
	return running, bare
}
