package raftstore

import (
	"context"
	"fmt"
	"slices"

	"stellar.io/stellar/ipam"
)

// waiter waits until the state has reached an index.
type waiter struct {
	index uint64
	done  chan<- error
	// moment, when set, gets the state as it is at index: after the last command up to
	// it and before any later one.
	moment chan<- *ipam.Snapshot
}

// wait waits until the commands up to index are applied. It returns ErrStopped, or
// ctx's error.
func (f *fsm) wait(ctx context.Context, index uint64) error {
	f.mu.Lock()
	if f.failed != nil || f.state.Index() >= index {
		defer f.mu.Unlock()
		return f.failed
	}
	done := make(chan error, 1)
	f.waiters = append(f.waiters, waiter{index: index, done: done})
	f.mu.Unlock()
	select {
	case err := <-done:
		return err
	case <-ctx.Done():
		f.forget(done)
		return context.Cause(ctx)
	}
}

func (f *fsm) forget(done chan<- error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.waiters = slices.DeleteFunc(f.waiters, func(w waiter) bool { return w.done == done })
}

// release wakes who waits for what has been reached. The caller holds mu.
func (f *fsm) release() {
	if len(f.waiters) == 0 {
		return
	}
	at := f.state.Index()
	f.waiters = slices.DeleteFunc(f.waiters, func(w waiter) bool {
		if f.failed == nil && at < w.index {
			return false
		}
		if w.moment != nil && f.failed == nil && at == w.index {
			w.moment <- f.state.Snapshot()
		}
		w.done <- f.failed
		return true
	})
}

// passing gives those who wait for a moment between two commands the state before
// the command at next. The caller holds mu.
func (f *fsm) passing(next uint64) {
	for i, w := range f.waiters {
		if w.moment != nil && w.index < next {
			w.moment <- f.state.Snapshot()
			f.waiters[i].moment = nil
		}
	}
}

// skipping refuses those who wait for a moment that a snapshot jumps over. The caller
// holds mu.
func (f *fsm) skipping(to uint64) {
	f.waiters = slices.DeleteFunc(f.waiters, func(w waiter) bool {
		if w.moment == nil || w.index >= to {
			return false
		}
		w.done <- fmt.Errorf("%w: a snapshot at %d came, asked for %d", ErrPassed, to, w.index)
		return true
	})
}

// expect registers a forwarded proposal. The channel gets its outcome when the entry
// is applied here.
func (f *fsm) expect(t tag) <-chan applied {
	ch := make(chan applied, 1)
	f.mu.Lock()
	defer f.mu.Unlock()
	f.pending[t] = ch
	return ch
}

func (f *fsm) unexpect(t tag) {
	f.mu.Lock()
	defer f.mu.Unlock()
	delete(f.pending, t)
}

// answer tells a proposal of this node that it was applied. The caller holds mu.
func (f *fsm) answer(t tag, a applied) {
	if ch, ok := f.pending[t]; ok {
		delete(f.pending, t)
		ch <- a
	}
}

// Hash returns the SHA-256 of the state's canonical form and the index it belongs
// to: nodes with the same index have the same hash. With at 0 it is the present
// state; otherwise Hash waits until the state is at that index and returns ErrPassed
// when it is past it already.
func (s *Store) Hash(ctx context.Context, at uint64) (index uint64, sum [32]byte, err error) {
	sn, err := s.fsm.moment(ctx, at)
	if err != nil {
		return 0, sum, fmt.Errorf("hash: %w", err)
	}
	return max(at, sn.Index()), sn.Hash(), nil
}

// moment returns the state at an index.
func (f *fsm) moment(ctx context.Context, at uint64) (*ipam.Snapshot, error) {
	f.mu.Lock()
	now := f.state.Index()
	if f.failed != nil || at == 0 || at <= now {
		defer f.mu.Unlock()
		switch {
		case f.failed != nil:
			return nil, f.failed
		case at != 0 && at < now:
			return nil, fmt.Errorf("%w: at %d, asked for %d", ErrPassed, now, at)
		}
		return f.state.Snapshot(), nil
	}
	done, moment := make(chan error, 1), make(chan *ipam.Snapshot, 1)
	f.waiters = append(f.waiters, waiter{index: at, done: done, moment: moment})
	f.mu.Unlock()
	select {
	case sn := <-moment:
		f.forget(done)
		return sn, nil
	case err := <-done:
		select {
		case sn := <-moment:
			return sn, nil
		default:
			return nil, err
		}
	case <-ctx.Done():
		f.forget(done)
		return nil, context.Cause(ctx)
	}
}
