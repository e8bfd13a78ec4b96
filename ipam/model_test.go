package ipam

import (
	"maps"
	"net/netip"

	"pgregory.net/rapid"
)

// model is what the state should hold, kept the simple way: by subnet who holds
// it, by address who has it. It knows nothing of epochs, texts or counters; those
// are Check's part.
type model struct {
	nodes    map[int]string // "member" or "removed"
	subnets  map[netip.Prefix]int
	leases   map[netip.Addr]modelLease
	reserved map[netip.Prefix]bool // by operators
}

type modelLease struct {
	owner string
	state LeaseState
}

// step tells the model of a command that was accepted, and says what of it
// should have been refused.
func (m *model) step(t *rapid.T, c Command, r Result) {
	held := func(f Fence) {
		if n, ok := m.subnets[f.Subnet.Prefix]; !ok || nodeID(n) != f.Node || m.nodes[n] != "member" {
			t.Fatalf("%+v was accepted, subnets are %v", c, m.subnets)
		}
	}
	switch c := c.(type) {
	case RegisterNode:
		m.nodes[m.number(c.Node)] = "member"
	case RemoveNode:
		m.remove(t, c)
	case ClaimSubnet:
		n := m.number(c.Node)
		if has, ok := m.subnets[r.Subnet]; ok && has != n {
			t.Fatalf("%s was given to %d and to %d", r.Subnet, has, n)
		}
		if m.reserved[r.Subnet] {
			t.Fatalf("%s was handed out, yet is reserved", r.Subnet)
		}
		m.subnets[r.Subnet] = n
	case ReleaseSubnet:
		m.free(c.Prefix)
	case BindLease:
		held(c.Fence)
		if l, ok := m.leases[c.Addr]; ok && l.state.active() && l.owner != c.Owner.ID {
			t.Fatalf("%s was given to %s and to %s", c.Addr, l.owner, c.Owner.ID)
		}
		for p := range m.reserved {
			if p.Contains(c.Addr) {
				t.Fatalf("%s was bound, yet %s is reserved", c.Addr, p)
			}
		}
		for a, l := range m.leases {
			if a != c.Addr && l.owner == c.Owner.ID && l.state.active() {
				t.Fatalf("%s got %s and has %s", l.owner, c.Addr, a)
			}
		}
		if l := m.leases[c.Addr]; !l.state.active() {
			m.leases[c.Addr] = modelLease{c.Owner.ID, Bound}
		}
	case MarkLease:
		held(c.Fence)
		if l := m.leases[c.Addr]; l.owner != c.Owner.ID || !l.state.active() {
			t.Fatalf("%+v was accepted, the lease is %v", c, l)
		}
		m.leases[c.Addr] = modelLease{c.Owner.ID, c.State}
	case ReleaseLease:
		held(c.Fence)
		if l := m.leases[c.Addr]; l.owner == c.Owner.ID && l.state.active() {
			m.leases[c.Addr] = modelLease{c.Owner.ID, Cooling}
		}
	case FreeLease:
		held(c.Fence)
		if l := m.leases[c.Addr]; l.owner == c.Owner.ID {
			if l.state.active() {
				t.Fatalf("%+v was accepted, the lease is %v", c, l)
			}
			delete(m.leases, c.Addr)
		}
	case ReserveAddress:
		maps.DeleteFunc(m.leases, func(a netip.Addr, l modelLease) bool {
			if c.Prefix.Contains(a) && l.state.active() {
				t.Fatalf("%s was reserved, yet %s has %s", c.Prefix, l.owner, a)
			}
			return c.Prefix.Contains(a)
		})
		m.reserved[c.Prefix] = true
	case UnreserveAddress:
		if !m.reserved[c.Prefix] {
			t.Fatalf("%s was unreserved twice", c.Prefix)
		}
		delete(m.reserved, c.Prefix)
	}
}

func (m *model) remove(t *rapid.T, c RemoveNode) {
	n := m.number(c.Node)
	for p, holder := range m.subnets {
		if holder != n {
			continue
		}
		for a, l := range m.leases {
			if p.Contains(a) && l.state.active() && !c.Force && m.nodes[n] == "member" {
				t.Fatalf("node %d was removed, yet %s has %s", n, l.owner, a)
			}
		}
		if c.Dead || !c.Force && m.nodes[n] == "member" {
			m.free(p)
		}
	}
	m.nodes[n] = "removed"
}

func (m *model) free(p netip.Prefix) {
	delete(m.subnets, p)
	maps.DeleteFunc(m.leases, func(a netip.Addr, _ modelLease) bool { return p.Contains(a) })
}

func (m *model) number(id NodeID) int {
	for _, n := range propNodes {
		if nodeID(n) == id {
			return n
		}
	}
	return 0
}

// compare tells whether state and model hold the same.
func (m *model) compare(t *rapid.T, s *State) {
	subnets, leases := map[netip.Prefix]int{}, map[netip.Addr]modelLease{}
	reserved := map[netip.Prefix]bool{}
	for sub := range s.Subnets() {
		if sub.State != SubnetFree {
			subnets[sub.Prefix] = m.number(sub.Node)
		}
		for l := range s.Leases(sub.SubnetKey) {
			leases[l.Addr] = modelLease{l.Owner.ID, l.State}
		}
	}
	for r := range s.AllReservations() {
		if r.Kind == ReservedOperator {
			reserved[r.Prefix] = true
		}
	}
	nodes := map[int]string{}
	for n := range s.Nodes() {
		nodes[m.number(n.ID)] = map[bool]string{true: "removed", false: "member"}[n.Removed]
	}
	if !maps.Equal(subnets, m.subnets) || !maps.Equal(leases, m.leases) ||
		!maps.Equal(reserved, m.reserved) || !maps.Equal(nodes, m.nodes) {
		t.Fatalf("state has %v %v %v %v\nmodel has %v %v %v %v",
			nodes, subnets, leases, reserved, m.nodes, m.subnets, m.leases, m.reserved)
	}
}
