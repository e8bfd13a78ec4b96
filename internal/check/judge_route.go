package check

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"stellar.io/stellar/internal/nlx"
	"stellar.io/stellar/routes"
)

// routes passes on what package routes has found: it judges them, nobody else.
func (j *judgement) routes() {
	f := j.f
	for _, r := range f.Routes {
		subject := r.Destination.String()
		switch r.State {
		case routes.Missing:
			if r.Kind == routes.Unreachable {
				j.warn(RouteMissing, subject, fmt.Sprintf("the route that keeps packets for subnets of nobody from leaving is missing: %s", r.Reason),
					f.repair(fmt.Sprintf("ip route add unreachable %s metric 4294967295 proto 147", subject)))
				continue
			}
			j.error(RouteMissing, subject, fmt.Sprintf("the route to %s of node %s is missing: %s", subject, r.Node, r.Reason),
				f.repair(fmt.Sprintf("ip route add %s via %s dev %s proto 147", subject, r.Gateway, r.Device)))
		case routes.Conflict:
			if f.overlapped(r.Destination) {
				continue // told as what it is
			}
			j.error(RouteForeign, subject, fmt.Sprintf("the route to %s of node %s: %s", subject, r.Node, r.Reason), "ip route show to match "+subject+" and "+"ip route show to root "+subject+" list them; delete the one that is not Stellar's")
		case routes.NotAdjacent:
			j.error(NotAdjacent, r.Node, fmt.Sprintf("node %s with %s: %s", r.Node, subject, r.Reason), fmt.Sprintf("ip route get %s shows the way; have the node advertise an address on a common link (--advertise)", r.Gateway))
		}
	}
	for _, c := range f.Conditions {
		switch c.Name {
		case "rp_filter":
			j.error(RPFilter, c.Subject, c.Reason, fmt.Sprintf("sysctl -w net.ipv4.conf.%s.rp_filter=2", c.Subject))
		case "carrier":
			if !slices.Contains(f.Uplinks, c.Subject) {
				j.error(UplinkDown, c.Subject, c.Reason, "ip -br link show "+c.Subject)
			}
		case "overlap":
			if p, err := netip.ParsePrefix(c.Subject); err != nil || !slices.ContainsFunc(f.foreignRanges(), func(o nlx.TableRoute) bool { return o.Dst == p }) {
				j.error(RangeOverlap, c.Subject, c.Reason, overlapMend)
			}
		}
	}
}

const overlapMend = "ip route show table all shows what uses it; give that another range, or this node another subnet: stellar cluster leave, and join again"

// foreignRanges are the links of the host, in a table that is asked for every packet,
// that use addresses of a subnet of the cluster.
func (f Facts) foreignRanges() []nlx.TableRoute {
	bridge, _ := f.link(f.Bridge)
	var out []nlx.TableRoute
	for _, r := range f.Tables {
		if r.Protocol == routes.Protocol || r.Routed || r.Type != unix.RTN_UNICAST || r.Index == bridge.Index || r.Dst.Bits() <= f.Network.Bits() ||
			!f.Network.IsValid() || !f.Network.Overlaps(r.Dst) {
			continue
		}
		if f.overlapped1(r) && f.asked(r.Table, r.Dst.Bits()) {
			out = append(out, r)
		}
	}
	return out
}

func (f Facts) overlapped1(r nlx.TableRoute) bool {
	return f.Subnet.IsValid() && f.Subnet.Overlaps(r.Dst) || slices.ContainsFunc(f.Peers, func(p Peer) bool { return p.Subnet.IsValid() && p.Subnet.Overlaps(r.Dst) })
}

// overlapped reports whether a link of the host uses a part of the prefix.
func (f Facts) overlapped(p netip.Prefix) bool {
	return slices.ContainsFunc(f.foreignRanges(), func(r nlx.TableRoute) bool { return r.Dst.Overlaps(p) })
}

// asked reports whether a rule has the kernel look for every packet in a table, and
// take routes as long as these.
func (f Facts) asked(table uint32, bits int) bool {
	return table == unix.RT_TABLE_MAIN && f.Rules == nil || slices.ContainsFunc(f.Rules, func(r nlx.PolicyRule) bool {
		return r.Always && r.Lookup && r.Table == table && bits >= r.MinBits
	})
}

func (j *judgement) overlaps() {
	for _, r := range j.f.foreignRanges() {
		whose := "this node's subnet " + j.f.Subnet.String()
		if !j.f.Subnet.IsValid() || !j.f.Subnet.Overlaps(r.Dst) {
			for _, p := range j.f.Peers {
				if p.Subnet.IsValid() && p.Subnet.Overlaps(r.Dst) {
					whose = fmt.Sprintf("the subnet %s of node %s", p.Subnet, p.Name)
				}
			}
		}
		in := ""
		if r.Table != unix.RT_TABLE_MAIN {
			in = fmt.Sprintf(" in table %d", r.Table)
		}
		j.error(RangeOverlap, r.Dst.String(), fmt.Sprintf("%s of this host has %s%s, which overlaps %s", j.f.linkName(r.Index), r.Dst, in, whose), overlapMend)
	}
}

// rules judges what the kernel answered about packets of containers, where the main
// table is right and yet does not decide.
func (j *judgement) rules() {
	f := j.f
	for _, w := range f.Ways {
		i := slices.IndexFunc(f.Routes, func(r routes.Status) bool { return r.Kind == routes.Via && r.Destination == w.Peer.Subnet })
		if i < 0 || f.Routes[i].State != routes.OK || !f.Forwarding[f.door(f.guests()[0])] || f.overlapped(w.Peer.Subnet) {
			continue
		}
		right := w.Answer.Err == nil && w.Answer.Type == unix.RTN_UNICAST && w.Answer.Via == f.Routes[i].Gateway
		if right || w.Answer.Err == nil && w.Table == unix.RT_TABLE_MAIN {
			continue
		}
		what := "refuses them"
		if w.Answer.Err == nil {
			what = fmt.Sprintf("sends them by table %d to %s", w.Table, f.linkName(w.Answer.Index))
		}
		j.error(RouteRule, w.Peer.Subnet.String(), fmt.Sprintf("the route to %s of node %s is right, but a policy rule (%s) %s", w.Peer.Subnet, w.Peer.Name, f.suspects(w.Table), what),
			fmt.Sprintf("ip rule show; then before it: ip rule add to %s lookup main pref 10", f.Network))
	}
}

// suspects names the rules that may be meant.
func (f Facts) suspects(table uint32) string {
	var out []string
	for _, r := range f.Rules {
		if r.Priority == 0 || r.Priority >= 32766 || table != 0 && r.Table != table {
			continue
		}
		out = append(out, fmt.Sprintf("priority %d", r.Priority))
	}
	if len(out) == 0 {
		return "ip rule lists them"
	}
	return strings.Join(out, ", ")
}
