package ipam

import (
	"fmt"
	"net/netip"
)

// subnets chooses the record of each subnet and stores it together with what its
// mode reserves.
func (m *merger) subnets() error {
	m.kept = map[SubnetKey]side{}
	for _, s := range m.both() {
		for k := range s.subnets.all() {
			if _, done := m.out.subnets.get(k); done {
				continue
			}
			sub, from, err := m.choose(k)
			if err != nil {
				return err
			}
			m.out.subnets.set(k, sub)
			m.kept[k] = from
			if sub.State != SubnetFree {
				m.reserveSystem(sub)
			}
		}
	}
	return nil
}

// choose returns the record of a subnet that one of the sides has at least, and
// whose leases belong to it.
func (m *merger) choose(k SubnetKey) (Subnet, side, error) {
	b, _ := m.backup.subnets.get(k)
	l, _ := m.live.subnets.get(k)
	sub, from := b, fromBackup
	switch order := l.Epoch.Compare(b.Epoch); {
	case l.State == 0:
	case b.State == 0, order > 0:
		sub, from = l, fromLive
	case order == 0 && l.Node != b.Node:
		return sub, from, fmt.Errorf("%w: %s at %s has two holders", ErrSnapshotCluster, k, b.Epoch)
	case order == 0 && l.State > b.State:
		sub, from = l, fromLive
	}
	if sub.State != Held {
		return sub, from, nil
	}
	node, _ := m.out.nodes.get(sub.Node)
	switch {
	case node.Removed:
		sub.State = Quarantined
	case node.Mode != sub.Mode: // live's, which changed when there were no leases
		sub.Mode, from = node.Mode, fromLive
	}
	return sub, from, nil
}

// reserveSystem stores what the mode of a subnet reserves, as old as it is.
func (m *merger) reserveSystem(sub Subnet) {
	for _, r := range systemReservations(sub.SubnetKey, sub.Mode) {
		r.Since = m.out.index
		for _, s := range m.both() {
			if old, ok := s.reservations.get(r.key()); ok {
				r.Since = min(r.Since, old.Since)
			}
		}
		m.out.reservations.set(r.key(), r)
	}
}

// leases stores those of each subnet from the side that its record is kept from.
// An owner that would have two addresses keeps the live one; the other cools.
func (m *merger) leases() error {
	owners := map[string]bool{}
	for _, from := range [...]side{fromLive, fromBackup} {
		s := m.side(from)
		for k, r := range s.leases.all() {
			if m.kept[s.leaseSubnet(k)] != from {
				continue
			}
			if r.State.active() && owners[r.ownerKey()] {
				r.State = Cooling
			}
			if r.State.active() {
				owners[r.ownerKey()] = true
			}
			m.out.leases.set(k, r)
		}
	}
	return nil
}

func (m *merger) side(from side) *State {
	if from == fromLive {
		return m.live
	}
	return m.backup
}

// reservations stores the operators' reservations of both sides, live's reason
// being the newer. Those inside a subnet that somebody has belong to its record.
func (m *merger) reservations() error {
	for _, from := range [...]side{fromBackup, fromLive} {
		for _, r := range m.side(from).reservations.all() {
			if r.Kind != ReservedOperator {
				continue
			}
			n, _ := m.out.networks.get(r.Network)
			k, ok := n.SubnetOf(r.Prefix.Addr())
			if !ok {
				continue
			}
			if r.Prefix.Bits() <= n.SubnetBits {
				m.reserveUnused(n, r)
				continue
			}
			sub, _ := m.out.subnets.get(k)
			if used := sub.State == Held || sub.State == Quarantined; !used || m.kept[k] == from {
				m.out.reservations.set(r.key(), r)
			}
		}
	}
	return nil
}

// reserveUnused stores a reservation of whole subnets without those that are in
// use: it is divided until its parts hold none.
func (m *merger) reserveUnused(n Network, r Reservation) {
	if !m.used(r.Network, r.Prefix) {
		m.out.reservations.set(r.key(), r)
		return
	}
	if r.Prefix.Bits() == n.SubnetBits {
		return
	}
	half := netip.PrefixFrom(r.Prefix.Addr(), r.Prefix.Bits()+1)
	for _, p := range [...]netip.Prefix{half, netip.PrefixFrom(lastAddr(half).Next(), half.Bits())} {
		r.Prefix = p
		m.reserveUnused(n, r)
	}
}

// used reports whether somebody has a subnet inside p.
func (m *merger) used(network string, p netip.Prefix) bool {
	for k, sub := range m.out.subnets.from(SubnetKey{network, p}) {
		if k.Network != network || !p.Contains(k.Prefix.Addr()) {
			break
		}
		if sub.State != SubnetFree {
			return true
		}
	}
	return false
}
