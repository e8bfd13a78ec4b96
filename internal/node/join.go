package node

import (
	"context"
	"crypto/sha256"
	"crypto/x509"
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
	"stellar.io/stellar/netsetup"
	"stellar.io/stellar/raftstore"
	"stellar.io/stellar/routes"
)

// joinClockSkew is how far a joiner's clock may be off: certificates are dated.
const joinClockSkew = 10 * time.Minute

// JoinCluster implements server.Membership.
func (n *Node) JoinCluster(ctx context.Context, s api.JoinSpec) (api.Joined, error) {
	n.initMu.Lock()
	defer n.initMu.Unlock()
	token, err := pki.ParseToken(s.Token.Reveal())
	if err != nil {
		return api.Joined{}, api.Errorf(api.CodeInvalid, "%v", err)
	}
	select {
	case <-n.initialized:
		return n.joinAgain(ctx, token, s)
	default:
	}
	if err := n.refuseForeignEndpoints(ctx); err != nil {
		return api.Joined{}, err
	}
	at := n.listenAddress()
	if !at.IsValid() {
		return api.Joined{}, api.Errorf(api.CodeConflict, "this host has no address for other nodes").WithHint("start the agent with --listen IP:9640")
	}
	// The leader calls the moment it has admitted us: it must not find nobody there.
	l, err := peer.Listen(ctx, at)
	if err != nil {
		return api.Joined{}, api.Errorf(api.CodeConflict, "%v", err).WithHint("end what uses the port, or start the agent with another --listen")
	}
	joined := false
	defer func() {
		if !joined {
			l.Close()
		}
	}()
	tls, err := n.openTLS()
	if err != nil {
		return api.Joined{}, err
	}
	answer, err := n.askToJoin(ctx, tls, token, s)
	if err != nil {
		return api.Joined{}, err
	}
	if err := failpoint.Err(failpoint.JoinInstalled); err != nil {
		return api.Joined{}, err
	}
	cfg := n.storeConfig()
	cfg.Address = peer.RaftAddress(n.id.ID, n.advertised().String())
	if err := raftstore.InitJoin(ctx, cfg); err != nil {
		return api.Joined{}, fmt.Errorf("join: %w", err)
	}
	failpoint.Hit(failpoint.JoinStored)
	n.log.Info("joined", "cluster", answer.Cluster, "subnet", answer.Subnet)
	joined, n.listening = true, early{at, l}
	close(n.initialized)
	if err := n.awaitParts(ctx); err != nil {
		return api.Joined{}, err
	}
	return n.joined(answer), nil
}

// joinAgain is the way back of a member whose certificate has expired while it was
// off: with a fresh token it gets another one and is the member that it was, with its
// subnet and all that runs. Any other member has nothing to join for.
func (n *Node) joinAgain(ctx context.Context, token pki.Token, s api.JoinSpec) (api.Joined, error) {
	tls := n.tls.Load()
	if tls == nil || !errors.Is(tls.Check(), pki.ErrExpired) {
		return api.Joined{}, fmt.Errorf("%w: this node has a cluster already", ipam.ErrAlreadyInitialized)
	}
	if id, _ := tls.Identity(); id.Cluster != token.Cluster {
		return api.Joined{}, api.Errorf(api.CodeConflict, "the token is of cluster %s, this node belongs to %s", token.Cluster, id.Cluster).
			WithHint("to change the cluster, start with an empty data directory")
	}
	answer, err := n.askToJoin(ctx, tls, token, s)
	if err != nil {
		return api.Joined{}, err
	}
	n.log.Info("joined again, with a new certificate", "cluster", answer.Cluster, "subnet", answer.Subnet)
	if err := n.awaitParts(ctx); err != nil {
		return api.Joined{}, err
	}
	return n.joined(answer), nil
}

// joined is what the operator is told of an answer.
func (n *Node) joined(answer peerapi.JoinAnswer) api.Joined {
	out := api.Joined{Cluster: answer.Cluster, Node: n.id.Name, Network: answer.NetworkPrefix, Subnet: answer.Subnet, Role: answer.Role, Warnings: []string{}}
	for _, r := range answer.Reserved {
		out.Warnings = append(out.Warnings, fmt.Sprintf("%s is used by this host: its subnets will not be handed out", r))
	}
	return out
}

// refuseForeignEndpoints: endpoints of another identity are somebody's running
// containers.
func (n *Node) refuseForeignEndpoints(ctx context.Context) error {
	net, err := netsetup.New(netsetup.Config{Bridge: n.opts.Config.Bridge})
	if err != nil {
		return err
	}
	defer net.Close()
	endpoints, err := net.List(ctx)
	if err != nil {
		return err
	}
	if len(endpoints) > 0 {
		return api.Errorf(api.CodeConflict, "the kernel has endpoints of node %s, such as %s", endpoints[0].Node, endpoints[0].HostIfname).
			WithHint("stop their containers, or run `stellar agent cleanup`")
	}
	return nil
}

// askToJoin shows the token to a server, which must prove first that it belongs
// to the token's cluster, and puts the certificate in that it gets.
func (n *Node) askToJoin(ctx context.Context, tls *pki.Store, token pki.Token, s api.JoinSpec) (peerapi.JoinAnswer, error) {
	csr, err := tls.Request(n.identity(token.Cluster, token.Role))
	if err != nil {
		return peerapi.JoinAnswer{}, err
	}
	if err := failpoint.Err(failpoint.JoinToken); err != nil {
		return peerapi.JoinAnswer{}, err
	}
	hc := peer.JoinClient(token, s.Address)
	defer hc.CloseIdleConnections()
	answer, err := insist(ctx, peerapi.NewClient(hc, "https://"+s.Address, s.Address), peerapi.JoinRequest{
		TokenID: token.ID, Secret: [16]byte(token.Secret.Bytes()), CSR: csr, Node: n.id.ID, Name: n.id.Name, MachineID: n.id.Machine,
		Address: n.advertised().String(), Version: n.opts.Version.Version, Mode: n.opts.Config.AttachMode(),
		HostRanges: n.hostRanges(), Replace: s.Replace, Time: time.Now(),
	})
	if err != nil {
		return answer, err
	}
	if err := failpoint.Err(failpoint.JoinAnswered); err != nil {
		return answer, err
	}
	ca, err := x509.ParseCertificate(answer.CA)
	if err != nil {
		return answer, fmt.Errorf("join: %w", err)
	}
	if err := tls.Install(answer.Chain[0], []*x509.Certificate{ca}); err != nil {
		return answer, fmt.Errorf("join: %w", err)
	}
	return answer, nil
}

const (
	// joinPatience is for how long a join meets changes of leadership.
	joinPatience = 10 * time.Second
	// joinPause lies between two requests.
	joinPause = time.Second
)

// insist asks to join until a change of leadership no longer keeps the cluster from an
// answer. The request may be repeated as it is: it is executed once.
func insist(ctx context.Context, c *peerapi.Client, r peerapi.JoinRequest) (peerapi.JoinAnswer, error) {
	for patience := time.Now().Add(joinPatience); ; {
		answer, err := c.Join(ctx, r)
		if code := api.CodeOf(err); code != api.CodeNoLeader && code != api.CodeUnknownOutcome || time.Now().After(patience) {
			return answer, err
		}
		select {
		case <-ctx.Done():
			return answer, err
		case <-time.After(joinPause):
		}
	}
}

// hostRanges are the ranges that this host itself uses.
func (n *Node) hostRanges() []netip.Prefix {
	uses, err := routes.Overlaps(-1, netip.PrefixFrom(netip.IPv4Unspecified(), 0), n.opts.Config.Bridge)
	if err != nil {
		n.log.Warn("ranges in use are not known", "err", err)
		return nil
	}
	var out []netip.Prefix
	for _, u := range uses {
		out = append(out, u.Prefix)
	}
	return out
}

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
	listed := b.p.inRaft(c.Node)
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
	der, err := ca.Sign(csr, pki.Identity{Cluster: ca.Cluster(), Node: c.Node, Name: c.Name, Role: role, Raft: c.Raft}, time.Now(), certLife)
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
	results, err := b.p.store.Propose(ctx, ipam.Envelope{Commands: []ipam.Command{ipam.JoinNode{
		RegisterNode: ipam.RegisterNode{Node: r.Node, Name: r.Name, MachineID: r.MachineID, Address: r.Address, Version: r.Version, Mode: r.Mode},
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
	der, err := ca.Sign(r.CSR, pki.Identity{Cluster: ca.Cluster(), Node: r.Node, Name: r.Name, Role: role, Raft: true}, now, certLife)
	if err != nil {
		return peerapi.JoinAnswer{}, fmt.Errorf("sign: %w", err)
	}
	answer.Chain, answer.CA = [][]byte{der}, b.p.tls.Roots()[0].Raw
	if err := failpoint.Err(failpoint.AdmitSigned); err != nil {
		return peerapi.JoinAnswer{}, err
	}
	if err := b.p.store.AddServer(ctx, r.Node, peer.RaftAddress(r.Node, r.Address)); err != nil {
		return peerapi.JoinAnswer{}, outcome(err)
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
