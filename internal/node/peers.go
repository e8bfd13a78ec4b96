package node

import (
	"context"
	"fmt"
	"time"

	"stellar.io/stellar/api"
	"stellar.io/stellar/api/peerapi"
	"stellar.io/stellar/api/server"
	"stellar.io/stellar/internal/peer"
	"stellar.io/stellar/ipam"
)

// leaderPatience is how long a list waits for the leader's view of its peers.
const leaderPatience = time.Second

// raftPeers returns the members of Raft as their leader sees them, who alone hears
// from all. Without its answer, once and in time, it is what this node knows itself.
func (p *parts) raftPeers(ctx context.Context) []api.RaftPeer {
	var own []api.RaftPeer
	for _, other := range p.store.Peers() {
		own = append(own, describePeer(other))
	}
	s := p.store.Stats()
	if _, forwarded := server.Forwarded(ctx); forwarded || p.port == nil || s.Leader == "" || s.State == "leader" {
		return own
	}
	ctx, cancel := context.WithTimeout(ctx, leaderPatience)
	defer cancel()
	all, err := p.relayTo(ctx, s.Leader, s.LeaderAddress).RaftPeers(ctx)
	if err != nil || len(all) == 0 {
		return own
	}
	for i := range all {
		for _, o := range own {
			if all[i].ID == o.ID && o.CommitIndex > 0 { // each knows its own best
				all[i].State, all[i].CommitIndex = o.State, o.CommitIndex
			}
		}
	}
	return all
}

// moved reports whether the others know this node by an address that it no longer has.
func (n *Node) moved(p *parts) bool {
	now := n.advertised()
	if p.port == nil || !now.IsValid() {
		return false
	}
	for _, other := range p.store.Peers() {
		if other.ID == n.id.ID {
			return other.Address != peer.RaftAddress(n.id.ID, now.String())
		}
	}
	return false
}

// announce tells another node where this one is now. Only the leader can do something
// about it: it cannot know the way here, so that this node does not hear who it is.
func (n *Node) announce(ctx context.Context, p *parts, to *peerapi.Client) {
	if !n.moved(p) {
		return
	}
	m := n.member()
	if err := to.Announce(ctx, peerapi.Announcement{Address: m.Address, Version: m.Version}); err != nil {
		n.log.Debug("the new address was not taken", "err", err)
		return
	}
	n.log.Info("announced the new address", "address", m.Address)
}

// inUse refuses the removal of a node whose addresses are held.
func (p *parts) inUse(id ipam.NodeID) (err error) {
	p.store.View(func(s *ipam.State) {
		for sub := range s.SubnetsOf(id) {
			if u := s.Usage(sub.SubnetKey); sub.State == ipam.Held && u.Used > 0 {
				err = fmt.Errorf("%d leases in %s: %w", u.Used, sub.Prefix, ipam.ErrNodeInUse)
			}
		}
	})
	return err
}
