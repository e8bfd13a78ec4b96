package node

import (
	"net/netip"
	"slices"
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

// traceEnd finds what an operator has typed: an address, a container, a node.
func (n *Node) traceEnd(p *parts, ref string) (out traceEnd, err error) {
	if a, err := api.ParseAddress(ref); err == nil {
		return p.endAt(n, a)
	}
	found := p.containers(n, api.ParseEndpointRef(ref))
	switch {
	case len(found) == 1:
		return found[0], nil
	case len(found) > 1:
		var names []string
		for _, e := range found {
			names = append(names, e.String()+" on "+e.Node)
		}
		return out, api.Errorf(api.CodeConflict, "%q means %d containers: %s", ref, len(found), strings.Join(names[:min(len(names), 5)], ", ")).
			WithHint("give NAMESPACE/CONTAINER, or the address")
	}
	p.store.View(func(s *ipam.State) {
		if m, ok := s.NodeByName(ref); ok && !m.Removed {
			out = endOn(m)
			out.TraceEnd = api.TraceEnd{Kind: api.TraceHost, Node: m.Name, Address: out.ip}
		}
	})
	if out.id == "" {
		return out, api.Errorf(api.CodeNotFound, "no container, address or node %q", ref).
			WithHint("`stellar endpoint ls` and `stellar node ls` show what there is")
	}
	if out.id == n.id.ID && !out.Address.IsValid() {
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

// containers finds a container by its id, or a long one by its beginning: this node's
// by what its agent knows, the others' by their leases.
func (p *parts) containers(n *Node, ref api.EndpointRef) (out []traceEnd) {
	var exact []traceEnd
	consider := func(e traceEnd, hostname string) {
		if ref.Namespace != "" && e.Namespace != ref.Namespace || ref.Container == "" {
			return
		}
		same := func(o traceEnd) bool {
			return o.Namespace == e.Namespace && o.Container == e.Container && o.id == e.id
		}
		switch {
		case slices.ContainsFunc(out, same) || slices.ContainsFunc(exact, same):
		case e.Container == ref.Container || hostname == ref.Container:
			exact = append(exact, e)
		case len(e.Container) == 64 && strings.HasPrefix(e.Container, ref.Container):
			out = append(out, e)
		}
	}
	own := p.agent.Endpoints()
	p.store.View(func(s *ipam.State) {
		if m, ok := s.Node(n.id.ID); ok {
			for _, e := range own {
				end := endOn(m)
				end.TraceEnd = api.TraceEnd{Kind: api.TraceContainer, Node: m.Name, Namespace: e.Key.Namespace, Container: e.Key.ID, Address: e.Address}
				end.state, end.reason = string(e.State), e.Reason
				consider(end, e.Hostname)
			}
		}
		for sub := range s.Subnets() {
			m, ok := s.Node(sub.Node)
			if !ok || sub.State != ipam.Held || m.ID == n.id.ID {
				continue
			}
			for l := range s.Leases(sub.SubnetKey) {
				if l.State == ipam.Cooling {
					continue
				}
				end := endOn(m)
				end.TraceEnd = api.TraceEnd{Kind: api.TraceContainer, Node: m.Name, Namespace: l.Owner.Namespace, Container: l.Owner.ID, Address: l.Addr}
				consider(end, l.Hostname)
			}
		}
	})
	if len(exact) > 0 {
		return exact
	}
	return out
}
