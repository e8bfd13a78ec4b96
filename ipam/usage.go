package ipam

import "net/netip"

// Usage counts the addresses of a subnet that is held or quarantined; it is zero
// for any other.
func (s *State) Usage(k SubnetKey) Usage {
	u := s.usage[k]
	u.Free = u.Total - u.Used - u.Cooling - u.Reserved
	return u
}

// emptyUsage counts what a subnet has without its leases. Reservations may
// overlap; an address counts once.
func (s *State) emptyUsage(k SubnetKey) Usage {
	u := Usage{Total: 1 << (32 - k.Prefix.Bits())}
	end := -1 // offset of the last address counted so far
	base := addrToUint(k.Prefix.Addr())
	for r := range s.Reservations(k) {
		if r.Prefix.Bits() <= k.Prefix.Bits() {
			u.Reserved = u.Total
			return u
		}
		first := int(addrToUint(r.Prefix.Addr()) - base)
		last := first + 1<<(32-r.Prefix.Bits()) - 1
		if first = max(first, end+1); first <= last {
			u.Reserved += last - first + 1
			end = last
		}
	}
	return u
}

// recount makes the usage of a subnet anew after its reservations have changed.
func (s *State) recount(k SubnetKey) {
	old, ok := s.usage[k]
	if !ok {
		return
	}
	u := s.emptyUsage(k)
	u.Used, u.Cooling = old.Used, old.Cooling
	s.usage[k] = u
}

// countLease adds n leases of the given state to a subnet's usage.
func (s *State) countLease(k SubnetKey, state LeaseState, n int) {
	u := s.usage[k]
	if state.active() {
		u.Used += n
	} else {
		u.Cooling += n
	}
	s.usage[k] = u
}

// blockCounts counts reservations by prefix length, so that the lookup of an
// address tries only the lengths that there are.
type blockCounts [33]int

// countBlock adds n reservations of k's size to those of its network.
func (s *State) countBlock(k reservationKey, n int) {
	b := s.blocks[k.Network]
	b[k.Prefix.Bits()] += n
	if b == (blockCounts{}) {
		delete(s.blocks, k.Network)
		return
	}
	s.blocks[k.Network] = b
}

// reserved returns the largest reservation that covers all of p.
func (s *State) reserved(network string, p netip.Prefix) (Reservation, bool) {
	counts, ok := s.blocks[network]
	if !ok {
		return Reservation{}, false
	}
	for bits := range p.Bits() + 1 {
		if counts[bits] == 0 {
			continue
		}
		block := netip.PrefixFrom(p.Addr(), bits).Masked()
		from := reservationKey{Network: network, Prefix: block}
		for k, r := range s.reservations.from(from) {
			if k.Network == network && k.Prefix == block {
				return r, true
			}
			break
		}
	}
	return Reservation{}, false
}
