package node

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"time"

	"stellar.io/stellar/api"
	"stellar.io/stellar/api/peerapi"
	"stellar.io/stellar/internal/failpoint"
	"stellar.io/stellar/internal/peer"
	"stellar.io/stellar/internal/pki"
	"stellar.io/stellar/ipam"
	"stellar.io/stellar/raftstore"
)

// peerBackend is what this node answers to other nodes.
type peerBackend struct {
	n *Node
	p *parts
}

var _ peerapi.Backend = peerBackend{}

// Forward implements peerapi.Consensus.
func (b peerBackend) Forward(ctx context.Context, request []byte) ([]byte, error) {
	return b.p.store.HandleForward(ctx, request)
}

// FetchState implements peerapi.Consensus.
func (b peerBackend) FetchState(ctx context.Context, w io.Writer) error {
	_, err := b.p.store.SnapshotSave(ctx, w)
	return err
}

// Announce implements peerapi.Members.
func (b peerBackend) Announce(ctx context.Context, c peerapi.Caller, a peerapi.Announcement) error {
	if b.p.store.Stats().State != "leader" {
		return api.Errorf(api.CodeNoLeader, "this node does not lead")
	}
	return b.p.ensure(ctx, ipam.UpdateNode{Node: c.Node, Address: a.Address, Version: a.Version})
}

// WhoAmI implements peerapi.Members. A node that the state has and Raft has not was
// left behind by a recovery, or has not been entered yet: it is no member.
func (b peerBackend) WhoAmI(_ context.Context, c peerapi.Caller) (out peerapi.Standing, _ error) {
	listed := !c.Raft || b.p.inRaft(c.Node) // a follower is registered, that is all
	b.p.store.View(func(s *ipam.State) {
		out.Index, out.Membership = s.Index(), peerapi.Unknown
		if cl, ok := s.Cluster(); ok {
			out.Generation = cl.Generation
		}
		m, ok := s.Node(c.Node)
		switch {
		case ok && m.Removed:
			out.Membership = peerapi.Removed
		case ok && listed:
			out.Membership, out.Draining = peerapi.Member, m.Draining
		}
		for sub := range s.SubnetsOf(c.Node) {
			out.Subnet, out.Epoch = sub.Prefix, sub.Epoch
		}
	})
	return out, nil
}

// RenewCertificate implements peerapi.Members.
func (b peerBackend) RenewCertificate(_ context.Context, c peerapi.Caller, csr []byte) ([][]byte, error) {
	ca, err := b.p.tls.CA()
	if err != nil {
		return nil, api.Errorf(api.CodeNoLeader, "this node cannot sign: %v", err)
	}
	var role ipam.Role
	b.p.store.View(func(s *ipam.State) {
		if m, ok := s.Node(c.Node); ok && !m.Removed {
			role = m.Role
		}
	})
	if role == 0 {
		return nil, api.Errorf(api.CodeDenied, "%s is no member", c.Name)
	}
	// A follower that was made a server is to enter Raft.
	id := pki.Identity{Cluster: ca.Cluster(), Node: c.Node, Name: c.Name, Role: role, Raft: c.Raft || role == ipam.RoleServer}
	der, err := ca.Sign(csr, id, time.Now(), certLife)
	if err != nil {
		return nil, err
	}
	return [][]byte{der}, nil
}

// CAKey implements peerapi.Members.
func (b peerBackend) CAKey(_ context.Context, c peerapi.Caller) ([]byte, error) {
	if !b.p.votes(c.Node) {
		return nil, api.Errorf(api.CodeDenied, "%s does not vote", c.Name)
	}
	ca, err := b.p.tls.CA()
	if err != nil {
		return nil, api.Errorf(api.CodeNoLeader, "this node has no CA key: %v", err)
	}
	return ca.KeyPEM()
}

// Join implements peerapi.Joins: the leader decides, any other node passes on.
func (b peerBackend) Join(ctx context.Context, r peerapi.JoinRequest) (peerapi.JoinAnswer, error) {
	stats := b.p.store.Stats()
	if stats.State != "leader" {
		if _, passedOn := peerapi.CallerOf(ctx); passedOn {
			return peerapi.JoinAnswer{}, api.Errorf(api.CodeNoLeader, "this node does not lead")
		}
		c, err := b.p.leader()
		if err != nil {
			return peerapi.JoinAnswer{}, err
		}
		return c.Join(ctx, r)
	}
	now := time.Now()
	if skew := now.Sub(r.Time).Abs(); skew > joinClockSkew {
		return peerapi.JoinAnswer{}, api.Errorf(api.CodeInvalid, "the joining node's clock is off by %s", skew.Round(time.Second)).WithHint("set its clock; certificates are dated")
	}
	ca, err := b.n.caKey(ctx, b.p)
	if err != nil {
		return peerapi.JoinAnswer{}, api.Errorf(api.CodeNoLeader, "sign: %w", err).WithHint("try again")
	}
	req, err := pki.ParseRequest(r.CSR)
	if err != nil {
		return peerapi.JoinAnswer{}, api.Errorf(api.CodeInvalid, "certificate request: %v", err)
	}
	return b.admit(ctx, r, req, ca, now)
}

// admit makes the member, signs its certificate and tells Raft of it.
func (b peerBackend) admit(ctx context.Context, r peerapi.JoinRequest, req pki.Request, ca *pki.CA, now time.Time) (peerapi.JoinAnswer, error) {
	if err := failpoint.Err(failpoint.AdmitRegister); err != nil {
		return peerapi.JoinAnswer{}, err
	}
	follow, err := b.n.toFollow(b.p, r)
	if err != nil {
		return peerapi.JoinAnswer{}, err
	}
	mode, err := b.p.modeOf(r)
	if err != nil {
		return peerapi.JoinAnswer{}, err
	}
	results, err := b.p.store.Propose(ctx, ipam.Envelope{Commands: []ipam.Command{ipam.JoinNode{
		RegisterNode: ipam.RegisterNode{Node: r.Node, Name: r.Name, MachineID: r.MachineID, Address: r.Address, Version: r.Version, Mode: mode},
		TokenID:      r.TokenID, SecretHash: sha256.Sum256(r.Secret[:]), KeyHash: req.KeyHash, Now: now.Unix(),
		Network: ipam.DefaultNetwork, Replace: r.Replace, HostRanges: r.HostRanges,
	}}})
	if err != nil {
		return peerapi.JoinAnswer{}, outcome(err)
	}
	if err := results[0].Err; err != nil {
		return peerapi.JoinAnswer{}, err
	}
	if err := failpoint.Err(failpoint.AdmitRegistered); err != nil {
		return peerapi.JoinAnswer{}, err
	}
	answer := peerapi.JoinAnswer{Cluster: ca.Cluster(), Network: ipam.DefaultNetwork, Subnet: results[0].Subnet, Epoch: results[0].Epoch}
	var role ipam.Role
	b.p.store.View(func(s *ipam.State) {
		answer.Index = s.Index()
		if c, ok := s.Cluster(); ok {
			answer.Generation = c.Generation
		}
		if net, ok := s.Network(ipam.DefaultNetwork); ok {
			answer.NetworkPrefix = net.Prefix
		}
		for m := range s.Nodes() {
			if m.ID == r.Node {
				role = m.Role
			}
			if !m.Removed {
				answer.Members = append(answer.Members, peerapi.MemberInfo{ID: m.ID, Name: m.Name, Address: m.Address, Role: m.Role.String()})
			}
		}
	})
	answer.Role, answer.Leader = role.String(), b.n.id.ID
	answer.Reserved = b.p.reservedWith(answer.Subnet)
	der, err := ca.Sign(r.CSR, pki.Identity{Cluster: ca.Cluster(), Node: r.Node, Name: r.Name, Role: role, Raft: !follow}, now, certLife)
	if err != nil {
		return peerapi.JoinAnswer{}, fmt.Errorf("sign: %w", err)
	}
	answer.Chain, answer.CA = [][]byte{der}, b.p.tls.Roots()[0].Raw
	if err := failpoint.Err(failpoint.AdmitSigned); err != nil {
		return peerapi.JoinAnswer{}, err
	}
	if !follow {
		if err := b.p.store.AddServer(ctx, r.Node, peer.RaftAddress(r.Node, r.Address)); err != nil {
			return peerapi.JoinAnswer{}, outcome(err)
		}
	}
	failpoint.Hit(failpoint.AdmitAdded)
	if r.Replace != "" {
		b.n.dropRemoved(ctx, b.p)
	}
	return answer, nil
}

// reservedWith returns the host ranges that were reserved by the entry that handed
// the subnet out.
func (p *parts) reservedWith(subnet netip.Prefix) (out []netip.Prefix) {
	p.store.View(func(s *ipam.State) {
		sub, ok := s.Subnet(ipam.SubnetKey{Network: ipam.DefaultNetwork, Prefix: subnet})
		if !ok {
			return
		}
		for r := range s.AllReservations() {
			if r.Kind == ipam.ReservedOperator && r.Since == sub.Since {
				out = append(out, r.Prefix)
			}
		}
	})
	return out
}

// dropRemoved takes tombstoned nodes out of Raft and off the port. They do not count
// for a quorum that they could be part of: nobody speaks with them any more.
func (n *Node) dropRemoved(ctx context.Context, p *parts) {
	for _, other := range p.store.Peers() {
		removed := false
		p.store.View(func(s *ipam.State) {
			m, ok := s.Node(other.ID)
			removed = ok && m.Removed
		})
		if !removed {
			continue
		}
		if err := p.store.Remove(ctx, other.ID, true); err != nil && !errors.Is(err, raftstore.ErrNotMember) {
			n.log.Warn("removed node stays in raft for now", "node", other.Node, "err", err)
		}
		if p.port != nil {
			p.port.DropNode(other.ID)
		}
	}
}
