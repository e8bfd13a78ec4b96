package server

import (
	"cmp"
	"context"
	"errors"
	"slices"

	"connectrpc.com/connect"

	"stellar.io/stellar/api"
	"stellar.io/stellar/api/internal/rpc"
	"stellar.io/stellar/api/internal/wire"
	stellarv1 "stellar.io/stellar/api/stellar/v1"
)

// The handlers translate, resolve names, sort lists and log who changed what;
// everything else is the backend's.

type agentHandler struct{ *Server }

func (h agentHandler) Status(ctx context.Context, _ *stellarv1.StatusRequest) (*stellarv1.StatusResponse, error) {
	r, err := h.backend.Status(ctx)
	if err != nil {
		return nil, rpc.Error(err)
	}
	return wire.FromStatus(r), nil
}

func (h agentHandler) Version(ctx context.Context, _ *stellarv1.VersionRequest) (*stellarv1.VersionResponse, error) {
	v, err := h.backend.Version(ctx)
	if err != nil {
		return nil, rpc.Error(err)
	}
	return wire.FromVersion(v), nil
}

func (h agentHandler) Events(ctx context.Context, m *stellarv1.EventsRequest, out *connect.ServerStream[stellarv1.EventsResponse]) error {
	q, err := h.eventQuery(ctx, m)
	if err != nil {
		return rpc.Error(err)
	}
	// The headers go out now, so that a follower knows that it is connected.
	if err := out.Send(nil); err != nil {
		return err
	}
	// A follower must not hold up a stop for the whole grace.
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	run := serving(ctx)
	defer context.AfterFunc(run, cancel)()
	err = h.backend.Events(ctx, q, func(e api.Event) error { return out.Send(wire.FromEvent(e)) })
	if q.Follow && (err == nil || errors.Is(err, context.Canceled)) {
		err = ctx.Err() // why following ended
		if run.Err() != nil {
			err = api.Errorf(api.CodeUnreachable, "the agent is stopping").WithHint("`systemctl status stellar` shows whether it comes back")
		}
	}
	return rpc.Error(err)
}

// eventQuery reads a query, with nodes by their ids.
func (h agentHandler) eventQuery(ctx context.Context, m *stellarv1.EventsRequest) (api.EventQuery, error) {
	q := wire.ToEventQuery(m)
	if err := q.Validate(); err != nil || !q.AllNodes && len(q.Nodes) == 0 {
		return q, err
	}
	all, err := h.backend.Nodes(ctx)
	if err != nil {
		return q, err
	}
	names := q.Nodes
	q.Nodes = nil
	for _, n := range all {
		if q.AllNodes && n.Status != api.NodeRemoved {
			q.Nodes = append(q.Nodes, n.ID)
		}
	}
	for _, name := range names {
		n, err := resolveNode(all, name)
		if err != nil {
			return q, err
		}
		if !slices.Contains(q.Nodes, n.ID) {
			q.Nodes = append(q.Nodes, n.ID)
		}
	}
	return q, nil
}

func (h agentHandler) ClusterInit(ctx context.Context, m *stellarv1.ClusterInitRequest) (*stellarv1.ClusterInitResponse, error) {
	spec := api.ClusterSpec{SubnetPrefix: int(m.GetSubnetPrefix())}
	if m.GetNetwork() != "" {
		p, err := api.ParseTarget(m.GetNetwork())
		if err != nil {
			return nil, rpc.Error(err)
		}
		spec.Network = p
	}
	c, err := h.backend.InitCluster(ctx, spec)
	if err != nil {
		return nil, rpc.Error(err)
	}
	h.audit(ctx, "cluster initialised", "cluster", c.Cluster, "network", c.Network)
	return wire.FromCluster(c), nil
}

type endpointsHandler struct{ *Server }

func (h endpointsHandler) List(ctx context.Context, m *stellarv1.EndpointsListRequest) (*stellarv1.EndpointsListResponse, error) {
	all, err := h.backend.Endpoints(ctx)
	if err != nil {
		return nil, rpc.Error(err)
	}
	if ns := m.GetNamespace(); ns != "" {
		all = slices.DeleteFunc(slices.Clone(all), func(e api.Endpoint) bool { return e.Namespace != ns })
	}
	all = slices.SortedFunc(slices.Values(all), func(a, b api.Endpoint) int {
		return cmp.Or(cmp.Compare(a.Namespace, b.Namespace), cmp.Compare(a.Container, b.Container), cmp.Compare(a.Ifname, b.Ifname))
	})
	return &stellarv1.EndpointsListResponse{Endpoints: wire.Each(all, wire.FromEndpoint)}, nil
}

// resolve turns what the caller typed into the full name of an endpoint.
func (h endpointsHandler) resolve(ctx context.Context, m *stellarv1.EndpointRef) (api.EndpointRef, error) {
	all, err := h.backend.Endpoints(ctx)
	if err != nil {
		return api.EndpointRef{}, err
	}
	e, err := resolveEndpoint(all, wire.ToRef(m))
	return e.Ref(), err
}

func (h endpointsHandler) Inspect(ctx context.Context, m *stellarv1.EndpointsInspectRequest) (*stellarv1.EndpointsInspectResponse, error) {
	ref, err := h.resolve(ctx, m.GetRef())
	if err != nil {
		return nil, rpc.Error(err)
	}
	d, err := h.backend.Endpoint(ctx, ref)
	if err != nil {
		return nil, rpc.Error(err)
	}
	return &stellarv1.EndpointsInspectResponse{Endpoint: wire.FromDetail(d)}, nil
}

func (h endpointsHandler) Repair(ctx context.Context, m *stellarv1.EndpointsRepairRequest) (*stellarv1.EndpointsRepairResponse, error) {
	ref, err := h.resolve(ctx, m.GetRef())
	if err != nil {
		return nil, rpc.Error(err)
	}
	r, err := h.backend.RepairEndpoint(ctx, ref)
	if err != nil {
		return nil, rpc.Error(err)
	}
	h.audit(ctx, "endpoint repaired on request", "endpoint", ref.String(), "repaired", r.Repaired)
	return wire.FromRepair(r), nil
}
