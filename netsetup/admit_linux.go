package netsetup

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"slices"

	"stellar.io/stellar/internal/nlx"
)

// guardSubject names the guard's tables in reports.
const guardSubject = "tables stellar of the endpoints"

// admit gives a link that is not up yet the right to speak for the endpoint.
func (a *attachment) admit() error {
	restored, err := a.n.guard.admit(a.name, admission{owner: a.spec.Owner, index: a.index, mac: a.spec.MAC, addr: a.spec.Addr})
	if restored {
		a.n.repaired("filter", guardSubject)
	}
	return err
}

// GuardNodes names the ports of other nodes' agents, which no container of this
// node may reach. It replaces what was named before.
func (n *Network) GuardNodes(ports []netip.AddrPort) error {
	ports = slices.Clone(ports)
	slices.SortFunc(ports, netip.AddrPort.Compare)
	ports = slices.Compact(ports)
	g := n.guard
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.nodes != nil && slices.Equal(g.nodes, ports) {
		return nil
	}
	if err := g.changeNodes(ports); err != nil {
		return fmt.Errorf("guard %d nodes: %w", len(ports), err)
	}
	return nil
}

// syncGuard makes the guard's tables what they must be for the endpoints that the
// table of ports has. The first time, what an earlier process admitted stays.
func (n *Network) syncGuard(ctx context.Context) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	c, err := n.conn()
	if err != nil {
		return err
	}
	defer n.release(c)
	damage, err := n.guard.sync(func(admitted map[string]admission, inKernel map[string]bool) map[string]admission {
		return n.admissions(c, admitted, inKernel)
	})
	if damage != "" {
		n.repaired("filter", guardSubject)
	}
	if err != nil {
		return fmt.Errorf("nftables tables %s: %w", filterTable, err)
	}
	return nil
}

// admissions decides who must be in the set: every port of the table, and the
// links of attaches at work.
func (n *Network) admissions(c *nlx.Conn, admitted map[string]admission, inKernel map[string]bool) map[string]admission {
	recorded := make(map[string]admission) // of an earlier process, by name
	for key := range inKernel {
		if name, mac, addr, ok := splitKey([]byte(key)); ok {
			recorded[name] = admission{mac: mac, addr: addr}
		}
	}
	want := make(map[string]admission, len(admitted))
	for name, a := range admitted {
		if n.table.held(a.owner) {
			want[name] = a
		}
	}
	for _, p := range n.table.all() {
		if _, ok := want[p.HostIfname]; ok {
			continue
		}
		a := admission{owner: p.Owner, index: p.HostIndex, addr: p.Addr, mac: p.MAC}
		for _, known := range []admission{admitted[p.HostIfname], recorded[p.HostIfname]} {
			if a.mac == nil && known.addr == p.Addr {
				a.mac = known.mac
			}
		}
		if a.mac == nil {
			a.mac = n.guestMAC(c, p)
		}
		n.table.change(p.HostIndex, func(p *port) { p.MAC = a.mac })
		want[p.HostIfname] = a
	}
	return want
}

// guestMAC is the hardware address of an endpoint that was made before there was
// a guard. What the container's end has is believed only as far as it takes
// nothing from others: not the bridge's, and nothing derived from an address.
func (n *Network) guestMAC(c *nlx.Conn, p port) net.HardwareAddr {
	derived := MACFor(p.Addr)
	l, err := c.LinkByIndex(p.HostIndex)
	if err != nil || l.NSID == nlx.NoNSID {
		return derived
	}
	guest, err := c.LinkIn(l.NSID, l.Peer)
	if err != nil || !validMAC(guest.MAC) || guest.MAC[0] == macLocal && (guest.MAC[1] == macContainer || guest.MAC[1] == macHost || guest.MAC[1] == macBridge) {
		return derived
	}
	return guest.MAC
}
