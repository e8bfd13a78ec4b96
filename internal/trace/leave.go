package trace

import (
	"slices"

	"stellar.io/stellar/api"
)

// Leave judges the way of a packet from the local end to the wire, or to the bridge
// when the other end is on this node, too. Pure.
func Leave(f *Facts) []api.TraceHop {
	p := &path{f: f}
	switch f.Local.Kind {
	case api.TraceContainer:
		p.endpoint()
		if p.guestInterface() {
			p.guestRoute()
			p.guestFilter("output")
			p.guestNeighbour()
		}
		p.hostEnd()
		if !f.Routed && !p.bridge() {
			return p.hops
		}
		if f.Switched {
			p.table(f.Host.RemoteMAC, f.Host.RemotePort, f.Host.RemoteEnd.Name, f.Remote)
			p.frames("prerouting", "forward", "postrouting")
			return p.hops
		}
		if !f.Routed {
			p.frames("prerouting", "input")
		}
		if f.Remote.Kind == api.TraceContainer || !f.SameNode { // what is for the host itself is not forwarded
			p.forwarding(f.door())
		}
	default:
		p.hostFilter("output")
	}
	if f.SameNode {
		p.localRoute()
		if f.Local.Kind == api.TraceContainer && f.Remote.Kind == api.TraceContainer {
			p.forward(f.door(), f.beyond())
		}
		return p.hops
	}
	right := p.hostRoute()
	if f.Local.Kind == api.TraceContainer {
		p.forward(f.door(), f.beyond())
		p.source()
	}
	p.uplink(f.Host.Uplink, "egress")
	p.nextHop(right)
	return p.hops
}

// Enter judges the way of a packet from the wire, or from the bridge, to the local
// end. Pure.
func Enter(f *Facts) []api.TraceHop {
	p := &path{f: f}
	if !f.SameNode {
		p.arrive()
	}
	if f.Local.Kind != api.TraceContainer {
		p.hostFilter("input")
		return p.hops
	}
	if f.Routed {
		p.resident()
	} else if !f.Switched {
		if !p.bridge() {
			return p.hops
		}
		p.resident()
		p.table(f.Host.MAC, f.Host.LocalPort, f.Host.HostEnd.Name, f.Local)
		p.frames("output", "postrouting")
	}
	p.hostEnd()
	p.endpoint()
	if p.guestInterface() {
		p.guestFilter("input")
	}
	return p.hops
}

// arrive judges how packets come in. They come by the interface whose hardware
// address the other side uses; if that is broken, and another one has this node's
// address, what is wrong there made them come by the wrong one.
func (p *path) arrive() {
	h := p.f.Host
	by := func(l Link, in Route) *path {
		q := &path{f: p.f}
		q.uplink(l, "ingress")
		if p.f.Local.Kind != api.TraceContainer {
			q.reverse(l, in)
			return q
		}
		q.forwarding(l.Name)
		q.reverse(l, in)
		q.forward(l.Name, p.f.door())
		return q
	}
	came := by(h.Arrival, h.In)
	if h.Own.Name != "" && h.Own.Name != h.Arrival.Name && came.broken() {
		p.hops = append(p.hops, by(h.Own, h.InOwn).hops...)
	}
	p.hops = append(p.hops, came.hops...)
}

func (p *path) broken() bool {
	return slices.ContainsFunc(p.hops, func(h api.TraceHop) bool { return h.State == api.TraceBroken })
}
