package server

import (
	"cmp"
	"context"
	"slices"

	"stellar.io/stellar/api"
	"stellar.io/stellar/api/internal/rpc"
	"stellar.io/stellar/api/internal/wire"
	"stellar.io/stellar/api/peerapi"
	stellarv1 "stellar.io/stellar/api/stellar/v1"
	"stellar.io/stellar/api/stellar/v1/stellarv1connect"
)

type nodesHandler struct{ *Server }

func (h nodesHandler) List(ctx context.Context, m *stellarv1.NodesListRequest) (*stellarv1.NodesListResponse, error) {
	if err := h.linearize(ctx, m.GetLinearizable()); err != nil {
		return nil, rpc.Error(err)
	}
	all, err := h.backend.Nodes(ctx)
	if err != nil {
		return nil, rpc.Error(err)
	}
	all = slices.SortedFunc(slices.Values(all), func(a, b api.Node) int {
		return cmp.Or(cmp.Compare(a.Name, b.Name), cmp.Compare(a.ID, b.ID))
	})
	return &stellarv1.NodesListResponse{Nodes: wire.Each(all, wire.FromNode)}, nil
}

// resolve finds the node that the caller means.
func (h nodesHandler) resolve(ctx context.Context, name string) (api.Node, error) {
	all, err := h.backend.Nodes(ctx)
	if err != nil {
		return api.Node{}, err
	}
	return resolveNode(all, name)
}

func (h nodesHandler) Inspect(ctx context.Context, m *stellarv1.NodesInspectRequest) (*stellarv1.NodesInspectResponse, error) {
	if err := h.linearize(ctx, m.GetLinearizable()); err != nil {
		return nil, rpc.Error(err)
	}
	n, err := h.resolve(ctx, m.GetNode())
	if err != nil {
		return nil, rpc.Error(err)
	}
	return &stellarv1.NodesInspectResponse{Node: wire.FromNode(n)}, nil
}

func (h nodesHandler) Drain(ctx context.Context, m *stellarv1.NodesDrainRequest) (*stellarv1.NodesDrainResponse, error) {
	b, err := part[NodeAdmin](h.Server)
	if err != nil {
		return nil, rpc.Error(err)
	}
	n, err := h.resolve(ctx, m.GetNode())
	if err == nil {
		err = checkOwn(ctx, stellarv1connect.NodesDrainProcedure, n.ID)
	}
	if err != nil {
		return nil, rpc.Error(err)
	}
	if n, err = b.DrainNode(ctx, n.ID, !m.GetOff()); err != nil {
		return nil, rpc.Error(err)
	}
	h.audit(ctx, "node drained on request", "node", n.Name, "drain", !m.GetOff())
	return &stellarv1.NodesDrainResponse{Node: wire.FromNode(n)}, nil
}

func (h nodesHandler) Remove(ctx context.Context, m *stellarv1.NodesRemoveRequest) (*stellarv1.NodesRemoveResponse, error) {
	b, err := part[NodeAdmin](h.Server)
	if err != nil {
		return nil, rpc.Error(err)
	}
	r := wire.ToNodeRemoval(m)
	if r.Dead && !r.Force {
		return nil, rpc.Error(api.Errorf(api.CodeInvalid, "a node is called dead only together with force"))
	}
	n, err := h.resolve(ctx, r.Node)
	if err == nil {
		err = checkOwn(ctx, stellarv1connect.NodesRemoveProcedure, n.ID)
	}
	if err != nil {
		return nil, rpc.Error(err)
	}
	r.Node = n.ID
	out, err := b.RemoveNode(ctx, r)
	if err != nil {
		return nil, rpc.Error(err)
	}
	h.audit(ctx, "node removed on request", "node", out.Node, "id", out.ID, "force", r.Force, "dead", r.Dead,
		"subnet", out.Subnet, "subnet_state", out.SubnetState)
	return &stellarv1.NodesRemoveResponse{Removal: wire.FromRemoval(out)}, nil
}

// checkOwn refuses another node that may ask this for itself only; it lets the
// callers of this node's own socket pass.
func checkOwn(ctx context.Context, procedure, node string) error {
	c, ok := peerapi.CallerOf(ctx)
	if !ok {
		return nil
	}
	return peerapi.CheckOwn(c, procedure, node)
}
