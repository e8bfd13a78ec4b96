package holder

import (
	"context"
	"errors"
	"fmt"
	"time"

	"stellar.io/stellar/ipam"
)

// bindOp is a Bind at work. It goes on when its caller leaves.
type bindOp struct {
	lease *lease
	again bool      // the owner had this address before, and it has not gone to another since
	begin time.Time // CommitWait counts from here
	at    int       // which of its group's commands binds it; -1: it is not proposed
	done  chan struct{}
	held  Held  // set before done is closed
	err   error // likewise
}

// errNext: the picked address was refused, the next one may do.
var errNext = errors.New("picked address was refused")

// maxPicks bounds how many picked addresses in a row may be refused.
const maxPicks = 16

// Bind gives the owner an address: the one it has, r.Want, or the one that was not
// used for longest. It returns when the lease is in the journal and either committed
// or, after Config.CommitWait, provisional. It may be repeated after any error, that
// of ctx included. Refusals: ipam.ErrAddressTaken (with ErrUnresolved when it may
// pass), ipam.ErrAddressReserved, ipam.ErrOutOfSubnet, ipam.ErrNoAvailableIP,
// ipam.ErrOwnerHasAddress (it has another than r.Want), ipam.ErrInvalid; also
// ErrNotAdopted, ErrFenced, raftstore.ErrStopped, ErrClosed, journal.ErrFailed.
func (h *Holder) Bind(ctx context.Context, r BindRequest) (Held, error) {
	held, err := h.bindFor(ctx, r)
	if err != nil {
		return Held{}, fmt.Errorf("bind %s: %w", r.Owner, err)
	}
	return held, nil
}

func (h *Holder) bindFor(ctx context.Context, r BindRequest) (Held, error) {
	if err := h.validate(r); err != nil {
		return Held{}, err
	}
	var refused error
	begin := h.cfg.Clock.Now()
	for range maxPicks {
		held, op, err := h.claim(ctx, r)
		if op == nil {
			return held, err
		}
		select {
		case <-op.done:
		case <-ctx.Done():
			return Held{}, context.Cause(ctx)
		}
		if !errors.Is(op.err, errNext) {
			if op.err == nil {
				h.log.Debug("address bound", "container", r.Owner.ID, "address", op.held.Addr, "provisional", op.held.Provisional, "took", h.cfg.Clock.Now().Sub(begin))
			}
			return op.held, op.err
		}
		refused = op.err
	}
	return Held{}, fmt.Errorf("%d addresses in a row: %w", maxPicks, refused)
}

// validate returns ipam.ErrInvalid for what the state would always refuse.
func (h *Holder) validate(r BindRequest) error {
	return ipam.BindLease{Owner: r.Owner, Hostname: r.Hostname}.Validate()
}

// claim returns the lease that the owner has, or starts an operation that gets one.
func (h *Holder) claim(ctx context.Context, r BindRequest) (Held, *bindOp, error) {
	for {
		h.mu.Lock()
		held, op, wait, err := h.tryClaim(r)
		departs := op != nil && h.queue(op)
		h.mu.Unlock()
		if departs {
			h.cfg.Clock.Go(h.bindGroup)
		}
		if wait == nil {
			return held, op, err
		}
		select {
		case <-wait:
		case <-ctx.Done():
			return Held{}, nil, context.Cause(ctx)
		}
	}
}

// tryClaim finds or takes an address. wait is set when another operation works on
// the owner's lease. The caller holds h.mu.
func (h *Holder) tryClaim(r BindRequest) (held Held, op *bindOp, wait <-chan struct{}, err error) {
	if err := h.usable(); err != nil {
		return Held{}, nil, nil, err
	}
	if l := h.owners[r.Owner]; l != nil {
		switch {
		case l.op != nil:
			return Held{}, nil, l.op, nil
		case r.Want.IsValid() && r.Want != l.addr:
			return Held{}, nil, nil, fmt.Errorf("%s: %w", l.addr, ipam.ErrOwnerHasAddress)
		case l.doubtful && h.journal.Failed() != nil:
			return Held{}, nil, nil, h.journal.Failed()
		}
		l.doubtful = false
		return l.view(), nil, nil, nil
	}
	if h.halted != nil {
		return Held{}, nil, nil, h.halted
	}
	l, wait, err := h.takeAddress(r)
	if l == nil {
		return Held{}, nil, wait, err
	}
	l.owner, l.static, l.hostname = r.Owner, r.Want.IsValid(), r.Hostname
	l.held, l.attached, l.confirmed, l.cooling, l.unwritten, l.doubtful = true, false, false, false, false, false
	l.since = h.cfg.Clock.Now()
	again := h.leases[l.addr] == l
	if !again {
		l.before = h.leases[l.addr]
	}
	h.owners[r.Owner] = l
	h.put(l)
	h.begin(l)
	l.binding = true
	return Held{}, &bindOp{lease: l, again: again, begin: l.since, at: -1, done: l.op}, nil, nil
}

// takeAddress takes an address out of the picker. The caller holds h.mu.
func (h *Holder) takeAddress(r BindRequest) (l *lease, wait <-chan struct{}, err error) {
	// An owner that comes back gets what it had, even while a command about it and
	// that address is unresolved: it changes nothing for anybody else. What it had
	// asked for by name it gets by name only: it may have skipped a cool-down.
	for _, old := range h.leasesOf(r.Owner) {
		if r.Want.IsValid() && r.Want != old.addr || old.static && !r.Want.IsValid() {
			continue
		}
		if old.op != nil {
			return nil, old.op, nil
		}
		if h.kept[old.addr] {
			continue // reserved meanwhile, or it may be
		}
		if old.cooling && old.flight == nil && h.picker.Take(old.addr) != nil {
			continue
		}
		return old, nil, nil
	}
	if !r.Want.IsValid() {
		a, err := h.picker.Pick(h.now())
		if err != nil {
			return nil, nil, err
		}
		return &lease{addr: a}, nil, nil
	}
	if err := h.picker.Take(r.Want); err != nil {
		switch l := h.leases[r.Want]; {
		case l != nil && l.held:
			err = fmt.Errorf("%w by %s", err, l.owner)
		case l != nil:
			err = fmt.Errorf("%w: %w", err, ErrUnresolved)
		}
		return nil, nil, err
	}
	return &lease{addr: r.Want}, nil, nil
}
