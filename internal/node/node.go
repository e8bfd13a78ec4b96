// Package node wires one node together: identity, store, holder, network,
// routes, containerd, agent, API and metrics, in one group of goroutines that
// start in order, fail together and end together. It holds no logic of its own
// beyond that order.
package node

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"golang.org/x/sync/errgroup"

	"stellar.io/stellar/agent"
	"stellar.io/stellar/api"
	"stellar.io/stellar/api/server"
	"stellar.io/stellar/events"
	"stellar.io/stellar/internal/atomicfile"
	"stellar.io/stellar/internal/config"
	"stellar.io/stellar/internal/failpoint"
	"stellar.io/stellar/internal/hold"
	"stellar.io/stellar/internal/logs"
	"stellar.io/stellar/internal/peer"
	"stellar.io/stellar/internal/pki"
	"stellar.io/stellar/ipam"
	"stellar.io/stellar/netsetup"
	"stellar.io/stellar/raftstore"
	"stellar.io/stellar/raftstore/holder"
	"stellar.io/stellar/routes"
)

// Below the data directory.
const (
	tlsDir     = "tls"
	requestDir = "requests"
)

// Options is what a Node is made of.
type Options struct {
	Config  config.Config
	Version api.VersionInfo
	Logger  *slog.Logger // nil discards
	Logs    *logs.Log    // what Logger's lines can be asked for; nil: nothing
}

// Node is one node's process. Make it with New, run it with Run.
type Node struct {
	opts Options
	log  *slog.Logger
	id   Identity
	reg  *prometheus.Registry

	meters        *meters
	containerdPID pid

	server      *server.Server
	initMu      sync.Mutex    // one makes the cluster
	checking    sync.Mutex    // one check of the host at a time: it runs programs
	initialized chan struct{} // closed when the data directory has a cluster
	listening   early         // of a node that has just joined
	fence       fence
	mode        atomic.Pointer[modeNote]  // why the node is not in the mode that it is to have; nil: it is
	verified    bool                      // the store was found whole when this process began
	broken      error                     // why the store that is there cannot be used; nil: it can, or there is none
	tls         atomic.Pointer[pki.Store] // nil before the node belongs to a cluster
	contact     *contact
	claims      claims
	loans       *loans
	restart     chan struct{} // filled when Run is to end with ErrRestart

	mu    sync.Mutex // guards what follows
	parts *parts     // nil before the node holds its subnet
	phase string     // what is waited for, for status
}

// parts is what exists once the node belongs to a cluster.
type parts struct {
	log  *slog.Logger
	tls  *pki.Store
	port *peer.Port // nil: the node is alone
	// listens is where port does, as it was found or asked for.
	listens netip.AddrPort
	store   *raftstore.Store
	// containerd is asked by agent; what it has counted is read.
	containerd *events.Client
	subnet     ipam.Subnet // its mode is that of the kernel
	stated     ipam.Mode   // as the cluster says, if that differs; else zero
	network    ipam.Network
	holder     *holder.Holder
	net        *netsetup.Network
	agent      *agent.Agent
	hold       *hold.Holder // nil: switched off
	routes     *routes.Manager

	confirmed   atomic.Bool                    // the state has caught up since the start
	replaced    chan struct{}                  // filled when another state has taken its place
	routesReady atomic.Pointer[routes.Manager] // for the store's own goroutine
}

// New reads or makes the identity in the data directory, which the caller has
// locked, and returns a node that has not started.
func New(opts Options) (*Node, error) {
	if opts.Logger == nil {
		opts.Logger = slog.New(slog.DiscardHandler)
	}
	if opts.Logs == nil {
		opts.Logs = logs.New(slog.LevelInfo)
	}
	for _, dir := range []string{"", tlsDir, requestDir} {
		if err := atomicfile.Sweep(filepath.Join(opts.Config.DataDir, dir)); err != nil {
			return nil, err
		}
	}
	id, err := LoadIdentity(opts.Config.DataDir, opts.Config.NodeName)
	if err != nil {
		return nil, err
	}
	reg := prometheus.NewRegistry()
	n := &Node{
		opts: opts, log: opts.Logger, id: id, reg: reg, initialized: make(chan struct{}), restart: make(chan struct{}, 1),
		meters: newMeters(reg), loans: newLoans(),
	}
	n.contact = openContact(filepath.Join(opts.Config.DataDir, contactFile), opts.Config.Cluster.ContactLimit.Duration, clocks, n.log)
	if err := n.fence.load(opts.Config.DataDir); err != nil {
		return nil, err
	}
	if err := n.emptyForReturn(); err != nil {
		return nil, fmt.Errorf("return to the cluster: %w", err)
	}
	n.registerProcess()
	n.server = server.New(n, n.log)
	if err := n.inspect(); err != nil {
		return nil, err
	}
	if n.broken != nil {
		return n, nil
	}
	has, err := raftstore.Initialized(n.raftDir())
	if err != nil {
		return nil, err
	}
	if has {
		close(n.initialized)
	}
	return n, nil
}

func (n *Node) raftDir() string { return filepath.Join(n.opts.Config.DataDir, "raft") }

// Run serves until ctx ends or a part fails, and returns when all parts have
// ended. Nothing is taken from the kernel: containers keep their networks. After
// ErrRestart it is to be made anew, and run.
func (n *Node) Run(ctx context.Context) error {
	g, ctx := errgroup.WithContext(ctx)
	n.setPhase("starting")
	if err := n.serve(ctx, g); err != nil {
		return err
	}
	g.Go(func() error { return n.notify(ctx) })
	g.Go(func() error {
		select {
		case <-n.restart:
			return ErrRestart
		case <-ctx.Done():
			return nil
		}
	})
	g.Go(func() error {
		if err := n.awaitCluster(ctx); err != nil {
			return err
		}
		return n.start(ctx, g)
	})
	err := g.Wait()
	if errors.Is(err, context.Canceled) {
		return nil
	}
	return err
}

// awaitCluster returns when the data directory has a cluster.
func (n *Node) awaitCluster(ctx context.Context) error {
	select {
	case <-n.initialized:
		return nil
	default:
	}
	if lost := n.lost(); lost != nil {
		n.setPhase(lost.Error())
	} else if n.opts.Config.Init {
		return n.makeCluster(ctx, api.ClusterSpec{})
	} else {
		n.setPhase("waiting for `stellar cluster init`")
		n.log.Info("no cluster yet: waiting for `stellar cluster init`")
	}
	select {
	case <-n.initialized:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// start brings the parts up in their order: what the replicated state says of
// this node, what the kernel has, what the journal says; then everybody works.
func (n *Node) start(ctx context.Context, g *errgroup.Group) error {
	n.setPhase("opening the store")
	p := &parts{log: n.log, replaced: make(chan struct{}, 1)}
	var err error
	if err := n.openPort(p); err != nil {
		return err
	}
	cfg := n.storeConfig()
	n.connect(p, &cfg)
	cfg.OnApply, cfg.Verified = p.applied, n.verified
	if p.store, err = raftstore.Open(cfg); err != nil {
		return fmt.Errorf("open store: %w", err)
	}
	if err := n.refuseTwin(ctx, p); err != nil {
		return err
	}
	ended := make(chan struct{})
	g.Go(func() error {
		defer close(ended)
		return p.store.Run(ctx)
	})
	n.servePort(ctx, ended, g, p)
	n.reg.MustRegister(raftCollector{p.store}, followCollector{p.store})
	g.Go(func() error { return n.awaitReturn(ctx, p) })
	g.Go(func() error { return n.followAddress(ctx, p) })
	n.setPhase("waiting for the cluster to confirm this node's subnet")
	later, err := n.claim(ctx, p)
	if err != nil {
		return err
	}
	n.setPhase("setting up the host's network")
	if err := n.prepareKernel(ctx, p); err != nil {
		return err
	}
	if err := n.settleMode(ctx, p, later); err != nil {
		return err
	}
	if p.containerd, err = n.containerd(); err != nil {
		return err
	}
	p.hold = n.newHold(func(k events.Key, pid int, at time.Time) { p.agent.Held(k, pid, at) })
	p.agent = agent.New(agent.Config{
		NodeName: n.id.Name, Containers: p.containerd, Leases: guarded{p.holder, func() error { return n.barred(p) }}, Network: agent.Kernel(p.net),
		Logger: n.log, Metrics: agent.NewMetrics(n.reg), Dir: filepath.Join(n.opts.Config.DataDir, requestDir), Boot: clocks().Boot,
		Hold:             holdOf(p.hold),
		Barred:           func() error { return n.removedHere(p) },
		IgnoreNamespaces: n.opts.Config.Containerd.IgnoreNamespaces,
	})
	p.routes = routes.New(routes.Config{Namespace: -1, Wants: n.guardNodes(p, p.wants(n.id, n.opts.Config.Bridge)), Logger: n.log, OnRound: n.meters.routed, OnRepair: func(r routes.Route) {
		n.meters.repairs.WithLabelValues("route").Inc()
		p.agent.Record("repair", r.Destination.String(), "route restored")
	}})
	p.routesReady.Store(p.routes)
	n.reg.MustRegister(p.agent, leaseCollector{p}, hostCollector{p})
	n.setParts(p)
	n.setPhase("waiting for containerd")
	n.log.Info("node is up", "node", n.id.Name, "id", n.id.ID.Short(), "subnet", p.subnet.Prefix)
	failpoint.Hit(failpoint.NodeUp)
	if later {
		g.Go(func() error { return n.keepClaiming(ctx, p) })
	}
	g.Go(func() error { return n.awaitMode(ctx, p) })
	g.Go(func() error { return n.watchMembership(ctx, p) })
	g.Go(func() error { return p.holder.Run(ctx) })
	g.Go(func() error { return p.net.Run(ctx) })
	g.Go(func() error { return p.routes.Run(ctx) })
	runHold(ctx, g, p.hold)
	g.Go(func() error { return p.agent.Run(ctx) })
	g.Go(func() error { return n.sweepLoans(ctx, p) })
	g.Go(func() error { return p.containerd.Run(ctx, containerdSink{p.agent, &n.containerdPID, p.hold}) })
	return nil
}

// prepareKernel makes what containers are attached to, and has the holder adopt
// what is attached already. Endpoints of another identity are somebody's
// running containers: they are not touched, and nothing is begun beside them.
func (n *Node) prepareKernel(ctx context.Context, p *parts) (err error) {
	if err := n.setUpHost(ctx, p); err != nil {
		return fmt.Errorf("set up the host's network: %w", err)
	}
	endpoints, err := p.net.List(ctx)
	if err != nil {
		return err
	}
	var live []holder.Live
	for _, e := range endpoints {
		if e.Node != n.id.ID.Short() && !n.id.former(e.Node) {
			return fmt.Errorf("the kernel has an endpoint of another node identity (%s, of %s): stop its containers or run `stellar agent cleanup`, then start again", e.HostIfname, e.Node)
		}
		live = append(live, holder.Live{Addr: e.Addr, Owner: e.Owner})
	}
	failpoint.Hit(failpoint.NodePrepared)
	if p.holder, err = n.openHolder(p); err != nil {
		return fmt.Errorf("open journal: %w", err)
	}
	err = n.adopt(ctx, p, live)
	if errors.Is(err, holder.ErrConflict) || errors.Is(err, ipam.ErrOutOfSubnet) {
		// What is in doubt is kept from others; the rest goes on.
		n.log.Error("addresses in use that do not fit the plan: see `stellar ipam check`", "err", err)
		return nil
	}
	if err != nil {
		return fmt.Errorf("adopt endpoints: %w", err)
	}
	return nil
}

func (n *Node) setParts(p *parts) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.parts = p
}

// current returns the parts, nil before the node holds its subnet, and what is
// being waited for.
func (n *Node) current() (*parts, string) {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.parts, n.phase
}

func (n *Node) setPhase(s string) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.phase = s
}
