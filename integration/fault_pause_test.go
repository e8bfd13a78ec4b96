package integration

import (
	"math"
	"syscall"
	"testing"
	"time"

	"stellar.io/stellar/internal/testx/faults"
)

// TestFaultPauses: agents are stopped for half a second to ten seconds under load,
// every second time the one that leads, which does not know that it was replaced
// meanwhile. Reads that ask for everything committed have it, also those that were
// under way in the agent that was stopped.
func TestFaultPauses(t *testing.T) {
	const pauses = 10
	b := startFaults(t, 3, faultOptions{})
	b.load()
	reg := b.registers()
	var total time.Duration
	for i := range pauses {
		n := b.nodes[b.rng.IntN(len(b.nodes))]
		if i%2 == 0 {
			n, _ = leaderIn(t, b.nodes, b.nodes[b.rng.IntN(len(b.nodes))])
		}
		// Evenly over the orders of magnitude from 0.5 to 10 s.
		length := time.Duration(0.5 * math.Pow(20, b.rng.Float64()) * float64(time.Second))
		total += length
		n.pause(length)
		b.settled()
		time.Sleep(b.upTo(500 * time.Millisecond))
	}
	reads, writes := reg.judge()
	faults.Report(t, faults.Both, "SIGSTOP of an agent for 0.5–10 s, 3 nodes", "%d pauses, %s in all: 0 of %d linearizable reads stale, %d writes; %s",
		pauses, total.Round(100*time.Millisecond), reads, writes, b.finish())
}

// pause stops the agent for so long.
func (n *node) pause(length time.Duration) {
	n.t.Helper()
	if err := n.agent.Process.Signal(syscall.SIGSTOP); err != nil {
		n.t.Fatal(err)
	}
	time.Sleep(length)
	if err := n.agent.Process.Signal(syscall.SIGCONT); err != nil {
		n.t.Fatal(err)
	}
}
