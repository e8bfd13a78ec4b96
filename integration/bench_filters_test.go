package integration

import (
	"fmt"
	"strings"
	"syscall"
	"testing"
	"time"
)

const (
	filterPairs = 31                    // with and without, in turns
	filterRest  = 50 * time.Millisecond // for what the change itself has put off
)

// benchFilters measures the way between containers of two nodes with the filters of
// senders and without them, in turns, over a link that is as fast as the processor copies.
// The agents are killed before: they would put back what is missing.
func benchFilters(b *testing.B, t *table, mode string, w way, nodes []*node) {
	for _, n := range nodes {
		_ = n.stopAgent(syscall.SIGKILL)
	}
	side := func(on bool, measure func(way, *testing.B) float64) func() float64 {
		return func() float64 {
			for _, n := range nodes {
				n.filters(on)
			}
			time.Sleep(filterRest)
			return measure(w, b)
		}
	}
	for _, c := range []struct {
		protocol, unit string
		measure        func(way, *testing.B) float64
		rounds         int
		bar            bar
	}{
		{"TCP", "Gbit/s", way.gbits, filterPairs, bar{p50: 0.97, atLeast: true}},
		{"UDP", "k packets/s", way.packets, iperfPairs, bar{}},
	} {
		what := fmt.Sprintf("%s container to container of another node, %s, filters on", c.protocol, mode)
		out := alternate(what+" and off", scaled(c.rounds), side(true, c.measure), side(false, c.measure))
		t.spread(what, c.unit, out[0], bar{})
		t.spread("  off", c.unit, out[1], bar{})
		t.pairs("  with filters / without, pair by pair", out[0], out[1], c.bar)
	}
}

// filters switches the tables with the filters of senders on or off: those named stellar
// of all families but inet, whose table is the way out.
func (n *node) filters(on bool) {
	n.t.Helper()
	flags := "flags dormant;"
	if on {
		flags = ""
	}
	families := 0
	for line := range strings.Lines(n.host.Run(n.t, "nft", "list", "tables")) {
		f := strings.Fields(line) // table FAMILY NAME
		if len(f) != 3 || f[2] != "stellar" || f[1] == "inet" {
			continue
		}
		families++
		n.host.Run(n.t, "nft", fmt.Sprintf("add table %s stellar { %s }", f[1], flags))
		if out := n.host.Run(n.t, "nft", "list", "table", f[1], "stellar"); strings.Contains(out, "flags dormant") == on {
			n.t.Fatalf("table %s stellar is not as asked, on: %t\n%s", f[1], on, out)
		}
	}
	if families < 2 {
		n.t.Fatalf("%d tables with filters", families)
	}
}
