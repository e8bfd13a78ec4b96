package routes

import "errors"

// ErrRouteExists is returned by Sync when, between the look at the kernel's
// table and the change, a route of another program has taken the place of one
// of ours. It is left alone; the next look names it.
var ErrRouteExists = errors.New("a route of another program has this destination and metric")
