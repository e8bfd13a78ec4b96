package netsetup

import "sync"

// batcher lets concurrent callers share one costly operation: while a batch is
// at work, the items that arrive form the next one. It starts no goroutine; of
// each batch the first caller does the work.
type batcher[T any] struct {
	run func([]T) []error // one error for each item

	turn sync.Mutex // one batch at work

	mu      sync.Mutex // guards pending
	pending *batch[T]
}

type batch[T any] struct {
	items []T
	errs  []error
	done  chan struct{}
}

func newBatcher[T any](run func([]T) []error) *batcher[T] { return &batcher[T]{run: run} }

// do waits until item's batch is through and returns item's error.
func (b *batcher[T]) do(item T) error {
	b.mu.Lock()
	cur := b.pending
	first := cur == nil
	if first {
		cur = &batch[T]{done: make(chan struct{})}
		b.pending = cur
	}
	i := len(cur.items)
	cur.items = append(cur.items, item)
	b.mu.Unlock()
	if !first {
		<-cur.done
		return cur.errs[i]
	}
	b.turn.Lock()
	defer b.turn.Unlock()
	b.mu.Lock()
	b.pending = nil // sealed: who comes now forms the next batch
	b.mu.Unlock()
	cur.errs = b.run(cur.items)
	close(cur.done)
	return cur.errs[i]
}
