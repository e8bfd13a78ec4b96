package apitest

import (
	"context"
	"slices"

	"stellar.io/stellar/api"
)

// SetRoute adds a route, or replaces the one to its destination.
func (b *Backend) SetRoute(r api.Route) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.routes = append(slices.DeleteFunc(b.routes, func(o api.Route) bool { return o.Destination == r.Destination }), r)
}

// RouteDrift implements server.RouteAdmin.
func (b *Backend) RouteDrift(context.Context) ([]api.Route, error) {
	unlock, err := b.begin("RouteDrift")
	defer unlock()
	return slices.DeleteFunc(slices.Clone(b.routes), func(r api.Route) bool { return r.State == api.RouteOK }), err
}

// SyncRoutes implements server.RouteAdmin: what is missing is added, what is stray
// deleted, the rest cannot be helped.
func (b *Backend) SyncRoutes(_ context.Context, dryRun bool) ([]api.RouteChange, error) {
	unlock, err := b.begin("SyncRoutes")
	defer unlock()
	if err != nil {
		return nil, err
	}
	var changes []api.RouteChange
	var after []api.Route
	for _, r := range b.routes {
		switch r.State {
		case api.RouteStray:
			changes = append(changes, api.RouteChange{Action: api.RouteDelete, Route: r})
			continue
		case api.RouteMissing:
			changes = append(changes, api.RouteChange{Action: api.RouteAdd, Route: r})
			r.State, r.Reason = api.RouteOK, ""
		}
		after = append(after, r)
	}
	if !dryRun {
		b.routes = after
	}
	return changes, nil
}
