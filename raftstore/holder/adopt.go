package holder

import (
	"cmp"
	"context"
	"fmt"
	"net/netip"
	"slices"

	"stellar.io/stellar/internal/failpoint"
	"stellar.io/stellar/ipam"
	"stellar.io/stellar/raftstore/journal"
)

// Adopt brings together what the interfaces in the kernel carry, the journal and the
// replica, writes the result to the journal and opens the holder. Call it once, with
// all interfaces of the subnet, when the replica has caught up if a leader can be
// reached at all. With a new journal (the first start, or it was lost) it needs a
// leader, for the replica is then all that is known of the leases without an
// interface. Released addresses begin to cool anew.
//
// An error that wraps ErrConflict or ipam.ErrOutOfSubnet reports interfaces that
// contradict each other or lie outside the subnet; the holder is open nevertheless.
// After any other error it is not, and Adopt may be called again.
func (h *Holder) Adopt(ctx context.Context, live []Live) error {
	h.mu.Lock()
	rec, closed := h.recovered, h.closed
	h.mu.Unlock()
	switch {
	case closed:
		return ErrClosed
	case rec == nil:
		return ErrAdopted
	}
	if rec.Created {
		if err := h.confirmSubnet(ctx); err != nil {
			return fmt.Errorf("adopt with a new journal: %w", err)
		}
	}
	have, reserved := h.replica()
	m := merge(h.cfg.Subnet, rec.Records, live, have, h.cfg.Clock.Now())
	if err := h.nameBinds(&m); err != nil {
		return fmt.Errorf("adopt: %w", err)
	}
	if err := failpoint.Err(failpoint.HolderMerged); err != nil {
		return fmt.Errorf("adopt: %w", err)
	}
	if err := h.journal.Append(ctx, m.changes...); err != nil {
		return fmt.Errorf("adopt: %w", err)
	}
	failpoint.Hit(failpoint.HolderAdopted)
	h.mu.Lock()
	h.install(m, rec.Records)
	h.applyReservations(reserved)
	h.recovered = nil
	h.mu.Unlock()
	h.wake()
	if m.err != nil {
		return fmt.Errorf("adopt: %w", m.err)
	}
	return nil
}

// confirmSubnet lets the replica catch up and proves that the subnet is still ours.
func (h *Holder) confirmSubnet(ctx context.Context) error {
	results, err := h.cfg.Store.Propose(ctx, ipam.Envelope{Commands: []ipam.Command{
		ipam.ClaimSubnet{Node: h.cfg.Node, Network: h.cfg.Subnet.Network},
	}})
	switch {
	case err != nil:
		return err
	case results[0].Err != nil:
		return results[0].Err
	case results[0].Subnet != h.cfg.Subnet.Prefix || results[0].Epoch != h.cfg.Subnet.Epoch:
		return fmt.Errorf("%w: it holds %s at %s", ErrFenced, results[0].Subnet, results[0].Epoch)
	}
	return nil
}

// nameBinds gives the leases that the journal did not know a request id. Those that
// are committed get one too: of two binds of one owner the journal counts the later.
func (h *Holder) nameBinds(m *merged) error {
	byAddr := make(map[netip.Addr]*lease)
	for _, l := range m.leases {
		byAddr[l.addr] = l
	}
	for i, r := range m.changes {
		l := byAddr[r.Addr]
		if r.Op != journal.OpBind || l.request != (ipam.RequestID{}) {
			continue
		}
		id, err := h.seq.next()
		if err != nil {
			return err
		}
		l.request, l.spent = id, l.confirmed
		m.changes[i].Request = id
	}
	return nil
}

// install puts the merged leases in place. The caller holds h.mu.
func (h *Holder) install(m merged, records []journal.Record) {
	var last *lease
	flights := make(map[ipam.RequestID]*flight)
	for _, l := range m.leases {
		h.put(l)
		if l.held {
			h.owners[l.owner] = l
			l.attachedAt = h.now()
			if last == nil || l.since.After(last.since) {
				last = l
			}
		}
		_ = h.picker.Take(l.addr) // nothing is taken twice; a reservation comes later
		// The process that wrote an unconfirmed bind may have proposed it, with others
		// under the same id. However little of that is left, the id is used up once.
		if !l.confirmed && l.request != (ipam.RequestID{}) && !l.spent {
			f := flights[l.request]
			if f == nil {
				f = &flight{env: ipam.Envelope{Request: l.request}}
				flights[l.request] = f
				h.flights = append(h.flights, f)
			}
			f.binds = append(f.binds, binding{l, len(f.env.Commands)})
			f.env.Commands = append(f.env.Commands, l.bindCommand(h.fence))
			f.leases = append(f.leases, l)
			l.flight = f // so that it does not begin to cool
		}
		h.cool(l)
	}
	slices.SortFunc(h.flights, func(a, b *flight) int { return cmp.Compare(a.env.Request.Seq, b.env.Request.Seq) })
	for _, a := range m.blocked {
		h.blocked[a] = true
	}
	if last != nil {
		h.picker.StartAfter(last.addr)
	}
	for _, r := range records {
		if r.Op == journal.OpReserve && r.Prefix.IsSingleIP() {
			h.reserved[r.Prefix.Addr()] = r.Reason
		}
	}
}

// replica returns what the replica has of the subnet.
func (h *Holder) replica() (leases map[netip.Addr]ipam.Lease, reserved map[netip.Addr]string) {
	leases, reserved = make(map[netip.Addr]ipam.Lease), make(map[netip.Addr]string)
	h.cfg.Store.View(func(s *ipam.State) {
		for l := range s.Leases(h.fence.Subnet) {
			leases[l.Addr] = l
		}
		for r := range s.Reservations(h.fence.Subnet) {
			first, last := h.fence.Subnet.Prefix.Addr(), r.Prefix
			if r.Prefix.Bits() > h.fence.Subnet.Prefix.Bits() {
				first = r.Prefix.Addr()
			}
			for a := first; last.Contains(a) && h.fence.Subnet.Prefix.Contains(a); a = a.Next() {
				reserved[a] = r.Reason
			}
		}
	})
	return leases, reserved
}
