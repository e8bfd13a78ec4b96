package routes

import (
	"cmp"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"stellar.io/stellar/internal/nlx"
)

const (
	loopback = 1 // index of lo in every namespace
	rpStrict = 1
)

// asymmetric returns the interface on which peers send to this node, and the
// peers that this node reaches by another one. The kernel drops their packets
// there if rp_filter is strict.
func asymmetric(w Wants, goals []goal, answers map[netip.Addr]nlx.Lookup) (index int, nodes []string) {
	self, ok := answers[w.Address]
	if !ok || self.Err != nil || self.Type != unix.RTN_LOCAL || self.Index <= loopback {
		return 0, nil
	}
	for _, g := range goals {
		if g.Kind == Via && g.state == "" && g.index != self.Index {
			nodes = append(nodes, g.Node)
		}
	}
	return self.Index, nodes
}

func strictFilter(w Wants, device string, nodes []string) Condition {
	return Condition{"rp_filter", device, fmt.Sprintf(
		"rp_filter is strict on %s, where peers send to %s, but %s is reached by another interface: packets from its containers are dropped; set net.ipv4.conf.%s.rp_filter=2",
		device, w.Address, list(nodes), device)}
}

// carriers names the interfaces without a carrier that lead to peers.
func carriers(goals []goal) []Condition {
	down := map[string][]string{}
	for _, g := range goals {
		if g.down {
			down[g.Device] = append(down[g.Device], g.Node)
		}
	}
	var out []Condition
	for device, nodes := range down {
		out = append(out, Condition{"carrier", device, fmt.Sprintf("%s has no carrier; it leads to %s", device, list(nodes))})
	}
	return out
}

// overlaps names routes of others that this node's own subnet, or a peer's,
// takes traffic from or loses traffic to: something on this host uses the range.
// What a peer's subnet loses to is its conflict and not named here, and neither
// is a route to the whole network: that is where the rest of it goes.
func overlaps(w Wants, goals []goal, have table, name func(index int) string) []Condition {
	var out []Condition
	for k, rs := range have {
		r, foreign := firstForeign(rs)
		if !foreign || k.destination.Bits() <= w.Network.Bits() || !w.within(k.destination) {
			continue
		}
		what := ""
		if w.Subnet.IsValid() && w.Subnet.Overlaps(k.destination) {
			if w.Device == "" || name(r.Index) != w.Device {
				what = "this node's own subnet " + w.Subnet.String()
			}
		} else if i := slices.IndexFunc(goals, func(g goal) bool {
			return g.Kind == Via && g.Destination.Bits() > k.destination.Bits() && contains(k.destination, g.Destination)
		}); i >= 0 {
			what = fmt.Sprintf("%s of node %s", goals[i].Destination, goals[i].Node)
		}
		if what != "" {
			out = append(out, Condition{"overlap", k.destination.String(), fmt.Sprintf("%s overlaps %s", describe(r, name), what)})
		}
	}
	return out
}

func sortConditions(cs []Condition) {
	slices.SortFunc(cs, func(a, b Condition) int {
		return cmp.Or(cmp.Compare(a.Name, b.Name), cmp.Compare(a.Subject, b.Subject))
	})
}

// list names the first few.
func list(nodes []string) string {
	const few = 3
	if len(nodes) <= few {
		return strings.Join(nodes, ", ")
	}
	return fmt.Sprintf("%s and %d more", strings.Join(nodes[:few], ", "), len(nodes)-few)
}
