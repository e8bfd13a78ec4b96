package routes

import (
	"fmt"
	"net/netip"
	"slices"

	"golang.org/x/sys/unix"

	"stellar.io/stellar/internal/nlx"
)

// key is the kernel's own key of a route.
type key struct {
	destination netip.Prefix
	tos         uint8
	metric      uint32
}

func keyOf(r nlx.FIBRoute) key { return key{r.Dst, r.TOS, r.Metric} }

func ours(r nlx.FIBRoute) bool { return r.Protocol == Protocol }

// same reports whether the kernel treats both alike. Whether the link is down
// is the link's affair.
func same(a, b nlx.FIBRoute) bool {
	a.LinkDown, b.LinkDown = false, false
	return a == b
}

// table is what the kernel has, by the kernel's own key. Of several routes with
// one key the first is in use.
type table map[key][]nlx.FIBRoute

func tableOf(routes []nlx.FIBRoute) table {
	t := make(table, len(routes))
	for _, r := range routes {
		t[keyOf(r)] = append(t[keyOf(r)], r)
	}
	return t
}

// action is one change of the kernel's table.
type action struct {
	op    Op
	fib   nlx.FIBRoute
	route Route
}

// plan is the pure second part: what to add (or replace) and then what to delete
// so that have becomes what the goals ask for. It touches no route without our
// mark: where somebody else has the key, even a replace might hit theirs, so
// ours can only be deleted. complete is Wants.Complete.
func plan(w Wants, goals []goal, have table) (add, del []action) {
	keep := make(map[key]bool, len(goals))
	for _, g := range goals {
		if g.state != "" {
			continue
		}
		want := g.fib()
		k := keyOf(want)
		keep[k] = true
		a, d := settleKey(want, have[k])
		if a != "" && (w.Complete || a == Add) {
			add = append(add, action{a, want, g.Route})
		}
		for _, r := range d {
			del = append(del, action{Delete, r, routeOf(r)})
		}
	}
	for k, rs := range have {
		for _, r := range rs {
			if !keep[k] && !w.Reclaim && stray(w, r) {
				del = append(del, action{Delete, r, routeOf(r)})
			}
		}
	}
	if !w.Complete {
		del = nil
	}
	for _, list := range [][]action{add, del} {
		slices.SortStableFunc(list, func(a, b action) int { return order(a.route, b.route) })
	}
	return add, del
}

// settleKey says what to do so that want is the only one of ours among has, the
// routes with its key, and which of ours to delete after that.
func settleKey(want nlx.FIBRoute, has []nlx.FIBRoute) (Op, []nlx.FIBRoute) {
	var others []nlx.FIBRoute // of ours
	foreign, there := false, false
	for _, r := range has {
		switch {
		case !ours(r):
			foreign = true
		case same(r, want) && !there:
			there = true
		default:
			others = append(others, r)
		}
	}
	switch {
	case there || foreign:
		return "", others
	case len(others) == 0:
		return Add, nil
	}
	return Replace, others[1:] // the first gives its place
}

// stray reports whether r, which no goal asks for, is ours to delete: our mark,
// and inside the network. What serves this node's containers is not, whether or not
// the state (still) says that their subnet is this node's.
func stray(w Wants, r nlx.FIBRoute) bool {
	return ours(r) && w.within(r.Dst) && !local(r) && !(contains(w.Subnet, r.Dst) && !r.Routed)
}

// local reports whether r is what package netsetup makes without a bridge: the route
// to a container, or the last resort of the subnet, one better than the network's.
func local(r nlx.FIBRoute) bool {
	if r.Type == unix.RTN_UNREACHABLE {
		return r.Metric == worstMetric-1
	}
	return r.Dst.Bits() == 32 && !r.Routed
}

// routeOf is a kernel's route in our terms, without the device.
func routeOf(r nlx.FIBRoute) Route {
	kind := Via
	if r.Type != unix.RTN_UNICAST {
		kind = Unreachable
	}
	return Route{Kind: kind, Destination: r.Dst, Gateway: r.Via, Metric: r.Metric}
}

// compare tells how each goal stands, and names what is ours but not desired.
// failed are the kernel's refusals of this round.
func compare(w Wants, goals []goal, have table, failed map[key]error, name func(index int) string) []Status {
	out := make([]Status, 0, len(goals))
	parts := intruders(goals, have)
	wanted := make(map[key]bool, len(goals))
	for _, g := range goals {
		k := key{destination: g.Destination, metric: g.Metric}
		s := Status{Route: g.Route, State: g.state, Reason: g.reason}
		if g.state == "" {
			wanted[k] = true
			s.State, s.Reason = stands(g, have[k], failed[k], name)
		}
		if r, ok := parts[g.Destination]; ok && s.State == OK {
			s.State, s.Reason = Conflict, "a part of it is led elsewhere by "+describe(r, name)
		}
		if r, ok := firstForeign(have[k]); ok && g.state == NotAdjacent {
			s.State, s.Reason = Conflict, fmt.Sprintf("%s; in use is %s", g.reason, describe(r, name))
		}
		out = append(out, s)
	}
	for k, rs := range have {
		for _, r := range rs {
			if !wanted[k] && stray(w, r) {
				s := Status{Route: routeOf(r), State: Stray, Reason: "bears our mark but is not wanted"}
				switch {
				case w.Reclaim:
					s.Reason = "kept until the re-claim has ended: its node may be about to say that it holds the subnet"
				case !w.Complete:
					s.Reason = "kept until the cluster's state has been caught up with"
				}
				s.Device = name(r.Index)
				out = append(out, s)
			}
		}
	}
	slices.SortStableFunc(out, func(a, b Status) int { return order(a.Route, b.Route) })
	return out
}

// stands says how a goal stands among the routes with its key.
func stands(g goal, has []nlx.FIBRoute, failed error, name func(index int) string) (State, string) {
	want := g.fib()
	if len(has) > 0 && same(has[0], want) {
		return OK, ""
	}
	if r, ok := firstForeign(has); ok {
		return Conflict, "its place has " + describe(r, name)
	}
	switch {
	case failed != nil:
		return Missing, failed.Error()
	case len(has) > 0:
		return Missing, "instead there is " + describe(has[0], name)
	}
	return Missing, "not in the kernel's table"
}

func firstForeign(rs []nlx.FIBRoute) (nlx.FIBRoute, bool) {
	i := slices.IndexFunc(rs, func(r nlx.FIBRoute) bool { return !ours(r) })
	if i < 0 {
		return nlx.FIBRoute{}, false
	}
	return rs[i], true
}

// intruders finds, by the destination of the goal, a route of somebody else
// that takes a part of its traffic: a more specific one, or one for a TOS.
func intruders(goals []goal, have table) map[netip.Prefix]nlx.FIBRoute {
	vias := make(map[netip.Prefix]bool, len(goals))
	shortest := 32
	for _, g := range goals {
		if g.Kind == Via {
			vias[g.Destination] = true
			shortest = min(shortest, g.Destination.Bits())
		}
	}
	out := map[netip.Prefix]nlx.FIBRoute{}
	for k, rs := range have {
		r, foreign := firstForeign(rs)
		if !foreign || len(vias) == 0 {
			continue
		}
		from := k.destination.Bits()
		if k.tos == 0 {
			from-- // the same destination is told by its key
		}
		for bits := from; bits >= shortest; bits-- {
			outer := netip.PrefixFrom(k.destination.Addr(), bits).Masked()
			if old, known := out[outer]; vias[outer] && (!known || order(routeOf(r), routeOf(old)) < 0) {
				out[outer] = r
			}
		}
	}
	return out
}
