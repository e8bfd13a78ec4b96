package holder

import (
	"cmp"
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"time"

	"stellar.io/stellar/ipam"
	"stellar.io/stellar/raftstore/journal"
)

// merged is what the holder starts with.
type merged struct {
	leases  []*lease         // at most one for each address, at most one held for each owner
	changes []journal.Record // what makes the journal say the same
	blocked []netip.Addr     // carried by interfaces, but by nobody's right: never handed out
	err     error            // contradictions, joined
}

// merger brings three witnesses together. The kernel beats the journal: what an
// interface carries is in use, whatever is written. The journal beats the replica:
// it was written first. What only the replica knows is taken over as it is, held or
// released: it was in a journal that was lost, or the agent's next look at the
// containers releases it. It is pure but for the records' time.
type merger struct {
	subnet netip.Prefix
	now    time.Time
	byAddr map[netip.Addr]*lease
	owners map[ipam.Owner]*lease
	dirty  map[netip.Addr]bool // differs from the journal
	merged
}

func merge(subnet ipam.Subnet, records []journal.Record, live []Live, have map[netip.Addr]ipam.Lease, now time.Time) merged {
	m := &merger{
		subnet: subnet.Prefix, now: now, byAddr: make(map[netip.Addr]*lease),
		owners: make(map[ipam.Owner]*lease), dirty: make(map[netip.Addr]bool),
	}
	m.fromJournal(records)
	m.fromKernel(live)
	m.fromReplica(have)
	for _, a := range slices.SortedFunc(maps.Keys(m.byAddr), netip.Addr.Compare) {
		l := m.byAddr[a]
		at, ok := have[a]
		if ok && at.State != ipam.Cooling && at.Owner == l.owner {
			l.confirmed, l.spent = true, true
		}
		m.leases = append(m.leases, l)
		if m.dirty[a] {
			op := journal.OpBind
			if !l.held {
				op = journal.OpRelease
			}
			m.changes = append(m.changes, l.record(op, subnet.Fence()))
		}
	}
	return m.merged
}

// fromJournal takes what the journal says. Leases of a subnet that the node no
// longer holds end here.
func (m *merger) fromJournal(records []journal.Record) {
	var leases []journal.Record
	for _, r := range records {
		switch {
		case r.Op != journal.OpBind && r.Op != journal.OpRelease:
		case !m.subnet.Contains(r.Addr):
			m.changes = append(m.changes, journal.Record{Op: journal.OpFree, Addr: r.Addr})
		default:
			leases = append(leases, r)
		}
	}
	// The later of two binds of one owner is the one that counts.
	slices.SortStableFunc(leases, func(a, b journal.Record) int { return -cmp.Compare(a.Request.Seq, b.Request.Seq) })
	for _, r := range leases {
		l := fromRecord(r)
		m.byAddr[l.addr] = l
		if l.held && m.owners[l.owner] != nil {
			m.release(l)
		} else if l.held {
			m.owners[l.owner] = l
		}
	}
}

// fromKernel gives each interface its address.
func (m *merger) fromKernel(live []Live) {
	live = slices.Clone(live)
	// What the journal agrees with goes first, so that it wins a contradiction.
	slices.SortStableFunc(live, func(a, b Live) int {
		return cmp.Or(boolCompare(m.agrees(b), m.agrees(a)), a.Addr.Compare(b.Addr))
	})
	carried := make(map[netip.Addr]ipam.Owner)
	carries := make(map[ipam.Owner]netip.Addr)
	for _, v := range live {
		who, taken := carried[v.Addr]
		has, second := carries[v.Owner]
		switch {
		case !m.subnet.Contains(v.Addr):
			m.complain("%s carries %s: %w", v.Owner, v.Addr, ipam.ErrOutOfSubnet)
		case taken && who == v.Owner: // told twice
		case taken:
			m.complain("%s and %s both carry %s: %w", who, v.Owner, v.Addr, ErrConflict)
		case second:
			m.complain("%s carries %s and %s: %w", v.Owner, has, v.Addr, ErrConflict)
			carried[v.Addr] = v.Owner
			m.block(v.Addr)
		default:
			carried[v.Addr], carries[v.Owner] = v.Owner, v.Addr
			m.adopt(v)
		}
	}
}

func boolCompare(a, b bool) int {
	switch {
	case a == b:
		return 0
	case a:
		return 1
	}
	return -1
}

func (m *merger) agrees(v Live) bool {
	l := m.byAddr[v.Addr]
	return l != nil && l.owner == v.Owner
}

// adopt lets the owner hold the address that it carries.
func (m *merger) adopt(v Live) {
	l := m.byAddr[v.Addr]
	if l == nil || l.owner != v.Owner {
		if l != nil && l.held {
			delete(m.owners, l.owner)
		}
		l = &lease{addr: v.Addr, owner: v.Owner, since: m.now}
		m.byAddr[v.Addr] = l
	}
	if old := m.owners[v.Owner]; old != nil && old != l {
		m.release(old)
	}
	if !l.held {
		l.held = true
		m.dirty[v.Addr] = true
	}
	l.attached = true
	m.owners[v.Owner] = l
}

// block keeps an address from being handed out without giving it to anybody.
func (m *merger) block(a netip.Addr) {
	if l := m.byAddr[a]; l != nil && l.held {
		delete(m.owners, l.owner)
		m.release(l)
	}
	m.blocked = append(m.blocked, a)
}

// fromReplica takes over what only the replica knows.
func (m *merger) fromReplica(have map[netip.Addr]ipam.Lease) {
	for _, a := range slices.SortedFunc(maps.Keys(have), netip.Addr.Compare) {
		r := have[a]
		if m.byAddr[a] != nil {
			continue
		}
		l := &lease{
			addr: a, owner: r.Owner, static: r.Static, hostname: r.Hostname, since: m.now,
			held: r.State != ipam.Cooling && m.owners[r.Owner] == nil,
		}
		if l.held {
			m.owners[r.Owner] = l
		}
		m.byAddr[a], m.dirty[a] = l, true
	}
}

// release turns a held lease into a released one.
func (m *merger) release(l *lease) {
	l.held, l.attached = false, false
	m.dirty[l.addr] = true
}

func (m *merger) complain(format string, args ...any) {
	m.err = errors.Join(m.err, fmt.Errorf(format, args...))
}
