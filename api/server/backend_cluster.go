package server

import (
	"context"
	"io"

	"stellar.io/stellar/api"
)

// A backend serves what a cluster of many nodes needs by having the methods of
// these interfaces, too. What it lacks is answered with an error that says so.
//
// Nodes are named by their ids: the server has resolved what the caller typed.
// A request that another node has passed on is Forwarded: the backend decides
// it here or refuses it with api.CodeNoLeader, and passes it on to nobody.

// Membership is this node's place in a cluster.
type Membership interface {
	// JoinCluster makes this node a member and returns when it holds its subnet.
	// ipam.ErrAlreadyInitialized when it belongs to a cluster, api.CodeUnreachable
	// when nobody answers at s.Address, api.CodeInvalid for a token that is none,
	// and the refusals of ipam.JoinNode. Nothing is changed by a refusal.
	JoinCluster(ctx context.Context, s api.JoinSpec) (api.Joined, error)
	// LeaveCluster removes this node, with the rules of RemoveNode. A leader hands
	// over first.
	LeaveCluster(ctx context.Context, force bool) (api.Removal, error)
	// EndReclaim lets subnets be handed out again and returns the generation.
	EndReclaim(ctx context.Context) (generation uint64, err error)
}

// Tokens are the rights to join.
type Tokens interface {
	// CreateToken makes one; s is complete and within bounds.
	CreateToken(ctx context.Context, s api.TokenSpec) (api.NewToken, error)
	// Tokens lists them, those that were used, revoked or have expired included,
	// for as long as they are remembered.
	Tokens(ctx context.Context) ([]api.Token, error)
	// RevokeToken is idempotent; ipam.ErrTokenNotFound.
	RevokeToken(ctx context.Context, id string) (api.Token, error)
}

// NodeAdmin changes other nodes.
type NodeAdmin interface {
	// DrainNode is idempotent.
	DrainNode(ctx context.Context, id string, drain bool) (api.Node, error)
	// RemoveNode makes a tombstone of the node and takes it out of Raft. Without
	// Force: ipam.ErrNodeInUse while endpoints run there. A conflict, with the
	// arithmetic, when the voters that are left would have no quorum.
	RemoveNode(ctx context.Context, r api.NodeRemoval) (api.Removal, error)
}

// RaftStatus tells about Raft.
type RaftStatus interface {
	RaftPeers(ctx context.Context) ([]api.RaftPeer, error)
	RaftStats(ctx context.Context) (api.RaftStats, error)
	// RaftHash waits until the state is at that index, a conflict when it is past
	// it; 0 is the present state.
	RaftHash(ctx context.Context, at uint64) (api.RaftHash, error)
	// Linearize returns when this node's state has everything that was committed
	// before the call; api.CodeNoLeader when nobody can tell.
	Linearize(ctx context.Context) error
}

// RaftAdmin changes Raft's configuration. What would lose the quorum is a
// conflict that gives the arithmetic.
type RaftAdmin interface {
	// TransferLeader returns the leader's name once the new one leads; id "" is
	// the best of the others.
	TransferLeader(ctx context.Context, id string) (leader string, err error)
	PromotePeer(ctx context.Context, c api.RaftChange) (api.RaftPeer, error)
	DemotePeer(ctx context.Context, c api.RaftChange) (api.RaftPeer, error)
	RemovePeer(ctx context.Context, c api.RaftChange) (api.RaftPeer, error)
}

// Snapshots are saved and restored whole.
type Snapshots interface {
	// SaveSnapshot writes the committed state as a file that restores.
	SaveSnapshot(ctx context.Context, w io.Writer) (api.SnapshotInfo, error)
	// RestoreSnapshot reads r to its end, checks it on a scratch state and only
	// then makes it the state of the cluster, in a new generation. The errors of
	// ipam.Restore, and ipam.ErrSnapshotCluster.
	RestoreSnapshot(ctx context.Context, r io.Reader) (api.Restored, error)
}

// RouteAdmin compares this node's routes with the kernel's.
type RouteAdmin interface {
	// RouteDrift asks the kernel now and returns what is not RouteOK, with a reason.
	RouteDrift(ctx context.Context) ([]api.Route, error)
	// SyncRoutes makes them right and returns what it changed, or, dry, would.
	SyncRoutes(ctx context.Context, dryRun bool) ([]api.RouteChange, error)
}

// part returns the backend as a T, or an error when it is none.
func part[T any](s *Server) (T, error) {
	p, ok := s.backend.(T)
	if !ok {
		return p, api.Errorf(api.CodeInternal, "not served by this agent")
	}
	return p, nil
}

// linearize waits when the caller asked for it.
func (s *Server) linearize(ctx context.Context, wanted bool) error {
	if !wanted {
		return nil
	}
	r, err := part[RaftStatus](s)
	if err != nil {
		return err
	}
	return r.Linearize(ctx)
}
