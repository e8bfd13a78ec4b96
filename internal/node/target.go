package node

import (
	"context"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"stellar.io/stellar/api"
	"stellar.io/stellar/api/server"
	"stellar.io/stellar/ipam"
)

// place is what a person named: where packets come from or go to.
type place struct {
	node     ipam.NodeID     // whose it is; "": an address that is nobody's here
	ref      api.EndpointRef // zero: the node's host, or nobody's
	address  netip.Addr      // zero: it has none
	name     string          // for people: NAMESPACE/ID, the node's name, or the address
	hostname string          // of the label stellar.io/hostname; need not be unique
	down     string          // why the endpoint carries no packets; "": it does
	// Of an endpoint of this node.
	state, reason string
}

// directory is what names are looked up in.
type directory struct {
	nodes     []place // hosts
	endpoints []place
	nodeName  func(ipam.NodeID) string
}

// directory returns what the names in a request of ctx may mean. Who passes a request
// on has looked everywhere already: then it is about this node.
func (n *Node) directory(ctx context.Context, p *parts) directory {
	_, forwarded := server.Forwarded(ctx)
	return n.names(p, forwarded)
}

// names returns what names may mean: on this node what the agent knows, elsewhere,
// unless only this node counts, what is replicated.
func (n *Node) names(p *parts, onlyHere bool) directory {
	d := directory{nodeName: p.nameOf}
	p.store.View(func(s *ipam.State) {
		for m := range s.Nodes() {
			if m.Removed || onlyHere && m.ID != n.id.ID {
				continue
			}
			host, _ := netip.ParseAddrPort(m.Address)
			d.nodes = append(d.nodes, place{node: m.ID, address: host.Addr(), name: m.Name})
			if m.ID == n.id.ID {
				continue
			}
			for sub := range s.SubnetsOf(m.ID) {
				for l := range s.Leases(sub.SubnetKey) {
					if l.State != ipam.Cooling {
						d.endpoints = append(d.endpoints, leasePlace(m.ID, l))
					}
				}
			}
		}
	})
	for _, e := range p.agent.Endpoints() {
		at := place{
			node: n.id.ID, ref: n.endpoint(e).Ref(), address: e.Address, name: e.Key.String(), hostname: e.Hostname,
			state: string(e.State), reason: e.Reason,
		}
		if !n.endpoint(e).Up() {
			at.down = string(e.State)
			if e.Reason != "" {
				at.down += ": " + e.Reason
			}
		}
		d.endpoints = append(d.endpoints, at)
	}
	return d
}

// leasePlace is an endpoint of another node, as the replicated state knows it. Whether
// it is up, that node says: the state hears of it later.
func leasePlace(node ipam.NodeID, l ipam.Lease) place {
	ref := api.EndpointRef{Namespace: l.Owner.Namespace, Container: l.Owner.ID, Ifname: l.Owner.Interface}
	return place{node: node, ref: ref, address: l.Addr, name: ref.String(), hostname: l.Hostname}
}

const hintTarget = "name a container, NAMESPACE/ID, a container's hostname, a node or an address: `stellar ps` and `stellar node ls` show them, `stellar ipam show` has other nodes' addresses"

// find returns what s means: an address, an endpoint by its id, or else a node by its
// name, or else an endpoint by its hostname, or else by the beginning of a long id;
// endpoints also after NAMESPACE/. More than one is a conflict that names them.
func (d directory) find(s string) (place, error) {
	if a, err := api.ParseAddress(s); err == nil {
		return d.at(a)
	}
	if _, err := netip.ParsePrefix(s); err == nil {
		return place{}, api.Errorf(api.CodeInvalid, "%q is a block of addresses", s).WithHint("name one of them")
	}
	want := api.ParseEndpointRef(s)
	var exact, nodes, hosts, begins []place
	for _, e := range d.endpoints {
		switch id := e.ref.Container; {
		case want.Namespace != "" && want.Namespace != e.ref.Namespace:
		case id == want.Container:
			exact = append(exact, e)
		case e.hostname == want.Container && e.hostname != "":
			// All containers of a pod have its hostname, and its address.
			if !slices.ContainsFunc(hosts, func(o place) bool { return o.node == e.node && o.address == e.address && e.address.IsValid() }) {
				hosts = append(hosts, e)
			}
		case len(id) == 64 && strings.Trim(id, "0123456789abcdef") == "" && want.Container != "" && strings.HasPrefix(id, want.Container):
			begins = append(begins, e)
		}
	}
	if want.Namespace == "" {
		for _, n := range d.nodes {
			if n.name == s {
				nodes = append(nodes, n)
			}
		}
	}
	found := exact
	for _, next := range [][]place{nodes, hosts, begins} {
		if len(found) == 0 {
			found = next
		}
	}
	switch len(found) {
	case 0:
		return place{}, api.Errorf(api.CodeNotFound, "%.80q is no container, node or address", s).WithHint(hintTarget)
	case 1:
		return found[0], nil
	}
	return place{}, api.Errorf(api.CodeConflict, "%q means %d things: %s", s, len(found), d.list(found)).WithHint("give the address")
}

// at returns the place with an address, also where nothing is known of it.
func (d directory) at(a netip.Addr) (place, error) {
	if !a.Is4() {
		return place{}, api.Errorf(api.CodeInvalid, "%s is not an IPv4 address: others are not supported yet", a).WithHint("containers and nodes have IPv4 addresses: `stellar ps`, `stellar node ls`")
	}
	for _, p := range slices.Concat(d.endpoints, d.nodes) {
		if p.address == a {
			return p, nil
		}
	}
	return place{address: a, name: a.String()}, nil
}

// list names a few places for people.
func (d directory) list(places []place) string {
	const most = 5
	var out []string
	for i, p := range places {
		if i == most {
			out = append(out, "…")
			break
		}
		text := "node " + p.name
		if p.ref != (api.EndpointRef{}) {
			text = fmt.Sprintf("%s on node %s", p.name, d.nodeName(p.node))
		}
		if p.address.IsValid() {
			text += fmt.Sprintf(" (%s)", p.address)
		}
		out = append(out, text)
	}
	return strings.Join(out, ", ")
}

// source finds what packets are to come from: an endpoint or a node.
func (d directory) source(s string) (place, error) {
	from, err := d.find(s)
	switch {
	case err != nil:
		return from, err
	case from.node == "":
		return from, api.Errorf(api.CodeInvalid, "%s belongs to no container and no node of this cluster", from.name).WithHint(hintTarget)
	case from.down != "":
		return from, api.Errorf(api.CodeConflict, "%s has no network: it is %s", from.name, from.down).WithHint("`stellar endpoint ls -o wide` on its node says why")
	}
	return from, nil
}

// target finds what packets are to go to.
func (d directory) target(s string) (place, error) {
	to, err := d.find(s)
	if err == nil && !to.address.IsValid() {
		err = api.Errorf(api.CodeConflict, "%s has no address", to.name).WithHint("`stellar endpoint ls -o wide` on its node says why, `stellar node ls` shows the nodes' addresses")
		if to.down != "" {
			err = api.Errorf(api.CodeConflict, "%s has no address: it is %s", to.name, to.down).WithHint("`stellar endpoint ls -o wide` on its node says why")
		}
	}
	return to, err
}
