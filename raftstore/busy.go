package raftstore

import (
	"sync"
	"time"
)

// busySince remembers since when something has been going on.
type busySince struct {
	mu    sync.Mutex // guards since
	since time.Time  // zero: nothing is going on
}

func (b *busySince) start(now time.Time) {
	b.mu.Lock()
	b.since = now
	b.mu.Unlock()
}

func (b *busySince) end() { b.start(time.Time{}) }

// age returns how long it has been going on, 0 if it is not.
func (b *busySince) age(now time.Time) time.Duration {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.since.IsZero() {
		return 0
	}
	return now.Sub(b.since)
}
