package node

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sync/errgroup"

	"stellar.io/stellar/api"
	"stellar.io/stellar/api/peerapi"
	"stellar.io/stellar/internal/peer"
	"stellar.io/stellar/internal/pki"
	"stellar.io/stellar/ipam"
	"stellar.io/stellar/raftstore"
)

const (
	// defaultPort is the node-to-node port.
	defaultPort = 9640
	// certLife is how long a node's certificate is valid; it is renewed at half of it.
	certLife = 30 * 24 * time.Hour
)

// listenAddress is where other nodes reach this one: as configured, or the
// address by which the host's packets leave it. The zero value: nowhere, for the
// host has no way out and nothing was configured.
func (n *Node) listenAddress() netip.AddrPort {
	if a := n.opts.Config.Listen; a.IsValid() {
		return a
	}
	// Connecting a datagram socket sends nothing; the kernel only picks the address.
	c, err := net.Dial("udp4", "192.0.2.1:9")
	if err != nil {
		return netip.AddrPort{}
	}
	defer c.Close()
	local, err := netip.ParseAddrPort(c.LocalAddr().String())
	if err != nil || local.Addr().IsLoopback() {
		return netip.AddrPort{}
	}
	return netip.AddrPortFrom(local.Addr(), defaultPort)
}

func (n *Node) advertised() netip.AddrPort {
	if a := n.opts.Config.Advertise; a.IsValid() {
		return a
	}
	return n.listenAddress()
}

// uplink is the interface that has the advertised address, "" if none has.
func (n *Node) uplink() string { return interfaceOf(n.listenAddress().Addr()) }

// openTLS opens the directory of certificates.
func (n *Node) openTLS() (*pki.Store, error) {
	return pki.Open(filepath.Join(n.opts.Config.DataDir, tlsDir), pki.Options{Logger: n.log})
}

func (n *Node) identity(cluster string, role pki.Role) pki.Identity {
	return pki.Identity{Cluster: cluster, Node: n.id.ID, Name: n.id.Name, Role: role, Raft: true} // the leader may grant less
}

// makeCA makes the certificates of a new cluster's first node. A cluster that a
// crash left half made is made anew.
func (n *Node) makeCA(cluster string) error {
	tls, err := n.openTLS()
	if err != nil {
		return err
	}
	if err := tls.Clear(); err != nil {
		return err
	}
	now := time.Now()
	ca, err := pki.NewCA(cluster, now)
	if err != nil {
		return err
	}
	if err := tls.SaveCA(ca); err != nil {
		return err
	}
	id := n.identity(cluster, pki.RoleServer)
	csr, err := tls.Request(id)
	if err != nil {
		return err
	}
	der, err := ca.Sign(csr, id, now, certLife)
	if err != nil {
		return err
	}
	roots, err := pki.ParseCerts(ca.CertPEM())
	if err != nil {
		return err
	}
	return tls.Install(der, roots)
}

// openPort listens for the other nodes. Without an address there is no port, and
// the node stays alone.
func (n *Node) openPort(p *parts) (err error) {
	if p.tls, err = n.openTLS(); err != nil {
		return err
	}
	n.tls.Store(p.tls)
	if _, ok := p.tls.Identity(); !ok {
		return errors.New("the cluster's certificates are missing from the data directory: restore them, or join again as a new node")
	}
	listen := n.listenAddress()
	if !listen.IsValid() {
		n.log.Warn("no address for other nodes: no default route, and --listen is not given")
		return nil
	}
	p.listens = listen
	p.port, err = peer.New(peer.Config{
		Listen: listen, Listener: n.listening.take(listen), Advertise: n.opts.Config.Advertise, TLS: p.tls, Logger: n.log,
		Generation: func() uint64 { return n.greeting(p) }, Admit: func(other peer.Peer) error { return n.admit(p, other) },
		OnRequest: n.onRequest(p),
	})
	return err
}

// early is the socket of a port that is to come. The goroutine that joins puts it
// there before it closes Node.initialized, the one that opens the port takes it after.
type early struct {
	at       netip.AddrPort
	listener net.Listener // nil: none
}

// take returns the listener, if it is at the address, and gives it up.
func (e *early) take(at netip.AddrPort) net.Listener {
	l := e.listener
	e.listener = nil
	if l != nil && e.at != at { // the host's address has changed since
		l.Close()
		l = nil
	}
	return l
}

func (p *parts) generation() (g uint64) {
	if p.store == nil {
		return 0
	}
	p.store.View(func(s *ipam.State) {
		if c, ok := s.Cluster(); ok {
			g = c.Generation
		}
	})
	return g
}

// connect puts what needs the other nodes into the store's configuration.
func (n *Node) connect(p *parts, c *raftstore.Config) {
	if p.port == nil {
		return
	}
	c.Address = peer.RaftAddress(n.id.ID, p.port.Advertise().String())
	c.Streams, c.Followers = p.port.Raft(), p.port.Followers()
	c.AddressOf = func(id ipam.NodeID) (address string, ok bool) {
		p.store.View(func(s *ipam.State) {
			if m, found := s.Node(id); found && m.Address != "" {
				address, ok = peer.RaftAddress(id, m.Address), true
			}
		})
		return address, ok
	}
	c.Eligible = func(id ipam.NodeID) (ok bool) {
		p.store.View(func(s *ipam.State) {
			m, found := s.Node(id)
			ok = found && !m.Removed && !m.Draining && m.Role == ipam.RoleServer
		})
		return ok
	}
	c.Forward = func(ctx context.Context, leader ipam.NodeID, address string, request []byte) ([]byte, error) {
		answer, err := p.client(leader, address).Forward(ctx, request)
		if api.CodeOf(err) == api.CodeDenied {
			return nil, fmt.Errorf("%w: %w", raftstore.ErrRefused, err)
		}
		if err != nil && !peerapi.Sent(err) {
			return nil, fmt.Errorf("%w: %w", raftstore.ErrNotSent, err)
		}
		return answer, err
	}
	c.FetchState = func(ctx context.Context, leader ipam.NodeID, address string) (io.ReadCloser, error) {
		return p.client(leader, address).FetchState(ctx)
	}
}

// client calls another node.
func (p *parts) client(id ipam.NodeID, address string) *peerapi.Client {
	if _, hostPort, ok := strings.Cut(address, "@"); ok {
		address = hostPort
	}
	return peerapi.NewClient(p.port.HTTPClient(id), "https://"+address, p.nameOf(id))
}

func (p *parts) nameOf(id ipam.NodeID) (name string) {
	name = id.Short()
	p.store.View(func(s *ipam.State) {
		if m, ok := s.Node(id); ok {
			name = m.Name
		}
	})
	return name
}

// leader calls the leader, or says that there is none.
func (p *parts) leader() (*peerapi.Client, error) {
	s := p.store.Stats()
	if s.Leader == "" {
		return nil, api.Errorf(api.CodeNoLeader, "no leader answers")
	}
	return p.client(s.Leader, s.LeaderAddress), nil
}

// servePort serves the other nodes until the store has ended: a leader that stops
// hands over through it.
func (n *Node) servePort(ctx context.Context, ended <-chan struct{}, g *errgroup.Group, p *parts) {
	if p.port == nil {
		return
	}
	b := peerBackend{n, p}
	p.port.HandleAPI(n.meters.serving(peerapi.Handler(peerapi.Config{Backend: b, Relay: n.server.Relay(), Logger: n.log, Caller: func(ctx context.Context) (peerapi.Caller, bool) {
		id, ok := peer.Caller(ctx)
		return peerapi.Caller{Node: id.Node, Name: id.Name, Role: id.Role.String(), Raft: id.Raft}, ok
	}})))
	p.port.HandleJoin(peerapi.JoinHandler(b, n.log))
	g.Go(func() error {
		serving, stop := context.WithCancel(context.WithoutCancel(ctx))
		defer stop()
		go func() {
			<-ended
			stop()
		}()
		return p.port.Run(serving)
	})
	g.Go(func() error {
		err := p.tls.RunRenewal(ctx, func(ctx context.Context, csr []byte) ([]byte, error) { return n.renew(ctx, p, csr) })
		if ctx.Err() != nil {
			return nil
		}
		return err
	})
	g.Go(func() error { return n.keepCAKey(ctx, p) })
}

// renew gets this node a new certificate: from its own CA key, or a server's.
func (n *Node) renew(ctx context.Context, p *parts, csr []byte) ([]byte, error) {
	id, _ := p.tls.Identity()
	if ca, err := p.tls.CA(); err == nil {
		return ca.Sign(csr, id, time.Now(), certLife)
	}
	c, err := p.leader()
	if err != nil {
		return nil, err
	}
	chain, err := c.RenewCertificate(ctx, csr)
	if err != nil {
		return nil, err
	}
	return chain[0], nil
}
