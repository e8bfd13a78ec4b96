package holder

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net/netip"

	"stellar.io/stellar/ipam"
	"stellar.io/stellar/raftstore"
	"stellar.io/stellar/raftstore/journal"
)

// Reserve keeps an address from being handed out. It needs a leader. It returns
// ipam.ErrAddressTaken when somebody has the address or a command on it is
// unresolved, ipam.ErrOutOfSubnet, or ipam.ErrAddressReserved for the addresses that
// are reserved by Stellar itself. After an error that wraps
// raftstore.ErrUnknownOutcome the address stays reserved until the outcome is known.
func (h *Holder) Reserve(ctx context.Context, a netip.Addr, reason string) error {
	if err := h.reserve(ctx, a, reason); err != nil {
		return fmt.Errorf("reserve %s: %w", a, err)
	}
	return nil
}

func (h *Holder) reserve(ctx context.Context, a netip.Addr, reason string) error {
	h.mu.Lock()
	err := errors.Join(h.usable(), h.halted)
	if l := h.leases[a]; err == nil && l != nil && l.flight != nil {
		err = fmt.Errorf("%w: %w", ipam.ErrAddressTaken, ErrUnresolved)
	}
	if err == nil {
		err = h.picker.Reserve(a)
	}
	if err != nil {
		h.mu.Unlock()
		return err
	}
	h.reserving[a]++
	h.kept[a] = true
	h.mu.Unlock()
	defer h.wake()

	f := &flight{reserves: a}
	if f.env.Request, err = h.seq.next(); err == nil {
		f.env.Commands = []ipam.Command{ipam.ReserveAddress{
			Network: h.fence.Subnet.Network, Prefix: netip.PrefixFrom(a, a.BitLen()),
			Reason: reason, Node: h.fence.Node, Epoch: h.fence.Epoch,
		}}
		err = h.proposeOne(ctx, f.env)
	}
	if err == nil {
		err = h.note(journal.Record{Op: journal.OpReserve, Prefix: netip.PrefixFrom(a, a.BitLen()), Reason: reason})
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	if errors.Is(err, raftstore.ErrUnknownOutcome) {
		h.flights = append(h.flights, f) // its end takes the address out of reserving
		return err
	}
	h.unreserving(a)
	return err
}

// unreserving ends what reserve began. The caller holds h.mu.
func (h *Holder) unreserving(a netip.Addr) {
	if h.reserving[a]--; h.reserving[a] <= 0 {
		delete(h.reserving, a)
	}
	h.recheck = true
}

// Unreserve ends the operator's reservation of an address. It needs a leader, and
// returns ipam.ErrReservationNotFound when there is none.
func (h *Holder) Unreserve(ctx context.Context, a netip.Addr) error {
	h.mu.Lock()
	err := errors.Join(h.usable(), h.halted)
	h.mu.Unlock()
	p := netip.PrefixFrom(a, a.BitLen())
	if err == nil {
		err = h.proposeOne(ctx, ipam.Envelope{Commands: []ipam.Command{ipam.UnreserveAddress{
			Network: h.fence.Subnet.Network, Prefix: p, Node: h.fence.Node, Epoch: h.fence.Epoch,
		}}})
	}
	if err == nil {
		err = h.note(journal.Record{Op: journal.OpUnreserve, Prefix: p})
	}
	if err != nil {
		return fmt.Errorf("unreserve %s: %w", a, err)
	}
	h.wake()
	return nil
}

// proposeOne proposes an envelope of one command, also past a change of leadership,
// and returns its refusal too.
func (h *Holder) proposeOne(ctx context.Context, env ipam.Envelope) error {
	results, err := h.once(ctx, env)
	if err != nil {
		return err
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	h.alone, h.caughtUp, h.recheck = false, true, true
	if err := results[0].Err; fencing(err) {
		h.halt(fmt.Errorf("%w: %w", ErrFenced, err))
	}
	return results[0].Err
}

// note writes a reservation's record and remembers it.
func (h *Holder) note(r journal.Record) error {
	h.mu.Lock()
	if r.Op == journal.OpReserve {
		h.reserved[r.Prefix.Addr()] = r.Reason
	} else {
		delete(h.reserved, r.Prefix.Addr())
	}
	written := h.journal.Begin(r)
	h.mu.Unlock()
	err := written.Wait(context.Background())
	if err != nil && r.Op == journal.OpUnreserve {
		h.remember([]journal.Record{r})
	}
	return err
}

// remember takes back what the journal did not take: it still has the reservations.
func (h *Holder) remember(ended []journal.Record) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, r := range ended {
		if _, ok := h.reserved[r.Prefix.Addr()]; !ok {
			h.reserved[r.Prefix.Addr()] = r.Reason
		}
	}
}

// applyReservations makes the picker's reservations those of the replica. What the
// journal has besides counts until a commit has shown that the replica is up to
// date; what Stellar itself reserves counts always. It returns the records that the
// journal should forget. The caller holds h.mu.
func (h *Holder) applyReservations(replica map[netip.Addr]string) (stale []journal.Record) {
	want := maps.Clone(replica)
	sub := h.cfg.Subnet
	first := sub.Prefix.Addr()
	want[first] = "network address"
	if g := sub.Gateway(); g.IsValid() {
		want[g] = "gateway"
	}
	want[lastAddr(sub.Prefix)] = "broadcast address"
	for a, reason := range h.reserved {
		if _, ok := replica[a]; !ok && h.caughtUp && h.reserving[a] == 0 {
			stale = append(stale, journal.Record{Op: journal.OpUnreserve, Prefix: netip.PrefixFrom(a, a.BitLen()), Reason: reason})
			delete(h.reserved, a)
			continue
		}
		want[a] = reason
	}
	for a := range h.blocked {
		want[a] = "carried by an unknown interface"
	}
	for a := range h.kept {
		if _, ok := want[a]; !ok && h.reserving[a] == 0 {
			h.handBack(a)
		}
	}
	for a := range want {
		if !h.kept[a] && h.picker.Reserve(a) == nil {
			h.kept[a] = true // an address in use is tried again when it is free
		}
	}
	return stale
}

// handBack ends a reservation in the picker. What kept the address back before does
// so again. The caller holds h.mu.
func (h *Holder) handBack(a netip.Addr) {
	h.picker.Unreserve(a)
	delete(h.kept, a)
	switch l := h.leases[a]; {
	case l == nil:
	case l.held || l.flight != nil:
		_ = h.picker.Take(a) // it was free a moment ago
	case l.cooling && !h.cooled(l, h.now()):
		l.cooling = false
		h.cool(l)
	}
}

// lastAddr returns the highest address of an IPv4 prefix.
func lastAddr(p netip.Prefix) netip.Addr {
	b := p.Masked().Addr().As4()
	for i := p.Bits(); i < 32; i++ {
		b[i/8] |= 0x80 >> (i % 8)
	}
	return netip.AddrFrom4(b)
}
