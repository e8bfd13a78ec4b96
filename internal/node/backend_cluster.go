package node

import (
	"context"
	"encoding/hex"
	"fmt"
	"io"
	"time"

	"stellar.io/stellar/api"
	"stellar.io/stellar/api/server"
	"stellar.io/stellar/internal/pki"
	"stellar.io/stellar/ipam"
	"stellar.io/stellar/raftstore"
	"stellar.io/stellar/routes"
)

var (
	_ server.Membership = (*Node)(nil)
	_ server.Tokens     = (*Node)(nil)
	_ server.NodeAdmin  = (*Node)(nil)
	_ server.RaftStatus = (*Node)(nil)
	_ server.RaftAdmin  = (*Node)(nil)
	_ server.Snapshots  = (*Node)(nil)
	_ server.RouteAdmin = (*Node)(nil)
)

// CreateToken implements server.Tokens.
func (n *Node) CreateToken(ctx context.Context, s api.TokenSpec) (api.NewToken, error) {
	p, err := n.ready()
	if err != nil {
		return api.NewToken{}, err
	}
	hash, err := p.tls.CAHash()
	if err != nil {
		return api.NewToken{}, err
	}
	role := ipam.RoleServer
	if s.Role == api.RoleNode {
		role = ipam.RoleNode
	}
	now := time.Now()
	t, err := pki.NewTokenFor(p.clusterID(), hash, role, now.Add(s.TTL))
	if err != nil {
		return api.NewToken{}, err
	}
	err = n.propose(ctx, p, ipam.CreateToken{ID: t.ID, SecretHash: t.SecretHash(), Role: role, Expires: t.Expires.Unix(), Now: now.Unix()})
	if err != nil {
		return api.NewToken{}, err
	}
	return api.NewToken{
		Token:  api.Token{ID: t.ID, Role: role.String(), Expires: t.Expires, State: api.TokenValid},
		Secret: api.Secret(t.String()),
	}, nil
}

// Tokens implements server.Tokens.
func (n *Node) Tokens(context.Context) ([]api.Token, error) {
	p, err := n.ready()
	if err != nil {
		return nil, err
	}
	var out []api.Token
	p.store.View(func(s *ipam.State) {
		for t := range s.Tokens() {
			out = append(out, describeToken(s, t))
		}
	})
	return out, nil
}

func describeToken(s *ipam.State, t ipam.Token) api.Token {
	d := api.Token{ID: t.ID, Role: t.Role.String(), Expires: time.Unix(t.Expires, 0).UTC(), State: api.TokenValid}
	switch {
	case t.Used():
		d.Uses, d.State = 1, api.TokenUsed
		if m, ok := s.Node(t.UsedBy); ok {
			d.Node = m.Name
		}
	case t.Revoked:
		d.State = api.TokenRevoked
	case time.Now().After(d.Expires):
		d.State = api.TokenExpired
	}
	return d
}

// RevokeToken implements server.Tokens.
func (n *Node) RevokeToken(ctx context.Context, id string) (out api.Token, err error) {
	p, err := n.ready()
	if err != nil {
		return out, err
	}
	if err := n.propose(ctx, p, ipam.RevokeToken{ID: id}); err != nil {
		return out, err
	}
	p.store.View(func(s *ipam.State) {
		if t, ok := s.Token(id); ok {
			out = describeToken(s, t)
		}
	})
	return out, nil
}

// EndReclaim implements server.Membership.
func (n *Node) EndReclaim(ctx context.Context) (uint64, error) {
	p, err := n.ready()
	if err != nil {
		return 0, err
	}
	return p.generation(), n.propose(ctx, p, ipam.EndReclaim{})
}

// LeaveCluster implements server.Membership.
func (n *Node) LeaveCluster(ctx context.Context, force bool) (api.Removal, error) {
	return n.RemoveNode(ctx, api.NodeRemoval{Node: string(n.id.ID), Force: force})
}

// DrainNode implements server.NodeAdmin.
func (n *Node) DrainNode(ctx context.Context, id string, drain bool) (out api.Node, err error) {
	p, err := n.ready()
	if err != nil {
		return out, err
	}
	if err := n.propose(ctx, p, ipam.DrainNode{Node: ipam.NodeID(id), Drain: drain}); err != nil {
		return out, err
	}
	leader := p.store.Stats().Leader
	p.store.View(func(s *ipam.State) {
		if m, ok := s.Node(ipam.NodeID(id)); ok {
			out = describeNode(s, m, subnetsByNode(s)[m.ID], m.ID == n.id.ID, m.ID == leader)
		}
	})
	return out, nil
}

// RaftPeers implements server.RaftStatus.
func (n *Node) RaftPeers(ctx context.Context) ([]api.RaftPeer, error) {
	p, err := n.ready()
	if err != nil {
		return nil, err
	}
	return p.raftPeers(ctx), nil
}

func describePeer(p raftstore.Peer) api.RaftPeer {
	return api.RaftPeer{
		Node: p.Node, ID: string(p.ID), Address: p.Address, State: p.State, Voter: p.Voter,
		CommitIndex: p.CommitIndex, TrailsLeaderBy: p.TrailsLeaderBy,
	}
}

// RaftStats implements server.RaftStatus.
func (n *Node) RaftStats(context.Context) (api.RaftStats, error) {
	p, err := n.ready()
	if err != nil {
		return api.RaftStats{}, err
	}
	s := p.store.Stats()
	out := api.RaftStats{
		Node: n.id.Name, State: s.State, Term: s.Term, LastIndex: s.LastIndex, CommitIndex: s.CommitIndex, AppliedIndex: s.AppliedIndex,
		SnapshotIndex: s.SnapshotIndex, LastContact: s.LastContact, Voters: s.Voters, Servers: s.Servers, LogBytes: s.LogBytes,
		Generation: p.generation(), Tolerates: max(0, (s.Voters-1)/2),
		Ahead: s.Ahead,
	}
	if p.follows() {
		out.Following = &api.RaftFollowing{Connected: s.Following != "", Behind: s.Behind, LastBeat: s.Heard, SnapshotsReceived: s.Received}
		if s.Following != "" {
			out.Following.Server = p.nameOf(s.Following)
		}
	} else {
		out.Followers = &api.RaftFollowers{Count: s.Followers, BehindMax: p.store.SlowestBehind(), SnapshotsSent: s.SnapshotsSent}
	}
	if s.Leader != "" {
		out.Leader = p.nameOf(s.Leader)
	}
	if s.FSMError != nil {
		out.Error = s.FSMError.Error()
	}
	return out, nil
}

// RaftHash implements server.RaftStatus.
func (n *Node) RaftHash(ctx context.Context, at uint64) (api.RaftHash, error) {
	p, err := n.ready()
	if err != nil {
		return api.RaftHash{}, err
	}
	index, sum, err := p.store.Hash(ctx, at)
	return api.RaftHash{Node: n.id.Name, Index: index, Hash: hex.EncodeToString(sum[:])}, outcome(err)
}

// Linearize implements server.RaftStatus.
func (n *Node) Linearize(ctx context.Context) error {
	p, err := n.ready()
	if err != nil {
		return err
	}
	return outcome(p.store.LinearizableRead(ctx))
}

// TransferLeader implements server.RaftAdmin.
func (n *Node) TransferLeader(ctx context.Context, id string) (string, error) {
	p, err := n.ready()
	if err != nil {
		return "", err
	}
	if err := p.change(ctx, raftstore.Change{Op: raftstore.ChangeTransfer, Node: ipam.NodeID(id)}); err != nil {
		return "", outcome(err)
	}
	return p.nameOf(p.store.Stats().Leader), nil
}

// PromotePeer implements server.RaftAdmin.
func (n *Node) PromotePeer(ctx context.Context, c api.RaftChange) (api.RaftPeer, error) {
	p, err := n.ready()
	if err != nil {
		return api.RaftPeer{}, err
	}
	_, forwarded := server.Forwarded(ctx)
	switch id := ipam.NodeID(c.Node); {
	case id == n.id.ID && p.follows() && forwarded:
		return api.RaftPeer{Node: n.id.Name, ID: c.Node}, n.enterRaft(ctx, p)
	case !p.follows() && !p.inRaft(id):
		if err := n.promoteFollower(ctx, p, c); err != nil {
			return api.RaftPeer{}, err
		}
		return describePeer(p.peerOf(id)), nil
	}
	return n.changePeer(ctx, raftstore.Change{Op: raftstore.ChangePromote, Node: ipam.NodeID(c.Node), Force: c.Force})
}

// DemotePeer implements server.RaftAdmin.
func (n *Node) DemotePeer(ctx context.Context, c api.RaftChange) (api.RaftPeer, error) {
	return n.changePeer(ctx, raftstore.Change{Op: raftstore.ChangeDemote, Node: ipam.NodeID(c.Node), Force: c.Force})
}

// RemovePeer implements server.RaftAdmin.
func (n *Node) RemovePeer(ctx context.Context, c api.RaftChange) (api.RaftPeer, error) {
	return n.changePeer(ctx, raftstore.Change{Op: raftstore.ChangeRemove, Node: ipam.NodeID(c.Node), Force: c.Force})
}

func (n *Node) changePeer(ctx context.Context, c raftstore.Change) (api.RaftPeer, error) {
	p, err := n.ready()
	if err != nil {
		return api.RaftPeer{}, err
	}
	before := p.peerOf(c.Node)
	if err := p.change(ctx, c); err != nil {
		return api.RaftPeer{}, outcome(err)
	}
	if after := p.peerOf(c.Node); after.ID != "" {
		return describePeer(after), nil
	}
	return describePeer(before), nil
}

func (p *parts) peerOf(id ipam.NodeID) raftstore.Peer {
	for _, other := range p.store.Peers() {
		if other.ID == id {
			return other
		}
	}
	return raftstore.Peer{}
}

// SaveSnapshot implements server.Snapshots.
func (n *Node) SaveSnapshot(ctx context.Context, w io.Writer) (api.SnapshotInfo, error) {
	p, err := n.ready()
	if err != nil {
		return api.SnapshotInfo{}, err
	}
	info, err := p.store.SnapshotSave(ctx, w)
	return describeSnapshot(info), outcome(err)
}

func describeSnapshot(i raftstore.SnapshotInfo) api.SnapshotInfo {
	return api.SnapshotInfo{
		Cluster: i.Cluster, Generation: i.Generation, Index: i.Index, Format: int(i.Format), Size: i.Size, Hash: hex.EncodeToString(i.SHA256[:]),
	}
}

// RouteDrift implements server.RouteAdmin.
func (n *Node) RouteDrift(ctx context.Context) ([]api.Route, error) {
	p, err := n.ready()
	if err != nil {
		return nil, err
	}
	if _, err := p.routes.Sync(ctx, true); err != nil {
		return nil, err
	}
	var out []api.Route
	for _, s := range p.routes.Drift() {
		out = append(out, describeRoute(s))
	}
	return out, nil
}

// SyncRoutes implements server.RouteAdmin.
func (n *Node) SyncRoutes(ctx context.Context, dryRun bool) ([]api.RouteChange, error) {
	p, err := n.ready()
	if err != nil {
		return nil, err
	}
	changes, err := p.routes.Sync(ctx, dryRun)
	if err != nil {
		return nil, err
	}
	var out []api.RouteChange
	for _, c := range changes {
		out = append(out, api.RouteChange{Action: fmt.Sprint(c.Op), Route: describeRoute(routes.Status{Route: c.Route, State: routes.OK})})
	}
	return out, nil
}

func describeRoute(s routes.Status) api.Route {
	d := api.Route{Destination: s.Destination, Via: s.Gateway, Dev: s.Device, Node: s.Node, State: string(s.State), Reason: s.Reason}
	if s.Kind == routes.Unreachable {
		d.Dev = "unreachable" // as ip(8) names it
	}
	return d
}
