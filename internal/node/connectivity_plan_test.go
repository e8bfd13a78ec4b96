package node

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"stellar.io/stellar/api"
)

func TestPairs(t *testing.T) {
	t.Parallel()
	for count := range 13 {
		all := count * (count - 1) / 2
		for sample := range all + 3 {
			got := pairs(count, sample, rand.Shuffle)
			want := sample
			if sample == 0 || sample > all {
				want = all
			}
			seen, times := map[[2]int]bool{}, make([]int, count)
			for _, p := range got {
				if p[0] >= p[1] || seen[p] {
					t.Fatalf("%d of %d nodes: %v", sample, count, got)
				}
				seen[p] = true
				times[p[0]]++
				times[p[1]]++
			}
			if len(got) != want {
				t.Errorf("%d of %d nodes: %d pairs, want %d", sample, count, len(got), want)
			}
			// No node is left out while another is there more than twice.
			for _, n := range times {
				if n == 0 && 2*len(got) >= count+1 && count > 2 {
					t.Errorf("%d of %d nodes: one is left out: %v", sample, count, got)
				}
			}
		}
	}
	// Samples differ.
	seen := map[string]bool{}
	for range 50 {
		seen[fmt.Sprint(pairs(20, 3, rand.Shuffle))] = true
	}
	if len(seen) < 10 {
		t.Errorf("%d different samples of 50", len(seen))
	}
}

// lent is a node with so many endpoints.
func lent(name string, number byte, endpoints int) api.ConnectivityLoan {
	l := api.ConnectivityLoan{ID: "loan-" + name, Gateway: netip.AddrFrom4([4]byte{192, 0, 2, 254})}
	l.Node = api.ConnectivityNode{Node: name, Address: netip.AddrFrom4([4]byte{192, 0, 2, number})}
	for i := range endpoints {
		l.Node.Endpoints = append(l.Node.Endpoints, api.ConnectivityEndpoint{
			Namespace: "default", Container: fmt.Sprintf("%s%d", name, i+1), Ifname: "eth0", Address: netip.AddrFrom4([4]byte{172, 16, number, byte(i + 2)}), MTU: 1500,
		})
	}
	return l
}

// text is a plan as people would write it.
func (p *planned) text() string {
	var b strings.Builder
	for i, r := range p.results {
		fmt.Fprintf(&b, "%s→%s %s %s → %s", r.From, r.To, r.Test, r.Source, r.Target)
		if r.State != "" {
			fmt.Fprintf(&b, " %s: %s", r.State, r.Reason)
		}
		for node, probes := range p.probes {
			for _, probe := range probes {
				if p.result[probe.ID] == i {
					fmt.Fprintf(&b, " [%s: %s → %s, %d]", node, probe.From, probe.Target, probe.MTU)
				}
			}
		}
		b.WriteByte('\n')
	}
	return b.String()
}

func TestPlan(t *testing.T) {
	t.Parallel()
	a, b := lent("a", 1, 2), lent("b", 2, 1)
	b.Gateway = netip.Addr{}
	b.Node.Error = "no throw-away endpoint: drained"
	b.Node.Endpoints[0].MTU = 1400
	c := api.ConnectivityLoan{Node: api.ConnectivityNode{Node: "c", Error: "cannot be reached"}}
	got := plan([]api.ConnectivityLoan{a, b, c}, [][2]int{{0, 1}, {1, 2}}, api.ConnectivityTest{})
	want := `a→a containers default/a1 (172.16.1.2) → default/a2 (172.16.1.3) [a: default/a1 → 172.16.1.3, 0]
a→a containers default/a2 (172.16.1.3) → default/a1 (172.16.1.2) [a: default/a2 → 172.16.1.2, 0]
a→a host-to-container host (192.0.2.1) → default/a1 (172.16.1.2) [a:  → 172.16.1.2, 0]
a→a container-to-host default/a1 (172.16.1.2) → host (192.0.2.1) [a: default/a1 → 192.0.2.1, 0]
a→a path-mtu default/a1 (172.16.1.2) → default/a2 (172.16.1.3) [a: default/a1 → 172.16.1.3, 1500]
a→a way-out default/a1 (172.16.1.2) → 192.0.2.254 [a: default/a1 → 192.0.2.254, 0]
b→b containers default/b1 (172.16.2.2) → none SKIP: node b has no endpoint for it: no throw-away endpoint: drained
b→b containers none → default/b1 (172.16.2.2) SKIP: node b has no endpoint for it: no throw-away endpoint: drained
b→b host-to-container host (192.0.2.2) → default/b1 (172.16.2.2) [b:  → 172.16.2.2, 0]
b→b container-to-host default/b1 (172.16.2.2) → host (192.0.2.2) [b: default/b1 → 192.0.2.2, 0]
b→b path-mtu default/b1 (172.16.2.2) → none SKIP: node b has no endpoint for it: no throw-away endpoint: drained
b→b way-out default/b1 (172.16.2.2) → none SKIP: the host has no default route: --out names an address to try
c→c containers none → none SKIP: node c took no part: cannot be reached
c→c containers none → none SKIP: node c took no part: cannot be reached
c→c host-to-container host → none SKIP: node c took no part: cannot be reached
c→c container-to-host none → host SKIP: node c took no part: cannot be reached
c→c path-mtu none → none SKIP: node c took no part: cannot be reached
c→c way-out none → none SKIP: node c took no part: cannot be reached
a→b containers default/a1 (172.16.1.2) → default/b1 (172.16.2.2) [a: default/a1 → 172.16.2.2, 0]
a→b host-to-container host (192.0.2.1) → default/b1 (172.16.2.2) [a:  → 172.16.2.2, 0]
a→b container-to-host default/a1 (172.16.1.2) → host (192.0.2.2) [a: default/a1 → 192.0.2.2, 0]
a→b path-mtu default/a1 (172.16.1.2) → default/b1 (172.16.2.2) [a: default/a1 → 172.16.2.2, 1400]
b→a containers default/b1 (172.16.2.2) → default/a1 (172.16.1.2) [b: default/b1 → 172.16.1.2, 0]
b→a host-to-container host (192.0.2.2) → default/a1 (172.16.1.2) [b:  → 172.16.1.2, 0]
b→a container-to-host default/b1 (172.16.2.2) → host (192.0.2.1) [b: default/b1 → 192.0.2.1, 0]
b→a path-mtu default/b1 (172.16.2.2) → default/a1 (172.16.1.2) [b: default/b1 → 172.16.1.2, 1400]
b→c containers default/b1 (172.16.2.2) → none SKIP: node c has no endpoint for it: cannot be reached
b→c host-to-container host (192.0.2.2) → none SKIP: node c has no endpoint for it: cannot be reached
b→c container-to-host default/b1 (172.16.2.2) → host SKIP: node c has no address for other nodes
b→c path-mtu default/b1 (172.16.2.2) → none SKIP: node c has no endpoint for it: cannot be reached
c→b containers none → default/b1 (172.16.2.2) SKIP: node c took no part: cannot be reached
c→b host-to-container host → default/b1 (172.16.2.2) SKIP: node c took no part: cannot be reached
c→b container-to-host none → host (192.0.2.2) SKIP: node c took no part: cannot be reached
c→b path-mtu none → default/b1 (172.16.2.2) SKIP: node c took no part: cannot be reached
`
	if diff := cmp.Diff(want, got.text()); diff != "" {
		t.Error(diff)
	}
	got.done(api.ConnectivityProbed{ID: 999, Problem: "x"}) // whatever a node says
	got.done(api.ConnectivityProbed{ID: -1, Problem: "x"})
	if got.failed() != 0 {
		t.Errorf("%d failed", got.failed())
	}
	got.done(api.ConnectivityProbed{ID: 0, Sent: 3, Received: 2, RTT: 7})
	got.done(api.ConnectivityProbed{ID: 1, Sent: 3, Problem: "no answer"})
	got.lose("a", "gone")
	if r := got.results[0]; r.State != api.TestOK || r.Sent != 3 || r.Received != 2 || r.RTT != 7 {
		t.Errorf("%+v", r)
	}
	if r := got.results[1]; r.State != api.TestFail || r.Reason != "no answer" {
		t.Errorf("%+v", r)
	}
	if r := got.results[2]; r.State != api.TestFail || r.Reason != "node a did not say: gone" {
		t.Errorf("%+v", r)
	}
}

// What does not answer the host says nothing of the container's way, unless a person
// has named it.
func TestPlanWayOut(t *testing.T) {
	t.Parallel()
	named := api.ConnectivityTest{Out: netip.MustParseAddr("203.0.113.9")}
	for _, tt := range []struct {
		name            string
		test            api.ConnectivityTest
		container, host string // problems
		state, says     string
	}{
		{"both", api.ConnectivityTest{}, "", "", api.TestOK, ""},
		{"the container alone", api.ConnectivityTest{}, "", "no answer", api.TestOK, ""},
		{"the host alone", api.ConnectivityTest{}, "no answer", "", api.TestFail, "no answer"},
		{"nobody", api.ConnectivityTest{}, "no answer", "no answer", api.TestSkip, "its host gets no answer either"},
		{"the host alone, named", named, "no answer", "", api.TestFail, "no answer"},
		{"nobody, named", named, "no answer", "no answer", api.TestFail, "its host gets no answer either"},
	} {
		for _, hostFirst := range []bool{true, false} {
			p := plan([]api.ConnectivityLoan{lent("a", 1, 2)}, nil, tt.test)
			last := len(p.result) - 1
			answers := []api.ConnectivityProbed{{ID: last - 1, Problem: tt.container}, {ID: last, Problem: tt.host}}
			if hostFirst {
				answers[0], answers[1] = answers[1], answers[0]
			}
			for _, a := range answers {
				p.done(a)
			}
			r := p.results[len(p.results)-1]
			if r.Test != api.TestWayOut || r.State != tt.state || !strings.Contains(r.Reason, tt.says) || (tt.says == "") != (r.Reason == "") {
				t.Errorf("%s, host first %t: %+v", tt.name, hostFirst, r)
			}
			if want := (map[bool]string{true: "203.0.113.9", false: "192.0.2.254"})[tt.test.Out.IsValid()]; r.Target != want {
				t.Errorf("%s: target %s", tt.name, r.Target)
			}
		}
	}
}

func TestParseGateway(t *testing.T) {
	t.Parallel()
	const head = "Iface\tDestination\tGateway \tFlags\tRefCnt\tUse\tMetric\tMask\t\tMTU\tWindow\tIRTT\n"
	for _, tt := range []struct{ name, table, want string }{
		{"none", head, "invalid IP"},
		{"one", head + "eth0\t00000000\tFE0200C0\t0003\t0\t0\t0\t00000000\t0\t0\t0\neth0\t000200C0\t00000000\t0001\t0\t0\t0\t00FFFFFF\t0\t0\t0\n", "192.0.2.254"},
		{"the best metric", head + "eth0\t00000000\tFE0200C0\t0003\t0\t0\t100\t00000000\t0\t0\t0\neth1\t00000000\t010200C0\t0003\t0\t0\t50\t00000000\t0\t0\t0\n", "192.0.2.1"},
		{"on link", head + "ppp0\t00000000\t00000000\t0001\t0\t0\t0\t00000000\t0\t0\t0\n", "invalid IP"},
		{"half of the world", head + "tun0\t00000000\t010200C0\t0003\t0\t0\t0\t00000080\t0\t0\t0\n", "invalid IP"},
		{"unreachable", head + "*\t00000000\t00000000\t0200\t0\t0\t0\t00000000\t0\t0\t0\n", "invalid IP"},
	} {
		if got := parseGateway(tt.table); got.String() != tt.want {
			t.Errorf("%s: %s, want %s", tt.name, got, tt.want)
		}
	}
}

func TestMTUProblem(t *testing.T) {
	t.Parallel()
	if got := mtuProblem(1500, 1500, nil) + mtuProblem(0, 1500, nil) + mtuProblem(1400, 1500, nil); got != "no answerpackets of 1400 bytes pass in one piece, not of 1500" {
		t.Error(got)
	}
}
