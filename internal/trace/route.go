package trace

import (
	"fmt"
	"net/netip"
	"strconv"
	"strings"

	"stellar.io/stellar/api"
)

type prefix = netip.Prefix

// Numbers of linux/rtnetlink.h.
const (
	tableLocal = 255
	tableMain  = 254
	typeLocal  = 2 // RTN_LOCAL
	typeAway   = 1 // RTN_UNICAST
	strict     = 1 // of rp_filter
	ourProto   = 147
)

// String writes a route as ip(8) does.
func (r Route) String() string {
	if r.Err != "" {
		return r.Err
	}
	var b strings.Builder
	if r.Type == typeLocal {
		b.WriteString("local ")
	}
	if r.Dst.Bits() == 0 {
		b.WriteString("default")
	} else {
		b.WriteString(r.Dst.String())
	}
	if r.Via.IsValid() {
		fmt.Fprintf(&b, " via %s", r.Via)
	}
	if r.Dev != "" {
		fmt.Fprintf(&b, " dev %s", r.Dev)
	}
	if r.Table != tableMain && r.Table != tableLocal && r.Table != 0 {
		fmt.Fprintf(&b, " table %d", r.Table)
	}
	return b.String()
}

// bad reports whether the kernel does not send packets on by r.
func (r Route) bad() bool { return r.Err != "" || (r.Type != typeAway && r.Type != typeLocal) }

// hostRoute is the host's choice of a next hop, away from this node. It reports
// whether that is the right one.
func (p *path) hostRoute() bool {
	f := p.f
	r := f.Host.Plain
	if f.Local.Kind == api.TraceContainer {
		r = f.Host.Out
	}
	v := p.outsideRoute(r)
	if f.PeerSubnet.IsValid() {
		v = p.peerRoute(r)
	}
	p.add(whatHostRoute, f.Remote.Address.String(), v)
	return v.state == api.TraceOK
}

// peerRoute judges the route to another node's subnet: it must be ours, in the main
// table, by that node.
func (p *path) peerRoute(r Route) verdict {
	f := p.f
	main := f.Host.Main
	mainRight := !main.bad() && main.Ours && main.Via == f.NextHop
	switch {
	case !r.bad() && r.Table == tableMain && r.Ours && r.Via == f.NextHop:
		return fine("%s", r)
	case linkDown(f.Host.Uplink).state == api.TraceBroken && f.Host.Uplink.Name != "" && !mainRight:
		return unknown("no route to %s: %s", f.PeerSubnet, linkDown(f.Host.Uplink).detail)
	case r.Err != "" && f.Local.Kind == api.TraceContainer && f.Host.Forwarding[f.door()] == "0" && mainRight:
		return unknown("the kernel does not forward what comes in by %s", f.door())
	case r.Invalid && mainRight && !f.Host.Plain.bad() && f.Host.RPFilter[f.door()] == strict:
		return broken(codeRPFilter, fmt.Sprintf("sysctl -w net.ipv4.conf.%s.rp_filter=2", f.door()), "the kernel does not take %s as a source on %s", f.Local.Address, f.door())
	case !r.bad() && r.Table != tableMain, r.bad() && mainRight:
		return p.byRule(r)
	case !f.Host.ToNextHop.bad() && f.Host.ToNextHop.Routed:
		return p.notAdjacent()
	case !main.bad() && !main.Ours && main.Dst.Bits() >= f.PeerSubnet.Bits(), main.bad() && main.Err == "" && !main.Ours && main.Dst.Bits() >= f.PeerSubnet.Bits():
		return broken(codeRouteForeign, "ip route del "+main.selector(), "%s, which is not ours, has the place of %s via %s", main, f.PeerSubnet, f.NextHop)
	case mainRight:
		return p.byRule(r)
	case main.Ours && !main.bad():
		return broken(codeRouteMissing, "stellar route sync", "%s leads to %s, node %s has %s now", main.Dst, main.Via, f.Remote.Node, f.NextHop)
	}
	return broken(codeRouteMissing, "stellar route sync", "no route to %s, the subnet of node %s", f.PeerSubnet, f.Remote.Node)
}

// selector is what `ip route del` needs to find the route.
func (r Route) selector() string {
	s := r.Dst.String()
	if r.Dst.Bits() == 0 {
		s = "default"
	}
	if r.Via.IsValid() {
		s += " via " + r.Via.String()
	} else if r.Dev != "" {
		s += " dev " + r.Dev
	}
	return s
}

func (p *path) notAdjacent() verdict {
	f := p.f
	to := f.Host.ToNextHop
	mend := "ip route get " + f.NextHop.String()
	if to.Dst.IsSingleIP() {
		mend = "ip route del " + to.selector()
	}
	return broken(codeNotAdjacent, mend, "node %s (%s) is behind a router: %s; it must be on the same link", f.Remote.Node, f.NextHop, to)
}

// byRule names the policy rule that leads past the main table.
func (p *path) byRule(r Route) verdict {
	for _, rule := range p.f.Host.Rules {
		if r.Err == "" && rule.Table != r.Table {
			continue
		}
		if r.Err != "" && len(p.f.Host.Rules) > 1 {
			break // which of them refuses is not known
		}
		name := fmt.Sprintf("the policy rule of priority %d (table %d)", rule.Priority, rule.Table)
		return broken(codeRouteRule, fmt.Sprintf("ip rule del pref %d", rule.Priority), "%s leads packets for %s past the main table: %s", name, p.f.Remote.Address, r)
	}
	return broken(codeRouteRule, "ip rule", "a policy rule leads packets for %s past the main table: %s", p.f.Remote.Address, r)
}

// outsideRoute judges the route to what is no container of the cluster.
func (p *path) outsideRoute(r Route) verdict {
	f := p.f
	switch up := linkDown(f.Host.Uplink); {
	case !r.bad():
		return fine("%s", r)
	case up.state == api.TraceBroken && f.Host.Uplink.Name != "":
		return unknown("no route to %s: %s", f.Remote.Address, up.detail)
	case r.Invalid && !f.Host.Plain.bad() && f.Host.RPFilter[f.door()] == strict:
		return broken(codeRPFilter, fmt.Sprintf("sysctl -w net.ipv4.conf.%s.rp_filter=2", f.door()), "the kernel does not take %s as a source on %s", f.Local.Address, f.door())
	case f.Host.Forwarding[f.door()] != "1" && f.Local.Kind == api.TraceContainer && !f.Host.Plain.bad():
		return unknown("the kernel does not forward")
	case !f.Host.Main.bad():
		return p.byRule(r)
	}
	return broken(codeDefaultRoute, "ip route add default via ROUTER", "the host has no route to %s: %s", f.Remote.Address, r.Err)
}

// linkGone reports whether a host end that is down has taken its route with it.
func linkGone(l Link) bool { return l.Name != "" && (!l.Exists || !l.Up) }

// localRoute is the way between a container and its own host, or another container of
// its host that has a route of its own.
func (p *path) localRoute() {
	f := p.f
	r, want := f.Host.Out, "the host itself"
	switch {
	case f.Local.Kind != api.TraceContainer:
		r, want = f.Host.Plain, f.door()
	case f.Remote.Kind == api.TraceContainer: // each has a route of its own
		want = f.beyond()
	}
	var v verdict
	switch toHost := f.Remote.Kind == api.TraceHost; {
	case toHost && r.Err == "" && r.Type == typeLocal, !toHost && !r.bad() && r.Dev == want:
		v = fine("%s", r)
	case !toHost && linkGone(f.Host.RemoteEnd):
		v = unknown("%s is down", want)
	case f.Local.Kind == api.TraceContainer && f.Host.Forwarding[f.door()] == "0":
		v = unknown("the kernel does not forward what comes in by %s", f.door())
	default:
		v = p.toEndpoint(r, want, f.Remote)
	}
	p.add(whatHostRoute, f.Remote.Address.String(), v)
}

// toEndpoint names what has the place of the route to an end on this node: the connected
// one of the bridge, or the container's own.
func (p *path) toEndpoint(r Route, want string, end api.TraceEnd) verdict {
	f := p.f
	byRule := r.Err == "" && r.Table != tableMain && r.Table != tableLocal
	switch {
	case f.Routed && end.Kind == api.TraceContainer && !byRule:
		mend := "ip route replace " + end.Address.String() + " dev " + want + " proto 147"
		if r.Err == "" && r.Dst.IsSingleIP() && !r.Ours {
			mend = "ip route del " + r.selector() + "; " + mend
		}
		return broken(codeHostRoute, mend, "the host's route to %s by %s is missing or another has its place: %s", end, want, r)
	case byRule:
		return p.byRule(r)
	case r.Err == "" && r.Dst.Bits() > 0 && !r.Ours:
		return broken(codeOverlap, "ip route del "+r.selector(), "%s takes packets that are for %s", r, want)
	case r.Err == "":
		return broken(codeRouteMissing, "systemctl restart stellar", "%s leads elsewhere than to %s", r, want)
	}
	return broken(codeRouteMissing, "systemctl restart stellar", "no route to %s: %s", f.Subnet, r.Err)
}

// reverse is the host's route to the local end, as a packet from the wire meets it.
func (p *path) reverse(arrival Link, in Route) {
	f := p.f
	back := f.Host.Back
	dev := arrival.Name
	rightIn := in.Err == "" && (in.Type == typeLocal && f.Local.Kind != api.TraceContainer || in.Type == typeAway && in.Dev == f.door())
	rightBack := back.Err == "" && (back.Type == typeLocal && f.Local.Kind != api.TraceContainer || back.Type == typeAway && back.Dev == f.door())
	var v verdict
	switch {
	case dev == "":
		v = unknown("by which interface packets come in is not known")
	case rightIn:
		v = fine("%s", in)
	case f.Local.Kind == api.TraceContainer && f.Host.Forwarding[dev] == "0":
		v = unknown("the kernel does not forward what comes in by %s", dev)
	case linkDown(arrival).state == api.TraceBroken:
		v = unknown("%s is down", dev)
	case rightBack && (in.Invalid || in.Err != "") && f.Host.RPFilter[dev] == strict:
		v = broken(codeRPFilter, fmt.Sprintf("sysctl -w net.ipv4.conf.%s.rp_filter=2", dev),
			"rp_filter is strict on %s, but this host reaches %s by %s: packets from there are dropped", dev, f.Remote.Address, orNothing(f.Host.Plain.Dev))
	case rightBack && in.Invalid:
		v = broken(codeOverlap, "ip route get "+f.Remote.Address.String(), "the kernel does not take %s as a source on %s: %s", f.Remote.Address, dev, in.Err)
	case rightBack:
		v = p.byRule(in)
	case f.Routed && f.Local.Kind == api.TraceContainer && linkGone(f.Host.HostEnd):
		v = unknown("%s is down", f.Host.HostEnd.Name)
	default:
		v = p.toEndpoint(back, f.door(), f.Local)
	}
	p.add(whatReverse, f.Local.Address.String(), v)
}

// nextHop is the neighbour that packets are sent to, if the route is right.
func (p *path) nextHop(right bool) {
	f, h := p.f, p.f.Host
	subject := h.HopAddr.String()
	if h.HopAddr == f.NextHop && f.Remote.Node != "" {
		subject = f.Remote.Node
	}
	if !h.HopAddr.IsValid() || !right {
		p.add(whatNextHop, orNothing(""), unknown("no right route, no next hop"))
		return
	}
	v := hop(h.HopAddr, h.Uplink.Name, h.Hop, h.Answers, h.Asked)
	if linkDown(h.Uplink).state == api.TraceBroken {
		v = unknown("%s is not asked for: %s is down", h.HopAddr, h.Uplink.Name)
	}
	p.add(whatNextHop, subject, v)
}

// hop judges a neighbour by the kernel's entry and by who answers for the address.
// Whether it is the right one only the peer can say: see Join.
func hop(a netip.Addr, dev string, n Neigh, answers []string, asked bool) verdict {
	clear := fmt.Sprintf("ip neigh del %s dev %s", a, dev)
	list := strings.Join(answers, ", ")
	switch {
	case n.Permanent && len(answers) > 0 && !contains(answers, n.MAC):
		return broken(codeNeighbour, clear, "%s is set to %s by hand (%s), but %s answers for it", a, n.MAC, n.State, list)
	case n.MAC == "" && asked && len(answers) == 0, !asked && n.Failed:
		return broken(codePeer, "ping "+a.String(), "%s does not answer on %s: is the machine up, is it on this link?", a, dev)
	case len(answers) > 1:
		return doubt(codeDuplicate, "arping -I "+dev+" "+a.String(), "%d answer for %s: %s", len(answers), a, list)
	case n.MAC != "" && len(answers) > 0 && !contains(answers, n.MAC):
		return doubt(codeDuplicate, clear, "%s is known at %s, but %s answers for it", a, n.MAC, list)
	case n.MAC == "" && len(answers) > 0:
		return fine("%s at %s", a, answers[0])
	case n.MAC == "":
		return fine("%s, not asked for yet", a)
	}
	return fine("%s at %s", a, n.MAC)
}

func contains(list []string, s string) bool {
	for _, e := range list {
		if e == s {
			return true
		}
	}
	return false
}

// number reads a sysctl that holds one.
func number(s string) int {
	n, err := strconv.Atoi(strings.TrimSpace(s))
	if err != nil {
		return 0
	}
	return n
}
