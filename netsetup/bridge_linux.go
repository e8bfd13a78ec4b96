package netsetup

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"

	"golang.org/x/sys/unix"

	"stellar.io/stellar/internal/failpoint"
	"stellar.io/stellar/internal/nlx"
)

func (b *bridged) sync(ctx context.Context) error {
	return b.n.shared(ctx, func(c *nlx.Conn) error {
		s := bridgeSync{b: b, n: b.n, c: c, known: b.ready()}
		if err := s.run(); err != nil {
			return fmt.Errorf("bridge %s: %w", b.n.cfg.Bridge, err)
		}
		return nil
	})
}

// bridgeSync is one pass over the bridge. The order matters: a bridge is only
// found (known) once it has its index in the Network, its own MTU is fixed before
// ports can lower it, and the address needs an interface that is up for its route.
type bridgeSync struct {
	b     *bridged
	n     *Network
	c     *nlx.Conn
	known bool // it was right before: what is wrong now is a repair
	link  nlx.Link
}

func (s *bridgeSync) run() error {
	if err := s.n.uplinkMTU(s.c); err != nil {
		return err
	}
	if err := s.find(); err != nil {
		return err
	}
	if err := s.attributes(); err != nil {
		return err
	}
	if err := failpoint.Err(failpoint.NetBridgeSet); err != nil {
		return err
	}
	if err := s.address(); err != nil {
		return err
	}
	if err := s.route(); err != nil {
		return err
	}
	if err := failpoint.Err(failpoint.NetBridgeReady); err != nil {
		return err
	}
	s.b.index.Store(int64(s.link.Index))
	return s.sysctls()
}

func (s *bridgeSync) repaired(what string) {
	if !s.known {
		return
	}
	s.n.log.Info("bridge restored", "interface", s.n.cfg.Bridge, "what", what)
	s.n.cfg.OnRepair("bridge", s.n.cfg.Bridge)
}

// uplinkMTU decides the MTU of a bridge and of new endpoints. While there is no
// default route it stays what it was: an uplink that flaps moves nothing.
func (n *Network) uplinkMTU(c *nlx.Conn) error {
	mtu := n.cfg.MTU
	if mtu == 0 {
		routes, err := c.Routes(0)
		if err != nil {
			return err
		}
		if mtu = n.MTU(); mtu == 0 {
			mtu = defaultMTU
		}
		if uplinks := defaultRouteLinks(routes); len(uplinks) > 0 {
			if l, err := c.LinkByIndex(uplinks[0]); err == nil {
				mtu = l.MTU
			}
		}
	}
	n.mtu.Store(int64(mtu))
	return nil
}

// defaultRouteLinks returns the interfaces of the default routes, the preferred first.
func defaultRouteLinks(routes []nlx.Route) []int {
	var defaults []nlx.Route
	for _, r := range routes {
		if r.Default() && r.Index != 0 {
			defaults = append(defaults, r)
		}
	}
	slices.SortStableFunc(defaults, func(a, b nlx.Route) int { return int(int64(a.Metric) - int64(b.Metric)) })
	var links []int
	for _, r := range defaults {
		for _, i := range append([]int{r.Index}, r.Others...) {
			if !slices.Contains(links, i) {
				links = append(links, i)
			}
		}
	}
	return links
}

// find gets the bridge or makes it. Only a bridge with our mark is taken; one
// without an alias but in our group is from a process that died early.
func (s *bridgeSync) find() error {
	name := s.n.cfg.Bridge
	l, err := s.c.LinkByName(name)
	if errors.Is(err, unix.ENODEV) {
		v := nlx.NewBridge{Name: name, MAC: s.b.hardware(), Group: linkGroup}
		r, err := s.c.Do(v.Message())
		if err := firstError(r, err); err != nil {
			return fmt.Errorf("create: %w", err)
		}
		if err := failpoint.Err(failpoint.NetBridge); err != nil {
			return err
		}
		s.repaired("deleted")
		if l, err = s.c.LinkByName(name); err != nil {
			return err
		}
	} else if err != nil {
		return err
	}
	if l.Kind != "bridge" || (l.Alias != bridgeAlias && (l.Alias != "" || l.Group != linkGroup)) {
		return ErrForeignBridge
	}
	if l.Alias == bridgeAlias {
		s.b.keep(l.MAC)
	}
	s.link = l
	return nil
}

func (s *bridgeSync) attributes() error {
	mac, mtu := s.b.hardware(), s.n.MTU()
	var msgs []*nlx.Message
	wrong := func(what string, m ...*nlx.Message) {
		msgs = append(msgs, m...)
		s.repaired(what)
	}
	set := func() *nlx.Message { return nlx.SetLink(s.link.Index) }
	fresh := s.link.Alias == ""
	if fresh {
		// Without an MTU of its own a bridge takes the least of its ports. The
		// kernel notes an own one only on a change, hence the step aside.
		msgs = append(msgs, set().Bytes(unix.IFLA_IFALIAS, []byte(bridgeAlias)),
			set().Uint32(unix.IFLA_MTU, uint32(max(mtu-1, minMTU))), set().Uint32(unix.IFLA_MTU, uint32(mtu)))
		if s.n.ipv6 && mtu >= ipv6MinMTU {
			msgs = append(msgs, set().NoIPv6Address())
		}
	} else if s.link.MTU != mtu {
		wrong("mtu", set().Uint32(unix.IFLA_MTU, uint32(mtu)))
	}
	if s.link.Group != linkGroup {
		wrong("group", set().Uint32(unix.IFLA_GROUP, linkGroup))
	}
	if s.link.MAC.String() != mac.String() {
		wrong("mac", set().Bytes(unix.IFLA_ADDRESS, mac))
	}
	if !s.link.Up {
		if !fresh {
			s.repaired("down")
		}
		msgs = append(msgs, nlx.SetLinkUp(s.link.Index))
	}
	if len(msgs) == 0 {
		return nil
	}
	r, err := s.c.Do(msgs...)
	return firstError(r, err)
}

// gateway is the bridge's address with the subnet's length.
func (c Config) gateway() netip.Prefix { return netip.PrefixFrom(c.Gateway, c.Subnet.Bits()) }

func (s *bridgeSync) address() error {
	addrs, err := s.c.Addrs(s.link.Index)
	if err != nil {
		return err
	}
	for _, a := range addrs {
		if a.Prefix == s.n.cfg.gateway() {
			return nil
		}
	}
	if s.link.Alias != "" {
		s.repaired("address")
	}
	r, err := s.c.Do(nlx.NewAddr(s.link.Index, s.n.cfg.gateway()))
	return firstError(r, err, unix.EEXIST)
}

// route restores the connected route: flushing routes takes it, and no address
// event tells.
func (s *bridgeSync) route() error {
	routes, err := s.c.Routes(s.link.Index)
	if err != nil {
		return err
	}
	for _, r := range routes {
		if r.Dst == s.n.cfg.Subnet && !r.Via.IsValid() {
			return nil
		}
	}
	if s.link.Alias != "" {
		s.repaired("route")
	}
	r, err := s.c.Do(nlx.NewConnectedRoute(s.link.Index, s.n.cfg.gateway()))
	return firstError(r, err, unix.EEXIST)
}
