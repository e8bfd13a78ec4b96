package ipam

import (
	"maps"
	"net/netip"

	gocmp "github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"
)

// model is what the state should hold, kept the simple way: by subnet who holds
// it, by address who has it. It knows nothing of epochs, texts or counters; those
// are Check's part.
type model struct {
	nodes      map[int]string // "member", "draining" or "removed"
	names      map[string]int // of those not removed
	subnets    map[netip.Prefix]int
	mark       int // subnets from this number on were never held
	leases     map[netip.Addr]modelLease
	reserved   map[netip.Prefix]bool // by operators
	tokens     map[string]modelToken
	generation uint64
	reclaim    bool
}

func newModel() *model {
	return &model{
		nodes: map[int]string{}, names: map[string]int{}, subnets: map[netip.Prefix]int{},
		leases: map[netip.Addr]modelLease{}, reserved: map[netip.Prefix]bool{},
		tokens: map[string]modelToken{}, generation: 1,
	}
}

type modelLease struct {
	owner string
	state LeaseState
}

// step tells the model of a command that was accepted, and says what of it
// should have been refused.
func (m *model) step(t *rapid.T, c Command, r Result) {
	held := func(f Fence) {
		if n, ok := m.subnets[f.Subnet.Prefix]; !ok || nodeID(n) != f.Node || m.nodes[n] == "removed" {
			t.Fatalf("%+v was accepted, subnets are %v", c, m.subnets)
		}
	}
	switch c := c.(type) {
	case RegisterNode:
		m.register(c)
	case RemoveNode:
		m.remove(t, c)
	case ClaimSubnet:
		m.handOut(t, m.number(c.Node), r.Subnet)
	case CreateToken, RevokeToken, JoinNode, DrainNode, RaiseGeneration, EndReclaim, ClaimHeld:
		m.stepMembers(t, c, r)
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
	maps.DeleteFunc(m.names, func(_ string, id int) bool { return id == n })
	for p, holder := range m.subnets {
		if holder != n {
			continue
		}
		for a, l := range m.leases {
			if p.Contains(a) && l.state.active() && !c.Force && m.nodes[n] != "removed" {
				t.Fatalf("node %d was removed, yet %s has %s", n, l.owner, a)
			}
		}
		if c.Dead || !c.Force && m.nodes[n] != "removed" {
			m.free(p)
		}
	}
	m.nodes[n] = "removed"
}

func (m *model) free(p netip.Prefix) {
	delete(m.subnets, p)
	m.dropLeases(p)
}

func (m *model) dropLeases(p netip.Prefix) {
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
	got := newModel()
	for _, net := range s.networks.all() {
		got.mark = int(net.NextSubnet)
	}
	for sub := range s.Subnets() {
		if sub.State != SubnetFree {
			got.subnets[sub.Prefix] = m.number(sub.Node)
		}
		for l := range s.Leases(sub.SubnetKey) {
			got.leases[l.Addr] = modelLease{l.Owner.ID, l.State}
		}
	}
	for r := range s.AllReservations() {
		if r.Kind == ReservedOperator {
			got.reserved[r.Prefix] = true
		}
	}
	for n := range s.Nodes() {
		id := m.number(n.ID)
		switch {
		case n.Removed:
			got.nodes[id] = "removed"
			continue
		case n.Draining:
			got.nodes[id] = "draining"
		default:
			got.nodes[id] = "member"
		}
		got.names[n.Name] = id
	}
	for k := range s.Tokens() {
		got.tokens[k.ID] = modelToken{m.number(k.UsedBy), k.KeyHash, k.Revoked, k.Expires}
	}
	if c, ok := s.Cluster(); ok {
		got.generation, got.reclaim = c.Generation, c.Reclaim
	}
	if diff := gocmp.Diff(m, got, append(cmpOptions, gocmp.AllowUnexported(model{}, modelLease{}, modelToken{}))...); diff != "" {
		t.Fatalf("state and model differ (-model +state):\n%s", diff)
	}
}
