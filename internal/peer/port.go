package peer

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"stellar.io/stellar/ipam"
)

// Port is the node-to-node port of one node. All methods are safe for concurrent
// use.
type Port struct {
	cfg       Config
	listener  net.Listener
	advertise netip.AddrPort

	pending  *pending
	turns    turns
	registry *registry
	joins    *rate
	quiet    *quiet
	wg       sync.WaitGroup // of the handshakes

	raft      atomic.Pointer[StreamLayer] // nil: Raft is not served
	follow    atomic.Pointer[StreamLayer] // nil: nobody can follow this node
	api, join atomic.Pointer[http.Handler]
	apiQueue  *queue
	joinQueue *queue

	done chan struct{} // closed when the port closes
	once sync.Once

	mu      sync.Mutex // guards clients
	clients map[ipam.NodeID]*http.Client
}

// keepAlive finds out within 20 s that the other side of a silent connection is
// gone. Raft keeps connections in a pool and does not ask.
var keepAlive = net.KeepAliveConfig{Enable: true, Idle: 10 * time.Second, Interval: 3 * time.Second, Count: 3}

// Listen opens the socket of a port that is to come: others can connect, and are
// served once a Port with this listener runs. A machine that joins has it before it
// asks, so that a taken address is known before anything changes and nobody who hears
// of the new node early is turned away.
func Listen(ctx context.Context, at netip.AddrPort) (net.Listener, error) {
	lc := net.ListenConfig{KeepAliveConfig: keepAlive}
	return lc.Listen(ctx, "tcp", at.String())
}

// New opens the port, so that its address is known and a taken one is an error
// here, but accepts nothing before Run. Close is for a Port that is never run.
func New(cfg Config) (*Port, error) {
	if err := cfg.Validate(); err != nil {
		return nil, fmt.Errorf("peer: %w", err)
	}
	cfg = cfg.withDefaults()
	l := cfg.Listener
	if l == nil {
		var err error
		if l, err = Listen(context.Background(), cfg.Listen); err != nil {
			return nil, err
		}
	}
	p := &Port{
		cfg: cfg, listener: l, advertise: cfg.Advertise, done: make(chan struct{}),
		pending: &pending{max: cfg.MaxPending, maxPerIP: cfg.MaxPendingPerIP}, turns: newTurns(),
		registry: &registry{
			maxPerNode: cfg.MaxPerNode, maxJoins: cfg.MaxJoins, maxJoinsPerIP: cfg.MaxJoinsPerIP,
			conns: map[*conn]struct{}{},
		},
		joins:   &rate{burst: cfg.JoinBurst, every: cfg.JoinEvery},
		quiet:   &quiet{log: cfg.Logger},
		clients: map[ipam.NodeID]*http.Client{},
	}
	if !p.advertise.IsValid() {
		p.advertise = netip.AddrPortFrom(cfg.Listen.Addr(), l.Addr().(*net.TCPAddr).AddrPort().Port())
	}
	p.apiQueue, p.joinQueue = newQueue(p.Addr()), newQueue(p.Addr())
	return p, nil
}

// Advertise returns the address at which other nodes reach this one.
func (p *Port) Advertise() netip.AddrPort { return p.advertise }

// Addr returns the same as a net.Addr.
func (p *Port) Addr() net.Addr { return net.TCPAddrFromAddrPort(p.advertise) }

// Run serves until ctx ends, then closes all connections: HTTP requests get a
// second to end. Raft must have been shut down before, or its transport complains
// about a closed listener. Run returns nil when ctx ended, and the error when the
// listener failed.
func (p *Port) Run(ctx context.Context) error {
	api, join := p.httpServer(p.serveAPI), p.httpServer(p.serveJoin)
	var servers sync.WaitGroup
	servers.Go(func() { p.serveHTTP(api, p.apiQueue) })
	servers.Go(func() { p.serveHTTP(join, p.joinQueue) })
	accepted := make(chan error, 1)
	go func() { accepted <- p.accept() }()

	var err error
	running := true
	select {
	case <-ctx.Done():
	case err = <-accepted:
		running = false
	}
	p.stopListening()
	if running {
		<-accepted
	}
	// First those that have not been heard yet, then the requests that run, then
	// whatever is left.
	p.pending.closeAll()
	p.wg.Wait()
	shutdown(api, join)
	servers.Wait()
	p.Close()
	return err
}

// accept takes connections in until the listener is closed.
func (p *Port) accept() error {
	var pause time.Duration
	for {
		c, err := p.listener.Accept()
		switch {
		case err == nil:
			pause = 0
			p.wg.Go(func() { p.serve(c) })
		case errors.Is(err, net.ErrClosed):
			return nil
		default:
			// Out of descriptors, most likely. They come back; the port must not go.
			pause = min(max(2*pause, 5*time.Millisecond), time.Second)
			p.quiet.warn(netip.Addr{}, codeOther, "cannot accept a connection, will retry", slog.Any("error", err))
			select {
			case <-time.After(pause):
			case <-p.done:
			}
		}
	}
}

// stopListening ends accept and tells everything that waits.
func (p *Port) stopListening() {
	p.once.Do(func() {
		close(p.done)
		p.listener.Close()
	})
}

// Close releases everything at once. Run does it too.
func (p *Port) Close() {
	p.stopListening()
	p.pending.closeAll()
	p.apiQueue.Close()
	p.joinQueue.Close()
	for _, served := range []*atomic.Pointer[StreamLayer]{&p.raft, &p.follow} {
		if l := served.Swap(nil); l != nil {
			l.Close()
		}
	}
	p.registry.close()
	p.closeClients()
}

// DropNode closes every connection with the node, in both directions. Called
// after the node was removed in what Admit looks at, it leaves none behind:
// connections enter the list that DropNode walks before Admit is asked.
func (p *Port) DropNode(id ipam.NodeID) {
	p.mu.Lock()
	client := p.clients[id]
	delete(p.clients, id)
	p.mu.Unlock()
	if client != nil {
		client.CloseIdleConnections()
	}
	n := p.registry.kill(func(c *conn) bool { return c.peer.Node == id })
	if n > 0 {
		p.cfg.Logger.Info("closed connections of a node", "node", id, "connections", n)
	}
}

func (p *Port) closeClients() {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, c := range p.clients {
		c.CloseIdleConnections()
	}
	clear(p.clients)
}
