package server

import (
	"cmp"
	"context"
	"net/netip"
	"slices"

	"stellar.io/stellar/api"
	"stellar.io/stellar/api/internal/rpc"
	"stellar.io/stellar/api/internal/wire"
	stellarv1 "stellar.io/stellar/api/stellar/v1"
)

type routesHandler struct{ *Server }

func (h routesHandler) List(ctx context.Context, _ *stellarv1.RoutesListRequest) (*stellarv1.RoutesListResponse, error) {
	all, err := h.backend.Routes(ctx)
	if err != nil {
		return nil, rpc.Error(err)
	}
	return &stellarv1.RoutesListResponse{Routes: wire.Each(sortedRoutes(all), wire.FromRoute)}, nil
}

func (h routesHandler) Drift(ctx context.Context, _ *stellarv1.RoutesDriftRequest) (*stellarv1.RoutesDriftResponse, error) {
	b, err := part[RouteAdmin](h.Server)
	if err != nil {
		return nil, rpc.Error(err)
	}
	all, err := b.RouteDrift(ctx)
	if err != nil {
		return nil, rpc.Error(err)
	}
	return &stellarv1.RoutesDriftResponse{Routes: wire.Each(sortedRoutes(all), wire.FromRoute)}, nil
}

func (h routesHandler) Sync(ctx context.Context, m *stellarv1.RoutesSyncRequest) (*stellarv1.RoutesSyncResponse, error) {
	b, err := part[RouteAdmin](h.Server)
	if err != nil {
		return nil, rpc.Error(err)
	}
	changes, err := b.SyncRoutes(ctx, m.GetDryRun())
	if err != nil {
		return nil, rpc.Error(err)
	}
	if !m.GetDryRun() && len(changes) > 0 {
		h.audit(ctx, "routes synced on request", "changes", len(changes))
	}
	return &stellarv1.RoutesSyncResponse{Changes: wire.Each(changes, wire.FromRouteChange)}, nil
}

func sortedRoutes(all []api.Route) []api.Route {
	return slices.SortedFunc(slices.Values(all), func(a, b api.Route) int {
		return cmp.Or(comparePrefix(a.Destination, b.Destination), a.Via.Compare(b.Via), cmp.Compare(a.Dev, b.Dev))
	})
}

func comparePrefix(a, b netip.Prefix) int {
	return cmp.Or(a.Addr().Compare(b.Addr()), cmp.Compare(a.Bits(), b.Bits()))
}
