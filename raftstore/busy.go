package raftstore

import (
	"sync"
	"time"
)

// busySince remembers since when things have been going on.
type busySince struct {
	mu    sync.Mutex // guards the block
	next  uint64
	since map[uint64]time.Time // what is going on
}

// start notes that something has begun; the function it returns, that it has ended.
func (b *busySince) start(now time.Time) (end func()) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.since == nil {
		b.since = make(map[uint64]time.Time)
	}
	id := b.next
	b.next++
	b.since[id] = now
	return func() {
		b.mu.Lock()
		delete(b.since, id)
		b.mu.Unlock()
	}
}

// age returns for how long the oldest of them has been going on, 0 if nothing is.
func (b *busySince) age(now time.Time) (oldest time.Duration) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, since := range b.since {
		oldest = max(oldest, now.Sub(since))
	}
	return oldest
}
