package holder

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"time"

	"stellar.io/stellar/internal/failpoint"
	"stellar.io/stellar/ipam"
	"stellar.io/stellar/raftstore"
	"stellar.io/stellar/raftstore/journal"
)

// bindOp is a Bind at work. It goes on when its caller leaves.
type bindOp struct {
	lease  *lease
	again  bool    // the owner had this address before, and it has not gone to another since
	flight *flight // nil: nothing is proposed
	done   chan struct{}
	held   Held  // set before done is closed
	err    error // likewise
}

// errNext: the picked address was refused, the next one may do.
var errNext = errors.New("picked address was refused")

// maxPicks bounds how many picked addresses in a row may be refused.
const maxPicks = 16

const (
	leaderPoll = 10 * time.Millisecond // between two looks for a leader
	maxRenew   = 4                     // times that a request id is replaced
)

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

// validate returns ipam.ErrInvalid for what the state would always refuse. It asks an
// empty state, which looks at the command itself before anything else.
func (h *Holder) validate(r BindRequest) error {
	l := &lease{addr: h.fence.Subnet.Prefix.Addr(), owner: r.Owner, hostname: r.Hostname}
	data, err := ipam.Envelope{Commands: []ipam.Command{l.bindCommand(h.fence)}}.Encode()
	if err != nil {
		return err
	}
	out, err := ipam.New().Apply(1, data)
	if err != nil {
		return err
	}
	if err := out.Results[0].Err; errors.Is(err, ipam.ErrInvalid) {
		return err
	}
	return nil
}

// claim returns the lease that the owner has, or starts an operation that gets one.
func (h *Holder) claim(ctx context.Context, r BindRequest) (Held, *bindOp, error) {
	for {
		h.mu.Lock()
		held, op, wait, err := h.tryClaim(r)
		h.mu.Unlock()
		if op != nil {
			h.cfg.Clock.Go(func() { h.bind(op) })
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
	h.leases[l.addr], h.owners[r.Owner] = l, l
	h.begin(l)
	l.binding = true
	return Held{}, &bindOp{lease: l, again: again, done: l.op}, nil, nil
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

// leasesOf returns what is known of an owner, held or released, by address. The
// caller holds h.mu.
func (h *Holder) leasesOf(o ipam.Owner) (all []*lease) {
	for _, l := range h.leases {
		if l.owner == o {
			all = append(all, l)
		}
	}
	slices.SortFunc(all, func(a, b *lease) int { return a.addr.Compare(b.addr) })
	return all
}

// outcome is how a proposal ended.
type outcome uint8

const (
	absent    outcome = iota // nothing was proposed
	committed                // and accepted
	refused                  // committed, but the command was refused
	unknown                  // may have been committed, or may yet be
)

// bind writes the journal and proposes at the same time.
func (h *Holder) bind(op *bindOp) {
	l := op.lease
	failpoint.Hit(failpoint.HolderPicked)
	id, err := h.seq.next()
	if err != nil {
		h.finishBind(op, absent, nil, err)
		return
	}
	h.mu.Lock()
	l.request, l.spent = id, false
	record := l.record(journal.OpBind, h.fence)
	if !h.alone && l.flight == nil {
		op.flight = &flight{leases: []*lease{l}}
		h.launch(op.flight)
	}
	h.mu.Unlock()
	written := h.journal.Begin(record)
	failpoint.Hit(failpoint.HolderBegun)
	how := absent
	var perr error
	if op.flight != nil {
		how, perr = h.commitBind(op.flight)
	}
	failpoint.Hit(failpoint.HolderCommitted)
	werr := written.Wait(context.Background())
	failpoint.Hit(failpoint.HolderWritten)
	h.finishBind(op, how, perr, werr)
}

// commitBind proposes the lease until there is an outcome or CommitWait is over.
func (h *Holder) commitBind(f *flight) (outcome, error) {
	ctx, cancel := h.cfg.Clock.WithTimeout(context.Background(), h.cfg.CommitWait)
	defer cancel()
	l := f.leases[0]
	f.env = ipam.Envelope{Request: l.request, Commands: h.bindCommands(l)}
	f.binds = []binding{{l, len(f.env.Commands) - 1}}
	renewed := 0
	for {
		results, err := h.cfg.Store.Propose(ctx, f.env)
		switch {
		case errors.Is(err, raftstore.ErrUnknownOutcome):
			return unknown, err
		case errors.Is(err, ipam.ErrInvalid), errors.Is(err, raftstore.ErrStopped):
			return refused, err
		case err != nil:
			if h.cfg.Clock.Sleep(ctx, leaderPoll) != nil {
				return absent, err
			}
			continue
		}
		err = results[len(results)-1].Err
		if !strangeID(err) || renewed == maxRenew {
			if err != nil {
				return refused, err
			}
			return committed, nil
		}
		// A number that was never used is known to the state: skip what was used.
		renewed++
		h.seq.skip()
		id, err := h.seq.next()
		if err != nil {
			return absent, err
		}
		f.env.Request = id
	}
}

func strangeID(err error) bool {
	return errors.Is(err, ipam.ErrRequestForgotten) || errors.Is(err, ipam.ErrRequestReused)
}

// bindCommands returns what makes the replica agree with a lease: the bind, after
// the release of whatever else the replica has for the address or the owner.
func (h *Holder) bindCommands(l *lease) []ipam.Command {
	var cmds []ipam.Command
	release := func(a netip.Addr, o ipam.Owner) {
		cmds = append(cmds, ipam.ReleaseLease{Fence: h.fence, Addr: a, Owner: o})
	}
	h.cfg.Store.View(func(s *ipam.State) {
		if at, ok := s.Lease(l.addr); ok && at.State != ipam.Cooling && at.Owner != l.owner {
			release(l.addr, at.Owner)
		}
		if has, ok := s.LeaseByOwner(l.owner); ok && has.Addr != l.addr && has.Subnet == h.fence.Subnet {
			release(has.Addr, l.owner)
		}
	})
	return append(cmds, l.bindCommand(h.fence))
}

// finishBind brings the memory in line with what happened and ends the operation.
func (h *Holder) finishBind(op *bindOp, how outcome, perr, jerr error) {
	l := op.lease
	defer h.wake()
	h.mu.Lock()
	defer h.mu.Unlock()
	defer h.end(l)
	h.settleProposal(op, how, perr)
	op.err = errors.Join(op.err, jerr)
	op.held = l.view()
	if op.err == nil {
		return
	}
	// The owner does not get the address.
	l.held = false
	delete(h.owners, l.owner)
	if how == refused && jerr == nil {
		h.undo(l, op.again, perr)
	} else if how == absent && !op.again {
		h.drop(l) // nobody knows of it but, perhaps, the journal that has failed
	} else {
		l.unwritten = true
		h.cool(l)
	}
}

// undo makes the journal say again what it said before a bind that the state
// refused. The caller holds h.mu, which it gives up meanwhile: l.op keeps the lease
// as it is.
func (h *Holder) undo(l *lease, again bool, why error) {
	r := journal.Record{Op: journal.OpFree, Addr: l.addr}
	if again {
		r = l.record(journal.OpRelease, h.fence)
	} else if l.before != nil {
		r = l.before.record(journal.OpRelease, h.fence)
	}
	h.mu.Unlock()
	// Until this is durable a restart would propose the bind again; so the address is
	// not handed out before.
	err := h.journal.Append(context.Background(), r)
	h.mu.Lock()
	if again || err != nil {
		l.unwritten = err != nil
		h.cool(l)
		return
	}
	h.drop(l)
	if errors.Is(why, ipam.ErrAddressReserved) {
		h.kept[l.addr] = h.picker.Reserve(l.addr) == nil
		h.recheck = true
	}
}

// settleProposal deals with how the proposal ended. The caller holds h.mu.
func (h *Holder) settleProposal(op *bindOp, how outcome, err error) {
	l := op.lease
	switch how {
	case committed:
		l.confirmed, l.spent = true, true
		h.landed(op.flight)
		h.alone, h.caughtUp = false, true
	case refused:
		l.spent = true
		h.landed(op.flight)
		op.err = err
		if fencing(err) {
			h.halt(fmt.Errorf("%w: %w", ErrFenced, err))
			op.err = h.halted
		} else if errors.Is(err, raftstore.ErrStopped) {
			h.halt(err)
		} else if !l.static && (errors.Is(err, ipam.ErrAddressTaken) || errors.Is(err, ipam.ErrAddressReserved)) {
			op.err = fmt.Errorf("%w: %w", errNext, err)
		}
	case unknown:
		h.flights = append(h.flights, op.flight)
		h.goAlone(err)
	case absent:
		if op.flight != nil {
			h.landed(op.flight)
			h.goAlone(err)
		}
	}
}

// goAlone makes all further leases provisional at once. The caller holds h.mu.
func (h *Holder) goAlone(err error) {
	if !h.alone {
		h.alone = true
		h.log.Warn("no commit in time, leases are provisional until one succeeds",
			"subnet", h.cfg.Subnet.Prefix, "wait", h.cfg.CommitWait, "error", err)
	}
}
