package netsetup

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net/netip"
	"sync/atomic"

	"golang.org/x/sys/unix"

	"stellar.io/stellar/internal/nlx"
)

// lastResortMetric is the metric of the route that refuses the subnet's addresses
// that nobody has. It is not the worst: that one is the whole network's, which
// package routes keeps, and the network may be this one subnet.
const lastResortMetric = 1<<32 - 2

// routed is the mode without a bridge: each container has its address as a /32 and
// a link of its own to the host, which has a route to each.
//
//	host      169.254.1.1/32 on lo, scope link
//	          ADDR dev vethX proto 147 scope link src 169.254.1.1
//	          ADDR dev vethX lladdr MAC PERMANENT
//	          unreachable SUBNET proto 147 metric 4294967294
//	container ADDR/32 on eth0
//	          default via 169.254.1.1 dev eth0 proto 147 onlink
//	          169.254.1.1 dev eth0 lladdr HOST-MAC PERMANENT
//
// The gateway is an address of the host although the neighbour entries alone would
// carry packets. Otherwise what is sent to it would leave by the host's default
// route, and the host would speak to a container from whatever address its first
// interface has: one that changes, and to which a container that has a network of
// its own answers by that one. On lo it depends on no link, and with the scope of a
// link no connection to elsewhere is made from it.
//
// Nothing is asked for by ARP: both ends know each other from the start, and only
// a container's own address is believed (rp_filter).
type routed struct {
	n     *Network
	known atomic.Bool  // sync has succeeded: what is wrong now is a repair
	turns atomic.Int64 // counts what may have taken routes along
}

// routedSettings are those of a host's end. They are set before it comes up, with
// its alias. A setting of all interfaces may be stricter, or, for rp_filter,
// looser (2): the guard's tables tell a container's packets by its link, too.
var routedSettings = []nlx.Setting{
	{Number: nlx.ConfForwarding, Value: 1},
	{Number: nlx.ConfRPFilter, Value: 1},
	{Number: nlx.ConfProxyARP, Value: 0},
	{Number: nlx.ConfAcceptRedirects, Value: 0},
	{Number: nlx.ConfSendRedirects, Value: 0},
	{Number: nlx.ConfAcceptSourceRoute, Value: 0},
	{Number: nlx.ConfRouteLocalnet, Value: 0},
}

func (r *routed) ready() bool          { return r.known.Load() }
func (r *routed) version() int64       { return r.turns.Load() }
func (r *routed) sysctls() [][2]string { return nil }

// capacity is that of the subnet without its first and last address.
func (r *routed) capacity() int { return 1<<(32-r.n.cfg.Subnet.Bits()) - 2 }

func (r *routed) full() string { return "as many as the subnet " + r.n.cfg.Subnet.String() + " has" }

func (r *routed) sync(ctx context.Context) error { return r.n.shared(ctx, r.syncWith) }

func (r *routed) syncWith(c *nlx.Conn) error {
	n := r.n
	if err := n.uplinkMTU(c); err != nil {
		return err
	}
	known := r.known.Load()
	replies, err := c.Do(
		nlx.NewLinkAddr(loIndex, RoutedGateway, protocol),
		nlx.NewMainRoute(lastResort(n.cfg.Subnet), false))
	if err := firstError(replies, err, unix.EEXIST); err != nil {
		return fmt.Errorf("gateway %s: %w", RoutedGateway, err)
	}
	if replies[0].Err == nil {
		r.turns.Add(1) // the routes that name it have gone with it
		if known {
			n.repaired("gateway", RoutedGateway.String())
		}
	}
	if replies[1].Err == nil && known {
		n.repaired("unreachable route", n.cfg.Subnet.String())
	}
	r.known.Store(true)
	return nil
}

// lastResort refuses the subnet's addresses that no endpoint has: their packets
// must neither leave by the default route nor go back to the node that sent them.
func lastResort(subnet netip.Prefix) nlx.FIBRoute {
	return nlx.FIBRoute{Dst: subnet, Metric: lastResortMetric, Protocol: protocol, Type: unix.RTN_UNREACHABLE}
}

// delLastResorts deletes those of all subnets but one.
func delLastResorts(c *nlx.Conn, but netip.Prefix) ([]*nlx.Message, error) {
	routes, err := c.MainRoutes()
	if err != nil {
		return nil, err
	}
	var msgs []*nlx.Message
	for _, r := range routes {
		if r.Type == unix.RTN_UNREACHABLE && r.Protocol == protocol && r.Metric == lastResortMetric && r.Dst != but {
			msgs = append(msgs, nlx.DelMainRoute(r))
		}
	}
	return msgs, nil
}

// removeRouted removes what the endpoints of routed mode share, of whatever subnet.
func removeRouted(c *nlx.Conn) error {
	msgs, err := delLastResorts(c, netip.Prefix{})
	if err != nil {
		return err
	}
	addrs, err := c.Addrs(loIndex)
	if err != nil {
		return err
	}
	for _, a := range addrs {
		// Before Linux 5.18 it bears no mark.
		if a.Prefix == netip.PrefixFrom(RoutedGateway, 32) && (a.Mark == protocol || a.Mark == 0) {
			msgs = append(msgs, nlx.DelLinkAddr(loIndex, RoutedGateway))
		}
	}
	if len(msgs) == 0 {
		return nil
	}
	replies, err := c.Do(msgs...)
	return firstError(replies, err, unix.ESRCH, unix.EADDRNOTAVAIL)
}

// leave removes the bridge of bridge mode, which has none of our endpoints, and the
// last resorts of subnets that were this node's.
func (r *routed) leave(c *nlx.Conn, links []nlx.Link) error {
	msgs, err := delLastResorts(c, r.n.cfg.Subnet)
	if err == nil && len(msgs) > 0 {
		var replies []nlx.Reply
		replies, err = c.Do(msgs...)
		err = firstError(replies, err, unix.ESRCH)
	}
	if err != nil {
		return fmt.Errorf("remove the routes of earlier subnets: %w", err)
	}
	for _, l := range links {
		if l.Kind != "bridge" || l.Alias != bridgeAlias || l.Group != linkGroup {
			continue
		}
		replies, err := c.Do(nlx.DelLink(l.Index))
		if err := firstError(replies, err, unix.ENODEV); err != nil {
			return fmt.Errorf("remove bridge %s: %w", l.Name, err)
		}
		r.n.log.Info("bridge removed, the mode is now routed", "interface", l.Name)
	}
	return nil
}

func (r *routed) veth(*attachment, *nlx.NewVeth) {}

func (r *routed) again(context.Context, *attachment, error) (bool, error) { return false, nil }

func (r *routed) host(a *attachment, alias *nlx.Message) []*nlx.Message {
	return []*nlx.Message{
		alias.RoutedPort(routedSettings, a.noIPv6()),
		nlx.SetLinkUp(a.index),
		nlx.NewNeigh(a.index, a.spec.Addr, a.spec.MAC),
		nlx.NewHostRoute(a.index, a.spec.Addr, RoutedGateway, protocol),
	}
}

func (r *routed) refused(a *attachment, err error) error {
	switch {
	case errors.Is(err, unix.EEXIST): // only a route can be
		return fmt.Errorf("%w: %s", ErrHostRoute, a.spec.Addr)
	case errors.Is(err, unix.EINVAL): // a route from an address that the host has lost
		r.known.Store(false)
	}
	return err
}

func (r *routed) guest(a *attachment, dst netip.Prefix) []*nlx.Message {
	msgs := []*nlx.Message{
		nlx.NewAddr(a.peer, netip.PrefixFrom(a.spec.Addr, 32)),
		nlx.SetLinkUp(a.peer),
		nlx.SetLinkUp(loIndex),
		nlx.NewNeigh(a.peer, RoutedGateway, hostMACFor(a.spec.Addr)),
	}
	if !a.spec.DefaultRoute {
		// The host's address leads back to it. A route that another network of the
		// container has to it is left alone.
		msgs = append(msgs, nlx.NewHostRoute(a.peer, RoutedGateway, netip.Addr{}, protocol))
	}
	return append(msgs, nlx.NewOnLinkRoute(a.peer, dst, RoutedGateway, protocol))
}

func (r *routed) entered(*attachment) error { return nil }

func (r *routed) want(p port) portWant {
	return portWant{alias: p.alias, mac: hostMACFor(p.Addr), mtu: p.mtu, settings: routedSettings}
}

// forget has nothing to do: neighbours go with the link.
func (r *routed) forget(*nlx.Conn, []netip.Addr) error { return nil }

func (r *routed) groups() []int { return []int{unix.RTNLGRP_NEIGH, unix.RTNLGRP_IPV4_NETCONF} }

func (r *routed) notice(w *watch, typ uint16, body []byte) (done bool) {
	switch typ {
	case unix.RTM_DELADDR:
		if a, ok := nlx.ParseAddr(body); ok && a.Index == loIndex && a.Prefix.Addr() == RoutedGateway {
			w.note(func(s *news) { s.shared = true })
		}
	case unix.RTM_NEWROUTE, unix.RTM_DELROUTE:
		route, ok := nlx.ParseRoute(body)
		if !ok || route.Default() {
			return false
		}
		r.route(w, typ, route)
	case unix.RTM_NEWNEIGH, unix.RTM_DELNEIGH:
		if e, ok := nlx.ParseNeigh(body); ok {
			r.neighbour(w, typ, e)
		}
	case unix.RTM_NEWNETCONF:
		if index, all := nlx.NetconfIndex(body); !all {
			if p, ok := r.n.table.at(index); ok {
				w.suspect(p)
			}
		}
	default:
		return false
	}
	return true
}

func (r *routed) route(w *watch, typ uint16, route nlx.Route) {
	if route.Dst == r.n.cfg.Subnet && typ == unix.RTM_DELROUTE && route.Protocol == protocol {
		w.note(func(s *news) { s.shared = true })
	}
	if route.Dst.Bits() < 32 {
		return
	}
	p, ok := r.n.table.holder(route.Dst.Addr())
	if ok && (typ == unix.RTM_DELROUTE || !routeRight(p, route)) {
		w.suspect(p)
	}
}

func (r *routed) neighbour(w *watch, typ uint16, e nlx.Neighbour) {
	p, ok := r.n.table.at(e.Index)
	if ok && e.Addr == p.Addr && (typ == unix.RTM_DELNEIGH || !neighbourRight(p, e)) {
		w.suspect(p)
	}
}

// routeRight reports whether a route to a port's address is the one that it needs.
func routeRight(p port, r nlx.Route) bool {
	return r.Unicast && r.Protocol == protocol && r.Index == p.HostIndex && !r.Via.IsValid() && r.Src == RoutedGateway
}

func neighbourRight(p port, e nlx.Neighbour) bool {
	return e.State == unix.NUD_PERMANENT && (p.MAC == nil || bytes.Equal(e.MAC, p.MAC))
}

// accepting: both rules name the subnet, since other programs have routed links of
// such names, too.
func (r *routed) accepting() []string {
	subnet := r.n.cfg.Subnet.String()
	return []string{"-s " + subnet + " -i " + hostPrefix + "+ -j ACCEPT", "-d " + subnet + " -o " + hostPrefix + "+ -j ACCEPT"}
}

// settleMode looks, once, whether the kernel has endpoints of the other mode, and
// removes what that mode has left if it has none.
func (n *Network) settleMode(ctx context.Context) error {
	if n.alone.Load() {
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
	others := 0
	for _, l := range links {
		if p, ok := portOf(l); ok && p.routed != n.routed() {
			others++
		}
	}
	if others > 0 {
		return fmt.Errorf("%w: %d, and the mode is to be %s", ErrOtherMode, others, n.cfg.Mode)
	}
	if err := n.layout.leave(c, links); err != nil {
		return err
	}
	n.alone.Store(true)
	return nil
}
