package node

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"net/netip"
	"slices"
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
	if n.broken != nil {
		return api.Joined{}, n.lost()
	}
	if err := n.refuseForeignEndpoints(ctx, s.Replace != ""); err != nil {
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
	answer, err := n.askToJoin(ctx, tls, tls.Repeat, token, s)
	if err != nil {
		return api.Joined{}, err
	}
	if err := failpoint.Err(failpoint.JoinInstalled); err != nil {
		return api.Joined{}, err
	}
	cfg := n.storeConfig()
	cfg.Address = peer.RaftAddress(n.id.ID, n.advertised().String())
	if err := initStore(ctx, tls, cfg, answer); err != nil {
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

// initStore makes the store that the certificate is for: of a member of Raft, or of a
// follower.
func initStore(ctx context.Context, tls *pki.Store, cfg raftstore.Config, answer peerapi.JoinAnswer) error {
	if id, ok := tls.Identity(); !ok || id.Raft {
		return raftstore.InitJoin(ctx, cfg)
	}
	servers := map[ipam.NodeID]string{}
	for _, m := range answer.Members {
		if m.Role == api.RoleServer && m.ID != cfg.NodeID {
			servers[m.ID] = peer.RaftAddress(m.ID, m.Address)
		}
	}
	return raftstore.InitFollow(ctx, cfg, servers)
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
	was, _ := tls.Identity()
	s.Follow = !was.Raft
	answer, err := n.askToJoin(ctx, tls, tls.Request, token, s)
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
// containers. Those of a former incarnation are this node's own when it takes the
// subnet over that their addresses lie in.
func (n *Node) refuseForeignEndpoints(ctx context.Context, replace bool) error {
	net, err := netsetup.New(netsetup.Config{Bridge: n.opts.Config.Bridge})
	if err != nil {
		return err
	}
	defer net.Close()
	endpoints, err := net.List(ctx)
	if err != nil {
		return err
	}
	endpoints = slices.DeleteFunc(endpoints, func(e netsetup.Endpoint) bool { return replace && n.id.former(e.Node) })
	if len(endpoints) > 0 && n.id.former(endpoints[0].Node) {
		return api.Errorf(api.CodeConflict, "containers run here with addresses of the subnet that this node had, such as on %s", endpoints[0].HostIfname).
			WithHint(n.rejoinHint())
	}
	if len(endpoints) > 0 {
		return api.Errorf(api.CodeConflict, "the kernel has endpoints of node %s, such as %s", endpoints[0].Node, endpoints[0].HostIfname).
			WithHint("stop their containers, or run `stellar agent cleanup`")
	}
	return nil
}

// askToJoin shows the token to a server, which must prove first that it belongs
// to the token's cluster, and puts the certificate in that it gets.
func (n *Node) askToJoin(ctx context.Context, tls *pki.Store, request func(pki.Identity) ([]byte, error), token pki.Token, s api.JoinSpec) (peerapi.JoinAnswer, error) {
	mode, implied := n.modeToJoin()
	csr, err := request(n.identity(token.Cluster, token.Role))
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
		Address: n.advertised().String(), Version: n.opts.Version.Version, Mode: mode, ModeImplied: implied,
		HostRanges: n.hostRanges(), Replace: s.Replace, Time: time.Now(), Follow: s.Follow,
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
