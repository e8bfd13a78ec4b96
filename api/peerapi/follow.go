package peerapi

import (
	"context"

	"stellar.io/stellar/api/internal/rpc"
	peerv1 "stellar.io/stellar/api/stellar/peer/v1"
	"stellar.io/stellar/ipam"
	"stellar.io/stellar/raftstore"
)

// Followed are the nodes that follow the one that is asked.
type Followed interface {
	Followers(ctx context.Context) ([]raftstore.FollowerStat, error)
}

func (h *handler) Followers(ctx context.Context, _ *peerv1.FollowersRequest) (*peerv1.FollowersResponse, error) {
	list, err := h.backend.Followers(ctx)
	if err != nil {
		return nil, rpc.Error(err)
	}
	m := &peerv1.FollowersResponse{}
	for _, f := range list {
		m.Followers = append(m.Followers, &peerv1.Follower{Id: string(f.Node), Behind: f.Behind})
	}
	return m, nil
}

// Followers returns the nodes that follow the one that is asked, at present.
func (c *Client) Followers(ctx context.Context) ([]raftstore.FollowerStat, error) {
	m, err := c.peer.Followers(ctx, &peerv1.FollowersRequest{})
	if err != nil {
		return nil, c.fail(ctx, err)
	}
	out := make([]raftstore.FollowerStat, 0, len(m.GetFollowers()))
	for _, f := range m.GetFollowers() {
		out = append(out, raftstore.FollowerStat{Node: ipam.NodeID(f.GetId()), Behind: f.GetBehind()})
	}
	return out, nil
}
