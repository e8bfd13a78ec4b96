package integration

import (
	"fmt"
	"syscall"
	"testing"
	"time"

	"stellar.io/stellar/internal/testx/faults"
)

// TestFaultKillThree and TestFaultKillFive: agents are killed at random under load.
func TestFaultKillThree(t *testing.T) { testKills(t, 3) }

func TestFaultKillFive(t *testing.T) { testKills(t, 5) }

func testKills(t *testing.T, size int) {
	const kills = 20
	b := startFaults(t, size, faultOptions{exact: true})
	b.load()
	for range kills {
		time.Sleep(b.upTo(1500 * time.Millisecond))
		n := b.nodes[b.rng.IntN(size)]
		_ = n.stopAgent(syscall.SIGKILL)
		time.Sleep(b.upTo(time.Second))
		n.returns()
	}
	faults.Report(t, faults.Both, fmt.Sprintf("kill -9 of a random node under load, %d nodes", size), "%d kills: %s", kills, b.finish())
}
