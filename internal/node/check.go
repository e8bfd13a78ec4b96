package node

import (
	"fmt"
	"net/netip"

	"stellar.io/stellar/api"
	"stellar.io/stellar/ipam"
	"stellar.io/stellar/netsetup"
	"stellar.io/stellar/raftstore/holder"
)

// comparison holds the journal, the replica, the kernel and the containers
// against each other. It changes nothing.
type comparison struct{ report api.IpamReport }

func (c *comparison) problem(kind string, a netip.Addr, o ipam.Owner, releasable bool, message string) {
	p := api.IpamProblem{Kind: kind, Node: c.report.Node, Address: a, Message: message, Releasable: releasable}
	if o != (ipam.Owner{}) {
		p.Owner = owner(o)
	}
	c.report.Problems = append(c.report.Problems, p)
}

func (c *comparison) run(held []holder.Held, replica map[netip.Addr]ipam.Lease, endpoints []netsetup.Endpoint, exists func(ipam.Owner) (bool, error)) {
	inJournal := make(map[netip.Addr]ipam.Owner, len(held))
	carried := make(map[netip.Addr]ipam.Owner, len(endpoints))
	for _, e := range endpoints {
		if other, twice := carried[e.Addr]; twice {
			c.problem("doubled", e.Addr, e.Owner, false, fmt.Sprintf("two interfaces carry the address: those of %s and %s", other, e.Owner))
		}
		carried[e.Addr] = e.Owner
	}
	for _, h := range held {
		c.report.Checked++
		inJournal[h.Addr] = h.Owner
		link, up := carried[h.Addr]
		l, replicated := replica[h.Addr]
		there, err := exists(h.Owner)
		switch {
		case err != nil && !up:
			c.problem("unproven", h.Addr, h.Owner, false, fmt.Sprintf("held by %s, and it cannot be told whether that exists: %v", h.Owner, err))
		case err == nil && !there && !up:
			c.problem("leaked", h.Addr, h.Owner, true, fmt.Sprintf("held by %s, which does not exist", h.Owner))
		case up && link != h.Owner:
			c.problem("doubled", h.Addr, h.Owner, false, fmt.Sprintf("held by %s and carried by %s", h.Owner, link))
		case !replicated && !h.Provisional:
			c.problem("unreplicated", h.Addr, h.Owner, false, "in the journal, not in the replicated state")
		case replicated && l.State != ipam.Cooling && l.Owner != h.Owner:
			c.problem("disputed", h.Addr, h.Owner, false, fmt.Sprintf("the replicated state says %s", l.Owner))
		}
	}
	for _, e := range endpoints {
		if _, ok := inJournal[e.Addr]; !ok {
			c.problem("orphaned", e.Addr, e.Owner, false, fmt.Sprintf("%s carries the address, nobody holds it", e.HostIfname))
		}
	}
	for a, l := range replica {
		if _, ok := inJournal[a]; !ok && l.State != ipam.Cooling {
			c.problem("forgotten", a, l.Owner, true, fmt.Sprintf("replicated as %s by %s, not in the journal", l.State, l.Owner))
		}
	}
}
