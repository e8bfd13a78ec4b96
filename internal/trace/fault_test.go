package trace

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"stellar.io/stellar/api"
	"stellar.io/stellar/internal/firewall"
)

// faults are ways to break each kind of hop, and the one right cause.
var faults = []struct {
	name string
	code string // of the cause; "": none is named
	t    func() api.Trace
}{
	{"endpoint rejected", codeEndpoint, there(func(f *Facts) { f.Endpoint = Endpoint{Known: true, State: "rejected", Reason: "host network"} })},
	{"endpoint gone", codeEndpoint, there(func(f *Facts) { f.Endpoint, f.Guest, f.GuestErr = Endpoint{}, nil, "gone" })},
	{"container not entered", "", there(func(f *Facts) { f.Guest, f.GuestErr = nil, "no process" })},
	{"container interface missing", codeLink, there(func(f *Facts) { f.Guest.Link = Link{Name: "eth0"}; f.Guest.Route = refused("network is unreachable") })},
	{"container interface down", codeLink, there(func(f *Facts) {
		f.Guest.Link.Up, f.Guest.Link.Carrier, f.Guest.Route, f.Guest.HopAddr = false, false, refused("network is unreachable"), netip.Addr{}
		f.Host.HostEnd.Carrier, f.Host.HostEnd.Forwards = false, false
	})},
	{"container address", codeAddress, there(func(f *Facts) {
		f.Guest.Link.Addrs, f.Guest.Route, f.Guest.HopAddr = nil, refused("network is unreachable"), netip.Addr{}
	})},
	{"container hardware address", codeMAC, there(func(f *Facts) { f.Guest.Link.MAC = "02:00:00:00:00:99" })},
	{"container hardware address at the peer", codeMAC, far(func(f *Facts) { f.Guest.Link.MAC = "02:00:00:00:00:99" })},
	{"container hardware address, which is not known", "", there(func(f *Facts) { f.Host.MAC = "" })},
	{"container tc", codeTCDrop, there(func(f *Facts) {
		f.Guest.TC.Egress = []TCFilter{{true, "egress of eth0, pref 1, matchall", "tc filter del dev eth0 egress pref 1"}}
	})},
	{"container route", codeRoute, there(func(f *Facts) { f.Guest.Route, f.Guest.HopAddr = refused("network is unreachable"), netip.Addr{} })},
	{"container route elsewhere", codeRoute, there(func(f *Facts) { f.Guest.Route = via("0.0.0.0/0", "10.0.0.1", "eth1") })},
	{"container filter", codeFilter, there(func(f *Facts) { f.Guest.Filters = dropping("inet", "output") })},
	{"container filter on the way in", codeFilter, far(func(f *Facts) { f.Guest.Filters = dropping("ip", "input") })},
	{"container neighbour", codeGateway, there(func(f *Facts) { f.Guest.Hop.MAC, f.Guest.Hop.State = "02:00:00:00:00:99", "permanent" })},
	{"host end missing", codeHostLink, there(func(f *Facts) { f.Host.HostEnd = Link{Name: "vetha1"} })},
	{"host end down", codeHostLink, there(func(f *Facts) { f.Host.HostEnd.Up, f.Guest.Link.Carrier = false, false })},
	{"host end out of the bridge", codeHostLinkOut, there(func(f *Facts) { f.Host.HostEnd.Master = "" })},
	{"host end blocked", codeHostLinkOut, there(func(f *Facts) { f.Host.HostEnd.Forwards = false })},
	{"host end tc", codeTCDrop, there(func(f *Facts) {
		f.Host.TC = map[string]TC{"vetha1": {Ingress: []TCFilter{{true, "ingress of vetha1, pref 49152, bpf", "tc filter del dev vetha1 ingress pref 49152"}}}}
	})},
	{"a program of tc that cannot be judged", "", there(func(f *Facts) {
		f.Host.TC = map[string]TC{"vetha1": {Ingress: []TCFilter{{false, "ingress of vetha1, pref 1, bpf cil_from", "tc filter del dev vetha1 ingress pref 1"}}}}
	})},
	{"bridge missing", codeNoBridge, there(func(f *Facts) { f.Host.Bridge = Link{Name: "stellar0"}; f.Host.HostEnd.Master = "stellar0" })},
	{"bridge down", codeBridgeDown, there(func(f *Facts) { f.Host.Bridge.Up = false })},
	{"bridge without the gateway", codeBridgeDown, there(func(f *Facts) { f.Host.Bridge.Addrs = nil })},
	{"bridge table", codeFDB, far(func(f *Facts) { f.Host.LocalPort = "vethb9" })},
	{"bridge filter", codeBridgeDrop, there(func(f *Facts) { f.Host.Filters.Append(dropping("bridge", "input")) })},
	{"bridge filter on the way in", codeBridgeDrop, far(func(f *Facts) { f.Host.Filters.Append(dropping("bridge", "output")) })},
	{"forwarding", codeForwarding, there(func(f *Facts) { f.Host.Forwarding["stellar0"] = "0"; f.Host.Out = refused("no route to host") })},
	{"forwarding on the way in", codeForwarding, far(func(f *Facts) { f.Host.Forwarding["eth0"] = "0"; f.Host.In = refused("no route to host") })},
	{"route missing", codeRouteMissing, there(func(f *Facts) {
		f.Host.Out, f.Host.Plain, f.Host.Main = refused("no route to host"), refused("no route to host"), Route{Dst: block("172.16.0.0/12"), Type: 7, Ours: true, Table: tableMain}
	})},
	{"route to a former address", codeRouteMissing, there(func(f *Facts) {
		r := ours(via("172.16.4.0/22", "192.0.2.7", "eth0"))
		f.Host.Out, f.Host.Plain, f.Host.Main, f.Host.HopAddr = r, r, r, r.Via
	})},
	{"route of somebody else", codeRouteForeign, there(func(f *Facts) {
		r := via("172.16.4.0/24", "192.0.2.254", "eth0")
		f.Host.Out, f.Host.Plain, f.Host.Main = r, r, r
	})},
	{"blackhole of somebody else", codeRouteForeign, there(func(f *Facts) {
		f.Host.Out, f.Host.Main = refused("invalid argument"), Route{Dst: block("172.16.4.0/24"), Type: 6, Table: tableMain}
	})},
	{"policy rule", codeRouteRule, there(func(f *Facts) {
		f.Host.Out, f.Host.Rules = via("0.0.0.0/0", "10.99.0.1", "vpn0"), []Rule{{90, 51820}, {100, 7}}
		f.Host.Out.Table = 51820
	})},
	{"policy rule that refuses", codeRouteRule, there(func(f *Facts) { f.Host.Out, f.Host.Rules = refused("no route to host"), []Rule{{100, 100}} })},
	{"not adjacent", codeNotAdjacent, there(func(f *Facts) {
		f.Host.Out, f.Host.Main = refused("no route to host"), Route{Dst: block("172.16.0.0/12"), Type: 7, Ours: true}
		f.Host.ToNextHop = via("192.0.2.2/32", "192.0.2.254", "eth0")
	})},
	{"source refused", codeRPFilter, there(func(f *Facts) {
		f.Host.Out, f.Host.RPFilter["stellar0"] = Route{Err: "invalid argument", Invalid: true}, strict
	})},
	{"policy rule to a blackhole", codeRouteRule, there(func(f *Facts) {
		f.Host.Out, f.Host.Plain, f.Host.Rules = Route{Err: "invalid argument", Invalid: true}, Route{Err: "invalid argument", Invalid: true}, []Rule{{100, 100}}
	})},
	{"reverse path filter, another interface answers", codeRPFilter, far(func(f *Facts) {
		f.Host.Own, f.Host.Arrival = f.Host.Arrival, up("corp0", "52:54:00:00:00:b9")
		f.Host.InOwn, f.Host.RPFilter["eth0"] = Route{Err: "invalid cross-device link", Invalid: true}, strict
		f.Host.Forwarding["corp0"], f.Host.In, f.Host.Plain.Dev = "0", refused("no route to host"), "corp0"
	})},
	{"forward filter", codeForwardDrop, there(func(f *Facts) { f.Host.Filters.Append(dropping("inet", "forward")) })},
	{"forward filter at the peer", codeForwardDrop, far(func(f *Facts) { f.Host.Filters.Append(dropping("ip", "forward")) })},
	{"forward filter that cannot be judged", "", there(func(f *Facts) {
		f.Host.Filters.Append(firewall.ParseIptables("iptables-nft", "*filter\n:FORWARD ACCEPT [0:0]\n-A FORWARD -m set --match-set bad src -j DROP\nCOMMIT\n"))
	})},
	{"filters that cannot be read", "", there(func(f *Facts) { f.Host.Filters = firewall.Ruleset{Doubts: []string{"nft is not installed"}} })},
	{"IPsec", codeXfrmDrop, there(func(f *Facts) {
		f.Host.Xfrm = parseXfrm("src 0.0.0.0/0 dst 172.16.8.0/22 \n\tdir fwd action block priority 0 ptype main \nsrc 0.0.0.0/0 dst 172.16.4.0/22 \n\tdir fwd action block priority 0 ptype main \n")
	})},
	{"IPsec for one protocol", "", there(func(f *Facts) {
		f.Host.Xfrm = parseXfrm("src 0.0.0.0/0 dst 172.16.4.0/22 proto tcp \n\tdir fwd action block priority 0 ptype main \n")
	})},
	{"masquerade inside", "", there(func(f *Facts) {
		f.Host.Filters = firewall.ParseIptables("iptables-nft", "*nat\n:POSTROUTING ACCEPT [0:0]\n-A POSTROUTING -o eth0 -j MASQUERADE\nCOMMIT\n")
	})},
	{"masquerade missing", codeMasquerade, func() api.Trace { return wayOut(func(f *Facts) { f.Host.Filters = firewall.Ruleset{} }) }},
	{"masquerade off", "", func() api.Trace {
		return wayOut(func(f *Facts) { f.Host.Filters, f.Masquerade = firewall.Ruleset{}, false })
	}},
	{"default route", codeDefaultRoute, func() api.Trace {
		return wayOut(func(f *Facts) {
			r := refused("network is unreachable")
			f.Host.Out, f.Host.Plain, f.Host.Main, f.Host.HopAddr = r, r, r, netip.Addr{}
		})
	}},
	{"router silent", codePeer, func() api.Trace {
		return wayOut(func(f *Facts) { f.Host.Answers, f.Host.Hop = nil, Neigh{Exists: true, Failed: true, State: "failed"} })
	}},
	{"uplink down", codeUplinkDown, func() api.Trace {
		a := healthy("a")
		a.Host.Uplink.Up, a.Host.Uplink.Carrier = false, false
		a.Host.Arrival = a.Host.Uplink
		a.Host.Out, a.Host.Plain, a.Host.ToNextHop, a.Host.HopAddr = refused("no route to host"), refused("no route to host"), refused("network is unreachable"), netip.Addr{}
		a.Host.Main = Route{Dst: block("172.16.0.0/12"), Type: 7, Ours: true}
		return Join(a.Local, a.Remote, Side(a), nil, &Silence{Text: "i/o timeout"})
	}},
	{"uplink without a carrier", codeUplinkDown, there(func(f *Facts) { f.Host.Uplink.Carrier, f.Host.Arrival.Carrier = false, false })},
	{"uplink mtu", codeMTU, there(func(f *Facts) { f.Host.Uplink.MTU = 1400 })},
	{"uplink filter", codeIngressDrop, far(func(f *Facts) { f.Host.Filters.Append(dropping("netdev", "ingress")) })},
	{"neighbour by hand", codeNeighbour, there(func(f *Facts) {
		f.Host.Hop = Neigh{Exists: true, MAC: "02:00:00:00:00:99", Permanent: true, State: "permanent"}
	})},
	{"neighbour by hand, peer silent", codeNeighbour, silent(false, func(f *Facts) {
		f.Host.Hop = Neigh{Exists: true, MAC: "02:00:00:00:00:99", Permanent: true, State: "permanent"}
	})},
	{"address twice", codeDuplicate, there(func(f *Facts) { f.Host.Answers = append(f.Host.Answers, "02:00:00:00:00:99") })},
	{"address twice, peer silent", codeDuplicate, silent(true, func(f *Facts) { f.Host.Answers = append(f.Host.Answers, "02:00:00:00:00:99") })},
	{"another machine has the address", codeDuplicate, there(func(f *Facts) { f.Host.Hop.MAC, f.Host.Answers = "02:00:00:00:00:99", nil; f.Host.Asked = false })},
	{"two interfaces of the peer answer", "", there(func(f *Facts) { f.Host.Answers = append(f.Host.Answers, "02:75:00:00:00:b0") })},
	{"peer's host silent", codePeer, silent(false, func(f *Facts) { f.Host.Answers = nil })},
	{"peer's agent dead", codeAgentDown, silent(true, func(*Facts) {})},
	{"peer silent, why is not known", "", silent(false, func(*Facts) {})},
	{"reverse path filter", codeRPFilter, far(func(f *Facts) {
		f.Host.In, f.Host.RPFilter["eth0"] = Route{Err: "invalid cross-device link", Invalid: true}, 1
		f.Host.Plain.Dev = "corp0"
	})},
	{"own subnet used otherwise", codeOverlap, far(func(f *Facts) {
		f.Host.In, f.Host.Back = onLink("172.16.4.0/24", "corp0"), onLink("172.16.4.0/24", "corp0")
	})},
	{"resident by hand", codeNeighbour, far(func(f *Facts) {
		f.Host.Resident = Neigh{Exists: true, MAC: "02:00:00:00:00:99", Permanent: true, State: "permanent"}
	})},
	{"resident twice", codeDuplicate, far(func(f *Facts) { f.Host.Resident.MAC = "02:00:00:00:00:99" })},
	{"host filter", codeHostFilter, func() api.Trace { return ownHost(func(_, h *Facts) { h.Host.Filters = dropping("inet", "input") }) }},
	{"switched: bridge table", codeFDB, func() api.Trace { return switched(func(a, _ *Facts) { a.Host.RemotePort = "vetha1" }) }},
	{"switched: isolated", codeBridgeDrop, func() api.Trace {
		return switched(func(a, _ *Facts) { a.Host.HostEnd.Isolated, a.Host.RemoteEnd.Isolated = true, true })
	}},
	{"switched: br_netfilter", codeBrNetfilter, func() api.Trace {
		return switched(func(a, b *Facts) {
			for _, f := range []*Facts{a, b} {
				f.Host.BridgeCall = true
				f.Host.Filters.Append(firewall.ParseIptables("iptables-nft", "*filter\n:FORWARD ACCEPT [0:0]\n-A FORWARD -i stellar0 -o stellar0 -j DROP\nCOMMIT\n"))
			}
		})
	}},
	{"switched: the same rule without br_netfilter", "", func() api.Trace {
		return switched(func(a, _ *Facts) {
			a.Host.Filters.Append(firewall.ParseIptables("iptables-nft", "*filter\n:FORWARD ACCEPT [0:0]\n-A FORWARD -i stellar0 -o stellar0 -j DROP\nCOMMIT\n"))
		})
	}},
	{"switched: hardware address", codeMAC, func() api.Trace { return switched(func(_, b *Facts) { b.Guest.Link.MAC = "02:00:00:00:00:99" }) }},
	{"switched: neighbour", codeGateway, func() api.Trace { return switched(func(a, _ *Facts) { a.Guest.Hop.MAC = "02:00:00:00:00:99" }) }},
	{"probe: the path's mtu", codeMTU, probing(api.TraceProbe{Sent: 20, Received: 20, RTT: 0.2, PathMTU: 1400, MTU: 1500})},
	{"probe: all lost", codeLost, probing(api.TraceProbe{Sent: 20, MTU: 1500, Vanished: "last seen at eth0 on a, not at eth0 on b"})},
	{"probe: some lost", "", probing(api.TraceProbe{Sent: 20, Received: 17, PathMTU: 1500, MTU: 1500})},
}

// there breaks the sender's side, far the other.
func there(change func(*Facts)) func() api.Trace {
	return func() api.Trace { return across(func(a, _ *Facts) { change(a) }) }
}

func far(change func(*Facts)) func() api.Trace {
	return func() api.Trace { return across(func(_, b *Facts) { change(b) }) }
}

// silent is a peer that has not told its part.
func silent(dead bool, change func(*Facts)) func() api.Trace {
	return func() api.Trace {
		a := healthy("a")
		change(a)
		return Join(a.Local, a.Remote, Side(a), nil, &Silence{Dead: dead, Text: "no answer"})
	}
}

func probing(p api.TraceProbe) func() api.Trace {
	return func() api.Trace {
		a, b := healthy("a"), healthy("b")
		here := Side(a)
		here.Probe = &p
		return Join(a.Local, b.Local, here, Side(b), nil)
	}
}

// TestFaults: each kind of hop, broken: the cause is the right one, is named once, and
// what is only a doubt is none. The golden file has what is not OK.
func TestFaults(t *testing.T) {
	t.Parallel()
	var out strings.Builder
	kinds := map[string]bool{}
	for _, f := range faults {
		tr := f.t()
		got := ""
		if tr.Cause != nil {
			got = tr.Cause.Code
		}
		if got != f.code {
			t.Errorf("%s: cause %q, want %q\n%s", f.name, got, f.code, draw(tr))
		}
		for _, h := range tr.Hops {
			if h.State == api.TraceBroken && (h.Code == "" || h.Detail == "") {
				t.Errorf("%s: hop %d is broken without a word", f.name, h.Hop)
			}
			if h.State != api.TraceOK {
				kinds[h.What] = true
			}
		}
		tr.Hops = slices.DeleteFunc(tr.Hops, func(h api.TraceHop) bool { return h.State == api.TraceOK })
		fmt.Fprintf(&out, "== %s\n%s\n", f.name, draw(tr))
	}
	golden(t, "faults", out.String())
	for _, what := range []string{
		whatEndpoint, whatInterface, whatRoute, whatNeighbour, whatFilter, whatHostEnd, whatBridge, whatFDB, whatFrames, whatForwarding, whatHostRoute,
		whatForward, whatHostFilter, whatSource, whatNextHop, whatUplink, whatReverse, whatPeer, whatProbe,
	} {
		if !kinds[what] {
			t.Errorf("no fault breaks a hop of the kind %q", what)
		}
	}
}

// TestTwoFaults: both are shown, and the first on the packet's way is the cause.
func TestTwoFaults(t *testing.T) {
	t.Parallel()
	golden(t, "two-faults", draw(across(func(a, b *Facts) {
		b.Host.Filters.Append(dropping("inet", "forward"))
		a.Guest.Hop.MAC, a.Guest.Hop.State = "02:00:00:00:00:99", "permanent"
	})))
	golden(t, "two-faults-one-side", draw(across(func(_, b *Facts) {
		b.Host.Forwarding["eth0"], b.Host.In = "0", refused("no route to host")
		b.Guest.Filters = dropping("inet", "input")
	})))
}

// TestVanished: a place is named only when the counters leave no doubt.
func TestVanished(t *testing.T) {
	t.Parallel()
	side := func(names ...string) (out []api.TraceCounter) {
		for _, n := range names {
			out = append(out, api.TraceCounter{Name: n, Leave: 100, Enter: 100})
		}
		return out
	}
	here, there := side("eth0 in a1", "vetha1", "stellar0", "eth0 on a"), side("eth0 in b1", "vethb1", "stellar0 on b", "eth0 on b")
	plus := func(in []api.TraceCounter, leave, enter []uint64) [2][]api.TraceCounter {
		after := slices.Clone(in)
		for i := range leave {
			after[i].Leave += leave[i]
		}
		for i := range enter {
			after[i].Enter += enter[i]
		}
		return [2][]api.TraceCounter{in, after}
	}
	for _, tt := range []struct {
		name         string
		leave, enter []uint64
		want         string
	}{
		{"on the wire", []uint64{20, 20, 20, 20}, nil, "last seen at eth0 on a, not at eth0 on b"},
		{"at the sender", []uint64{20, 20}, nil, "last seen at vetha1, not at stellar0"},
		{"never sent", nil, nil, "they were not seen at eth0 in a1"},
		{"at the other end", []uint64{20, 20, 20, 20}, []uint64{0, 0, 0, 20}, "last seen at eth0 on b, not at stellar0 on b"},
		{"the answers", []uint64{20, 20, 20, 20}, []uint64{20, 20, 20, 20}, "they arrived: the answers are lost (last seen at eth0 in b1)"},
		{"other traffic", []uint64{20, 3, 20, 20}, []uint64{0, 0, 0, 50}, ""},
	} {
		if got := Vanished(20, plus(here, tt.leave, nil), plus(there, nil, tt.enter)); got != tt.want {
			t.Errorf("%s: %q, want %q", tt.name, got, tt.want)
		}
	}
}

// TestOfOneMachine: several interfaces of one machine are told from several machines.
func TestOfOneMachine(t *testing.T) {
	a, b, x := "02:00:00:00:00:0a", "02:00:00:00:00:0b", "02:00:00:00:00:99"
	for _, tt := range []struct {
		answers, own []string
		want         int
	}{
		{[]string{a, b}, []string{b, a}, 1},
		{[]string{a, x}, []string{a}, 2},
		{[]string{a, x}, nil, 2}, // nobody said
		{[]string{a, b, x}, []string{a, b}, 3},
	} {
		if got := ofOneMachine(tt.answers, tt.own); len(got) != tt.want {
			t.Errorf("%v of %v: %v", tt.answers, tt.own, got)
		}
	}
}
