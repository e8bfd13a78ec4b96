package node

import (
	"context"
	"encoding/json"
	"errors"
	"sync"
	"time"

	"stellar.io/stellar/api"
	"stellar.io/stellar/api/peerapi"
	"stellar.io/stellar/api/server"
	"stellar.io/stellar/internal/atomicfile"
	"stellar.io/stellar/internal/pki"
	"stellar.io/stellar/ipam"
	"stellar.io/stellar/raftstore"
)

// maxNonvoters is how many members of Raft do not vote, at most: the leader sends each
// of them some 20 messages a second also when nothing happens. Further nodes follow a
// server instead.
const maxNonvoters = 64

// Followers implements peerapi.Followed.
func (b peerBackend) Followers(context.Context) ([]raftstore.FollowerStat, error) {
	return b.p.store.FollowedBy(), nil
}

// follows reports whether this node follows a server and has no part in Raft.
func (p *parts) follows() bool { return p.store.Follows() }

// toFollow decides whether a node that joins is to follow a server: when it asks for it,
// when it was a follower before, and when Raft has enough members. What may become a
// server is told so instead.
func (n *Node) toFollow(p *parts, r peerapi.JoinRequest) (bool, error) {
	var role ipam.Role
	p.store.View(func(s *ipam.State) {
		if t, ok := s.Token(r.TokenID); ok {
			role = t.Role
		}
	})
	others, listed := 0, false
	for _, m := range p.store.Peers() {
		listed = listed || m.ID == r.Node
		if !m.Voter {
			others++
		}
	}
	switch {
	case listed || !r.Follow && others < maxNonvoters:
		return false, nil
	case role == ipam.RoleServer && r.Follow:
		return false, api.Errorf(api.CodeInvalid, "the token is for a server, and a server has its part in Raft").
			WithHint("a token for a node that follows: stellar cluster token create --role node")
	case role == ipam.RoleServer:
		return false, api.Errorf(api.CodeConflict, "Raft has %d members that do not vote, which is as many as it takes", others).
			WithHint("join as a node that follows a server: stellar cluster token create --role node")
	}
	return true, nil
}

// dropFollowers ends the streams to followers that were removed.
func (p *parts) dropFollowers() {
	if p.port == nil {
		return
	}
	for _, f := range p.store.FollowedBy() {
		removed := false
		p.store.View(func(s *ipam.State) {
			m, ok := s.Node(f.Node)
			removed = ok && m.Removed
		})
		if removed {
			p.port.DropNode(f.Node)
		}
	}
}

// following is what is known of the nodes that have no part in Raft.
type following struct {
	raft     map[ipam.NodeID]bool // members of Raft; empty: not known
	heard    map[ipam.NodeID]bool // followers that a server has a stream to
	complete bool                 // all servers have been asked
}

// is reports whether a node is a follower.
func (f following) is(m ipam.Node) bool {
	return len(f.raft) > 0 && !f.raft[m.ID] && m.Role == ipam.RoleNode && !m.Removed
}

// lost reports whether a follower follows nobody.
func (f following) lost(m ipam.Node) bool { return f.is(m) && f.complete && !f.heard[m.ID] }

// whoFollows asks the members of Raft who follows them, when there is somebody who
// should: at once, and within leaderPatience.
func (n *Node) whoFollows(ctx context.Context, p *parts) following {
	f := following{raft: map[ipam.NodeID]bool{}, heard: map[ipam.NodeID]bool{}, complete: true}
	members := p.store.Peers()
	for _, m := range members {
		f.raft[m.ID] = true
	}
	any := false
	p.store.View(func(s *ipam.State) {
		for m := range s.Nodes() {
			any = any || f.is(m)
		}
	})
	if !any {
		return f
	}
	for _, s := range p.store.FollowedBy() {
		f.heard[s.Node] = true
	}
	if p.follows() && p.store.Stats().Following != "" {
		f.heard[n.id.ID] = true
	}
	if _, forwarded := server.Forwarded(ctx); forwarded || p.port == nil {
		f.complete = false
		return f
	}
	ctx, cancel := context.WithTimeout(ctx, leaderPatience)
	defer cancel()
	var tasks sync.WaitGroup
	var mu sync.Mutex // guards f
	for _, m := range members {
		if m.ID == n.id.ID {
			continue
		}
		tasks.Go(func() {
			list, err := p.client(m.ID, m.Address).Followers(ctx)
			mu.Lock()
			defer mu.Unlock()
			for _, s := range list {
				f.heard[s.Node] = true
			}
			if err != nil && !errors.Is(err, context.Canceled) && m.Voter {
				n.log.Debug("it is not known who follows a server", "server", m.Node, "err", err)
			}
		})
	}
	tasks.Wait()
	return f
}

const (
	// enterPatience is how long a promotion waits for a follower to be a member of Raft
	// that has caught up.
	enterPatience = 45 * time.Second
	enterPoll     = 250 * time.Millisecond
)

// promoteFollower makes a follower a server: the state says that it is one, by which it
// gets a certificate for Raft; it is told; and when Raft has it and it has caught up, it
// may vote. Of two the leader makes voters together, where one more would be worse than
// none: who comes second waits for that. Called again it goes on.
func (n *Node) promoteFollower(ctx context.Context, p *parts, c api.RaftChange) error {
	var m ipam.Node
	p.store.View(func(s *ipam.State) { m, _ = s.Node(ipam.NodeID(c.Node)) })
	if m.ID == "" || m.Removed {
		return outcome(raftstore.ErrNotMember)
	}
	if m.Role != ipam.RoleServer {
		if err := n.propose(ctx, p, ipam.RegisterNode{
			Node: m.ID, Name: m.Name, MachineID: m.MachineID, Address: m.Address, Version: m.Version, Mode: m.Mode, Role: ipam.RoleServer,
		}); err != nil {
			return err
		}
	}
	to, err := p.relay(ctx, m.ID, m.Address)
	if err != nil {
		return err
	}
	if _, err := to.PromotePeer(ctx, c); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, enterPatience)
	defer cancel()
	for {
		err := p.change(ctx, raftstore.Change{Op: raftstore.ChangePromote, Node: m.ID, Force: c.Force})
		switch {
		case errors.Is(err, raftstore.ErrNotMember), errors.Is(err, raftstore.ErrNotReady):
		case errors.Is(err, raftstore.ErrQuorum) && p.pairWaits():
		case errors.Is(err, raftstore.ErrQuorum):
			return api.Errorf(api.CodeConflict, "%s is a server now, but has no vote yet: %w", m.Name, err).
				WithHint("beside a single voter make another node a server, too, and the leader gives both a vote: stellar raft promote NAME; otherwise `stellar raft peers` shows who does not answer")
		default:
			return outcome(err)
		}
		select {
		case <-ctx.Done():
			return outcome(err)
		case <-time.After(enterPoll):
		}
	}
}

// pairWaits reports whether Raft has a single voter and two servers or more without a
// vote: the leader makes them voters when they have been well for a while.
func (p *parts) pairWaits() bool {
	voters, waiting := 0, 0
	peers := p.store.Peers()
	p.store.View(func(s *ipam.State) {
		for _, o := range peers {
			m, _ := s.Node(o.ID)
			switch {
			case o.Voter:
				voters++
			case m.Role == ipam.RoleServer && !m.Removed:
				waiting++
			}
		}
	})
	return voters == 1 && waiting >= 2
}

// enterRaft gives a follower that was made a server its part in Raft: a certificate for
// it, and the way back of a node whose store is set aside (comeBack), for Raft sends it
// all that it needs. It returns before that has happened.
func (n *Node) enterRaft(ctx context.Context, p *parts) error {
	s := p.store.Stats()
	if s.Leader == "" {
		return p.notLeading("")
	}
	id, _ := p.tls.Identity()
	csr, err := p.tls.Request(id)
	if err != nil {
		return err
	}
	chain, err := p.client(s.Leader, s.LeaderAddress).RenewCertificate(ctx, csr)
	if err != nil {
		return err
	}
	if err := p.tls.Install(chain[0], nil); err != nil {
		return err
	}
	if now, _ := p.tls.Identity(); !now.Raft || now.Role != pki.RoleServer {
		return api.Errorf(api.CodeConflict, "the certificate of %s does not allow it to speak Raft", n.id.Name).
			WithHint("run it on a server: stellar raft promote " + n.id.Name)
	}
	ask := n.others(p)
	ask[s.Leader] = s.LeaderAddress
	data, err := json.Marshal(returning{Aside: "raft.followed-" + time.Now().UTC().Format("20060102T150405.000"), Ask: ask})
	if err == nil {
		err = atomicfile.Write(n.returnPath(), append(data, '\n'), 0o600)
	}
	if err != nil {
		return err
	}
	n.log.Info("this node was made a server: it enters Raft")
	time.AfterFunc(enterPoll, func() { // when the answer is on its way
		select {
		case n.restart <- struct{}{}:
		default:
		}
	})
	return nil
}
