package ipam

import (
	"errors"
	"fmt"
	"maps"
)

// Check returns nil, or an error that wraps ErrInvariant and names the first
// thing in the state that cannot be. It reads the whole state.
func (s *State) Check() error {
	if err := s.tables.check(); err != nil {
		return fmt.Errorf("%w: %w", ErrInvariant, err)
	}
	if err := s.checkDerived(); err != nil {
		return fmt.Errorf("%w: %w", ErrInvariant, err)
	}
	return nil
}

// checkDerived compares what is worked out from the tables with a fresh account.
func (s *State) checkDerived() error {
	active := 0
	usage := make(map[SubnetKey]Usage, len(s.usage))
	fresh := State{tables: s.tables, derived: newDerived()}
	for k, sub := range s.subnets.all() {
		if sub.State != SubnetFree {
			usage[k] = s.emptyUsage(k)
		}
	}
	for k := range s.byNode.all() {
		if sub, ok := s.subnets.get(k.SubnetKey); !ok || sub.State == SubnetFree || sub.Node != k.Node {
			return fmt.Errorf("%s is listed as a subnet of %s", k.SubnetKey, k.Node.Short())
		}
	}
	if s.byNode.len() != len(usage) {
		return fmt.Errorf("%d subnets are some node's, %d are listed", len(usage), s.byNode.len())
	}
	fresh.usage, fresh.netNames = usage, s.netNames
	var at subnetCursor
	for k, r := range s.leases.all() {
		if r.State.active() {
			active++
			if has, ok := s.byOwner[r.ownerKey()]; !ok || has != k {
				return fmt.Errorf("%s has two addresses, %s and %s", r.owner(), uintToAddr(k.Addr), uintToAddr(has.Addr))
			}
		}
		fresh.countLease(at.subnet(s, k), r.State, 1)
	}
	if active != len(s.byOwner) {
		return fmt.Errorf("%d leases are held, by %d owners", active, len(s.byOwner))
	}
	if !maps.Equal(usage, s.usage) {
		return errors.New("usage of the subnets is miscounted")
	}
	return s.checkIndexes()
}

// subnetCursor finds the subnets of leases that come in order.
type subnetCursor struct {
	key   SubnetKey
	net   uint32
	first uint32
	last  uint32
	valid bool
}

func (c *subnetCursor) subnet(s *State, k leaseKey) SubnetKey {
	if !c.valid || k.Net != c.net || k.Addr < c.first || k.Addr > c.last {
		c.key = s.leaseSubnet(k)
		c.net, c.first, c.last, c.valid = k.Net, addrToUint(c.key.Prefix.Addr()), addrToUint(lastAddr(c.key.Prefix)), true
	}
	return c.key
}

// checkIndexes compares the small parts of derived with a fresh account.
func (s *State) checkIndexes() error {
	members := 0
	for id, n := range s.nodes.all() {
		if n.Removed {
			continue
		}
		members++
		if s.byName[n.Name] != id {
			return fmt.Errorf("two nodes are called %s", n.Name)
		}
	}
	if members != len(s.byName) {
		return fmt.Errorf("%d members have %d names", members, len(s.byName))
	}
	fresh := State{derived: newDerived()}
	for k := range s.reservations.all() {
		fresh.countBlock(k, 1)
	}
	if !maps.Equal(fresh.blocks, s.blocks) {
		return errors.New("reservations are miscounted")
	}
	for id, r := range s.requests.all() {
		w := fresh.windows[id.Node]
		w.requests++
		w.results += int(r.Count)
		fresh.windows[id.Node] = w
	}
	if !maps.Equal(fresh.windows, s.windows) {
		return errors.New("remembered requests are miscounted")
	}
	return nil
}
