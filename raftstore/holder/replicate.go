package holder

import (
	"context"
	"errors"
	"log/slog"
	"math/rand/v2"
	"net/netip"
	"slices"
	"time"

	"stellar.io/stellar/internal/failpoint"
	"stellar.io/stellar/ipam"
	"stellar.io/stellar/raftstore"
	"stellar.io/stellar/raftstore/journal"
)

// maxBatch bounds the addresses that one envelope is about, each with one command or
// two: the state remembers a result for each.
const maxBatch = 128

// leaderRetry bounds the pause of a replication that has found no leader.
const leaderRetry = 200 * time.Millisecond

// roundShare bounds the time that rounds take: a round looks at all leases, so with very
// many of them it waits for so much longer than the last one looked. What it waited for
// a leader does not count: the next one is to come as soon as there may be an answer.
const roundShare = 4

// Run lets the replica follow the journal until ctx ends, and then closes the
// holder. It compares all of both at each round, so nothing depends on what an
// earlier round has seen. It may be called once.
func (h *Holder) Run(ctx context.Context) error {
	timer := time.NewTimer(0)
	defer timer.Stop()
	delay := h.cfg.BatchDelay
	retry := h.cfg.RetryMin
	failing := "" // the error that was warned of
	for {
		select {
		case <-ctx.Done():
			return h.Close()
		case <-h.kick:
			// What else comes within the delay goes into the same envelope.
			select {
			case <-time.After(delay):
			case <-ctx.Done():
				return h.Close()
			}
		case <-timer.C:
		}
		next, err := h.Round(ctx)
		delay = h.pause()
		next = max(next, delay)
		if err == nil {
			retry, failing = h.cfg.RetryMin, ""
		} else {
			level := slog.LevelDebug
			if err.Error() != failing && retry > h.cfg.RetryMin { // not the first time, and not known yet
				level, failing = slog.LevelWarn, err.Error()
			}
			h.log.Log(ctx, level, "journal and replica differ, will be tried again", "subnet", h.cfg.Subnet.Prefix, "after", retry, "error", err)
			next = min(next, retry+rand.N(retry/2+1))
			limit := h.cfg.RetryMax
			if errors.Is(err, raftstore.ErrNoLeader) {
				limit = min(limit, leaderRetry) // costs nobody anything, and there will be one any moment
			}
			retry = min(2*retry, limit)
		}
		timer.Reset(next)
	}
}

// pause is how long the next round waits for others to come.
func (h *Holder) pause() time.Duration {
	h.mu.Lock()
	defer h.mu.Unlock()
	return max(h.cfg.BatchDelay, min(roundShare*h.looked, h.cfg.RetryMax))
}

// Round does what is to be done now and returns when to look again. Run calls it
// over and over; it is of use by itself where there is no Run.
func (h *Holder) Round(ctx context.Context) (next time.Duration, err error) {
	next = h.cfg.AuditEvery
	if err := h.careForJournal(ctx); err != nil {
		return next, err
	}
	h.mu.Lock()
	idle := h.recovered != nil || h.closed || h.halted != nil
	h.mu.Unlock()
	if idle {
		return next, nil
	}
	if err := h.retryFlights(ctx); err != nil {
		return next, err
	}
	h.mu.Lock()
	h.recheck = false
	h.mu.Unlock()
	begin := time.Now()
	have, reserved := h.replica()
	var stale []journal.Record
	h.mu.Lock()
	if !h.recheck { // else one was made or ended since: what was seen is old
		stale = h.applyReservations(reserved)
	}
	forgotten := h.journal.Begin(stale...) // under the lock, so that it comes before a next Reserve
	want, due := h.desired(reserved)
	h.looked = time.Since(begin)
	h.mu.Unlock()
	if err = forgotten.Wait(ctx); err != nil {
		h.remember(stale)
	}
	p := makePlan(h.fence, want, have)
	h.confirm(p.shown)
	err = errors.Join(err, h.writeReleases(ctx), h.forget(ctx, p.gone), h.takeStrays(ctx, p.strays))
	err = errors.Join(err, h.propose(ctx, p))
	h.mu.Lock()
	again := h.recheck
	h.mu.Unlock()
	switch {
	case len(p.binds)+len(p.rest)+len(p.strays) > 0 || p.waits || again:
		next = min(next, h.cfg.BatchDelay) // look at what has come of it
	case due > 0:
		next = min(next, due)
	}
	return next, err
}

// errRefused is returned when the state refused a change. The next one may do.
var errRefused = errors.New("refused")

// propose proposes what the replica lacks. It goes on past a refusal, but not when
// there is no answer: then the next would have none either.
func (h *Holder) propose(ctx context.Context, p plan) error {
	var refusals error
	note := func(err error) error {
		if errors.Is(err, errRefused) {
			refusals = errors.Join(refusals, err)
			return nil
		}
		return err
	}
	many, again, single := h.apart(p.binds)
	batches := slices.Concat(again, chunks(many), chunks(p.rest))
	for _, batch := range batches {
		if err := note(h.proposeTogether(ctx, batch)); err != nil {
			return err
		}
	}
	for _, c := range single {
		if err := note(h.proposeBind(ctx, c)); err != nil {
			return err
		}
	}
	return refusals
}

// careForJournal compacts a journal that is large or has failed.
func (h *Holder) careForJournal(ctx context.Context) error {
	failed := h.journal.Failed()
	if failed == nil {
		if _, worth := h.journal.Size(); !worth {
			return nil
		}
	}
	if err := h.journal.Compact(ctx); err != nil {
		return err
	}
	if failed != nil {
		h.log.Info("the journal can be written again", "path", h.cfg.JournalPath)
	}
	return nil
}

// desired returns what the journal says of each address, and after what time that
// will be something else without anybody's doing. The caller holds h.mu.
func (h *Holder) desired(reserved map[netip.Addr]string) (want map[netip.Addr]desired, due time.Duration) {
	want = make(map[netip.Addr]desired, len(h.leases))
	now := h.now()
	soon := func(left int64) {
		if d := time.Duration(left) + time.Millisecond; due == 0 || d < due {
			due = d
		}
	}
	for a, l := range h.leases {
		d := desired{
			addr: a, owner: l.owner, static: l.static, hostname: l.hostname, held: l.held,
			attached: l.attached, mark: now-l.attachedAt >= int64(h.cfg.MarkDelay),
			cooled: !l.held && h.cooled(l, now), locked: l.op != nil || l.flight != nil,
		}
		switch {
		case d.held && !d.mark:
			soon(int64(h.cfg.MarkDelay) - (now - l.attachedAt))
		case !d.held && l.cooling && !d.cooled:
			soon(int64(h.cfg.CoolDown) - (now - l.released))
		}
		_, d.yields = reserved[a]
		want[a] = d
	}
	return want, due
}

// confirm notes the leases that the replica has: it has only what was committed.
func (h *Holder) confirm(shown []netip.Addr) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, a := range shown {
		if l := h.leases[a]; l != nil && l.held && l.op == nil && l.flight == nil {
			l.confirmed = true
		}
	}
}

// writeReleases makes up for releases that the journal did not take.
func (h *Holder) writeReleases(ctx context.Context) error {
	var records []journal.Record
	var leases []*lease
	h.mu.Lock()
	for _, l := range h.leases {
		if l.unwritten && l.op == nil {
			leases = append(leases, l)
			records = append(records, l.record(journal.OpRelease, h.fence))
		}
	}
	written := h.journal.Begin(records...)
	h.mu.Unlock()
	if err := written.Wait(ctx); err != nil {
		return err
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, l := range leases {
		if !l.held && l.op == nil {
			l.unwritten = false
		}
	}
	return nil
}

// forget takes addresses out of the journal that neither side needs to know of.
func (h *Holder) forget(ctx context.Context, gone []netip.Addr) error {
	var records []journal.Record
	h.mu.Lock()
	for _, a := range gone {
		l := h.leases[a]
		if l == nil || l.held || l.op != nil || l.flight != nil || !h.cooled(l, h.now()) {
			continue // it has a new life
		}
		h.remove(l)
		records = append(records, journal.Record{Op: journal.OpFree, Addr: a})
	}
	// Begun under the lock, so that it comes before the record of a next Bind.
	written := h.journal.Begin(records...)
	h.mu.Unlock()
	if len(records) > 0 {
		failpoint.Hit(failpoint.HolderForget)
	}
	return written.Wait(ctx)
}

// takeStrays turns leases that only the replica has into released ones: nobody was
// told of them, or what told of them is gone.
func (h *Holder) takeStrays(ctx context.Context, strays []ipam.Lease) error {
	var records []journal.Record
	h.mu.Lock()
	for _, s := range strays {
		if h.leases[s.Addr] != nil {
			continue // bound meanwhile
		}
		if err := h.picker.Take(s.Addr); err != nil && !errors.Is(err, ipam.ErrAddressReserved) {
			continue
		}
		l := &lease{addr: s.Addr, owner: s.Owner, static: s.Static, hostname: s.Hostname, since: h.cfg.Clock.Now(), confirmed: true, spent: true}
		h.put(l)
		h.cool(l)
		records = append(records, l.record(journal.OpRelease, h.fence))
	}
	written := h.journal.Begin(records...)
	h.mu.Unlock()
	if len(records) > 0 {
		failpoint.Hit(failpoint.HolderStray)
	}
	return written.Wait(ctx)
}

func chunks(list []change) [][]change { return slices.Collect(slices.Chunk(list, maxBatch)) }
