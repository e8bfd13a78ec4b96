package netsetup

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"sync/atomic"

	"golang.org/x/sys/unix"

	"stellar.io/stellar/internal/nlx"
)

// bridged is the mode in which the host's ends are ports of one bridge.
type bridged struct {
	n     *Network
	index atomic.Int64 // of the bridge, 0 unknown
	// mac is the bridge's, once one was found: that of an earlier identity of this node
	// stays, for running containers know the gateway by it.
	mac atomic.Pointer[net.HardwareAddr]
}

// hardware is the hardware address that the bridge must have.
func (b *bridged) hardware() net.HardwareAddr {
	if mac := b.mac.Load(); mac != nil {
		return *mac
	}
	return bridgeMACFor(b.n.cfg.Node)
}

// keep takes the address of the first bridge that was found for right, if it is one
// that we give.
func (b *bridged) keep(mac net.HardwareAddr) {
	if b.mac.Load() == nil && isBridgeMAC(mac) {
		b.mac.Store(&mac)
	}
}

func (b *bridged) ready() bool    { return b.index.Load() != 0 }
func (b *bridged) version() int64 { return b.index.Load() }
func (b *bridged) capacity() int  { return MaxEndpoints }
func (b *bridged) full() string   { return "as many as a bridge takes; a node in mode routed takes more" }

// sysctls are the parameters of the bridge: it forwards, and no container can talk
// IPv6 to the host through it (rogue router advertisements, CVE-2020-10749).
func (b *bridged) sysctls() [][2]string {
	name := b.n.cfg.Bridge
	return [][2]string{
		{sysctlConf4(name, "forwarding"), "1"},
		{sysctlConf6(name, "accept_ra"), "0"},
		{sysctlConf6(name, "disable_ipv6"), "1"},
	}
}

// leave removes what routed mode shares.
func (b *bridged) leave(c *nlx.Conn, _ []nlx.Link) error { return removeRouted(c) }

func (b *bridged) veth(a *attachment, v *nlx.NewVeth) {
	a.master = int(b.index.Load())
	v.Master = a.master
}

// again makes the bridge anew if it went away under us; a new one has another index.
func (b *bridged) again(ctx context.Context, a *attachment, refused error) (bool, error) {
	if !errors.Is(refused, unix.ENODEV) && !errors.Is(refused, unix.EINVAL) {
		return false, nil
	}
	if err := b.sync(ctx); err != nil {
		return false, err
	}
	return int(b.index.Load()) != a.master, nil
}

func (b *bridged) host(a *attachment, alias *nlx.Message) []*nlx.Message {
	if a.noIPv6() {
		alias.NoIPv6Address()
	}
	return append(b.plug(a, alias.BridgePort(quietPort)), nlx.SetLinkUp(a.index))
}

// quietPort are the settings of our ports. Nothing is learnt from them and nothing
// flooded to them: the bridge is told where each address is, and answers ARP itself,
// so that no frame is for more than one of them however many there are. All frames
// to link-local groups are judged as others are.
var quietPort = nlx.PortSettings{ProxyARP: true, ProxyARPFor: true, Forward: 0xffff &^ (1 << 1)} // pause frames end here anyway

// plug adds to the message that makes a link a quiet port those that tell bridge and
// host whose it is.
func (b *bridged) plug(a *attachment, port *nlx.Message) []*nlx.Message {
	return []*nlx.Message{port, nlx.NewBridgeEntry(a.index, a.spec.MAC), b.neighbour(a.spec.Addr, a.spec.MAC)}
}

func (b *bridged) neighbour(addr netip.Addr, mac net.HardwareAddr) *nlx.Message {
	return nlx.NewNeigh(int(b.index.Load()), addr, mac).MarkNeigh(protocol)
}

func (b *bridged) refused(_ *attachment, err error) error { return err }

func (b *bridged) guest(a *attachment, dst netip.Prefix) []*nlx.Message {
	return []*nlx.Message{
		nlx.NewAddr(a.peer, netip.PrefixFrom(a.spec.Addr, b.n.cfg.Subnet.Bits())),
		nlx.SetLinkUp(a.peer),
		nlx.SetLinkUp(loIndex),
		// Permanent: entries that are not share one table of the machine, which by default
		// has room for 1,024.
		nlx.NewNeigh(a.peer, b.n.cfg.Gateway, b.hardware()),
		nlx.NewRoute(a.peer, dst, b.n.cfg.Gateway, protocol),
	}
}

// entered moves the port if the bridge was made anew before the table knew of it.
func (b *bridged) entered(a *attachment) error {
	now := int(b.index.Load())
	if now == a.master {
		return nil
	}
	r, err := a.host.Do(append([]*nlx.Message{nlx.SetLink(a.index).Uint32(unix.IFLA_MASTER, uint32(now))},
		b.plug(a, nlx.SetLink(a.index).BridgePort(quietPort))...)...)
	if err := firstError(r, err); err != nil {
		return fmt.Errorf("move %s to the new bridge: %w", a.name, err)
	}
	return nil
}

func (b *bridged) want(p port) portWant {
	return portWant{alias: p.alias, mac: hostMACFor(p.Addr), mtu: p.mtu, master: int(b.index.Load()), port: quietPort}
}

func (b *bridged) forget(c *nlx.Conn, addrs []netip.Addr) error {
	bridge := int(b.index.Load())
	if bridge == 0 {
		return nil
	}
	var errs []error
	for _, a := range addrs {
		r, err := c.Do(nlx.DelNeigh(bridge, a))
		errs = append(errs, firstError(r, err, unix.ENOENT, unix.ENODEV))
	}
	return errors.Join(errs...)
}

func (b *bridged) notice(w *watch, typ uint16, body []byte) (done bool) {
	wrong := false
	switch typ {
	case unix.RTM_NEWLINK, unix.RTM_DELLINK:
		index, _ := nlx.LinkState(body)
		if index != int(b.index.Load()) {
			return false
		}
		l, err := nlx.ParseLink(body)
		done, wrong = true, err == nil && (typ == unix.RTM_DELLINK || !b.right(l))
	case unix.RTM_DELADDR:
		a, ok := nlx.ParseAddr(body)
		wrong = ok && a.Index == int(b.index.Load())
	case unix.RTM_NEWNEIGH, unix.RTM_DELNEIGH:
		b.entry(w, typ, body)
		return true
	case unix.RTM_DELROUTE:
		r, ok := nlx.ParseRoute(body)
		wrong = ok && r.Dst == b.n.cfg.Subnet
	}
	if wrong {
		w.note(func(s *news) { s.shared = true })
	}
	return done
}

func (b *bridged) groups() []int { return []int{unix.RTNLGRP_NEIGH} }

// right compares the bridge's link with what it must be.
func (b *bridged) right(l nlx.Link) bool {
	return l.Up && l.MTU == b.n.MTU() && l.Group == linkGroup && l.Alias == bridgeAlias &&
		l.MAC.String() == b.hardware().String()
}

// accepting: one rule cannot say "in or out by stellar0".
func (b *bridged) accepting() []string {
	name := b.n.cfg.Bridge
	return []string{"-i " + name + " -j ACCEPT", "-o " + name + " -j ACCEPT"}
}
