package client

import (
	"context"

	"stellar.io/stellar/api"
	"stellar.io/stellar/api/internal/wire"
	stellarv1 "stellar.io/stellar/api/stellar/v1"
)

// JoinCluster makes the node a member of a cluster.
func (c *Client) JoinCluster(ctx context.Context, s api.JoinSpec) (api.Joined, error) {
	m, err := c.cluster.Join(ctx, wire.FromJoinSpec(s))
	return wire.ToJoined(m), c.fail(ctx, err)
}

// LeaveCluster ends the membership of the node.
func (c *Client) LeaveCluster(ctx context.Context, force bool) (api.Removal, error) {
	m, err := c.cluster.Leave(ctx, &stellarv1.ClusterLeaveRequest{Force: force})
	return wire.ToRemoval(m.GetRemoval()), c.fail(ctx, err)
}

// EndReclaim lets the cluster hand out subnets again and returns the generation
// that is complete now.
func (c *Client) EndReclaim(ctx context.Context) (uint64, error) {
	m, err := c.cluster.EndReclaim(ctx, &stellarv1.ClusterEndReclaimRequest{})
	return m.GetGeneration(), c.fail(ctx, err)
}

// CreateToken makes a right to join once.
func (c *Client) CreateToken(ctx context.Context, s api.TokenSpec) (api.NewToken, error) {
	m, err := c.cluster.CreateToken(ctx, wire.FromTokenSpec(s))
	return wire.ToNewToken(m), c.fail(ctx, err)
}

// Tokens lists the tokens that are remembered.
func (c *Client) Tokens(ctx context.Context) ([]api.Token, error) {
	m, err := c.cluster.ListTokens(ctx, &stellarv1.ClusterListTokensRequest{})
	return wire.Each(m.GetTokens(), wire.ToToken), c.fail(ctx, err)
}

// RevokeToken ends a token before its time.
func (c *Client) RevokeToken(ctx context.Context, id string) (api.Token, error) {
	m, err := c.cluster.RevokeToken(ctx, &stellarv1.ClusterRevokeTokenRequest{Id: id})
	return wire.ToToken(m.GetToken()), c.fail(ctx, err)
}

// DrainNode keeps a node, by name or id, from new endpoints, or ends that.
func (c *Client) DrainNode(ctx context.Context, name string, drain bool) (api.Node, error) {
	m, err := c.nodes.Drain(ctx, &stellarv1.NodesDrainRequest{Node: name, Off: !drain})
	return wire.ToNode(m.GetNode()), c.fail(ctx, err)
}

// RemoveNode ends the membership of a node, by name or id.
func (c *Client) RemoveNode(ctx context.Context, r api.NodeRemoval) (api.Removal, error) {
	m, err := c.nodes.Remove(ctx, wire.FromNodeRemoval(r))
	return wire.ToRemoval(m.GetRemoval()), c.fail(ctx, err)
}

// RouteDrift lists the routes that are not as they should be.
func (c *Client) RouteDrift(ctx context.Context) ([]api.Route, error) {
	m, err := c.routes.Drift(ctx, &stellarv1.RoutesDriftRequest{})
	return wire.Each(m.GetRoutes(), wire.ToRoute), c.fail(ctx, err)
}

// SyncRoutes makes the kernel's routes right, or, dry, says how.
func (c *Client) SyncRoutes(ctx context.Context, dryRun bool) ([]api.RouteChange, error) {
	m, err := c.routes.Sync(ctx, &stellarv1.RoutesSyncRequest{DryRun: dryRun})
	return wire.Each(m.GetChanges(), wire.ToRouteChange), c.fail(ctx, err)
}
