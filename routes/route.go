// Package routes keeps the host's routes to the containers of the cluster as
// the replicated state wants them: desired (pure) → plan (pure) → kernel.
//
// Real problems that shape it: other programs have routes to the same places
// (theirs are never touched, ours are told from them by their protocol number);
// the kernel keys a route by destination, TOS and metric, so that a "replace"
// with another metric adds a second one; routes vanish with a flapping link or
// at the hands of a network manager; a dump may be interrupted, and a partial
// list must never lead to a delete.
package routes

import (
	"cmp"
	"net/netip"
	"slices"
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
	Device      string     // Via and Local
	Metric      uint32
	Node        string // name of the node whose containers it leads to, "" for none
}

// key is the kernel's own key of a route.
type key struct {
	destination netip.Prefix
	metric      uint32
}

func (r Route) key() key { return key{r.Destination, r.Metric} }

// same reports whether the kernel would treat both alike; the node's name is ours alone.
func (r Route) same(s Route) bool {
	r.Node, s.Node = "", ""
	return r == s
}

// State says how a desired route stands in the kernel.
type State string

const (
	// OK: the kernel has it.
	OK State = "ok"
	// Missing: the kernel lacks it; it is being added.
	Missing State = "missing"
	// Conflict: a route of somebody else has its place; it is left alone.
	Conflict State = "conflict"
	// Stray: the kernel has a route of ours that is not desired.
	Stray State = "stray"
)

// Status is a route and how it stands.
type Status struct {
	Route
	State  State
	Reason string
}

// Wants is what the routes of a node follow from.
type Wants struct {
	Network netip.Prefix // the whole cluster network
	Subnet  netip.Prefix // this node's own
	Device  string       // what this node's containers are behind
	Node    string       // this node's name
}

// desired is the pure first part of the reconciler: every route of ours that
// the kernel should have. Traffic for a subnet that nobody has must not leave
// by the default route, so the whole network is unreachable at the worst metric.
func desired(w Wants) []Route {
	return []Route{{Kind: Unreachable, Destination: w.Network.Masked(), Metric: worstMetric}}
}

// plan is the pure second part: what to add and what to delete so that have,
// all routes of the table to destinations inside the network, becomes want.
// Only routes with our protocol are in have.ours; a foreign route with the key
// of a desired one is a conflict, and its place is left to it.
func plan(want []Route, have table) (add, del []Route) {
	wanted := make(map[key]Route, len(want))
	for _, r := range want {
		wanted[r.key()] = r
		if has, ok := have.ours[r.key()]; ok && has.same(r) {
			continue
		}
		if _, taken := have.foreign[r.key()]; !taken {
			add = append(add, r)
		}
	}
	for k, r := range have.ours {
		if _, ok := wanted[k]; !ok {
			del = append(del, r)
		}
	}
	sortRoutes(add)
	sortRoutes(del)
	return add, del
}

// table is what the kernel has, by the kernel's own key.
type table struct {
	ours    map[key]Route
	foreign map[key]Route
}

// compare tells how each desired route stands, and names what is not desired.
func compare(want []Route, have table) []Status {
	var out []Status
	wanted := map[key]bool{}
	for _, r := range want {
		wanted[r.key()] = true
		s := Status{Route: r, State: Missing, Reason: "not in the kernel's table"}
		if has, ok := have.ours[r.key()]; ok && has.same(r) {
			s.State, s.Reason = OK, ""
		} else if _, taken := have.foreign[r.key()]; taken {
			s.State, s.Reason = Conflict, "a route of another program has this destination and metric"
		}
		out = append(out, s)
	}
	for k, r := range have.ours {
		if !wanted[k] {
			out = append(out, Status{Route: r, State: Stray, Reason: "bears our mark but is not wanted"})
		}
	}
	slices.SortFunc(out, func(a, b Status) int { return order(a.Route, b.Route) })
	return out
}

func sortRoutes(rs []Route) { slices.SortFunc(rs, order) }

func order(a, b Route) int {
	return cmp.Or(
		a.Destination.Addr().Compare(b.Destination.Addr()),
		cmp.Compare(b.Destination.Bits(), a.Destination.Bits()),
		cmp.Compare(a.Metric, b.Metric))
}
