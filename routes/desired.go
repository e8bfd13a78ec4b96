package routes

import (
	"cmp"
	"fmt"
	"net/netip"
	"slices"

	"golang.org/x/sys/unix"

	"stellar.io/stellar/internal/nlx"
)

// goal is a desired route, together with what is known of it before the
// kernel's table has been looked at.
type goal struct {
	Route
	index  int    // interface of Device
	down   bool   // it has no carrier
	state  State  // "": is to be placed; otherwise it cannot be,
	reason string // because of this
}

// fib is the goal as the kernel has it when all is well.
func (g goal) fib() nlx.FIBRoute {
	r := nlx.FIBRoute{Dst: g.Destination, Metric: g.Metric, Protocol: Protocol, Type: unix.RTN_UNREACHABLE}
	if g.Kind == Via {
		r.Type, r.Via, r.Routed, r.Index = unix.RTN_UNICAST, g.Gateway, true, g.index
	}
	return r
}

// desired is the pure first part of the reconciler: every route of ours that
// the kernel should have, sorted. Traffic for a subnet that nobody has must not
// leave by the default route, so the whole network is unreachable at the worst
// metric. A peer whose claim would break this node's own is not obeyed.
func desired(w Wants) []goal {
	goals := make([]goal, 0, len(w.Peers)+1)
	goals = append(goals, goal{Route: Route{Kind: Unreachable, Destination: w.Network.Masked(), Metric: worstMetric}})
	peers := slices.SortedFunc(slices.Values(w.Peers), func(a, b Peer) int { return cmp.Compare(a.Node, b.Node) })
	taken := make(map[netip.Prefix]string, len(peers))
	for _, p := range peers {
		if p.Quarantined || !p.Subnet.IsValid() {
			continue
		}
		g := goal{Route: Route{Kind: Via, Destination: p.Subnet.Masked(), Gateway: p.Address, Node: p.Node}}
		other, twice := taken[g.Destination]
		switch {
		case !w.within(g.Destination):
			g.state, g.reason = Conflict, fmt.Sprintf("lies outside the network %s", w.Network)
		case w.Subnet.IsValid() && w.Subnet.Overlaps(g.Destination):
			g.state, g.reason = Conflict, fmt.Sprintf("overlaps this node's own subnet %s", w.Subnet)
		case twice:
			g.state, g.reason = Conflict, fmt.Sprintf("is also the subnet of node %s", other)
		default:
			taken[g.Destination] = p.Node
		}
		goals = append(goals, g)
	}
	slices.SortStableFunc(goals, func(a, b goal) int { return order(a.Route, b.Route) })
	return goals
}

// nextHops returns the addresses that have to be on link for goals.
func nextHops(goals []goal) []netip.Addr {
	var out []netip.Addr
	for _, g := range goals {
		if g.Kind == Via && g.state == "" && g.Gateway.Is4() {
			out = append(out, g.Gateway)
		}
	}
	return out
}

// locate gives each goal its interface, or the reason why its next hop is not
// on link. answers has one for every address of nextHops.
func locate(goals []goal, answers map[netip.Addr]nlx.Lookup, name func(index int) string) {
	for i := range goals {
		g := &goals[i]
		if g.Kind != Via || g.state != "" {
			continue
		}
		answer, asked := answers[g.Gateway]
		switch {
		case !g.Gateway.IsValid():
			g.reason = "the node has no address yet"
		case !asked:
			g.reason = fmt.Sprintf("%s is no IPv4 address", g.Gateway)
		default:
			g.reason = offLink(g.Gateway, answer, name)
		}
		if g.reason != "" {
			g.state = NotAdjacent
			continue
		}
		g.index, g.Device, g.down = answer.Index, name(answer.Index), answer.LinkDown
	}
}

// offLink says why the next hop a is not on link by the kernel's answer; "": it is.
func offLink(a netip.Addr, l nlx.Lookup, name func(index int) string) string {
	switch {
	case l.Err != nil:
		return fmt.Sprintf("this host cannot reach %s: %v", a, l.Err)
	case l.Type == unix.RTN_LOCAL:
		return fmt.Sprintf("%s is an address of this host itself", a)
	case l.Type != unix.RTN_UNICAST || l.Index == 0:
		return fmt.Sprintf("%s is no other host's address", a)
	case l.Via.IsValid():
		return fmt.Sprintf("%s is behind the router %s on %s; direct routes need it on the same link", a, l.Via, name(l.Index))
	case l.Routed:
		return fmt.Sprintf("%s is behind a router on %s; direct routes need it on the same link", a, name(l.Index))
	}
	return ""
}
