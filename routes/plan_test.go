package routes

import (
	"net/netip"
	"strconv"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"golang.org/x/sys/unix"

	"stellar.io/stellar/internal/nlx"
)

var equate = cmp.Options{cmpopts.EquateComparable(netip.Prefix{}, netip.Addr{}), cmpopts.EquateEmpty()}

func ethName(index int) string {
	if index == 0 {
		return ""
	}
	return "eth" + strconv.Itoa(index-2)
}

// Interfaces of the tables in these tests.
const (
	eth0 = 2
	eth1 = 3
)

func via(destination, gateway string, index int) nlx.FIBRoute {
	return nlx.FIBRoute{
		Dst: netip.MustParsePrefix(destination), Type: unix.RTN_UNICAST, Protocol: Protocol,
		Via: netip.MustParseAddr(gateway), Routed: true, Index: index,
	}
}

func static(r nlx.FIBRoute) nlx.FIBRoute {
	r.Protocol = unix.RTPROT_STATIC
	return r
}

func metric(r nlx.FIBRoute, m uint32) nlx.FIBRoute {
	r.Metric = m
	return r
}

func tos(r nlx.FIBRoute, t uint8) nlx.FIBRoute {
	r.TOS = t
	return r
}

func odd(r nlx.FIBRoute) nlx.FIBRoute {
	r.Odd = true
	return r
}

var (
	network = nlx.FIBRoute{Dst: netip.MustParsePrefix("172.16.0.0/12"), Type: unix.RTN_UNREACHABLE, Protocol: Protocol, Metric: worstMetric}
	routeB  = via("172.16.4.0/22", "192.0.2.2", eth0)
	routeC  = via("172.16.8.0/22", "192.0.2.3", eth0)
)

// abc is the state as node a sees it: it has peers b and c.
func abc() Wants {
	return Wants{
		Network: netip.MustParsePrefix("172.16.0.0/12"), Subnet: netip.MustParsePrefix("172.16.0.0/22"),
		Device: "stellar0", Node: "a", Address: netip.MustParseAddr("192.0.2.1"), Complete: true,
		Peers: []Peer{
			{Node: "c", Subnet: routeC.Dst, Address: routeC.Via},
			{Node: "b", Subnet: routeB.Dst, Address: routeB.Via},
		},
	}
}

// onLink answers that each next hop is on eth0.
func onLink(goals []goal) map[netip.Addr]nlx.Lookup {
	out := map[netip.Addr]nlx.Lookup{}
	for _, a := range nextHops(goals) {
		out[a] = nlx.Lookup{FIBRoute: nlx.FIBRoute{Type: unix.RTN_UNICAST, Index: eth0}}
	}
	return out
}

func TestPlan(t *testing.T) {
	t.Parallel()
	old := via("172.16.4.0/22", "192.0.2.9", eth0)
	all := []nlx.FIBRoute{network, routeB, routeC}
	tests := []struct {
		name       string
		have       []nlx.FIBRoute
		incomplete bool
		add, del   []nlx.FIBRoute
		ops        []Op
		states     []State // of 172.16.0.0/12, b, c, and strays by address
	}{
		{"nothing there", nil, false, []nlx.FIBRoute{network, routeB, routeC}, nil,
			[]Op{Add, Add, Add}, []State{Missing, Missing, Missing}},
		{"all there", all, false, nil, nil, nil, []State{OK, OK, OK}},
		{"without carrier", []nlx.FIBRoute{network, routeC, {Dst: routeB.Dst, Type: unix.RTN_UNICAST, Protocol: Protocol, Via: routeB.Via, Routed: true, Index: eth0, LinkDown: true}},
			false, nil, nil, nil, []State{OK, OK, OK}},
		{"another next hop", []nlx.FIBRoute{network, old, routeC}, false, []nlx.FIBRoute{routeB}, nil, []Op{Replace}, []State{OK, Missing, OK}},
		{"another next hop, not complete", []nlx.FIBRoute{network, old}, true, []nlx.FIBRoute{routeC}, nil, []Op{Add}, []State{OK, Missing, Missing}},
		{"another interface", []nlx.FIBRoute{network, via("172.16.4.0/22", "192.0.2.2", eth1), routeC}, false, []nlx.FIBRoute{routeB}, nil, []Op{Replace}, []State{OK, Missing, OK}},
		{"altered", []nlx.FIBRoute{network, odd(routeB), routeC}, false, []nlx.FIBRoute{routeB}, nil, []Op{Replace}, []State{OK, Missing, OK}},
		{"one too many", append(all, via("172.16.12.0/22", "192.0.2.4", eth0)), false, nil,
			[]nlx.FIBRoute{via("172.16.12.0/22", "192.0.2.4", eth0)}, []Op{Delete}, []State{OK, OK, OK, Stray}},
		{"one too many, not complete", append(all, via("172.16.12.0/22", "192.0.2.4", eth0)), true, nil, nil, nil, []State{OK, OK, OK, Stray}},
		{"another metric", append(all, metric(routeB, 7)), false, nil, []nlx.FIBRoute{metric(routeB, 7)}, []Op{Delete}, []State{OK, OK, Stray, OK}},
		{"two of ours, the right one second", []nlx.FIBRoute{network, old, routeB, routeC}, false, nil, []nlx.FIBRoute{old}, []Op{Delete}, []State{OK, Missing, OK}},
		{"two of ours, none right", []nlx.FIBRoute{network, old, via("172.16.4.0/22", "192.0.2.8", eth0), routeC}, false,
			[]nlx.FIBRoute{routeB}, []nlx.FIBRoute{via("172.16.4.0/22", "192.0.2.8", eth0)}, []Op{Replace, Delete}, []State{OK, Missing, OK}},
		{"foreign route in the way", []nlx.FIBRoute{network, static(old), routeC}, false, nil, nil, nil, []State{OK, Conflict, OK}},
		{"identical foreign route", []nlx.FIBRoute{network, static(routeB), routeC}, false, nil, nil, nil, []State{OK, Conflict, OK}},
		{"foreign route before ours", []nlx.FIBRoute{network, static(old), routeB, routeC}, false, nil, nil, nil, []State{OK, Conflict, OK}},
		{"foreign route behind ours", []nlx.FIBRoute{network, routeB, static(old), routeC}, false, nil, nil, nil, []State{OK, OK, OK}},
		{"foreign route behind a wrong one of ours: no replace", []nlx.FIBRoute{network, old, static(routeB), routeC}, false, nil, []nlx.FIBRoute{old}, []Op{Delete}, []State{OK, Conflict, OK}},
		{"foreign route with another metric", append(all, metric(static(old), 100)), false, nil, nil, nil, []State{OK, OK, OK}},
		{"foreign route to a part", append(all, static(via("172.16.5.0/24", "192.0.2.9", eth0))), false, nil, nil, nil, []State{OK, Conflict, OK}},
		{"foreign route for a TOS", append(all, tos(static(old), 16)), false, nil, nil, nil, []State{OK, Conflict, OK}},
		{"ours to single containers of this node", append(all, nlx.FIBRoute{Dst: netip.MustParsePrefix("172.16.0.9/32"), Type: unix.RTN_UNICAST, Protocol: Protocol, Index: 9}),
			false, nil, nil, nil, []State{OK, OK, OK}},
		{"ours to single containers of a subnet that the state has lost", append(all, nlx.FIBRoute{Dst: netip.MustParsePrefix("172.16.20.9/32"), Type: unix.RTN_UNICAST, Scope: unix.RT_SCOPE_LINK, Protocol: Protocol, Index: 9, Odd: true}),
			false, nil, nil, nil, []State{OK, OK, OK}},
		{"the last resort of a subnet that the state has lost", append(all, nlx.FIBRoute{Dst: netip.MustParsePrefix("172.16.20.0/22"), Type: unix.RTN_UNREACHABLE, Protocol: Protocol, Metric: worstMetric - 1}),
			false, nil, nil, nil, []State{OK, OK, OK}},
		{"ours to our own subnet, from another holder's time", append(all, via("172.16.0.0/22", "192.0.2.9", eth0)), false, nil,
			[]nlx.FIBRoute{via("172.16.0.0/22", "192.0.2.9", eth0)}, []Op{Delete}, []State{Stray, OK, OK, OK}},
		{"our mark outside the network", append(all, via("10.0.0.0/8", "192.0.2.9", eth0)), false, nil, nil, nil, []State{OK, OK, OK}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			w := abc()
			w.Complete = !tt.incomplete
			goals := desired(w)
			locate(goals, onLink(goals), ethName)
			have := tableOf(tt.have)
			add, del := plan(w, goals, have)
			var ops []Op
			for _, a := range append(add, del...) {
				ops = append(ops, a.op)
			}
			if d := cmp.Diff(tt.ops, ops, equate); d != "" {
				t.Errorf("operations (-want +got):\n%s", d)
			}
			if d := cmp.Diff(tt.add, fibs(add), equate); d != "" {
				t.Errorf("add (-want +got):\n%s", d)
			}
			if d := cmp.Diff(tt.del, fibs(del), equate); d != "" {
				t.Errorf("delete (-want +got):\n%s", d)
			}
			var states []State
			for _, s := range compare(w, goals, have, nil, ethName) {
				states = append(states, s.State)
				if (s.State == OK) != (s.Reason == "") {
					t.Errorf("%s is %s because %q", s.Destination, s.State, s.Reason)
				}
			}
			if d := cmp.Diff(tt.states, states); d != "" {
				t.Errorf("states (-want +got):\n%s", d)
			}
		})
	}
}

// TestReclaimKeepsRoutes: while nodes that the state has lost may still say what they
// hold, a wrong route is put right and one that nobody is known to want stays.
func TestReclaimKeepsRoutes(t *testing.T) {
	t.Parallel()
	w := abc()
	w.Complete, w.Reclaim = true, true
	goals := desired(w)
	locate(goals, onLink(goals), ethName)
	unknown, wrong := via("172.16.12.0/22", "192.0.2.4", eth0), via("172.16.4.0/22", "192.0.2.9", eth0)
	have := tableOf([]nlx.FIBRoute{network, wrong, routeC, unknown})
	add, del := plan(w, goals, have)
	if d := cmp.Diff([]nlx.FIBRoute{routeB}, fibs(add), equate); d != "" || len(del) > 0 {
		t.Errorf("add (-want +got):\n%s\ndelete %v", d, fibs(del))
	}
	for _, s := range compare(w, goals, have, nil, ethName) {
		if s.Destination == unknown.Dst && (s.State != Stray || !strings.Contains(s.Reason, "re-claim")) {
			t.Errorf("%+v", s)
		}
	}
	w.Reclaim = false
	if _, del := plan(w, goals, have); len(del) != 1 || del[0].fib.Dst != unknown.Dst {
		t.Errorf("after the re-claim: delete %v", fibs(del))
	}
}

func fibs(actions []action) []nlx.FIBRoute {
	var out []nlx.FIBRoute
	for _, a := range actions {
		out = append(out, a.fib)
	}
	return out
}

func TestDesired(t *testing.T) {
	t.Parallel()
	b := Peer{Node: "b", Subnet: routeB.Dst, Address: routeB.Via}
	with := func(change func(*Peer)) []Peer {
		p := b
		change(&p)
		return []Peer{p}
	}
	tests := []struct {
		name    string
		peers   []Peer
		answers map[netip.Addr]nlx.Lookup // of eth0, unless given
		want    []string                  // destination, gateway, device, state, reason of the peers
	}{
		{"no peers", nil, nil, nil},
		{"a peer", []Peer{b}, nil, []string{"172.16.4.0/22 192.0.2.2 eth0  "}},
		{"not masked", with(func(p *Peer) { p.Subnet = netip.MustParsePrefix("172.16.4.7/22") }), nil, []string{"172.16.4.0/22 192.0.2.2 eth0  "}},
		{"quarantined", with(func(p *Peer) { p.Quarantined = true }), nil, nil},
		{"without a subnet", with(func(p *Peer) { p.Subnet = netip.Prefix{} }), nil, nil},
		{"our own subnet", with(func(p *Peer) { p.Subnet = netip.MustParsePrefix("172.16.0.0/22") }), nil,
			[]string{"172.16.0.0/22 192.0.2.2  conflict overlaps this node's own subnet 172.16.0.0/22"}},
		{"around our own subnet", with(func(p *Peer) { p.Subnet = netip.MustParsePrefix("172.16.0.0/20") }), nil,
			[]string{"172.16.0.0/20 192.0.2.2  conflict overlaps this node's own subnet 172.16.0.0/22"}},
		{"outside", with(func(p *Peer) { p.Subnet = netip.MustParsePrefix("10.0.0.0/22") }), nil,
			[]string{"10.0.0.0/22 192.0.2.2  conflict lies outside the network 172.16.0.0/12"}},
		{"one subnet, two nodes", []Peer{{Node: "c", Subnet: routeB.Dst, Address: routeC.Via}, b}, nil,
			[]string{"172.16.4.0/22 192.0.2.2 eth0  ", "172.16.4.0/22 192.0.2.3  conflict is also the subnet of node b"}},
		{"without an address", with(func(p *Peer) { p.Address = netip.Addr{} }), nil,
			[]string{"172.16.4.0/22 invalid IP  not-adjacent the node has no address yet"}},
		{"IPv6", with(func(p *Peer) { p.Address = netip.MustParseAddr("2001:db8::1") }), nil,
			[]string{"172.16.4.0/22 2001:db8::1  not-adjacent 2001:db8::1 is no IPv4 address"}},
		{"behind a router", []Peer{b}, answerB(nlx.Lookup{FIBRoute: nlx.FIBRoute{Type: unix.RTN_UNICAST, Index: eth1, Routed: true, Via: netip.MustParseAddr("192.0.2.254")}}),
			[]string{"172.16.4.0/22 192.0.2.2  not-adjacent 192.0.2.2 is behind the router 192.0.2.254 on eth1; direct routes need it on the same link"}},
		{"behind a router by IPv6", []Peer{b}, answerB(nlx.Lookup{FIBRoute: nlx.FIBRoute{Type: unix.RTN_UNICAST, Index: eth1, Routed: true}}),
			[]string{"172.16.4.0/22 192.0.2.2  not-adjacent 192.0.2.2 is behind a router on eth1; direct routes need it on the same link"}},
		{"no route", []Peer{b}, answerB(nlx.Lookup{Err: unix.ENETUNREACH}),
			[]string{"172.16.4.0/22 192.0.2.2  not-adjacent this host cannot reach 192.0.2.2: network is unreachable"}},
		{"our own address", []Peer{b}, answerB(nlx.Lookup{FIBRoute: nlx.FIBRoute{Type: unix.RTN_LOCAL, Index: eth0}}),
			[]string{"172.16.4.0/22 192.0.2.2  not-adjacent 192.0.2.2 is an address of this host itself"}},
		{"broadcast", []Peer{b}, answerB(nlx.Lookup{FIBRoute: nlx.FIBRoute{Type: unix.RTN_BROADCAST, Index: eth0}}),
			[]string{"172.16.4.0/22 192.0.2.2  not-adjacent 192.0.2.2 is no other host's address"}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			w := abc()
			w.Peers = tt.peers
			goals := desired(w)
			answers := tt.answers
			if answers == nil {
				answers = onLink(goals)
			}
			locate(goals, answers, ethName)
			var got []string
			for _, g := range goals {
				if g.Kind == Via {
					got = append(got, g.Destination.String()+" "+g.Gateway.String()+" "+g.Device+" "+string(g.state)+" "+g.reason)
				}
			}
			if d := cmp.Diff(tt.want, got); d != "" {
				t.Errorf("(-want +got):\n%s", d)
			}
			if last := goals[0]; len(tt.want) == 0 && (len(goals) != 1 || last.Kind != Unreachable) {
				t.Errorf("goals %+v", goals)
			}
		})
	}
}

func answerB(l nlx.Lookup) map[netip.Addr]nlx.Lookup {
	return map[netip.Addr]nlx.Lookup{routeB.Via: l}
}

// TestReasons: what is in the way is named so that ip(8) finds it.
func TestReasons(t *testing.T) {
	t.Parallel()
	blackhole := nlx.FIBRoute{Dst: routeB.Dst, Type: unix.RTN_BLACKHOLE, Protocol: unix.RTPROT_BOOT}
	tests := []struct {
		name string
		have nlx.FIBRoute
		want string
	}{
		{"static", static(via("172.16.4.0/22", "192.0.2.9", eth1)), "its place has 172.16.4.0/22 via 192.0.2.9 dev eth1 proto static"},
		{"blackhole", blackhole, "its place has blackhole 172.16.4.0/22 proto boot"},
		{"a part", static(metric(via("172.16.6.0/23", "192.0.2.9", eth1), 50)), "a part of it is led elsewhere by 172.16.6.0/23 via 192.0.2.9 dev eth1 proto static metric 50"},
		{"a TOS", static(tos(routeB, 8)), "a part of it is led elsewhere by 172.16.4.0/22 tos 0x08 via 192.0.2.2 dev eth0 proto static"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			have := []nlx.FIBRoute{network, tt.have}
			if keyOf(tt.have) != keyOf(routeB) {
				have = append(have, routeB)
			}
			goals := desired(abc())
			locate(goals, onLink(goals), ethName)
			s := compare(abc(), goals, tableOf(have), nil, ethName)[1]
			if s.Node != "b" || s.State != Conflict || s.Reason != tt.want {
				t.Errorf("%+v, want reason %q", s, tt.want)
			}
		})
	}
	// The way round a router that an operator has made by hand.
	goals := desired(abc())
	locate(goals, answerB(nlx.Lookup{Err: unix.ENETUNREACH}), ethName)
	s := compare(abc(), goals, tableOf([]nlx.FIBRoute{static(routeB)}), nil, ethName)[1]
	if want := "this host cannot reach 192.0.2.2: network is unreachable; in use is 172.16.4.0/22 via 192.0.2.2 dev eth0 proto static"; s.State != Conflict || s.Reason != want {
		t.Errorf("%+v", s)
	}
}

func TestConditions(t *testing.T) {
	t.Parallel()
	w := abc()
	goals := desired(w)
	answers := onLink(goals)
	answers[w.Address] = nlx.Lookup{FIBRoute: nlx.FIBRoute{Type: unix.RTN_LOCAL, Index: eth0}}
	locate(goals, answers, ethName)
	if _, nodes := asymmetric(w, goals, answers); nodes != nil {
		t.Errorf("one uplink: %v", nodes)
	}
	if c := carriers(goals); c != nil {
		t.Errorf("carrier: %v", c)
	}
	answers[routeC.Via] = nlx.Lookup{FIBRoute: nlx.FIBRoute{Type: unix.RTN_UNICAST, Index: eth1, LinkDown: true}}
	locate(goals, answers, ethName)
	if index, nodes := asymmetric(w, goals, answers); index != eth0 || len(nodes) != 1 || nodes[0] != "c" {
		t.Errorf("two uplinks: %d, %v", index, nodes)
	}
	want := []Condition{{"carrier", "eth1", "eth1 has no carrier; it leads to c"}}
	if d := cmp.Diff(want, carriers(goals)); d != "" {
		t.Errorf("carriers (-want +got):\n%s", d)
	}
	docker := nlx.FIBRoute{Dst: netip.MustParsePrefix("172.16.0.0/16"), Type: unix.RTN_UNICAST, Protocol: unix.RTPROT_KERNEL, Index: eth1}
	ownPart := static(via("172.16.1.0/24", "192.0.2.9", eth1))
	elsewhere := static(via("172.20.0.0/16", "192.0.2.9", eth1))
	whole := static(via("172.16.0.0/12", "192.0.2.9", eth1))
	got := overlaps(w, goals, tableOf([]nlx.FIBRoute{network, routeB, ownPart, elsewhere, whole}), ethName)
	want = []Condition{{"overlap", "172.16.1.0/24", "172.16.1.0/24 via 192.0.2.9 dev eth1 proto static overlaps this node's own subnet 172.16.0.0/22"}}
	if d := cmp.Diff(want, got); d != "" {
		t.Errorf("overlaps (-want +got):\n%s", d)
	}
	w.Subnet = netip.MustParsePrefix("172.24.0.0/22")
	got = overlaps(w, goals, tableOf([]nlx.FIBRoute{network, routeB, docker}), ethName)
	want = []Condition{{"overlap", "172.16.0.0/16", "172.16.0.0/16 dev eth1 proto kernel overlaps 172.16.4.0/22 of node b"}}
	if d := cmp.Diff(want, got); d != "" {
		t.Errorf("overlaps of a peer (-want +got):\n%s", d)
	}
	if got := list([]string{"b", "c", "d", "e", "f"}); got != "b, c, d and 2 more" {
		t.Error(got)
	}
}
