package raftstore

import (
	"context"
	"errors"
	"time"

	"github.com/hashicorp/raft"

	"stellar.io/stellar/ipam"
)

// tick advances cluster time while this node leads: by what its monotonic clock
// has measured since its last look as the same term's leader. It proposes at each
// Config.TickEvery whether or not somebody waits for the time, so that the age of
// everything in the state is right to within one tick: one entry of 30 bytes and
// one fsync in ten seconds.
func (s *Store) tick(ctx context.Context, r *raft.Raft) {
	t := time.NewTicker(s.cfg.TickEvery)
	defer t.Stop()
	var term uint64 // in which this node led at its last look
	var last time.Time
	for {
		now := time.Now()
		switch cur := r.CurrentTerm(); {
		case r.State() != raft.Leader:
			term = 0
		case cur != term:
			term, last = cur, now
		default:
			if s.advance(ctx, now.Sub(last)) {
				last = now
			}
		}
		select {
		case <-t.C:
		case <-ctx.Done():
			return
		}
	}
}

// advance reports whether the elapsed time is dealt with. A tick of unknown
// outcome counts as such: cluster time may lag, it must not run ahead.
func (s *Store) advance(ctx context.Context, elapsed time.Duration) bool {
	_, err := s.Propose(ctx, ipam.Envelope{Commands: []ipam.Command{ipam.Tick{Elapsed: elapsed}}})
	return err == nil || errors.Is(err, ErrUnknownOutcome)
}
