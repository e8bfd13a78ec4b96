package holder

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"stellar.io/stellar/internal/failpoint"
	"stellar.io/stellar/ipam"
	"stellar.io/stellar/raftstore"
	"stellar.io/stellar/raftstore/journal"
)

// retryFlights proposes the envelopes of unknown outcome again, oldest first.
func (h *Holder) retryFlights(ctx context.Context) error {
	h.mu.Lock()
	flights := slices.Clone(h.flights)
	h.mu.Unlock()
	for _, f := range flights {
		if err := failpoint.Err(failpoint.HolderFlight); err != nil {
			return err
		}
		// "Not proposed" speaks of this attempt; an earlier one may still be committed.
		results, err := h.attempt(ctx, f.env)
		if err != nil {
			return err
		}
		if err := h.resolve(f, results); err != nil {
			// The plan sees what the replica lacks now.
			h.log.Debug("a change of unknown outcome was refused", "error", err)
		}
	}
	return nil
}

func (h *Holder) attempt(ctx context.Context, env ipam.Envelope) ([]ipam.Result, error) {
	ctx, cancel := h.cfg.Clock.WithTimeout(ctx, h.cfg.ProposalWait)
	defer cancel()
	results, err := h.cfg.Store.Propose(ctx, env)
	if errors.Is(err, raftstore.ErrStopped) {
		h.mu.Lock()
		h.halt(err)
		h.mu.Unlock()
	}
	return results, err
}

// proposeBind lets the replica have a lease that it lacks.
func (h *Holder) proposeBind(ctx context.Context, c change) error {
	h.mu.Lock()
	l := h.leases[c.addr]
	if !c.valid(l) {
		h.mu.Unlock()
		return nil
	}
	f := &flight{leases: []*lease{l}, binds: []binding{{l, len(c.commands) - 1}}, env: ipam.Envelope{Request: l.request, Commands: c.commands}}
	for _, a := range c.others {
		other := h.leases[a]
		if other != nil && (other.op != nil || other.flight != nil) {
			h.mu.Unlock()
			return nil
		}
		if other != nil {
			f.leases = append(f.leases, other)
		}
	}
	if c.yields {
		h.log.Warn("a reservation ends, for the address is in use", "address", c.addr, "owner", l.owner)
		h.recheck = true // the journal's record of it goes when the replica's has gone
	}
	h.launch(f)
	renew := l.fresh()
	h.mu.Unlock()
	return h.fly(ctx, f, renew)
}

// apart divides what is to be bound: many may go together, under a request id of their
// own. Leases whose own request was never answered are proposed with that one again,
// those that share it together; one that makes others yield goes alone.
func (h *Holder) apart(binds []change) (many []change, again [][]change, single []change) {
	h.mu.Lock()
	defer h.mu.Unlock()
	at := make(map[ipam.RequestID]int) // where in again
	for _, c := range binds {
		l := h.leases[c.addr]
		switch {
		case l == nil || len(c.others) > 0 || c.yields:
			single = append(single, c)
		case l.fresh():
			many = append(many, c)
		default:
			i, ok := at[l.request]
			if !ok {
				i, again = len(again), append(again, nil)
				at[l.request] = i
			}
			again[i] = append(again[i], c)
		}
	}
	return many, again, single
}

// fresh reports whether a proposal about the lease needs a request id of its own: the
// lease has none, or it was answered.
func (l *lease) fresh() bool { return l.spent || l.request == (ipam.RequestID{}) }

// proposeTogether proposes changes in one envelope: releases, marks and frees, or binds,
// all of them fresh or all with the same request id.
func (h *Holder) proposeTogether(ctx context.Context, changes []change) error {
	f := &flight{}
	renew := true
	h.mu.Lock()
	for _, c := range changes {
		l := h.leases[c.addr]
		if !c.valid(l) {
			continue
		}
		f.leases = append(f.leases, l)
		f.env.Commands = append(f.env.Commands, c.commands...)
		last := len(f.env.Commands) - 1
		if _, binds := f.env.Commands[last].(ipam.BindLease); binds {
			f.binds = append(f.binds, binding{l, last})
			if !l.fresh() {
				f.env.Request, renew = l.request, false
			}
		}
	}
	h.launch(f)
	h.mu.Unlock()
	if len(f.leases) == 0 {
		return nil
	}
	return h.fly(ctx, f, renew)
}

// valid reports whether the lease is still what the change was made for.
func (c change) valid(l *lease) bool {
	return l != nil && l.op == nil && l.flight == nil && l.owner == c.owner && l.held == c.held
}

// fly proposes a launched flight, under a new id if renew is set.
func (h *Holder) fly(ctx context.Context, f *flight, renew bool) error {
	var err error
	if renew {
		f.env.Request, err = h.seq.next()
	}
	var results []ipam.Result
	if err == nil {
		err = failpoint.Err(failpoint.HolderReplicate)
	}
	if err == nil {
		results, err = h.attempt(ctx, f.env)
		failpoint.Hit(failpoint.HolderReplicated)
	}
	if err == nil {
		return h.resolve(f, results)
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	if errors.Is(err, raftstore.ErrUnknownOutcome) {
		h.flights = append(h.flights, f)
	} else {
		h.landed(f)
	}
	return err
}

// resolve deals with the answer to a flight. It returns a refusal that the next
// round may or may not overcome.
func (h *Holder) resolve(f *flight, results []ipam.Result) error {
	last := results[len(results)-1].Err
	if f.reserves.IsValid() && last == nil {
		c := f.env.Commands[0].(ipam.ReserveAddress)
		if err := h.note(journal.Record{Op: journal.OpReserve, Prefix: c.Prefix, Reason: c.Reason}); err != nil {
			h.log.Debug("reservation is not in the journal", "address", f.reserves, "error", err)
		}
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.alone {
		h.alone = false
		h.log.Info("commits succeed again", "subnet", h.cfg.Subnet.Prefix)
	}
	h.caughtUp = true
	h.landed(f)
	if f.reserves.IsValid() {
		h.unreserving(f.reserves)
	}
	answers := results
	if len(f.binds) > 0 {
		answers = nil
	}
	for _, b := range f.binds {
		l, answer := b.lease, results[b.at]
		l.spent = l.spent || l.request == f.env.Request
		l.confirmed = l.confirmed || answer.Err == nil && l.held
		answers = append(answers, answer)
	}
	var refusal error
	for _, r := range answers {
		switch {
		case r.Err == nil, strangeID(r.Err): // the latter will not be executed any more, if it ever was
		case fencing(r.Err):
			h.halt(fmt.Errorf("%w: %w", ErrFenced, r.Err))
		default:
			refusal = fmt.Errorf("%w: %w", errRefused, r.Err)
		}
	}
	return refusal
}
