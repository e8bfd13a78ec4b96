package integration

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"time"

	"stellar.io/stellar/internal/testx/faults"
)

// traced is what `stellar trace -o json` says.
type traced struct {
	Kind string
	Hops []struct {
		Hop                                                       int
		Direction, Node, What, Subject, State, Detail, Code, Mend string
	}
	Cause   *struct{ Code, Node, Subject, Message, Mend string }
	Further []struct{ Code, Node, Subject string }
	Probe   *struct {
		Sent, Received, PathMtu, Mtu int
		Vanished                     string
	}
}

// trace types the command; the error is its exit.
func (n *node) trace(args ...string) (traced, error) {
	n.t.Helper()
	text, failed := n.run(append([]string{"trace", "-o", "json"}, args...)...)
	var out traced
	if text == "" {
		return out, failed
	}
	if err := json.Unmarshal([]byte(text), &out); err != nil || out.Kind != "Trace" {
		n.t.Fatalf("trace -o json: kind %q, %v\n%s", out.Kind, err, text)
	}
	return out, failed
}

func (t traced) String() string {
	var b strings.Builder
	for _, h := range t.Hops {
		fmt.Fprintf(&b, "%d %s %s %s %s %s %s | %s %s\n", h.Hop, h.Direction, h.Node, h.What, h.Subject, h.State, h.Detail, h.Code, h.Mend)
	}
	return b.String()
}

// TestTrace: on healthy nodes every hop is OK, on every kind of way, and packets pass.
func TestTrace(t *testing.T) {
	nodes := startCluster(t, 2)
	a, b := nodes[0], nodes[1]
	a.routed(nodes...)
	b.routed(nodes...)
	stamp := time.Now().UnixNano()
	a1, a2, b1 := a.start(fmt.Sprintf("a1-%d", stamp)), a.start(fmt.Sprintf("a2-%d", stamp)), b.start(fmt.Sprintf("b1-%d", stamp))
	ways := []struct {
		name, from, to string
		hops           int // at least
		probe          bool
	}{
		{"across nodes", a1.Container, b1.Container, 30, true},
		{"from the other node", b1.Address, a1.Address, 30, false},
		{"typed on a third", b1.Container, a2.Container, 30, true},
		{"same node", a1.Container, "default/" + a2.Container, 15, true},
		{"host to own container", "a", a1.Container, 8, true},
		{"container to own host", a1.Container, "a", 8, true},
		{"container to its gateway", a1.Container, "172.16.0.1", 8, true},
		{"host to another node's container", "a", b1.Container, 10, true},
		{"container to another node", a1.Container, "b", 10, true},
		{"container to another node's gateway", a1.Container, "172.16.4.1", 10, true},
		{"node to node", "a", "b", 5, true},
		{"way out", a1.Container, "192.0.2.254", 10, true},
	}
	for _, w := range ways {
		args := []string{w.from, w.to}
		if w.probe {
			args = append(args, "--probe")
		}
		got, err := a.trace(args...)
		if err == nil && got.Cause != nil {
			faults.Safety(t, "%s: nothing is broken\n%s", w.name, got)
		}
		if err != nil || got.Cause != nil || len(got.Hops) < w.hops {
			t.Errorf("%s: %v\n%s", w.name, err, got)
			continue
		}
		for _, h := range got.Hops {
			if h.State != "OK" {
				t.Errorf("%s: hop %d is %s\n%s", w.name, h.Hop, h.State, got)
				break
			}
		}
		if w.probe && (got.Probe == nil || got.Probe.Received != got.Probe.Sent || got.Probe.PathMtu != 1500) {
			t.Errorf("%s: probe %+v", w.name, got.Probe)
		}
	}
	if t.Failed() {
		return
	}
	t.Logf("\n%s", a.cli("trace", a1.Container, b1.Container, "--probe"))
	for _, wrong := range [][2]string{{"192.0.2.254", a1.Container}, {a1.Container, a1.Container}, {"nobody", a1.Container}, {a1.Container, "172.16.0.99"}, {a1.Container, "172.16.99.9"}} {
		if out, err := a.trace(wrong[0], wrong[1]); err == nil {
			t.Errorf("trace %v:\n%s", wrong, out)
		}
	}
	tracePeerDead(t, a, b, a1, b1)
}

// tracePeerDead: the peer's agent dies, and its data plane goes on. That it is dead is
// the cause, and this side's part is there.
func tracePeerDead(t *testing.T, a, b *node, a1, b1 endpoint) {
	_ = b.stopAgent(9)
	got, err := a.trace(a1.Container, b1.Container)
	if err == nil || got.Cause == nil || got.Cause.Code != "agent-down" || got.Cause.Subject != "b" {
		t.Fatalf("peer's agent dead: %v\n%s", err, got)
	}
	for _, h := range got.Hops {
		if h.Node == "a" && h.State != "OK" {
			t.Errorf("peer's agent dead: own hop %d is %s\n%s", h.Hop, h.State, got)
		}
	}
	if len(got.Hops) < 20 {
		t.Errorf("peer's agent dead: only %d hops\n%s", len(got.Hops), got)
	}
}
