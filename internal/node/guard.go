package node

import (
	"net/netip"

	"stellar.io/stellar/internal/config"
	"stellar.io/stellar/ipam"
	"stellar.io/stellar/routes"
)

// agentPorts are what the agent listens on for TCP: no container's business.
func (n *Node) agentPorts() (ports []netip.AddrPort) {
	c := n.opts.Config
	for _, p := range []netip.AddrPort{n.listenAddress(), c.MetricsListen, c.Web.Listen} {
		if p.IsValid() {
			ports = append(ports, p)
		}
	}
	return ports
}

// guardNodes has the kernel keep containers from the other nodes' agents, too, each
// time that the routes are compared. Before the state is known to be whole, what an
// earlier process named stays.
func (n *Node) guardNodes(p *parts, wants func() routes.Wants) func() routes.Wants {
	return func() routes.Wants {
		w := wants()
		if !w.Complete {
			return w
		}
		var ports []netip.AddrPort
		p.store.View(func(s *ipam.State) { ports = othersPorts(s, n.id.ID, n.opts.Config) })
		if err := p.net.GuardNodes(ports); err != nil {
			n.log.Warn("containers may reach other nodes' agents, will retry", "err", err)
		}
		return w
	}
}

// othersPorts are the node-to-node ports of the other members and, where metrics
// are served to the network, those at the port that they have here.
func othersPorts(s *ipam.State, own ipam.NodeID, c config.Config) (ports []netip.AddrPort) {
	for node := range s.Nodes() {
		at, err := netip.ParseAddrPort(node.Address)
		if err != nil || node.ID == own || node.Removed || !at.Addr().Is4() {
			continue
		}
		ports = append(ports, at)
		if m := c.MetricsListen; m.IsValid() && !m.Addr().IsLoopback() {
			ports = append(ports, netip.AddrPortFrom(at.Addr(), m.Port()))
		}
	}
	return ports
}
