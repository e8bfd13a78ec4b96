package api

import "net/netip"

// States of a route.
const (
	RouteOK          = "ok"
	RouteMissing     = "missing"      // not in the kernel yet
	RouteConflict    = "conflict"     // somebody else's route has the place; it is left alone
	RouteNotAdjacent = "not-adjacent" // the peer is not on a link of this node
	RouteStray       = "stray"        // ours, and for nobody
	RouteUnreachable = "unreachable"  // says no to what nobody has
)

// Route is a route that Stellar keeps on this node.
type Route struct {
	Destination netip.Prefix `json:"destination"`
	Via         netip.Addr   `json:"via"` // zero: none
	Dev         string       `json:"dev"`
	Node        string       `json:"node"`
	State       string       `json:"state"`
	// Reason says why it is not as it should be, e.g. which route is in the way.
	Reason string `json:"reason,omitempty"`
}

// Actions of a RouteChange.
const (
	RouteAdd     = "add"
	RouteReplace = "replace"
	RouteDelete  = "delete"
)

// RouteChange is one change of the kernel's routes, made or to be made.
type RouteChange struct {
	Action string `json:"action"`
	Route
}
