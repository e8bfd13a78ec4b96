package ipam

import (
	"iter"
	"net/netip"
)

// What these methods return is a copy; the sequences are valid until the next Apply.

// Cluster returns the cluster's identity; false before InitCluster.
func (s *State) Cluster() (Cluster, bool) {
	if s.cluster.ID == "" {
		return Cluster{}, false
	}
	c := s.cluster.outside()
	for _, n := range s.networks.all() {
		c.Networks = append(c.Networks, n)
	}
	return c, true
}

// outside returns the record as the outside sees it, without the networks.
func (c clusterRecord) outside() Cluster {
	return Cluster{ID: c.ID, Generation: c.Generation, Life: c.Life, Reclaim: c.Reclaim, Time: c.Time}
}

// Network returns the network with the given name.
func (s *State) Network(name string) (Network, bool) { return s.networks.get(name) }

// Nodes yields all nodes by ID, tombstones included.
func (s *State) Nodes() iter.Seq[Node] { return values(s.nodes.all()) }

// Node returns the node, or its tombstone.
func (s *State) Node(id NodeID) (Node, bool) { return s.nodes.get(id) }

// NodeByName returns the node with that name which is not removed.
func (s *State) NodeByName(name string) (Node, bool) {
	id, ok := s.byName[name]
	if !ok {
		return Node{}, false
	}
	return s.nodes.get(id)
}

// Tokens yields all join tokens by ID, used and revoked ones included.
func (s *State) Tokens() iter.Seq[Token] { return values(s.tokens.all()) }

// Token returns the join token with the given ID.
func (s *State) Token(id string) (Token, bool) { return s.tokens.get(id) }

// Subnets yields all subnets that are or were held, by network and address.
func (s *State) Subnets() iter.Seq[Subnet] { return values(s.subnets.all()) }

// Subnet returns the subnet; false if it was never held.
func (s *State) Subnet(k SubnetKey) (Subnet, bool) { return s.subnets.get(k) }

// SubnetsOf yields the subnets that the node holds.
func (s *State) SubnetsOf(id NodeID) iter.Seq[Subnet] {
	return func(yield func(Subnet) bool) {
		for sub := range s.subnetsAfter(id) {
			if sub.State == Held && !yield(sub) {
				return
			}
		}
	}
}

// subnetsAfter yields the subnets that the node holds or left in quarantine.
func (s *State) subnetsAfter(id NodeID) iter.Seq[Subnet] {
	return func(yield func(Subnet) bool) {
		for k := range s.byNode.from(nodeSubnet{Node: id}) {
			if k.Node != id {
				return
			}
			if sub, _ := s.subnets.get(k.SubnetKey); !yield(sub) {
				return
			}
		}
	}
}

// Leases yields the leases of a subnet by address, cooling ones included.
func (s *State) Leases(k SubnetKey) iter.Seq[Lease] {
	return func(yield func(Lease) bool) {
		n, sub, ok := s.find(k)
		if !ok {
			return
		}
		last := leaseKey{Net: n.ID, Addr: addrToUint(lastAddr(k.Prefix))}
		for lk, r := range s.leases.from(leaseKey{Net: n.ID, Addr: addrToUint(k.Prefix.Addr())}) {
			if compareLeaseKeys(lk, last) > 0 || !yield(r.lease(lk, sub)) {
				return
			}
		}
	}
}

// Lease returns the lease of an address; false if the address is free.
func (s *State) Lease(a netip.Addr) (Lease, bool) {
	n, ok := s.networkOf(a)
	if !ok {
		return Lease{}, false
	}
	return s.leaseAt(leaseKey{Net: n.ID, Addr: addrToUint(a)})
}

// LeaseByOwner returns the lease that the owner holds; a cooling one does not count.
func (s *State) LeaseByOwner(o Owner) (Lease, bool) {
	if o.validate() != nil {
		return Lease{}, false
	}
	k, ok := s.byOwner[ownerKey(o)]
	if !ok {
		return Lease{}, false
	}
	return s.leaseAt(k)
}

// Reservations yields every reservation that keeps addresses of the subnet from
// being handed out, by first address and the larger block first. Some may cover
// more than the subnet.
func (s *State) Reservations(k SubnetKey) iter.Seq[Reservation] {
	return s.reservationsIn(k, s.blocks[k.Network])
}

// AllReservations yields every reservation, by network and address.
func (s *State) AllReservations() iter.Seq[Reservation] { return values(s.reservations.all()) }

// ReservedBy returns the largest reservation that covers a.
func (s *State) ReservedBy(a netip.Addr) (Reservation, bool) {
	n, ok := s.networkOf(a)
	if !ok {
		return Reservation{}, false
	}
	return s.reserved(n.Name, addrPrefix(a))
}

// networkOf returns the network that a lies in; networks do not overlap.
func (s *State) networkOf(a netip.Addr) (Network, bool) {
	for _, n := range s.networks.all() {
		if n.Prefix.Contains(a) {
			return n, true
		}
	}
	return Network{}, false
}

// leaseSubnet returns the key of the subnet that a lease lies in.
func (s *State) leaseSubnet(k leaseKey) SubnetKey {
	n, _ := s.networks.get(s.netNames[k.Net])
	key, _ := n.SubnetOf(uintToAddr(k.Addr))
	return key
}

func (s *State) leaseAt(k leaseKey) (Lease, bool) {
	r, ok := s.leases.get(k)
	if !ok {
		return Lease{}, false
	}
	sub, _ := s.subnets.get(s.leaseSubnet(k))
	return r.lease(k, sub), true
}

// lease returns the record as the outside sees it.
func (r leaseRecord) lease(k leaseKey, sub Subnet) Lease {
	return Lease{
		Addr: uintToAddr(k.Addr), Owner: r.owner(), State: r.State,
		Subnet: sub.SubnetKey, Node: sub.Node,
		Static: r.Static, Hostname: r.hostname(), Since: r.Since, SinceTime: r.SinceTime,
	}
}

func values[K, V any](seq iter.Seq2[K, V]) iter.Seq[V] {
	return func(yield func(V) bool) {
		for _, v := range seq {
			if !yield(v) {
				return
			}
		}
	}
}
