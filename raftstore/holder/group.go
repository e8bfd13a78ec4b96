package holder

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"time"

	"stellar.io/stellar/internal/failpoint"
	"stellar.io/stellar/ipam"
	"stellar.io/stellar/raftstore"
	"stellar.io/stellar/raftstore/journal"
)

// Binds that come while others are under way wait for each other and go together: one
// write of the journal, one envelope, one entry of Raft's log (ADR 25). A bind that
// finds the way free goes alone and at once, so it is as fast as if there were no
// groups. What becomes of one bind of a group says nothing of the others, but for what
// the envelope has in common: that it was committed at all, and its request id.

// maxGroup bounds the binds of a group. Each has three commands at most, of 1.3 KB
// together, so a group fits into an envelope (ipam.MaxCommands, 512 KiB).
const maxGroup = 256

const (
	// patience is for how long a bind waits for a group that is under way, if it is not
	// the last that comes: a healthy cluster commits in a few milliseconds, and behind a
	// slow one waiting would double what a bind takes.
	patience   = 20 * time.Millisecond
	leaderPoll = 10 * time.Millisecond // between two looks for a leader
	maxRenew   = 4                     // times that a request id is replaced
)

// outcome is how a proposal ended.
type outcome uint8

const (
	absent    outcome = iota // nothing was proposed
	committed                // and accepted
	refused                  // committed, but the command was refused
	unknown                  // may have been committed, or may yet be
)

// group is a flight of binds at work.
type group struct {
	ops     []*bindOp
	flight  *flight       // those that are proposed; nil: none
	how     outcome       // of the envelope: committed also when each command was refused
	results []ipam.Result // one for each command, if committed
	err     error         // unless committed
}

// queue lets op wait for the next group. It reports whether that goes now: the caller
// has to have bindGroup run. The caller holds h.mu.
func (h *Holder) queue(op *bindOp) (departs bool) {
	h.waiting = append(h.waiting, op)
	switch {
	case h.flying == 0:
	case h.flying >= h.cfg.Flights:
		return false
	case len(h.waiting) < h.cfg.Gather && op.begin.Sub(h.departed) < patience:
		return false
	}
	h.flying++
	return true
}

// board takes what waits. The caller of bindGroup has counted itself as flying.
func (h *Holder) board() *group {
	now := h.cfg.Clock.Now()
	h.mu.Lock()
	defer h.mu.Unlock()
	h.departed = now
	n := min(len(h.waiting), maxGroup)
	g := &group{ops: h.waiting[:n:n]}
	h.waiting = h.waiting[n:]
	return g
}

// makeWay lets the next group go, if somebody waits.
func (h *Holder) makeWay() {
	h.mu.Lock()
	next := len(h.waiting) > 0 && (h.flying == 1 || len(h.waiting) >= h.cfg.Gather)
	if !next {
		h.flying--
	}
	h.mu.Unlock()
	if next {
		h.cfg.Clock.Go(h.bindGroup)
	}
}

// bindGroup writes the journal and proposes at the same time. The next group does not
// wait for the journal: it has its own write.
func (h *Holder) bindGroup() {
	g := h.board()
	if len(g.ops) == 0 {
		h.makeWay()
		return
	}
	failpoint.Hit(failpoint.HolderPicked)
	id, err := h.seq.next()
	if err != nil {
		h.makeWay()
		h.finishBinds(g, err)
		return
	}
	written := h.journal.Begin(h.launchBinds(g, id)...)
	failpoint.Hit(failpoint.HolderBegun)
	if g.flight != nil {
		h.commitBinds(g)
	}
	h.makeWay()
	failpoint.Hit(failpoint.HolderCommitted)
	werr := written.Wait(context.Background())
	failpoint.Hit(failpoint.HolderWritten)
	h.finishBinds(g, werr)
}

// launchBinds names the binds of a group and launches those that are proposed. It
// returns the records of all.
func (h *Holder) launchBinds(g *group, id ipam.RequestID) []journal.Record {
	records := make([]journal.Record, 0, len(g.ops))
	h.mu.Lock()
	defer h.mu.Unlock()
	f := &flight{env: ipam.Envelope{Request: id}}
	for _, op := range g.ops {
		l := op.lease
		l.request, l.spent = id, false
		records = append(records, l.record(journal.OpBind, h.fence))
		if !h.alone && l.flight == nil {
			op.at = 0
			f.leases = append(f.leases, l)
		}
	}
	if len(f.leases) > 0 {
		g.flight = f
		h.launch(f)
	}
	return records
}

// commitBinds proposes a group until there is an outcome, or CommitWait is over for
// the first of them: from then on all leases are provisional at once.
func (h *Holder) commitBinds(g *group) {
	wait := h.cfg.CommitWait - h.cfg.Clock.Now().Sub(g.ops[0].begin)
	ctx, cancel := h.cfg.Clock.WithTimeout(context.Background(), wait)
	defer cancel()
	f := g.flight
	h.bindCommands(g)
	renewed := 0
	for {
		results, err := h.cfg.Store.Propose(ctx, f.env)
		switch {
		case errors.Is(err, raftstore.ErrUnknownOutcome):
			g.how, g.err = unknown, err
			return
		case errors.Is(err, ipam.ErrInvalid), errors.Is(err, raftstore.ErrStopped):
			g.how, g.err = refused, err
			return
		case err != nil:
			if h.cfg.Clock.Sleep(ctx, leaderPoll) != nil {
				g.how, g.err = absent, err
				return
			}
			continue
		}
		if !strangeID(results[len(results)-1].Err) || renewed == maxRenew {
			g.how, g.results = committed, results
			return
		}
		// A number that was never used is known to the state: skip what was used.
		renewed++
		h.seq.skip()
		id, err := h.seq.next()
		if err != nil {
			g.how, g.err = absent, err
			return
		}
		f.env.Request = id
	}
}

func strangeID(err error) bool {
	return errors.Is(err, ipam.ErrRequestForgotten) || errors.Is(err, ipam.ErrRequestReused)
}

// bindCommands makes the group's envelope: for each lease the bind, after the release
// of whatever else the replica has for the address or the owner.
func (h *Holder) bindCommands(g *group) {
	f := g.flight
	release := func(a netip.Addr, o ipam.Owner) {
		f.env.Commands = append(f.env.Commands, ipam.ReleaseLease{Fence: h.fence, Addr: a, Owner: o})
	}
	f.env.Commands = make([]ipam.Command, 0, len(g.ops))
	h.cfg.Store.View(func(s *ipam.State) {
		for _, op := range g.ops {
			if op.at < 0 {
				continue
			}
			l := op.lease
			if at, ok := s.Lease(l.addr); ok && at.State != ipam.Cooling && at.Owner != l.owner {
				release(l.addr, at.Owner)
			}
			if has, ok := s.LeaseByOwner(l.owner); ok && has.Addr != l.addr && has.Subnet == h.fence.Subnet {
				release(has.Addr, l.owner)
			}
			op.at = len(f.env.Commands)
			f.binds = append(f.binds, binding{l, op.at})
			f.env.Commands = append(f.env.Commands, l.bindCommand(h.fence))
		}
	})
}

// finishBinds brings the memory in line with what happened and ends the operations.
// jerr says that the journal does not have them.
func (h *Holder) finishBinds(g *group, jerr error) {
	var undone []*bindOp
	h.mu.Lock()
	h.settleGroup(g)
	due := len(h.flights) > 0
	for _, op := range g.ops {
		how := h.settleBind(g, op)
		op.err = errors.Join(op.err, jerr)
		op.held = op.lease.view()
		// A bind that was committed leaves the replica nothing to learn, unless it knew
		// the owner's lease before, in another state perhaps.
		due = due || op.err != nil || how != committed || op.again
		if op.err != nil && !h.unbind(op, how, jerr) {
			undone = append(undone, op)
			continue
		}
		h.end(op.lease)
	}
	h.mu.Unlock()
	if len(undone) > 0 {
		h.undo(undone)
	}
	if _, large := h.journal.Size(); due || large {
		h.wake()
	}
}

// settleGroup deals with how the envelope ended. The caller holds h.mu.
func (h *Holder) settleGroup(g *group) {
	switch {
	case g.flight == nil:
	case g.how == unknown:
		h.flights = append(h.flights, g.flight)
		h.goAlone(g.err)
	case g.how == absent:
		h.landed(g.flight)
		h.goAlone(g.err)
	default:
		h.landed(g.flight)
	}
}

// settleBind deals with how the command of op ended, and tells how. The caller holds
// h.mu.
func (h *Holder) settleBind(g *group, op *bindOp) outcome {
	l := op.lease
	if op.at < 0 {
		return absent
	}
	if g.how != refused && g.how != committed {
		return g.how
	}
	l.spent = true
	err := g.err
	if g.how == committed {
		err = g.results[op.at].Err
	}
	switch {
	case err == nil:
		l.confirmed = true
		h.alone, h.caughtUp = false, true
		return committed
	case fencing(err):
		h.halt(fmt.Errorf("%w: %w", ErrFenced, err))
		err = h.halted
	case errors.Is(err, raftstore.ErrStopped):
		h.halt(err)
	case !l.static && (errors.Is(err, ipam.ErrAddressTaken) || errors.Is(err, ipam.ErrAddressReserved)):
		err = fmt.Errorf("%w: %w", errNext, err)
	}
	op.err = err
	return refused
}

// unbind takes the address from an owner that does not get it. It reports false when
// undo has to follow. The caller holds h.mu.
func (h *Holder) unbind(op *bindOp, how outcome, jerr error) (done bool) {
	l := op.lease
	l.held = false
	delete(h.owners, l.owner)
	switch {
	case how == refused && jerr == nil:
		return false
	case how == absent && !op.again:
		h.drop(l) // nobody knows of it but, perhaps, the journal that has failed
	default:
		l.unwritten = true
		h.cool(l)
	}
	return true
}

// undo makes the journal say again what it said before binds that the state refused,
// and ends them.
func (h *Holder) undo(ops []*bindOp) {
	records := make([]journal.Record, 0, len(ops))
	h.mu.Lock()
	for _, op := range ops {
		l := op.lease
		r := journal.Record{Op: journal.OpFree, Addr: l.addr}
		if op.again {
			r = l.record(journal.OpRelease, h.fence)
		} else if l.before != nil {
			r = l.before.record(journal.OpRelease, h.fence)
		}
		records = append(records, r)
	}
	h.mu.Unlock()
	// Until this is durable a restart would propose the bind again; so the address is
	// not handed out before: the operation is not over.
	err := h.journal.Append(context.Background(), records...)
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, op := range ops {
		l := op.lease
		if op.again || err != nil {
			l.unwritten = err != nil
			h.cool(l)
		} else if h.drop(l); errors.Is(op.err, ipam.ErrAddressReserved) {
			h.kept[l.addr] = h.picker.Reserve(l.addr) == nil
			h.recheck = true
		}
		h.end(l)
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
