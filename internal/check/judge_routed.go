package check

import (
	"cmp"
	"fmt"
	"net/netip"
	"slices"

	"golang.org/x/sys/unix"

	"stellar.io/stellar/internal/firewall"
	"stellar.io/stellar/internal/nlx"
	"stellar.io/stellar/netsetup"
)

// door is the interface by which a container's packets come to the host's IP: the
// bridge, or where there is none the host's end; "": the container is only thought of.
func (f Facts) door(g guest) string {
	if f.Routed {
		return g.port
	}
	return f.Bridge
}

// doors are those of all containers, or of as many as are tried.
func (f Facts) doors() []string {
	if !f.Routed {
		return []string{f.Bridge}
	}
	var out []string
	for _, g := range f.guests() {
		if g.port != "" {
			out = append(out, g.port)
		}
	}
	return out
}

// packet is one that is tried, with what a command that mends a firewall lets through.
func (f Facts) packet(in, out string, src, dst netip.Addr) firewall.Packet {
	p := firewall.Packet{In: in, Out: out, Src: src, Dst: dst, Groups: map[string]uint32{}}
	for _, name := range []string{in, out} {
		if l, ok := f.link(name); ok {
			p.Groups[name] = l.Group
		}
	}
	if f.Routed {
		p.Network = f.Network
	}
	return p
}

// routed judges what the host has of a container that has a route of its own: the route,
// and the neighbour entry.
func (j *judgement) routed(e netsetup.Endpoint, who string) {
	f := j.f
	if f.Tables != nil {
		var at []nlx.TableRoute
		for _, r := range f.Tables {
			if r.Dst.IsSingleIP() && r.Dst.Addr() == e.Addr && r.Table != unix.RT_TABLE_LOCAL && f.asked(r.Table, r.Dst.Bits()) {
				at = append(at, r)
			}
		}
		mend := f.repair(fmt.Sprintf("ip route replace %s dev %s proto 147", e.Addr, e.HostIfname))
		if len(at) == 0 {
			j.error(HostRoute, who, fmt.Sprintf("the host has no route to %s of %s by %s", e.Addr, who, e.HostIfname), mend)
		} else if best := slices.MinFunc(at, func(a, b nlx.TableRoute) int { return cmp.Compare(a.Metric, b.Metric) }); best.Index != e.HostIndex || best.Type != unix.RTN_UNICAST {
			j.error(HostRoute, who, fmt.Sprintf("the host's route to %s of %s leads elsewhere than to %s: ip route show %s", e.Addr, who, e.HostIfname, e.Addr), mend)
		}
	}
	mac := f.MACs[e.Addr]
	for _, n := range f.Neighbours {
		if pins(n, e) && mac != "" && n.MAC.String() != mac {
			j.error(Neighbour, who, fmt.Sprintf("the host sends packets for %s of %s to %s, which was set by hand; the container has %s", e.Addr, who, n.MAC, mac),
				f.repair(fmt.Sprintf("ip neigh replace %s lladdr %s dev %s nud permanent", e.Addr, mac, e.HostIfname)))
		}
	}
}

// pins reports whether n is a container's neighbour entry that does not follow what it
// answers.
func pins(n nlx.Neighbour, e netsetup.Endpoint) bool {
	return n.Index == e.HostIndex && n.Addr == e.Addr && n.State&(unix.NUD_PERMANENT|unix.NUD_NOARP) != 0
}
