package node

import (
	"context"
	"net"
	"net/netip"
	"time"
)

// addressPause is between two looks at the host's address.
const addressPause = time.Second

// followAddress has the node made anew when its host has got another address, as a lease
// of DHCP or a person gives it: nothing reaches the port at the old one any more. Two looks
// must agree on the new one, and the old one must be gone from every interface, for a
// host's packets may leave it by another way for a while. With --listen the address is what was asked for, and stays.
// What runs loses nothing: the kernel keeps it.
func (n *Node) followAddress(ctx context.Context, p *parts) error {
	if p.port == nil || n.opts.Config.Listen.IsValid() {
		return nil
	}
	tick := time.NewTicker(addressPause)
	defer tick.Stop()
	var seen netip.AddrPort
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
		now := n.listenAddress()
		if !now.IsValid() || now == p.listens || interfaceOf(p.listens.Addr()) != "" {
			seen = netip.AddrPort{}
			continue
		}
		if now != seen {
			seen = now
			continue
		}
		n.log.Info("the host has another address: listening there", "was", p.listens, "is", now)
		select {
		case n.restart <- struct{}{}:
		default:
		}
		return nil
	}
}

// interfaceOf is the interface that has an address, "" if none has, or none can be
// listed.
func interfaceOf(addr netip.Addr) string {
	interfaces, err := net.Interfaces()
	if err != nil {
		return ""
	}
	for _, i := range interfaces {
		addrs, err := i.Addrs()
		if err != nil {
			continue
		}
		for _, a := range addrs {
			if p, err := netip.ParsePrefix(a.String()); err == nil && p.Addr() == addr {
				return i.Name
			}
		}
	}
	return ""
}
