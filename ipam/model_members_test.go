package ipam

import (
	"maps"
	"net/netip"

	"pgregory.net/rapid"
)

// The part of the model that is about who is a member and who holds which subnet.

type modelToken struct {
	usedBy  int // 0: nobody
	key     [32]byte
	revoked bool
	expires int64
}

var modelFirst = addrToUint(mustAddr("192.168.0.0"))

// subnet returns the i-th subnet of propPlan.
func modelSubnet(i int) netip.Prefix {
	return netip.PrefixFrom(uintToAddr(modelFirst+64*uint32(i)), 26)
}

func (m *model) register(c RegisterNode) {
	n := m.number(c.Node)
	if m.nodes[n] == "" {
		m.nodes[n], m.names[c.Name] = "member", n
	}
}

// handOut tells that node n was answered the subnet.
func (m *model) handOut(t *rapid.T, n int, p netip.Prefix) {
	has, held := m.subnets[p]
	switch {
	case held && has != n:
		t.Fatalf("%s was given to %d and to %d", p, has, n)
	case held:
		return
	case m.reclaim:
		t.Fatalf("%s was handed out during a re-claim", p)
	}
	for r := range m.reserved {
		if r.Bits() <= p.Bits() && r.Contains(p.Addr()) {
			t.Fatalf("%s was handed out, yet %s is reserved", p, r)
		}
	}
	m.subnets[p] = n
	m.raiseMark(p)
}

func (m *model) raiseMark(p netip.Prefix) {
	m.mark = max(m.mark, int(addrToUint(p.Addr())-modelFirst)/64+1)
}

func (m *model) stepMembers(t *rapid.T, c Command, r Result) {
	switch c := c.(type) {
	case CreateToken:
		if _, ok := m.tokens[c.ID]; ok {
			return
		}
		maps.DeleteFunc(m.tokens, func(_ string, k modelToken) bool { return k.expires+24*3600 <= c.Now })
		m.tokens[c.ID] = modelToken{expires: c.Expires}
	case RevokeToken:
		k := m.tokens[c.ID]
		k.revoked = true
		m.tokens[c.ID] = k
	case DrainNode:
		m.nodes[m.number(c.Node)] = map[bool]string{true: "draining", false: "member"}[c.Drain]
	case RaiseGeneration:
		if c.Generation > m.generation {
			m.generation, m.reclaim = c.Generation, true
		}
	case EndReclaim:
		m.reclaim = false
	case JoinNode:
		m.join(t, c, r)
	case ClaimHeld:
		m.claim(t, c)
	}
}

func (m *model) join(t *rapid.T, c JoinNode, r Result) {
	n := m.number(c.Node)
	k, ok := m.tokens[c.TokenID]
	if !ok || k.revoked || c.Now >= k.expires || k.usedBy != 0 && (k.usedBy != n || k.key != c.KeyHash) {
		t.Fatalf("%+v was accepted, the token is %+v", c, k)
	}
	if m.subnets[r.Subnet] == n && k.usedBy == n {
		return // the same answer again
	}
	if k.usedBy == 0 {
		k.usedBy, k.key = n, c.KeyHash
		m.tokens[c.TokenID] = k
	}
	m.reserveHost(t, c.HostRanges)
	if gone := m.names[c.Replace]; c.Replace != "" && gone != n {
		if m.reclaim || m.nodes[n] != "" {
			t.Fatalf("%+v was accepted, node %d is %q", c, n, m.nodes[n])
		}
		m.nodes[gone] = "removed"
		delete(m.names, c.Replace)
		for p, holder := range m.subnets {
			if holder == gone {
				m.subnets[p] = n
				m.dropLeases(p)
			}
		}
	}
	m.register(c.RegisterNode)
	m.handOut(t, n, r.Subnet)
}

// reserveHost reserves the subnets that a host uses.
func (m *model) reserveHost(t *rapid.T, ranges []netip.Prefix) {
	plan := mustPrefix(propPlan)
	before := maps.Clone(m.reserved)
	for _, r := range ranges {
		if !r.Overlaps(plan) {
			continue
		}
		for p, holder := range m.subnets {
			if p.Overlaps(r) {
				t.Fatalf("a host uses %s, which %d has", r, holder)
			}
		}
		block := plan
		if r.Bits() > plan.Bits() {
			block = netip.PrefixFrom(r.Addr(), min(r.Bits(), 26)).Masked()
		}
		covered := false
		for p := range before {
			covered = covered || p.Bits() <= block.Bits() && p.Contains(block.Addr())
		}
		if !covered {
			m.reserved[block] = true
		}
	}
}

func (m *model) claim(t *rapid.T, c ClaimHeld) {
	n, p := m.number(c.Node), c.Subnet.Prefix
	has, held := m.subnets[p]
	if held && has == n {
		return
	}
	if !m.reclaim && (!held || has != 0) {
		t.Fatalf("%+v was accepted, %s is %d's", c, p, has)
	}
	for i := m.mark; modelSubnet(i) != p && m.mark <= int(addrToUint(p.Addr())-modelFirst)/64; i++ {
		blocked := false
		for r := range m.reserved {
			blocked = blocked || r.Bits() <= 26 && r.Contains(modelSubnet(i).Addr())
		}
		if !blocked {
			m.subnets[modelSubnet(i)] = 0
		}
	}
	m.dropLeases(p)
	m.subnets[p] = n
	m.raiseMark(p)
}
