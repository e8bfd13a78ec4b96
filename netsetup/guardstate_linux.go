package netsetup

import (
	"encoding/binary"
	"fmt"
	"net/netip"
	"slices"

	"github.com/google/nftables"
	"github.com/google/nftables/userdata"
)

// guardState is what makes one version of the tables recognisable.
type guardState struct {
	rules    []string // family, flags of the table, handle
	parts    map[guardPart]bool
	elements map[string]bool
	nodes    []string
}

// read returns the state of our tables as the kernel has them.
func (g *guard) read() (*guardState, error) {
	c, err := g.nftables()
	if err != nil {
		return nil, err
	}
	s := &guardState{parts: make(map[guardPart]bool), elements: make(map[string]bool)}
	for _, family := range g.families() {
		if err := s.readFamily(c, family, g.setFamily()); err != nil {
			return nil, err
		}
	}
	slices.Sort(s.rules)
	slices.Sort(s.nodes)
	return s, nil
}

func (s *guardState) readFamily(c *nftables.Conn, family, setFamily nftables.TableFamily) error {
	tables, err := c.ListTablesOfFamily(family)
	if err != nil {
		return fmt.Errorf("list tables: %w", err)
	}
	i := slices.IndexFunc(tables, func(t *nftables.Table) bool { return t.Name == filterTable })
	if i < 0 {
		return nil
	}
	t := tables[i]
	works := t.Flags == 0 // ours are made without; the one that can come later is dormant
	s.parts[guardPart{family: family}] = works
	chains, err := c.ListChainsOfTableFamily(family)
	if err != nil {
		return fmt.Errorf("list chains: %w", err)
	}
	for _, ch := range chains {
		if ch.Table.Name != filterTable {
			continue
		}
		s.parts[chainPart(family, ch)] = works
		list, err := c.GetRules(t, ch)
		if err != nil {
			return fmt.Errorf("list rules: %w", err)
		}
		for _, r := range list {
			s.rules = append(s.rules, fmt.Sprint(family, t.Flags, ch.Name, r.Handle))
			what, _ := userdata.GetString(r.UserData, userdata.TypeComment) // "": not ours
			s.parts[guardPart{family: family, chain: ch.Name, rule: what}] = works
		}
	}
	sets, err := c.GetSets(t)
	if err != nil {
		return fmt.Errorf("list sets: %w", err)
	}
	for _, set := range sets {
		elements, err := c.GetSetElements(set)
		if err != nil {
			return fmt.Errorf("list set: %w", err)
		}
		for _, e := range elements {
			switch {
			case set.Name == endpointSet && family == setFamily:
				s.elements[string(e.Key)] = true
			case set.Name == nodeSet:
				s.nodes = append(s.nodes, string(e.Key))
			}
		}
	}
	return nil
}

// addrPorts are the elements of the set of nodes.
func (s *guardState) addrPorts() (ports []netip.AddrPort) {
	for _, key := range s.nodes {
		if len(key) == 8 {
			ports = append(ports, netip.AddrPortFrom(netip.AddrFrom4([4]byte([]byte(key[:4]))), binary.BigEndian.Uint16([]byte(key[4:]))))
		}
	}
	return ports
}

// same compares all but the elements, which have their own ways.
func (s *guardState) same(o *guardState) bool {
	return s != nil && slices.Equal(s.rules, o.rules) && slices.Equal(s.nodes, o.nodes)
}
