package netsetup

import (
	"fmt"
	"net/netip"
	"os"
	"slices"

	"github.com/google/nftables"

	"stellar.io/stellar/ipam"
)

// Guard is what the kernel lacks of the tables that keep containers from speaking
// for others. The zero Guard lacks nothing.
type Guard struct {
	// Missing are tables, chains and rules, as nft(8) names them. What is missing with
	// its table, or its chain, is not listed.
	Missing []string
	// Dropped are the endpoints that are up and for which the set has no element:
	// whatever they send is dropped. None while the table with the set is not complete.
	Dropped []Endpoint
}

// Complete reports whether nothing is lacking.
func (g Guard) Complete() bool { return len(g.Missing)+len(g.Dropped) == 0 }

// Still is what g lacks and a later look lacks, too: an attach and a repair take
// their moment.
func (g Guard) Still(later Guard) Guard {
	g.Missing = slices.DeleteFunc(slices.Clone(g.Missing), func(s string) bool { return !slices.Contains(later.Missing, s) })
	g.Dropped = slices.DeleteFunc(slices.Clone(g.Dropped), func(e Endpoint) bool {
		return !slices.ContainsFunc(later.Dropped, func(l Endpoint) bool { return l.HostIndex == e.HostIndex && l.Addr == e.Addr })
	})
	return g
}

// LookGuard compares the tables of a namespace (-1: the calling thread's) with what
// belongs to the mode, without a Network, and changes nothing. The rules about the
// agents' ports, which the configuration names, are not compared.
func LookGuard(namespace int, mode ipam.Mode) (Guard, error) {
	endpoints, err := Look(namespace)
	if err != nil {
		return Guard{}, err
	}
	_, err = os.Stat("/proc/sys/net/ipv6")
	g := newGuard(namespace, Config{Mode: mode, Network: netip.PrefixFrom(netip.IPv4Unspecified(), 0)}, err == nil)
	have, err := g.read()
	if err != nil {
		return Guard{}, err
	}
	missing, err := g.missing(have)
	if err != nil {
		return Guard{}, err
	}
	var out Guard
	judges := true // the table with the set is complete
	for _, p := range missing {
		judges = judges && p.family != g.setFamily()
		if p == p.table() || have.parts[p.table()] && (p.rule == "" || have.has(p.family, p.chain)) {
			out.Missing = append(out.Missing, p.String())
		}
	}
	if judges {
		out.Dropped = have.dropped(endpoints)
	}
	return out, nil
}

// missing are the parts that the kernel has not, of those that would be written.
func (g *guard) missing(have *guardState) ([]guardPart, error) {
	var want []guardPart
	// What is written into this connection is never sent.
	if err := (rules{guard: g, c: &nftables.Conn{}, parts: &want}).tables(nil); err != nil {
		return nil, err
	}
	return slices.DeleteFunc(want, func(p guardPart) bool { return have.parts[p] }), nil
}

// dropped are the endpoints without an element.
func (s *guardState) dropped(endpoints []Endpoint) (out []Endpoint) {
	type sender struct {
		name string
		addr netip.Addr
	}
	admitted := make(map[sender]bool, len(s.elements))
	for key := range s.elements {
		if name, _, addr, ok := splitKey([]byte(key)); ok {
			admitted[sender{name, addr}] = true
		}
	}
	for _, e := range endpoints {
		if e.Up && !admitted[sender{e.HostIfname, e.Addr}] {
			out = append(out, e)
		}
	}
	return out
}

// has reports whether there is a chain, whatever its hook.
func (s *guardState) has(family nftables.TableFamily, chain string) bool {
	for p, works := range s.parts {
		if works && p.family == family && p.chain == chain && p.rule == "" {
			return true
		}
	}
	return false
}

// guardPart is one table, chain or rule of the guard.
type guardPart struct {
	family nftables.TableFamily
	chain  string // "": the table itself
	hook   string // of a base chain, with type and priority
	rule   string // its comment; "": no rule
}

func chainPart(family nftables.TableFamily, ch *nftables.Chain) guardPart {
	p := guardPart{family: family, chain: ch.Name}
	if ch.Hooknum != nil && ch.Priority != nil {
		p.hook = fmt.Sprint(ch.Type, *ch.Hooknum, *ch.Priority)
	}
	return p
}

func (p guardPart) table() guardPart { return guardPart{family: p.family} }

func (p guardPart) String() string {
	family := map[nftables.TableFamily]string{
		nftables.TableFamilyBridge: "bridge", nftables.TableFamilyIPv4: "ip", nftables.TableFamilyIPv6: "ip6", nftables.TableFamilyARP: "arp",
	}[p.family]
	switch {
	case p.chain == "":
		return "table " + family + " " + filterTable
	case p.rule == "":
		return "chain " + family + " " + filterTable + " " + p.chain
	}
	return fmt.Sprintf("rule %q of chain %s %s %s", p.rule, family, filterTable, p.chain)
}
