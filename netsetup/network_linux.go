// Package netsetup attaches containers to the node and keeps what it made as it
// made it, in one of two modes: ports of the node's bridge, or links of their own
// with a route to each. What differs between the two is behind one interface
// (layout.go).
//
// It promises: no namespace is reached into that has not passed one gate
// (gate_linux.go); Attach and Detach are idempotent; what the kernel holds is
// found again by a later process (link group 147 and the alias); only objects
// with our mark are changed; stopping changes nothing on the wire.
//
// "Host" is the namespace that holds the host's ends, usually the process's own.
package netsetup

import (
	"context"
	"errors"
	"fmt"
	"hash/maphash"
	"log/slog"
	"net/netip"
	"os"
	"sync"
	"sync/atomic"

	"golang.org/x/sys/unix"

	"stellar.io/stellar/internal/failpoint"
	"stellar.io/stellar/internal/nlx"
	"stellar.io/stellar/internal/nsx"
	"stellar.io/stellar/ipam"
)

const (
	// protocol marks our routes (rtm_protocol).
	protocol = 147
	// idleConns is how many sockets are kept for concurrent attaches.
	idleConns = 8
	// loIndex is the index of lo in every namespace (LOOPBACK_IFINDEX).
	loIndex = 1
	// ipv6MinMTU: an interface below it has no IPv6.
	ipv6MinMTU = 1280
)

// Network is this node's part of the cluster's network in one host namespace.
// Its methods may be called concurrently.
type Network struct {
	cfg       Config
	log       *slog.Logger
	host      *os.File // the namespace that holds the bridge
	hostIsOwn bool     // it is the process's own: no switch needed
	gate      *gate
	table     *table
	layout    layout
	ipv6      bool // the kernel has it

	conns chan *nlx.Conn // idle sockets in the host namespace

	loadMu   sync.Mutex   // one load at a time
	loaded   atomic.Bool  // load is done
	alone    atomic.Bool  // no endpoint of the other mode was found
	mtu      atomic.Int64 // of new endpoints
	watching atomic.Bool  // Run receives link notifications

	remove *batcher[int]        // deletes host links by index
	flush  *batcher[netip.Addr] // forgets what the kernel remembers of an address

	syncMu     sync.Mutex // guards the repair of bridge, sysctls, filter and forward rule
	filter     *filter
	guard      *guard // has its own lock
	fwd        forwarding
	backends   []*backend
	seed       maphash.Seed // of the fingerprints of legacy iptables
	legacySeen uint64       // the last fingerprint; only Run uses it
	ensured    atomic.Bool  // Ensure has succeeded: later changes are repairs
}

// New prepares a Network and changes nothing. It takes the namespace cfg.HostNS,
// or the calling goroutine's, as the host. The caller closes it.
func New(cfg Config) (_ *Network, err error) {
	cfg = cfg.withDefaults()
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	n := &Network{
		cfg: cfg, log: cfg.Logger, table: newTable(), conns: make(chan *nlx.Conn, idleConns),
		backends: newBackends(), seed: maphash.MakeSeed(),
	}
	n.layout = newLayout(n)
	n.remove = newBatcher(n.deleteLinks)
	n.flush = newBatcher(n.forgetAddrs)
	defer func() {
		if err != nil {
			n.Close()
		}
	}()
	if n.host, n.hostIsOwn, err = openHost(cfg.HostNS); err != nil {
		return nil, err
	}
	if n.gate, err = newGate(n.host, cfg.ForbiddenPIDs); err != nil {
		return nil, err
	}
	_, err = os.Stat("/proc/sys/net/ipv6")
	n.ipv6 = err == nil
	n.guard = newGuard(n.hostFD(), cfg, n.ipv6)
	n.filter = newFilter(n.hostFD(), cfg, n.guard.moment)
	return n, nil
}

// openHost returns a descriptor of its own of the host namespace.
func openHost(given *os.File) (host *os.File, isOwn bool, err error) {
	own, err := nsx.Current()
	if err != nil {
		return nil, false, err
	}
	if given == nil {
		return own, true, nil
	}
	defer own.Close()
	fd, err := unix.FcntlInt(given.Fd(), unix.F_DUPFD_CLOEXEC, 0)
	if err != nil {
		return nil, false, fmt.Errorf("host namespace: %w", err)
	}
	host = os.NewFile(uintptr(fd), given.Name())
	a, errA := nsx.IDOf(fd)
	b, errB := nsx.IDOf(int(own.Fd()))
	if err := errors.Join(errA, errB); err != nil {
		host.Close()
		return nil, false, err
	}
	return host, a == b, nil
}

// Close releases all descriptors and leaves the kernel as it is. No other method
// may be running or be called after it.
func (n *Network) Close() error {
	for {
		select {
		case c := <-n.conns:
			c.Close()
			continue
		default:
		}
		break
	}
	if n.guard != nil {
		n.guard.close()
	}
	if n.gate != nil {
		n.gate.close()
	}
	if n.host != nil {
		return n.host.Close()
	}
	return nil
}

// conn takes a socket in the host namespace; put it back with release.
func (n *Network) conn() (*nlx.Conn, error) {
	select {
	case c := <-n.conns:
		return c, nil
	default:
		return nlx.Dial(n.hostFD(), unix.NETLINK_ROUTE)
	}
}

func (n *Network) release(c *nlx.Conn) {
	select {
	case n.conns <- c:
	default:
		c.Close()
	}
}

// hostFD is the descriptor to open sockets at; -1 needs no switch.
func (n *Network) hostFD() int {
	if n.hostIsOwn {
		return -1
	}
	return int(n.host.Fd())
}

// inHost runs fn in the host namespace. Only for what sockets cannot do: sysctls
// and the iptables programs, never on the attach path.
func (n *Network) inHost(fn func() error) error {
	if n.hostIsOwn {
		return fn()
	}
	return nsx.Do(int(n.host.Fd()), fn)
}

// MTU returns the MTU that new endpoints get, 0 before the first Ensure or Attach.
func (n *Network) MTU() int { return int(n.mtu.Load()) }

func (n *Network) routed() bool { return n.cfg.Mode == ipam.ModeRouted }

// shared runs fn, which changes what endpoints share, with a socket in the host
// namespace; one at a time.
func (n *Network) shared(ctx context.Context, fn func(c *nlx.Conn) error) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	n.syncMu.Lock()
	defer n.syncMu.Unlock()
	c, err := n.conn()
	if err != nil {
		return err
	}
	defer n.release(c)
	return fn(c)
}

// prepare makes sure that the table and what endpoints share are known: once, then free.
func (n *Network) prepare(ctx context.Context) error {
	if !n.cfg.Subnet.IsValid() {
		return ErrNoSubnet
	}
	if err := n.settleMode(ctx); err != nil {
		return err
	}
	if !n.layout.ready() {
		if err := n.layout.sync(ctx); err != nil {
			return err
		}
	}
	return n.load(ctx)
}

// load fills the table from the kernel, once, and before that deletes what an
// earlier process left half-made: no Attach of this process has begun yet.
func (n *Network) load(ctx context.Context) error {
	if n.loaded.Load() {
		return nil
	}
	n.loadMu.Lock()
	defer n.loadMu.Unlock()
	if n.loaded.Load() {
		return nil
	}
	c, err := n.conn()
	if err != nil {
		return err
	}
	defer n.release(c)
	links, err := n.scan(ctx, c)
	if err != nil {
		return err
	}
	for _, l := range links {
		if halfMade(l) {
			if err := failpoint.Err(failpoint.NetHalfMade); err != nil {
				return err
			}
			if err := n.removeLink(l.Index); err != nil {
				return err
			}
		}
	}
	if n.cfg.Subnet.IsValid() {
		if err := n.syncGuard(ctx); err != nil {
			return err
		}
	}
	n.loaded.Store(true)
	return nil
}

// Ensure makes the host ready: bridge with address and MAC, or, in routed mode, the
// gateway's address and the subnet's last resort; sysctls, the nftables table, the
// exception in an iptables FORWARD chain that drops. What the other mode has left is
// removed; its endpoints are ErrOtherMode. It changes only what is not right and may
// be called at any time.
func (n *Network) Ensure(ctx context.Context) error {
	if !n.cfg.Subnet.IsValid() {
		return ErrNoSubnet
	}
	if err := n.settleMode(ctx); err != nil {
		return err
	}
	if err := errors.Join(n.layout.sync(ctx), n.syncFilter(ctx), n.syncForward(ctx)); err != nil {
		return fmt.Errorf("set up host network: %w", err)
	}
	if err := n.load(ctx); err != nil {
		return err
	}
	if err := errors.Join(n.syncPorts(ctx), n.syncGuard(ctx)); err != nil {
		return err
	}
	n.ensured.Store(true)
	return nil
}
