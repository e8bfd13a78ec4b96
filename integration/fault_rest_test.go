package integration

import (
	"fmt"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// What an agent may have more of than before the faults: connections to nodes that lead
// now, timers. Each fault test makes hundreds of calls; one descriptor or goroutine that
// is left by one call in ten is more than that.
const (
	restDescriptors = 30
	restGoroutines  = 60
)

// rest is what a node is compared with when nothing may be left.
type rest struct {
	host                    []string // everything of the host's network, by line
	descriptors, goroutines int
}

// rests says what there is now, when the routes to all of others are there.
func (n *node) rests(t testing.TB, others int) (r rest) {
	t.Helper()
	n.eventually(time.Minute, n.name+" has a route to each other node", func() error {
		out := n.host.Run(t, "ip", "route", "show", "proto", "147")
		if got := strings.Count(out, " via "); got != others {
			return fmt.Errorf("%d routes:\n%s", got, out)
		}
		return nil
	})
	r.host = n.hostLines()
	r.descriptors, r.goroutines = n.use(t)
	return r
}

// ofVeth is what the kernel, or an agent that adopts it, sets of an interface that is
// ours: which interfaces there are, other lines say.
var ofVeth = regexp.MustCompile(`^net\..*\.veth| dev veth.* table local | dev veth.*proto kernel`)

// hostLines is the fingerprint, in an order of its own: that of the kernel's lists is
// the order in which things came.
func (n *node) hostLines() (out []string) {
	for line := range strings.Lines(n.fingerprint()) {
		if !ofVeth.MatchString(line) {
			out = append(out, line)
		}
	}
	slices.Sort(out)
	return out
}

// use is what the agent's process has open, and how many goroutines run in it.
func (n *node) use(t testing.TB) (descriptors, goroutines int) {
	t.Helper()
	fds, err := os.ReadDir(fmt.Sprintf("/proc/%d/fd", n.agent.Process.Pid))
	if err != nil {
		t.Fatal(err)
	}
	return len(fds), n.metric(t, "go_goroutines")
}

// asBefore waits until the host is as it was and the agent has no more than it had.
func (n *node) asBefore(t testing.TB, was rest) {
	t.Helper()
	n.eventually(time.Minute, "the network of "+n.name+"'s host is as it was", func() error {
		if diff := cmp.Diff(was.host, n.hostLines()); diff != "" {
			return fmt.Errorf("(- before, + now):\n%s", diff)
		}
		return nil
	})
	n.eventually(time.Minute, "the agent of "+n.name+" has given back what it used", func() error {
		d, g := n.use(t)
		if d > was.descriptors+restDescriptors || g > was.goroutines+restGoroutines {
			return fmt.Errorf("%d descriptors, were %d; %d goroutines, were %d", d, was.descriptors, g, was.goroutines)
		}
		return nil
	})
	d, g := n.use(t)
	t.Logf("%s: %d descriptors, were %d; %d goroutines, were %d", n.name, d, was.descriptors, g, was.goroutines)
}
