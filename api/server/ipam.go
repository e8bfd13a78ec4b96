package server

import (
	"cmp"
	"context"
	"slices"

	"stellar.io/stellar/api"
	"stellar.io/stellar/api/internal/rpc"
	"stellar.io/stellar/api/internal/wire"
	stellarv1 "stellar.io/stellar/api/stellar/v1"
)

// maxReason bounds the reason of a reservation: it is replicated to every node.
const maxReason = 256

type ipamHandler struct{ *Server }

func (h ipamHandler) ListSubnets(ctx context.Context, m *stellarv1.IpamListSubnetsRequest) (*stellarv1.IpamListSubnetsResponse, error) {
	if err := h.linearize(ctx, m.GetLinearizable()); err != nil {
		return nil, rpc.Error(err)
	}
	all, err := h.backend.Subnets(ctx)
	if err != nil {
		return nil, rpc.Error(err)
	}
	all = slices.SortedFunc(slices.Values(all), func(a, b api.Subnet) int {
		return cmp.Or(cmp.Compare(a.Network, b.Network), comparePrefix(a.Subnet, b.Subnet))
	})
	return &stellarv1.IpamListSubnetsResponse{Subnets: wire.Each(all, wire.FromSubnet)}, nil
}

func (h ipamHandler) Show(ctx context.Context, m *stellarv1.IpamShowRequest) (*stellarv1.IpamShowResponse, error) {
	a, err := api.ParseAddress(m.GetAddress())
	if err != nil {
		return nil, rpc.Error(err)
	}
	if err := h.linearize(ctx, m.GetLinearizable()); err != nil {
		return nil, rpc.Error(err)
	}
	out, err := h.backend.Address(ctx, a)
	if err != nil {
		return nil, rpc.Error(err)
	}
	return &stellarv1.IpamShowResponse{Address: wire.FromAddress(out)}, nil
}

func (h ipamHandler) Reserve(ctx context.Context, m *stellarv1.IpamReserveRequest) (*stellarv1.IpamReserveResponse, error) {
	p, err := api.ParseTarget(m.GetTarget())
	if err != nil {
		return nil, rpc.Error(err)
	}
	if len(m.GetReason()) > maxReason {
		return nil, rpc.Error(api.Errorf(api.CodeInvalid, "the reason has %d bytes, at most %d are kept", len(m.GetReason()), maxReason))
	}
	if err := h.backend.Reserve(ctx, api.Reservation{Prefix: p, Reason: m.GetReason()}); err != nil {
		return nil, rpc.Error(err)
	}
	h.audit(ctx, "reserved on request", "target", p, "reason", m.GetReason())
	return &stellarv1.IpamReserveResponse{Target: api.TargetText(p)}, nil
}

func (h ipamHandler) Release(ctx context.Context, m *stellarv1.IpamReleaseRequest) (*stellarv1.IpamReleaseResponse, error) {
	p, err := api.ParseTarget(m.GetTarget())
	if err != nil {
		return nil, rpc.Error(err)
	}
	released, err := h.backend.Release(ctx, api.Release{Prefix: p, Owner: wire.ToOwner(m.GetOwner())})
	if err != nil {
		return nil, rpc.Error(err)
	}
	h.audit(ctx, "released on request", "target", p, "was", released)
	return &stellarv1.IpamReleaseResponse{Released: released}, nil
}

func (h ipamHandler) Check(ctx context.Context, m *stellarv1.IpamCheckRequest) (*stellarv1.IpamCheckResponse, error) {
	r, err := h.backend.Check(ctx, m.GetThisNode())
	if err != nil {
		return nil, rpc.Error(err)
	}
	r.Problems = slices.SortedFunc(slices.Values(r.Problems), func(a, b api.IpamProblem) int {
		return cmp.Or(a.Address.Compare(b.Address), cmp.Compare(a.Kind, b.Kind), cmp.Compare(a.Node, b.Node))
	})
	r.Nodes = slices.SortedFunc(slices.Values(r.Nodes), func(a, b api.IpamNodeCheck) int { return cmp.Compare(a.Node, b.Node) })
	return wire.FromReport(r), nil
}
