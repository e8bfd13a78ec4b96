package node

import (
	"net/netip"
	"strings"

	"stellar.io/stellar/agent"
	"stellar.io/stellar/api"
	"stellar.io/stellar/ipam"
)

// traceEnd is an end, and the node to ask about it.
type traceEnd struct {
	api.TraceEnd
	id       ipam.NodeID
	hostPort string     // of the node's port
	ip       netip.Addr // of the node
	// Of a container without an address: what the agent says of it.
	state, reason string
}

// hostOf returns the IP address of a node's host:port.
func hostOf(hostPort string) netip.Addr {
	a, err := netip.ParseAddrPort(hostPort)
	if err != nil {
		return netip.Addr{}
	}
	return a.Addr()
}

// traceEnd finds what an operator has typed: an address, or a name that `stellar ping`
// takes, too.
func (n *Node) traceEnd(p *parts, ref string) (out traceEnd, err error) {
	if a, err := api.ParseAddress(ref); err == nil {
		return p.endAt(n, a)
	}
	at, err := n.names(p, false).find(ref)
	if err != nil {
		return out, err
	}
	p.store.View(func(s *ipam.State) {
		if m, ok := s.Node(at.node); ok {
			out = endOn(m)
			out.TraceEnd = api.TraceEnd{Kind: api.TraceHost, Node: m.Name, Address: out.ip}
		}
	})
	switch {
	case out.id == "":
		return out, api.Errorf(api.CodeNotFound, "node %s of %q is gone", at.node, ref).WithHint("`stellar node ls` shows what there is")
	case at.ref != (api.EndpointRef{}):
		out.Kind, out.Namespace, out.Container, out.Address = api.TraceContainer, at.ref.Namespace, at.ref.Container, at.address
		out.state, out.reason = at.state, at.reason
	case out.id == n.id.ID && !out.Address.IsValid():
		out.Address = p.subnet.Gateway()
	}
	return out, nil
}

func endOn(m ipam.Node) traceEnd {
	address := m.Address
	if _, hostPort, ok := strings.Cut(address, "@"); ok {
		address = hostPort
	}
	return traceEnd{id: m.ID, hostPort: address, ip: hostOf(address)}
}

// endAt finds who has an address.
func (p *parts) endAt(n *Node, a netip.Addr) (out traceEnd, err error) {
	if !a.Is4() {
		return out, api.Errorf(api.CodeInvalid, "%s is no IPv4 address", a)
	}
	out.TraceEnd = api.TraceEnd{Kind: api.TraceOutside, Address: a}
	p.store.View(func(s *ipam.State) {
		key, inside := p.network.SubnetOf(a)
		for m := range s.Nodes() {
			if !m.Removed && hostOf(endOn(m).hostPort) == a {
				out = endOn(m)
				out.TraceEnd = api.TraceEnd{Kind: api.TraceHost, Node: m.Name, Address: a}
				return
			}
		}
		if !inside {
			return
		}
		sub, ok := s.Subnet(key)
		m, known := s.Node(sub.Node)
		if !ok || !known || sub.State != ipam.Held {
			err = api.Errorf(api.CodeNotFound, "no node has the subnet %s of %s", key.Prefix, a).WithHint("`stellar ipam ls` shows the subnets")
			return
		}
		out = endOn(m)
		out.TraceEnd = api.TraceEnd{Kind: api.TraceContainer, Node: m.Name, Address: a}
		if a == sub.Gateway() {
			out.Kind = api.TraceHost
			return
		}
		if l, ok := s.Lease(a); ok {
			out.Namespace, out.Container = l.Owner.Namespace, l.Owner.ID
		}
	})
	if e, ok := p.endpointAt(a); ok && err == nil {
		out.Namespace, out.Container = e.Key.Namespace, e.Key.ID
	}
	if err == nil && out.Kind == api.TraceContainer && out.Container == "" {
		return out, api.Errorf(api.CodeNotFound, "nobody has the address %s", a).WithHint("`stellar ipam show " + a.String() + "` tells what is known of it")
	}
	return out, err
}

// endpointAt returns this node's endpoint with an address.
func (p *parts) endpointAt(a netip.Addr) (agent.Endpoint, bool) {
	var other agent.Endpoint
	found := false
	for _, e := range p.agent.Endpoints() {
		if e.Address != a {
			continue
		}
		if e.PID > 0 && e.State != agent.StateShared {
			return e, true
		}
		other, found = e, true
	}
	return other, found
}
