package trace

import (
	"cmp"
	"fmt"
	"net/netip"
	"slices"

	"stellar.io/stellar/api"
	"stellar.io/stellar/internal/firewall"
)

// repair is the command that puts an endpoint right.
func (p *path) repair() string { return "stellar endpoint repair " + p.f.Local.String() }

// inside is a command that is typed in the container's namespace.
func (p *path) inside(command string) string {
	if p.f.Guest == nil || p.f.Guest.PID == 0 {
		return command
	}
	return fmt.Sprintf("nsenter -t %d -n %s", p.f.Guest.PID, command)
}

// endpoint is what the agent says of the container.
func (p *path) endpoint() {
	e, name := p.f.Endpoint, p.f.Local.String()
	switch {
	case !e.Known:
		p.add(whatEndpoint, name, broken(codeEndpoint, "stellar endpoint ls", "nobody on this node has %s", p.f.Local.Address))
	case !e.Up:
		p.add(whatEndpoint, name, broken(codeEndpoint, "stellar endpoint inspect "+name, "%s: %s", e.State, e.Reason))
	default:
		p.add(whatEndpoint, name, fine("%s, %s", e.State, p.f.Local.Address))
	}
}

// guestInterface reports whether the container could be entered.
func (p *path) guestInterface() bool {
	name := p.f.Local.String()
	g := p.f.Guest
	if g == nil {
		p.add(whatInterface, name, unknown("the container's namespace cannot be entered: %s", p.f.GuestErr))
		return false
	}
	l := g.Link
	has := slices.ContainsFunc(l.Addrs, func(a netip.Prefix) bool { return a.Addr() == p.f.Local.Address })
	var v verdict
	switch {
	case !l.Exists:
		v = broken(codeLink, p.repair(), "the container has no interface %s", l.Name)
	case !l.Up:
		v = broken(codeLink, p.repair(), "%s is down in the container", l.Name)
	case !has:
		v = broken(codeAddress, p.repair(), "%s lacks the address %s in the container", l.Name, p.f.Local.Address)
	case l.MAC != "" && p.f.Host.MAC != "" && l.MAC != p.f.Host.MAC:
		v = broken(codeMAC, p.repair(), "%s has the hardware address %s, not %s by which the node knows it: nothing passes (the label stellar.io/mac chooses another)", l.Name, l.MAC, p.f.Host.MAC)
	case !l.Carrier && p.f.Host.HostEnd.Exists && !p.f.Host.HostEnd.Up:
		v = unknown("%s has no carrier: its host end is down", l.Name)
	case !l.Carrier:
		v = broken(codeLink, p.repair(), "%s has no carrier", l.Name)
	default:
		v = fine("%s %s, mtu %d", l.Name, p.f.Local.Address, l.MTU)
	}
	p.add(whatInterface, name, worst(v, p.tc(g.TC.Egress, "sends"), p.tc(g.TC.Ingress, "receives")))
	return true
}

// guestRoute is the container's own choice of a next hop.
func (p *path) guestRoute() {
	f, r := p.f, p.f.Guest.Route
	var v verdict
	switch {
	case r.Err != "" && (!f.Guest.Link.Up || !f.Guest.Link.Exists):
		v = unknown("no route to %s: %s is down", f.Remote.Address, f.Guest.Link.Name)
	case r.Err != "" && !f.Guest.Has(f.Local.Address):
		v = unknown("no route to %s: %s lacks its address", f.Remote.Address, f.Guest.Link.Name)
	case r.Err != "":
		v = broken(codeRoute, p.repair(), "the container has no route to %s: %s", f.Remote.Address, r.Err)
	case r.Dev != f.Guest.Link.Name:
		v = broken(codeRoute, p.inside(fmt.Sprintf("ip route get %s", f.Remote.Address)), "the container sends to %s by %s, not by %s: %s", f.Remote.Address, r.Dev, f.Guest.Link.Name, r)
	case f.Network.Contains(f.Remote.Address) && (f.Routed || !f.Subnet.Contains(f.Remote.Address)) && r.Via != f.Gateway:
		v = broken(codeRoute, p.repair(), "the container sends to %s by %s, not by the gateway %s", f.Remote.Address, r.Via, f.Gateway)
	default:
		v = fine("%s", r)
	}
	p.add(whatRoute, f.Local.String(), v)
}

// guestFilter is the container's own firewall at one hook.
func (p *path) guestFilter(hook string) {
	f := p.f
	pkt := firewall.Packet{Src: f.Local.Address, Dst: f.Remote.Address, Established: f.Answering}
	hooks := []firewall.Hook{{Family: "ip", Name: "output"}, {Family: "ip", Name: "postrouting"}}
	if hook == "input" {
		pkt = firewall.Packet{Src: f.Remote.Address, Dst: f.Local.Address, Established: !f.Answering}
		hooks = []firewall.Hook{{Family: "ip", Name: "prerouting"}, {Family: "ip", Name: "input"}}
	}
	v := p.judge(f.Guest.Filters, f.Guest.Link.Name, pkt, hooks, codeFilter)
	if v.mend != "" {
		v.mend = p.inside(v.mend)
	}
	p.add(whatFilter, f.Local.String(), v)
}

// guestNeighbour is the hardware address that the container sends to.
func (p *path) guestNeighbour() {
	f, g := p.f, p.f.Guest
	want, whose := f.Host.Bridge.MAC, "the bridge"
	if f.Switched && g.HopAddr == f.Remote.Address {
		want, whose = f.Host.RemoteMAC, f.Remote.String()
	}
	n := g.Hop
	clear := p.inside(fmt.Sprintf("ip neigh del %s dev %s", g.HopAddr, g.Link.Name))
	if f.Routed { // the entry is the agent's
		want, whose, clear = f.Host.HostEnd.MAC, f.Host.HostEnd.Name, p.repair()
	}
	var v verdict
	switch {
	case !g.HopAddr.IsValid():
		v = unknown("no next hop")
	case n.MAC != "" && want != "" && n.MAC != want:
		v = broken(codeGateway, clear, "the container sends packets for %s to %s (%s), but %s has %s", g.HopAddr, n.MAC, n.State, whose, want)
	case f.Routed && g.HopAddr == f.Gateway && n.MAC == "":
		// The host answers no container: the entry is there from the beginning, or not at all.
		v = broken(codeGateway, p.repair(), "the container does not know the hardware address of its gateway %s (%s)", g.HopAddr, cmp.Or(n.State, "no entry"))
	case n.Failed:
		v = doubt(codeGateway, "", "%s did not answer when the container asked for it last", g.HopAddr)
	case !n.Exists:
		v = fine("%s, not asked for yet", g.HopAddr)
	default:
		v = fine("%s at %s", g.HopAddr, n.MAC)
	}
	p.add(whatNeighbour, f.Local.String(), v)
}

// judge asks a ruleset about a packet at several hooks, one after the other.
func (p *path) judge(rules firewall.Ruleset, dev string, pkt firewall.Packet, hooks []firewall.Hook, code string) verdict {
	out := fine("nothing drops")
	if len(rules.Doubts) > 0 && slices.Contains([]string{codeFilter, codeForwardDrop, codeHostFilter}, code) {
		out = doubt("", "", "%s", rules.Doubts[0]) // said once, not at each hop
	}
	for _, h := range hooks {
		at := pkt
		switch h.Name {
		case "prerouting", "input", "ingress":
			if at.In == "" {
				at.In = dev
			}
			at.Out = ""
		case "output", "postrouting", "egress":
			if at.Out == "" {
				at.Out = dev
			}
			at.In = ""
		}
		for _, f := range rules.Judge(h, at) {
			if f.Certain {
				return broken(code, f.Mend, "%s: %s", f.Where, f.Rule)
			}
			if out.state == api.TraceOK {
				out = doubt(code, f.Mend, "may drop some: %s: %s", f.Where, f.Rule)
			}
		}
	}
	return out
}

// tc is what traffic control does to what an interface sends or receives.
func (p *path) tc(filters []TCFilter, verb string) verdict {
	out := fine("")
	for _, t := range filters {
		if t.Certain {
			return broken(codeTCDrop, t.Mend, "a filter of tc drops what it %s: %s", verb, t.Text)
		}
		out = doubt(codeTCDrop, t.Mend, "a filter of tc may drop what it %s: %s", verb, t.Text)
	}
	return out
}
