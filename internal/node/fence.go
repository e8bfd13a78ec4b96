package node

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"stellar.io/stellar/api"
	"stellar.io/stellar/api/peerapi"
	"stellar.io/stellar/internal/peer"
	"stellar.io/stellar/ipam"
	"stellar.io/stellar/raftstore/holder"
)

var (
	// errRemoved, errOutdated and errDrained are why a node binds no new address.
	errRemoved  = errors.New("node was removed from the cluster")
	errOutdated = errors.New("the cluster was restored or recovered without this node")
	errDrained  = errors.New("node is draining (end it with `stellar node drain --off`)")
)

// membershipCheck is the name of status's check of it.
const membershipCheck = "membership"

const (
	// askEvery is how often a node that hears no leader asks the others why.
	askEvery = 2 * time.Second
	// askTimeout bounds one round of asking.
	askTimeout = 2 * time.Second
	// silence is for how long a leader may be silent before that is asked.
	silence = 3 * time.Second
)

// guarded are the leases as the agent sees them: an owner that has an address keeps
// it whatever happens, a new one gets none while barred says why not.
type guarded struct {
	*holder.Holder
	barred func() error
}

// Bind implements agent.Leases.
func (g guarded) Bind(ctx context.Context, r holder.BindRequest) (holder.Held, error) {
	if _, has := g.Lookup(r.Owner); !has {
		if err := g.barred(); err != nil {
			return holder.Held{}, fmt.Errorf("no new address: %w", err)
		}
	}
	return g.Holder.Bind(ctx, r)
}

// barred says why this node binds no new address, nil when it may.
func (n *Node) barred(p *parts) error {
	if err := n.cutOff(p); err != nil {
		return err
	}
	if err := n.ownRecord(p); err != nil {
		return err
	}
	return n.contact.expired()
}

// cutOff says why this node is no member of the cluster any more, nil while it is.
func (n *Node) cutOff(p *parts) error {
	if err := n.fence.get(); err != nil {
		return err
	}
	if err := n.ownRecord(p); errors.Is(err, errRemoved) {
		return err
	}
	if p.store.Stats().State == "removed" {
		return errRemoved
	}
	return nil
}

// removedHere wraps errRemoved when the node is a member no more, for good. Its subnet
// may be another node's, so that a container of its own that is started anew must not
// get the address that it had.
func (n *Node) removedHere(p *parts) error {
	if err := n.cutOff(p); errors.Is(err, errRemoved) {
		return err
	}
	return nil
}

// ownRecord is what the node's own replica says against new addresses.
func (n *Node) ownRecord(p *parts) (err error) {
	p.store.View(func(s *ipam.State) {
		switch m, _ := s.Node(n.id.ID); {
		case m.Removed:
			err = errRemoved
		case m.Draining:
			err = errDrained
		}
	})
	return err
}

// checkMembership says whether the node is a member in good standing.
func (n *Node) checkMembership(p *parts, add addCheck) {
	const name = membershipCheck
	if err := n.cutOff(p); err != nil {
		add(name, api.Err, err.Error()+": no new endpoints, running containers keep their networks; "+n.wayBack(err))
		return
	}
	if p.holder != nil {
		if _, err := p.holder.Status(); errors.Is(err, holder.ErrFenced) {
			add(name, api.Err, err.Error()+": no new endpoints, running containers keep their networks")
			return
		}
	}
	if err := n.ownRecord(p); err != nil {
		add(name, api.Warn, err.Error()+": no new endpoints")
		return
	}
	if err := n.contact.expired(); err != nil {
		add(name, api.Err, err.Error()+": no new endpoints until a leader is heard, running containers keep their networks")
		return
	}
	add(name, api.OK, "")
}

// watchMembership asks the other nodes what this one is to them: all of them when no
// leader is heard, for a node that was removed while it was away hears of it only so;
// and, on the leader, those that do not answer Raft. Nodes that were left behind by a
// recovery may be many enough to elect a leader among themselves.
func (n *Node) watchMembership(ctx context.Context, p *parts) error {
	tick := time.NewTicker(askEvery)
	defer tick.Stop()
	for {
		n.review(ctx, p)
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		case <-p.replaced: // after a restore what this node holds is claimed at once
		}
	}
}

// review is one round of watchMembership.
func (n *Node) review(ctx context.Context, p *parts) {
	if errors.Is(n.fence.get(), errRemoved) {
		return
	}
	n.outlive(p)
	n.report(ctx, p)
	led, leads := p.led()
	if led {
		n.rememberPeers(p)
		n.contact.heard(max(0, p.store.Stats().LastContact))
	}
	if leads {
		n.dropRemoved(ctx, p)
	}
	p.dropFollowers()
	if led && !leads {
		n.standing(p, nil, era{})
		return
	}
	others := n.others(p)
	if leads {
		for _, other := range p.store.Peers() {
			if other.State != api.RaftSilent {
				delete(others, other.ID)
			}
		}
	}
	n.ask(ctx, p, others) // that nobody speaks against it takes no fence away: they may be off
}

// led reports whether a leader was heard lately, and whether this node is it.
func (p *parts) led() (led, leads bool) {
	s := p.store.Stats()
	leads = s.State == "leader"
	return leads || (s.State == "follower" || s.State == "following") && s.Leader != "" && s.LastContact >= 0 && s.LastContact < silence, leads
}

// standing notes what the cluster thinks of this node.
func (n *Node) standing(p *parts, err error, since era) {
	if !n.fence.set(err, since) || err == nil {
		return
	}
	n.log.Warn("fenced: no new endpoints, running containers keep their networks", "reason", err)
	if p.agent != nil {
		p.agent.Record("fenced", n.id.Name, err.Error())
	}
	if p.port == nil {
		return
	}
	for id := range n.others(p) { // what admit would not let in any more
		p.port.DropNode(id)
	}
}

// ask asks other nodes at once what this one is to them, and reports whether one has
// said that it is no member. What one of them says for certain holds; silence says
// nothing.
func (n *Node) ask(ctx context.Context, p *parts, others map[ipam.NodeID]string) (against bool) {
	if p.port == nil {
		return false
	}
	ctx, cancel := context.WithTimeout(ctx, askTimeout)
	defer cancel()
	own := n.lived(p)
	var tasks sync.WaitGroup
	var said atomic.Bool
	for id, address := range others {
		tasks.Go(func() {
			c := p.client(id, address)
			s, err := c.WhoAmI(ctx)
			if err == nil && s.Membership == peerapi.Member {
				n.announce(ctx, p, c)
			}
			if since, verdict := judge(s, err, own); verdict != nil {
				said.Store(true)
				n.standing(p, verdict, since)
				if err == nil && errors.Is(verdict, errOutdated) {
					n.comeBack(ctx, p, c, since)
				}
			}
		})
	}
	tasks.Wait()
	return said.Load()
}

// judge reads another node's answer to WhoAmI; nil: it says nothing against us. since
// is the era that this node is no part of.
func judge(s peerapi.Standing, err error, own era) (since era, verdict error) {
	theirs := era{s.Generation, s.Life}
	refused, _ := errors.AsType[*peer.RefusedError](err)
	switch {
	case errors.Is(err, ipam.ErrNodeRemoved):
		return era{}, errRemoved
	case errors.Is(err, peer.ErrGeneration) && refused != nil:
		return eraOf(refused.Generation), errOutdated
	case err != nil:
		return era{}, nil
	case s.Membership == peerapi.Removed:
		return era{}, errRemoved
	case s.Membership == peerapi.Unknown && theirs.compare(own) > 0 && own != era{}:
		return theirs, errOutdated
	}
	return era{}, nil
}

// others are the other nodes' addresses: the members that the replica knows, and
// those of the Raft configuration, which is known before anything is applied.
func (n *Node) others(p *parts) map[ipam.NodeID]string {
	out := map[ipam.NodeID]string{}
	for _, other := range p.store.Peers() {
		out[other.ID] = other.Address
	}
	p.store.View(func(s *ipam.State) {
		for m := range s.Nodes() {
			if !m.Removed && m.Address != "" {
				out[m.ID] = m.Address
			}
		}
	})
	delete(out, n.id.ID)
	return out
}

// admit refuses nodes that were removed, for their certificates are valid still, and
// those of a life of the cluster that a restore or a recovery has ended. A node that
// was itself left behind by one speaks Raft with nobody but those who may take it
// back: with others that were left behind, it would go on as a second cluster.
func (n *Node) admit(p *parts, other peer.Peer) error {
	if since, left := n.fence.left(); left && other.Protocol == peer.Raft && eraOf(other.Generation).compare(since) < 0 {
		return errOutdated
	}
	return p.admit(other)
}

func (p *parts) admit(other peer.Peer) (err error) {
	if p.store == nil {
		return nil
	}
	if p.outdated(other) {
		return fmt.Errorf("generation %s, the cluster is at %s: %w", eraOf(other.Generation), p.era(), peer.ErrGeneration)
	}
	p.store.View(func(s *ipam.State) {
		if m, ok := s.Node(other.Node); ok && m.Removed {
			err = fmt.Errorf("%s: %w", m.Name, ipam.ErrNodeRemoved)
		}
	})
	return err
}

// outdated reports whether another node belongs to a life of the cluster that a
// restore or a recovery has ended. One that lags behind in Raft does not. Generation
// 0 is a node that has not read its state yet: it may ask as one that has just joined,
// but who calls for Raft, to have a vote or to lead, is known to Raft or of the past.
func (p *parts) outdated(other peer.Peer) bool {
	if !other.Raft && other.Protocol != peer.Raft {
		return false // a follower is where its server was, and is sent what is newer
	}
	if !other.Inbound || eraOf(other.Generation).compare(p.era()) >= 0 || other.Generation == 0 && other.Protocol != peer.Raft {
		return false
	}
	return !p.inRaft(other.Node)
}

// inRaft reports whether a node belongs to Raft's configuration.
func (p *parts) inRaft(id ipam.NodeID) bool {
	for _, member := range p.store.Peers() {
		if member.ID == id {
			return true
		}
	}
	return false
}
