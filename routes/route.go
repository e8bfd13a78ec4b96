// Package routes keeps the host's routes to the containers of the cluster as
// the replicated state wants them: desired (pure) → plan (pure) → kernel.
//
// Real problems that shape it:
//   - Other programs have routes to the same places. Theirs are never touched,
//     but named; ours are told from them by their protocol number.
//   - The kernel keys a route by destination, TOS and metric, so a "replace" with
//     another metric adds a second one, and a "replace" takes the first route
//     with the key, whoever made it. Ours have one fixed metric, and replace is
//     used only where nobody else has the key.
//   - Routes vanish with a flapping link (without a notification) or at the hands
//     of a network manager.
//   - A next hop that is not on link swallows packets silently. So the kernel is
//     asked first, and the network's own `unreachable` route answers for a peer
//     that is not adjacent.
//   - A dump may be interrupted, and a state may be old: neither a partial list
//     nor an incomplete state may lead to a delete.
package routes

import (
	"cmp"
	"net/netip"
)

const (
	// Protocol marks our routes (rtm_protocol; 147 is unassigned in iproute2's rt_protos).
	Protocol = 147
	// worstMetric is the largest priority a route can have: any other route to
	// the same destination wins over it.
	worstMetric = 1<<32 - 1
)

// Kind is what a route does with a packet.
type Kind uint8

const (
	// Via sends packets to a next hop.
	Via Kind = iota + 1
	// Unreachable answers packets with ICMP host unreachable.
	Unreachable
	// Local is the subnet of this node, reached through the kernel's own route.
	Local
)

// Route is one route of the main table.
type Route struct {
	Kind        Kind
	Destination netip.Prefix
	Gateway     netip.Addr // Via alone
	Device      string     // Via and Local; "" while the peer is not adjacent, and of Local without a bridge
	Metric      uint32
	Node        string // name of the node whose containers it leads to, "" for none
}

// State says how a desired route stands in the kernel.
type State string

const (
	// OK: the kernel has it, and it is the one in use.
	OK State = "ok"
	// Missing: the kernel lacks it; it is being added.
	Missing State = "missing"
	// Conflict: a route of somebody else has its place or a part of it. That one
	// is left alone.
	Conflict State = "conflict"
	// NotAdjacent: the peer is not on a link of this host, by the kernel's own
	// answer. Packets for its subnet are answered with "unreachable".
	NotAdjacent State = "not-adjacent"
	// Stray: the kernel has a route of ours that is not desired.
	Stray State = "stray"
)

// Status is a route and how it stands.
type Status struct {
	Route
	State  State
	Reason string // "" for OK
}

// Condition is something about the host, rather than about one route, that an
// operator should know: packets to or from peers may be lost.
type Condition struct {
	Name    string // "rp_filter", "carrier" or "overlap"
	Subject string // the interface, or the foreign route's destination
	Reason  string
}

// Peer is another node's claim to a subnet.
type Peer struct {
	Node    string
	Subnet  netip.Prefix
	Address netip.Addr // next hop
	// Quarantined: the subnet is nobody's to use; it gets no route, so that the
	// network's own answers "unreachable".
	Quarantined bool
}

// Wants is what the routes of a node follow from.
type Wants struct {
	Network netip.Prefix // the whole cluster network
	Subnet  netip.Prefix // this node's own
	Device  string       // what this node's containers are behind; "": each has a link of its own
	Node    string       // this node's name
	Address netip.Addr   // this node's own, as peers know it; zero: unknown
	Peers   []Peer       // in any order; without this node
	// Complete: the state from which this was made has caught up. Until then
	// routes are added, but none is changed or removed.
	Complete bool
	// Reclaim: nodes that the state has lost may be about to say what they hold. Until
	// its end no route is removed that nobody is known to want.
	Reclaim bool
}

func (w Wants) within(p netip.Prefix) bool { return contains(w.Network, p) }

// contains reports whether inner lies in outer, or is outer.
func contains(outer, inner netip.Prefix) bool {
	return outer.IsValid() && outer.Bits() <= inner.Bits() && outer.Contains(inner.Addr())
}

// order sorts by destination, the more specific first.
func order(a, b Route) int {
	return cmp.Or(
		a.Destination.Addr().Compare(b.Destination.Addr()),
		cmp.Compare(b.Destination.Bits(), a.Destination.Bits()),
		cmp.Compare(a.Metric, b.Metric))
}
