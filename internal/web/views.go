package web

import (
	"cmp"
	"context"
	"net/netip"
	"strings"
	"time"

	"stellar.io/stellar/api"
)

// viewTTL is for how long what the node said is shown again. The page asks at most
// every two seconds, and this is less.
const viewTTL = 1500 * time.Millisecond

// views are the source's answers, each remembered for a moment.
type views struct {
	status    *cached[api.StatusReport]
	rows      *cached[[]nodeRow]
	endpoints *cached[[]api.Endpoint]
	routes    *cached[routeView]
	raft      *cached[raftView]
}

func newViews(src Source) views {
	return views{
		status:    newCached(viewTTL, src.Status),
		rows:      newCached(viewTTL, func(ctx context.Context) ([]nodeRow, error) { return nodeRows(ctx, src) }),
		endpoints: newCached(viewTTL, src.ClusterEndpoints),
		routes:    newCached(viewTTL, func(ctx context.Context) (routeView, error) { return lookAtRoutes(ctx, src) }),
		raft:      newCached(viewTTL, func(ctx context.Context) (raftView, error) { return lookAtRaft(ctx, src) }),
	}
}

// nodeRow is a subnet with its node, or one of both without the other.
type nodeRow struct {
	Name      string       `json:"name"` // empty: nobody holds the subnet
	ID        string       `json:"id"`
	Address   string       `json:"address"`
	Status    string       `json:"status"` // of the node, or of a subnet that nobody holds
	Role      string       `json:"role"`
	Version   string       `json:"version"`
	Self      bool         `json:"self"`
	Endpoints int          `json:"endpoints"`
	Subnet    netip.Prefix `json:"subnet"` // zero: it has none
	Epoch     string       `json:"epoch"`
	State     string       `json:"state"` // of the subnet; empty: none
	Used      int          `json:"used"`
	Free      int          `json:"free"`
	Cooling   int          `json:"cooling"`
	Reserved  int          `json:"reserved"`
}

// share returns how much of what can be handed out is not free, from 0 to 1.
func (r nodeRow) share() float64 {
	total := r.Used + r.Cooling + r.Free
	if total == 0 {
		return 0
	}
	return float64(r.Used+r.Cooling) / float64(total)
}

func nodeRows(ctx context.Context, src Source) ([]nodeRow, error) {
	nodes, err := src.Nodes(ctx)
	if err != nil {
		return nil, err
	}
	subnets, err := src.Subnets(ctx)
	if err != nil {
		return nil, err
	}
	bySubnet := make(map[netip.Prefix]api.Subnet, len(subnets))
	for _, s := range subnets {
		bySubnet[s.Subnet] = s
	}
	out := make([]nodeRow, 0, len(subnets))
	for _, n := range nodes {
		row := nodeRow{
			Name: n.Name, ID: n.ID, Address: n.Address, Status: n.Status, Role: n.Role, Version: n.Version, Self: n.Self,
			Endpoints: n.Endpoints, Subnet: n.Subnet, Epoch: n.Epoch,
		}
		if s, ok := bySubnet[n.Subnet]; ok {
			row.fill(s)
			delete(bySubnet, n.Subnet)
		}
		out = append(out, row)
	}
	for _, s := range subnets { // what no node holds
		if _, left := bySubnet[s.Subnet]; left {
			row := nodeRow{Subnet: s.Subnet, Status: s.State}
			row.fill(s)
			out = append(out, row)
		}
	}
	return out, nil
}

func (r *nodeRow) fill(s api.Subnet) {
	r.Epoch, r.State, r.Used, r.Free, r.Cooling, r.Reserved = s.Epoch, s.State, s.Used, s.Free, s.Cooling, s.Reserved
}

// routeRow is a route and whether it is not as it should be.
type routeRow struct {
	api.Route
	Drift bool `json:"drift"`
}

type routeView struct {
	rows    []routeRow
	problem *problem // why the kernel was not asked: drift is that of the last look
}

func lookAtRoutes(ctx context.Context, src Source) (routeView, error) {
	var v routeView
	drift, err := src.RouteDrift(ctx)
	v.problem = problemOf(err)
	routes, err := src.Routes(ctx)
	if err != nil {
		return v, err
	}
	type key struct {
		destination netip.Prefix
		dev         string
		via         netip.Addr
	}
	keyOf := func(r api.Route) key { return key{r.Destination, r.Dev, r.Via} }
	drifted := make(map[key]api.Route, len(drift))
	for _, r := range drift {
		drifted[keyOf(r)] = r
	}
	v.rows = make([]routeRow, 0, len(routes))
	for _, r := range routes {
		row := routeRow{Route: r, Drift: r.State != api.RouteOK && r.State != api.RouteUnreachable}
		if d, ok := drifted[keyOf(r)]; ok {
			row = routeRow{Route: d, Drift: true}
			delete(drifted, keyOf(r))
		}
		v.rows = append(v.rows, row)
	}
	for _, r := range drift { // what came up between the two questions
		if _, left := drifted[keyOf(r)]; left {
			v.rows = append(v.rows, routeRow{Route: r, Drift: true})
		}
	}
	return v, nil
}

type raftView struct {
	Stats api.RaftStats  `json:"stats"`
	Peers []api.RaftPeer `json:"peers"`
}

func lookAtRaft(ctx context.Context, src Source) (v raftView, err error) {
	if v.Stats, err = src.RaftStats(ctx); err != nil {
		return v, err
	}
	v.Peers, err = src.RaftPeers(ctx)
	return v, err
}

var nodeListing = listing[nodeRow]{
	text: func(r nodeRow) []string {
		return []string{r.Name, r.Address, r.Subnet.String(), r.Status, r.Role, r.ID, r.Version}
	},
	state: func(r nodeRow) string { return r.Status },
	node:  func(r nodeRow) string { return r.Name },
	first: "name",
	less: map[string]func(a, b nodeRow) int{
		"name":      func(a, b nodeRow) int { return natural(a.Name, b.Name) },
		"address":   func(a, b nodeRow) int { return natural(a.Address, b.Address) },
		"subnet":    func(a, b nodeRow) int { return comparePrefix(a.Subnet, b.Subnet) },
		"status":    byText(func(r nodeRow) string { return r.Status }),
		"role":      byText(func(r nodeRow) string { return r.Role }),
		"endpoints": byNumber(func(r nodeRow) int { return r.Endpoints }),
		"full":      byNumber(nodeRow.share),
		"free":      byNumber(func(r nodeRow) int { return r.Free }),
		"version":   byText(func(r nodeRow) string { return r.Version }),
	},
}

var endpointListing = listing[api.Endpoint]{
	text: func(e api.Endpoint) []string {
		return []string{e.Container, e.Namespace, addrText(e.Address), e.Node, e.State, e.MAC, e.HostIfname, e.Reason, e.Network}
	},
	state: func(e api.Endpoint) string { return e.State },
	node:  func(e api.Endpoint) string { return e.Node },
	first: "container",
	less: map[string]func(a, b api.Endpoint) int{
		"container": func(a, b api.Endpoint) int {
			return cmp.Or(natural(a.Container, b.Container), strings.Compare(a.Namespace, b.Namespace), strings.Compare(a.Ifname, b.Ifname))
		},
		"namespace": byText(func(e api.Endpoint) string { return e.Namespace }),
		"address":   func(a, b api.Endpoint) int { return a.Address.Compare(b.Address) },
		"node":      func(a, b api.Endpoint) int { return natural(a.Node, b.Node) },
		"state":     byText(func(e api.Endpoint) string { return e.State }),
		"since":     func(a, b api.Endpoint) int { return b.Since.Compare(a.Since) }, // the page shows ages
	},
}

var routeListing = listing[routeRow]{
	text: func(r routeRow) []string {
		return []string{r.Destination.String(), addrText(r.Via), r.Dev, r.Node, r.State, r.Reason}
	},
	state: func(r routeRow) string { return r.State },
	node:  func(r routeRow) string { return r.Node },
	first: "destination",
	less: map[string]func(a, b routeRow) int{
		"destination": func(a, b routeRow) int { return comparePrefix(a.Destination, b.Destination) },
		"via":         func(a, b routeRow) int { return a.Via.Compare(b.Via) },
		"dev":         byText(func(r routeRow) string { return r.Dev }),
		"node":        func(a, b routeRow) int { return natural(a.Node, b.Node) },
		"state": func(a, b routeRow) int { // what drifted comes first
			if a.Drift != b.Drift {
				if a.Drift {
					return -1
				}
				return 1
			}
			return strings.Compare(a.State, b.State)
		},
	},
}

func addrText(a netip.Addr) string {
	if !a.IsValid() {
		return ""
	}
	return a.String()
}

func comparePrefix(a, b netip.Prefix) int {
	return cmp.Or(a.Addr().Compare(b.Addr()), cmp.Compare(a.Bits(), b.Bits()))
}

// natural compares names with numbers in them as people do: node-9 before node-10.
func natural(a, b string) int {
	for a != "" && b != "" {
		if !digit(a[0]) || !digit(b[0]) {
			if a[0] != b[0] {
				return cmp.Compare(a[0], b[0])
			}
			a, b = a[1:], b[1:]
			continue
		}
		x, restA := number(a)
		y, restB := number(b)
		if c := cmp.Or(cmp.Compare(len(x), len(y)), strings.Compare(x, y)); c != 0 {
			return c
		}
		a, b = restA, restB
	}
	return cmp.Compare(len(a), len(b))
}

func digit(c byte) bool { return c >= '0' && c <= '9' }

// number splits off the digits that s begins with, without leading zeros.
func number(s string) (digits, rest string) {
	i := 0
	for i < len(s) && digit(s[i]) {
		i++
	}
	return strings.TrimLeft(s[:i], "0"), s[i:]
}
