package netsetup

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"time"

	"golang.org/x/sys/unix"

	"stellar.io/stellar/internal/failpoint"
	"stellar.io/stellar/internal/nlx"
)

const (
	// generations bounds how many taken names are passed over.
	generations = 16
	// createTries bounds repeats of one request because something was in its way.
	createTries = 8
	// runningLimit bounds the wait for the kernel to act on the carrier. It does so
	// when asked (Linux 6.8) or within a second.
	runningLimit = 2 * time.Second
	runningPoll  = time.Millisecond
	// firstIndex is the index of the first interface that is made in a namespace.
	firstIndex = 2
)

// defaultRoute is the destination of the default route.
var defaultRoute = netip.PrefixFrom(netip.IPv4Unspecified(), 0)

// Attach gives a container its interface. When it returns nil the interface is
// up with its address and route, the host's end is an active port of the bridge or,
// in routed mode, has the host's route to the address, and the first packet passes.
// An owner that is attached already keeps its link; what is wrong with it is put
// right. On an error nothing that this call made stays.
//
// A new attachment costs one veth request, one datagram to the host namespace and
// one to the container's: no lists, no processes, no sysctls. A link of
// the owner that leads to another namespace (a task that was restarted faster
// than its old namespace died) is deleted first.
//
// Errors: ErrInvalid, ErrFull, ErrInterfaceExists, ErrDefaultRouteExists,
// ErrRouteExists, ErrHostRoute, ErrNotRunning, ErrNoSubnet, ErrForeignBridge,
// ErrOtherMode, or the kernel's.
func (n *Network) Attach(ctx context.Context, spec Spec) (Endpoint, Timing, error) {
	start := time.Now()
	var t Timing
	ep, err := n.attach(ctx, spec, &t)
	t.Total = time.Since(start)
	if err != nil {
		return Endpoint{}, t, fmt.Errorf("attach %s: %w", spec.Owner, err)
	}
	return ep, t, nil
}

func (n *Network) attach(ctx context.Context, spec Spec, t *Timing) (Endpoint, error) {
	if err := n.prepare(ctx); err != nil {
		return Endpoint{}, err
	}
	spec, err := spec.complete(n.cfg, n.MTU())
	if err != nil {
		return Endpoint{}, err
	}
	alias, err := encodeAlias(mark{owner: spec.Owner, addr: spec.Addr, node: n.cfg.Node.Short(), routed: n.routed()})
	if err != nil {
		return Endpoint{}, err
	}
	release, err := n.table.hold(ctx, spec.Owner)
	if err != nil {
		return Endpoint{}, err
	}
	defer release()
	host, err := n.conn()
	if err != nil {
		return Endpoint{}, err
	}
	defer n.release(host)

	a := attachment{n: n, spec: spec, alias: alias, host: host, t: t}
	mark := time.Now()
	if a.guest, err = nlx.Dial(int(spec.NS.file.Fd()), unix.NETLINK_ROUTE); err != nil {
		return Endpoint{}, err
	}
	defer a.guest.Close()
	t.Open = time.Since(mark)

	if old, ok := n.table.get(spec.Owner); ok {
		if done, err := a.adopt(old.HostIndex); done || err != nil {
			return a.finish(err)
		}
	} else if limit := n.layout.capacity(); n.table.len() >= limit {
		return Endpoint{}, fmt.Errorf("%w: %d endpoints, %s", ErrFull, limit, n.layout.full())
	}
	return a.finish(a.create(ctx))
}

// attachment is one Attach at work.
type attachment struct {
	n           *Network
	spec        Spec
	alias       string
	host, guest *nlx.Conn
	t           *Timing

	name       string // of the host's end
	index      int    // of the host's end
	peer       int    // index of the container's end
	master     int    // the bridge that the pair was made for
	foundGuest nlx.Link
}

// finish enters the endpoint into the table.
func (a *attachment) finish(err error) (Endpoint, error) {
	if err != nil {
		return Endpoint{}, err
	}
	p := a.port()
	if old, ok := a.n.table.at(a.index); ok {
		p.hardened = old.hardened
	}
	a.n.table.put(p)
	if err := a.n.layout.entered(a); err != nil {
		return Endpoint{}, err
	}
	return p.Endpoint, nil
}

// port is the endpoint as the table has it.
func (a *attachment) port() port {
	return port{
		Endpoint: Endpoint{
			Owner: a.spec.Owner, Node: a.n.cfg.Node.Short(), Addr: a.spec.Addr, MAC: a.spec.MAC,
			Ifname: a.spec.Ifname, HostIfname: a.name, HostIndex: a.index, NSID: a.spec.NS.id, Up: true,
		},
		alias: a.alias, routed: a.n.routed(), mtu: a.spec.MTU, pid: a.spec.NS.pid,
	}
}

// create makes a new pair and configures it.
func (a *attachment) create(ctx context.Context) error {
	adopted, err := a.link(ctx)
	if err != nil || adopted {
		return err
	}
	if err := a.configure(); err != nil {
		// A half-configured endpoint must not look like one to the next Attach.
		return errors.Join(err, a.n.removeLink(a.index))
	}
	return nil
}

// link makes the pair, under the first name that is free or can be freed.
// adopted: a finished one of this owner was found instead.
func (a *attachment) link(ctx context.Context) (adopted bool, err error) {
	mark := time.Now()
	defer func() { a.t.Link = time.Since(mark) }()
	generation := 0
	for range createTries + generations {
		if err := ctx.Err(); err != nil {
			return false, err
		}
		a.name = hostName(a.spec.Owner, generation)
		err := a.request()
		switch {
		case err == nil:
			return false, nil
		case errors.Is(err, unix.EXFULL):
			return false, fmt.Errorf("%w: %w", ErrFull, err)
		case errors.Is(err, unix.EEXIST):
			next, adopted, err := a.taken()
			if adopted || err != nil {
				return adopted, err
			}
			if next {
				generation++
			}
		default:
			again, errAgain := a.n.layout.again(ctx, a, err)
			if errAgain != nil {
				return false, errors.Join(err, errAgain)
			}
			if !again {
				return false, fmt.Errorf("create veth pair: %w", err)
			}
		}
	}
	return false, fmt.Errorf("create veth pair: no free name after %s", a.name)
}

// request sends the one veth request and learns both indexes from its echo.
func (a *attachment) request() error {
	v := nlx.NewVeth{
		Host:   nlx.VethEnd{Name: a.name, MAC: hostMACFor(a.spec.Addr)},
		Peer:   nlx.VethEnd{Name: a.spec.Ifname, MAC: a.spec.MAC},
		PeerNS: int(a.spec.NS.file.Fd()),
		MTU:    a.spec.MTU,
		Group:  linkGroup,
	}
	a.n.layout.veth(a, &v)
	r, err := a.host.Do(v.Message())
	if err == nil {
		err = r[0].Err
	}
	if err != nil {
		return err
	}
	a.index, a.peer = 0, 0
	if len(r[0].Data) > 0 {
		if l, err := nlx.ParseLink(r[0].Data[0]); err == nil && l.Name == a.name {
			a.index, a.peer = l.Index, l.Peer
		}
	}
	if a.index == 0 || a.peer == 0 { // before Linux 6.2 there is no echo
		l, err := a.host.LinkByName(a.name)
		if err != nil {
			return err
		}
		a.index, a.peer = l.Index, l.Peer
	}
	return nil
}

// taken finds out what is in the way of the pair: a link of the host with our
// name, or an interface of the container.
func (a *attachment) taken() (next, adopted bool, err error) {
	l, err := a.host.LinkByName(a.name)
	if errors.Is(err, unix.ENODEV) {
		if _, err := a.guest.LinkByName(a.spec.Ifname); err == nil {
			return false, false, fmt.Errorf("%w: %s", ErrInterfaceExists, a.spec.Ifname)
		} else if !errors.Is(err, unix.ENODEV) {
			return false, false, err
		}
		return false, false, nil // it has just gone: once more
	}
	if err != nil {
		return false, false, err
	}
	m, ours := parseAlias(l.Alias)
	switch {
	case l.Kind == "veth" && ours && m.owner == a.spec.Owner:
		adopted, err := a.adopt(l.Index)
		return false, adopted, err
	case halfMade(l):
		// Ours, from a process that died before it wrote the alias.
		return false, false, a.n.removeLink(l.Index)
	}
	return true, false, nil
}

// configure does what the veth request could not: alias and up on the host's
// side, everything inside the container.
func (a *attachment) configure() error {
	if err := failpoint.Err(failpoint.NetLink); err != nil {
		return err
	}
	mark := time.Now()
	if err := a.admit(); err != nil {
		return err
	}
	a.t.Guard = time.Since(mark)
	mark = time.Now()
	alias := nlx.SetLink(a.index).Bytes(unix.IFLA_IFALIAS, []byte(a.alias))
	r, err := a.host.Do(a.n.layout.host(a, alias)...)
	if err := firstError(r, err); err != nil {
		return fmt.Errorf("set up %s: %w", a.name, a.n.layout.refused(a, err))
	}
	a.t.Host = time.Since(mark)
	if err := failpoint.Err(failpoint.NetAlias); err != nil {
		return err
	}
	return a.inside()
}

func (a *attachment) noIPv6() bool { return a.n.ipv6 && a.spec.MTU >= ipv6MinMTU }

// inside configures the container's end. It only adds, so it may run on an end
// that is configured already.
func (a *attachment) inside() error {
	mark := time.Now()
	defer func() { a.t.Guest = time.Since(mark) }()
	dst, conflict := a.n.cfg.Network, ErrRouteExists
	if a.spec.DefaultRoute {
		dst, conflict = defaultRoute, ErrDefaultRouteExists
	}
	// The first interface ever made in a namespace cannot meet a route.
	if a.peer != firstIndex {
		if err := a.foreignRoute(dst, conflict); err != nil {
			return err
		}
	}
	var msgs []*nlx.Message
	if a.noIPv6() {
		msgs = append(msgs, nlx.SetLink(a.peer).NoIPv6Address())
	}
	msgs = append(msgs, a.n.layout.guest(a, dst)...)
	// The last answer shows the link as all that has left it.
	r, err := a.guest.Do(append(msgs, nlx.GetLink(a.peer))...)
	if err := firstError(r, err, unix.EEXIST); err != nil {
		return fmt.Errorf("set up %s: %w", a.spec.Ifname, err)
	}
	if errors.Is(r[len(r)-2].Err, unix.EEXIST) {
		if err := a.foreignRoute(dst, conflict); err != nil {
			return err
		}
	}
	if err := failpoint.Err(failpoint.NetInside); err != nil {
		return err
	}
	if err := a.running(r[len(r)-1]); err != nil {
		return err
	}
	return failpoint.Err(failpoint.NetRunning)
}

// running waits until packets pass. "Up" is not enough: the kernel acts on a new
// carrier later, on a work queue, and until then drops what is sent. If that is
// the first address resolution, its sender waits a second before it tries again.
// guest is the kernel's first answer about the container's end.
func (a *attachment) running(guest nlx.Reply) error {
	deadline := time.Now().Add(runningLimit)
	for _, end := range []struct {
		c     *nlx.Conn
		index int
	}{{a.guest, a.peer}, {a.host, a.index}} {
		for {
			l, err := guest.Link()
			if err != nil {
				l, err = end.c.LinkByIndex(end.index)
			}
			guest = nlx.Reply{}
			if err != nil {
				return fmt.Errorf("wait for carrier: %w", err)
			}
			if l.Running {
				break
			}
			if time.Now().After(deadline) {
				return fmt.Errorf("%w: %s", ErrNotRunning, l.Name)
			}
			time.Sleep(runningPoll)
		}
	}
	return nil
}

// foreignRoute returns conflict if the container has a route to dst, of whatever
// metric, that is not the one we make.
func (a *attachment) foreignRoute(dst netip.Prefix, conflict error) error {
	routes, err := a.guest.Routes(0)
	if err != nil {
		return err
	}
	for _, r := range routes {
		if r.Dst == dst && (r.Index != a.peer || r.Via != a.n.cfg.Gateway) {
			return conflict
		}
	}
	return nil
}

// firstError returns the first refusal in a batch that is not among the allowed.
func firstError(replies []nlx.Reply, err error, allowed ...unix.Errno) error {
	if err != nil {
		return err
	}
next:
	for _, r := range replies {
		if r.Err == nil {
			continue
		}
		for _, e := range allowed {
			if errors.Is(r.Err, e) {
				continue next
			}
		}
		return r.Err
	}
	return nil
}
