package server

import (
	"cmp"
	"context"
	"net"
	"slices"
	"time"

	"stellar.io/stellar/api"
	"stellar.io/stellar/api/internal/rpc"
	"stellar.io/stellar/api/internal/wire"
	stellarv1 "stellar.io/stellar/api/stellar/v1"
)

const (
	// minTTL and maxTTL bound the life of a token: it must be possible to carry it
	// to another machine, and it must not lie about for ever.
	minTTL = time.Second
	maxTTL = 30 * 24 * time.Hour
	// maxToken bounds what is taken for a token.
	maxToken = 1 << 10
	// maxName bounds the name of a node.
	maxName = 253
)

type clusterHandler struct{ *Server }

func (h clusterHandler) Join(ctx context.Context, m *stellarv1.ClusterJoinRequest) (*stellarv1.ClusterJoinResponse, error) {
	b, err := part[Membership](h.Server)
	if err != nil {
		return nil, rpc.Error(err)
	}
	s := wire.ToJoinSpec(m)
	if err := checkJoin(s); err != nil {
		return nil, rpc.Error(err)
	}
	j, err := b.JoinCluster(ctx, s)
	if err != nil {
		return nil, rpc.Error(err)
	}
	h.audit(ctx, "joined a cluster on request", "cluster", j.Cluster, "address", s.Address, "subnet", j.Subnet, "role", j.Role, "replace", s.Replace)
	return wire.FromJoined(j), nil
}

// checkJoin refuses what cannot be right; no error repeats the token.
func checkJoin(s api.JoinSpec) error {
	host, port, err := net.SplitHostPort(s.Address)
	switch {
	case err != nil || host == "" || port == "" || len(s.Address) > maxName+8:
		return api.Errorf(api.CodeInvalid, "%s is not HOST:PORT", quoted(s.Address))
	case s.Token == "":
		return api.Errorf(api.CodeInvalid, "no token given").WithHint("`stellar cluster token create` on a member makes one")
	case len(s.Token) > maxToken:
		return api.Errorf(api.CodeInvalid, "%d bytes are no token", len(s.Token))
	case len(s.Replace) > maxName:
		return api.Errorf(api.CodeInvalid, "%s is not the name of a node", quoted(s.Replace))
	}
	return nil
}

func (h clusterHandler) Leave(ctx context.Context, m *stellarv1.ClusterLeaveRequest) (*stellarv1.ClusterLeaveResponse, error) {
	b, err := part[Membership](h.Server)
	if err != nil {
		return nil, rpc.Error(err)
	}
	r, err := b.LeaveCluster(ctx, m.GetForce())
	if err != nil {
		return nil, rpc.Error(err)
	}
	h.audit(ctx, "left the cluster on request", "force", m.GetForce(), "subnet", r.Subnet, "subnet_state", r.SubnetState)
	return &stellarv1.ClusterLeaveResponse{Removal: wire.FromRemoval(r)}, nil
}

func (h clusterHandler) CreateToken(ctx context.Context, m *stellarv1.ClusterCreateTokenRequest) (*stellarv1.ClusterCreateTokenResponse, error) {
	b, err := part[Tokens](h.Server)
	if err != nil {
		return nil, rpc.Error(err)
	}
	s := wire.ToTokenSpec(m)
	if s.Role != api.RoleServer && s.Role != api.RoleNode {
		return nil, rpc.Error(api.Errorf(api.CodeInvalid, "role %s is neither server nor node", quoted(s.Role)))
	}
	if s.TTL < minTTL || s.TTL > maxTTL {
		return nil, rpc.Error(api.Errorf(api.CodeInvalid, "a token lives from %s to %s, not %s", minTTL, maxTTL, s.TTL))
	}
	t, err := b.CreateToken(ctx, s)
	if err != nil {
		return nil, rpc.Error(err)
	}
	h.audit(ctx, "token made on request", "token", t.ID, "role", t.Role, "expires", t.Expires)
	return wire.FromNewToken(t), nil
}

func (h clusterHandler) ListTokens(ctx context.Context, _ *stellarv1.ClusterListTokensRequest) (*stellarv1.ClusterListTokensResponse, error) {
	b, err := part[Tokens](h.Server)
	if err != nil {
		return nil, rpc.Error(err)
	}
	all, err := b.Tokens(ctx)
	if err != nil {
		return nil, rpc.Error(err)
	}
	all = slices.SortedFunc(slices.Values(all), func(a, b api.Token) int {
		return cmp.Or(a.Expires.Compare(b.Expires), cmp.Compare(a.ID, b.ID))
	})
	return &stellarv1.ClusterListTokensResponse{Tokens: wire.Each(all, wire.FromToken)}, nil
}

func (h clusterHandler) RevokeToken(ctx context.Context, m *stellarv1.ClusterRevokeTokenRequest) (*stellarv1.ClusterRevokeTokenResponse, error) {
	b, err := part[Tokens](h.Server)
	if err != nil {
		return nil, rpc.Error(err)
	}
	if len(m.GetId()) == 0 || len(m.GetId()) > maxTokenID {
		return nil, rpc.Error(api.Errorf(api.CodeInvalid, "that is not the id of a token").WithHint("`stellar cluster token ls` shows the ids"))
	}
	t, err := b.RevokeToken(ctx, m.GetId())
	if err != nil {
		return nil, rpc.Error(err)
	}
	h.audit(ctx, "token revoked on request", "token", t.ID)
	return &stellarv1.ClusterRevokeTokenResponse{Token: wire.FromToken(t)}, nil
}

// maxTokenID is shorter than any token: one that was pasted in place of its id
// must not end up in a log.
const maxTokenID = 16

func (h clusterHandler) EndReclaim(ctx context.Context, _ *stellarv1.ClusterEndReclaimRequest) (*stellarv1.ClusterEndReclaimResponse, error) {
	b, err := part[Membership](h.Server)
	if err != nil {
		return nil, rpc.Error(err)
	}
	g, err := b.EndReclaim(ctx)
	if err != nil {
		return nil, rpc.Error(err)
	}
	h.audit(ctx, "re-claim ended on request", "generation", g)
	return &stellarv1.ClusterEndReclaimResponse{Generation: g}, nil
}
