package ipam

import (
	"iter"
	"net/netip"
)

// find returns the network and the record of a subnet that has a valid key.
func (t *tables) find(k SubnetKey) (Network, Subnet, bool) {
	n, ok := t.networks.get(k.Network)
	if !ok || !n.hasSubnet(k.Prefix) {
		return Network{}, Subnet{}, false
	}
	sub, ok := t.subnets.get(k)
	return n, sub, ok
}

// reservationsIn yields the reservations that touch a subnet. lengths has those of its
// network by length: only the lengths that there are, are looked for.
func (t *tables) reservationsIn(k SubnetKey, lengths blockCounts) iter.Seq[Reservation] {
	return func(yield func(Reservation) bool) {
		n, ok := t.networks.get(k.Network)
		if !ok || !n.hasSubnet(k.Prefix) {
			return
		}
		for bits := range k.Prefix.Bits() {
			if lengths[bits] == 0 {
				continue
			}
			p := netip.PrefixFrom(k.Prefix.Addr(), bits).Masked()
			r, ok := t.reservations.get(reservationKey{k.Network, p, ReservedOperator})
			if ok && !yield(r) {
				return
			}
		}
		for rk, r := range t.reservations.from(reservationKey{Network: k.Network, Prefix: k.Prefix}) {
			if rk.Network != k.Network || !k.Prefix.Contains(rk.Prefix.Addr()) || !yield(r) {
				return
			}
		}
	}
}
