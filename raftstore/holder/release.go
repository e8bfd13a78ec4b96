package holder

import (
	"context"
	"fmt"

	"stellar.io/stellar/internal/failpoint"
	"stellar.io/stellar/ipam"
	"stellar.io/stellar/raftstore/journal"
)

// Release ends the owner's hold on its address, which then cools. Call it when no
// interface carries the address any more. It returns when the journal says so; the
// replica follows, after any command on the address that is still unresolved. It
// does nothing for an owner without a lease. After an error the owner has its
// lease, unless the error is ctx's: then either.
func (h *Holder) Release(ctx context.Context, o ipam.Owner) error {
	for {
		h.mu.Lock()
		l := h.owners[o]
		err := h.usable()
		switch {
		case err != nil || l == nil:
			h.mu.Unlock()
			if err != nil {
				return fmt.Errorf("release %s: %w", o, err)
			}
			return nil
		case l.op != nil:
			wait := l.op
			h.mu.Unlock()
			select {
			case <-wait:
				continue
			case <-ctx.Done():
				return fmt.Errorf("release %s: %w", o, context.Cause(ctx))
			}
		}
		h.begin(l)
		done := make(chan error, 1)
		written := h.journal.Begin(l.record(journal.OpRelease, h.fence))
		h.mu.Unlock()
		failpoint.Hit(failpoint.HolderReleasing)
		h.cfg.Clock.Go(func() { done <- h.finishRelease(l, written) })
		select {
		case err = <-done:
		case <-ctx.Done():
			err = context.Cause(ctx)
		}
		if err != nil {
			return fmt.Errorf("release %s: %w", o, err)
		}
		return nil
	}
}

// finishRelease waits for the journal and starts the cooling.
func (h *Holder) finishRelease(l *lease, written journal.Write) error {
	err := written.Wait(context.Background())
	failpoint.Hit(failpoint.HolderReleased)
	h.mu.Lock()
	if err == nil {
		l.held, l.attached = false, false
		delete(h.owners, l.owner)
		h.cool(l)
	} else {
		l.doubtful = true
	}
	h.end(l)
	h.mu.Unlock()
	h.wake()
	return err
}
