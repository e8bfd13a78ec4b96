package check

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"stellar.io/stellar/api"
	"stellar.io/stellar/internal/firewall"
	"stellar.io/stellar/routes"
)

// samples bounds of how many endpoints, and of how many peers, packets are tried.
const samples = 256

// meeting is where packets meet filters, and what a drop there is called.
type meeting struct {
	hooks []firewall.Hook
	code  string
}

var (
	routed  = meeting{[]firewall.Hook{{Family: "ip", Name: "prerouting"}, {Family: "ip", Name: "forward"}, {Family: "ip", Name: "postrouting"}}, ForwardDrop}
	bridged = meeting{routed.hooks, BrNetfilter}
	ingress = meeting{[]firewall.Hook{{Family: "netdev", Name: "ingress"}, {Family: "netdev", Name: "egress"}}, IngressDrop}
	sent    = meeting{[]firewall.Hook{{Family: "bridge", Name: "prerouting"}, {Family: "bridge", Name: "input"}}, BridgeDrop}
	taken   = meeting{[]firewall.Hook{{Family: "bridge", Name: "output"}, {Family: "bridge", Name: "postrouting"}}, BridgeDrop}
	crossed = meeting{[]firewall.Hook{{Family: "bridge", Name: "prerouting"}, {Family: "bridge", Name: "forward"}, {Family: "bridge", Name: "postrouting"}}, BridgeDrop}
	arrived = meeting{[]firewall.Hook{{Family: "ip", Name: "prerouting"}, {Family: "ip", Name: "input"}}, PortFiltered}
)

// guest is a container of this node as a filter sees it.
type guest struct {
	addr netip.Addr
	port string // the host's end
}

// far is where packets of a peer's containers come from.
type far struct {
	addr   netip.Addr
	device string
}

// filters judges what packets would meet on their way between this node's containers
// and the peers', and those of the peers' agents.
func (j *judgement) filters() {
	f := j.f
	if !f.Subnet.IsValid() {
		return
	}
	guests, fars := f.guests(), f.fars()
	if f.Routed && len(f.Endpoints) == 0 {
		guests = nil // by which interface their packets would come is not known
	}
	for i, g := range guests {
		for k, p := range fars {
			if i == 0 || k == 0 {
				j.between(g, p)
			}
		}
		if i > 0 {
			j.neighbours(guests[0], g)
			j.neighbours(g, guests[0])
		}
	}
	j.ports()
	j.others()
}

// guests are the containers; where there is none, one that could be.
func (f Facts) guests() []guest {
	var out []guest
	for _, e := range f.Endpoints {
		if len(out) < samples {
			out = append(out, guest{e.Addr, e.HostIfname})
		}
	}
	if len(out) == 0 {
		out = append(out, guest{addr: f.Subnet.Addr().Next().Next()})
	}
	return out
}

func (f Facts) fars() []far {
	var out []far
	for _, r := range f.Routes {
		if r.Kind == routes.Via && r.Device != "" && len(out) < samples {
			out = append(out, far{r.Destination.Addr().Next().Next(), r.Device})
		}
	}
	return out
}

// between tries both ways between a container and a peer's.
func (j *judgement) between(g guest, p far) {
	door := j.f.door(g)
	out := j.f.packet(door, p.device, g.addr, p.addr)
	in := j.f.packet(p.device, door, p.addr, g.addr)
	j.meets(routed, out)
	j.meets(routed, in)
	j.meets(ingress, in)
	j.meets(ingress, out)
	if g.port != "" && !j.f.Routed {
		out.In, in.Out = g.port, g.port
		j.meets(sent, out)
		j.meets(taken, in)
		j.meets(ingress, out)
	}
}

// neighbours tries the way between two containers of this node.
func (j *judgement) neighbours(from, to guest) {
	p := j.f.packet(from.port, to.port, from.addr, to.addr)
	if j.f.Routed {
		j.meets(routed, p)
		return
	}
	j.meets(crossed, p)
	if j.f.BrNetfilter {
		p.In, p.Out = j.f.Bridge, j.f.Bridge
		j.meets(bridged, p)
	}
}

// meets reports what takes the packet away with certainty.
func (j *judgement) meets(m meeting, p firewall.Packet) {
	for _, hook := range m.hooks {
		for _, d := range j.f.Filters.Judge(hook, p) {
			if !d.Certain {
				continue
			}
			message := fmt.Sprintf("%s drops what comes from %s to %s: %s", d.Where, p.Src, p.Dst, d.Rule)
			if slices.ContainsFunc(j.found, func(f api.CheckFinding) bool {
				return f.Subject == d.Where && (f.Code == m.code || m.code == BrNetfilter)
			}) {
				return // told by another packet
			}
			j.error(m.code, d.Where, message, d.Mend)
			return
		}
	}
}

// ports tries what the other agents send to this one.
func (j *judgement) ports() {
	f := j.f
	if !f.Address.IsValid() || len(f.Uplinks) == 0 {
		return
	}
	for _, p := range f.Peers {
		if !p.Address.Addr().Is4() {
			continue
		}
		packet := firewall.Packet{In: f.Uplinks[0], Src: p.Address.Addr(), Dst: f.Address.Addr(), Protocol: "tcp", Port: f.Address.Port()}
		for _, hook := range arrived.hooks {
			for _, d := range f.Filters.Judge(hook, packet) {
				if d.Certain {
					j.error(PortFiltered, d.Where, fmt.Sprintf("%s drops what other nodes send to %s (tcp): %s", d.Where, f.Address, d.Rule), d.Mend)
					return
				}
			}
		}
	}
}

// others judges what is no packet filter by name and drops packets as well.
func (j *judgement) others() {
	f := j.f
	for _, b := range f.Blocks {
		if b.Direction == "fwd" && f.Network.IsValid() && b.Dst.Overlaps(f.Network) && (b.Src.Overlaps(f.Network) || b.Src.Bits() == 0) {
			j.error(XfrmDrop, b.Dst.String(), fmt.Sprintf("an IPsec policy blocks what is forwarded from %s to %s", b.Src, b.Dst),
				fmt.Sprintf("ip xfrm policy delete src %s dst %s dir fwd", b.Src, b.Dst))
		}
	}
	for _, e := range f.Endpoints {
		for _, t := range f.Traffic[e.HostIfname] {
			side := map[bool]string{true: "ingress", false: "egress"}[t.Ingress]
			who := e.Owner.Namespace + "/" + e.Owner.ID
			j.error(TCDrop, who, fmt.Sprintf("a filter of tc (%s) that is not Stellar's decides on the packets of %s at %s of %s", t.Kind, who, side, e.HostIfname),
				fmt.Sprintf("tc filter show dev %s %s; tc filter del dev %s %s", e.HostIfname, side, e.HostIfname, side))
		}
	}
	if f.FiltersRead && f.Masquerade && !f.masquerades() {
		j.error(Masquerade, "inet stellar", "the rule that gives packets out of the cluster the host's address is missing (nftables table inet stellar)", f.repair(restartMend))
	}
}

// masquerades reports whether our own rule for the way out is there.
func (f Facts) masquerades() bool {
	return slices.ContainsFunc(f.Filters.Chains, func(c *firewall.Chain) bool {
		return c.Family == "inet" && c.Table == "stellar" && c.Name == "postrouting" &&
			slices.ContainsFunc(c.Rules, func(r firewall.Rule) bool { return strings.Contains(r.Text, "masquerade") })
	})
}
