package web

import (
	"context"
	"sync"
	"time"
)

// cached remembers what a source said for a moment, so that many pages, or one whose
// user types, ask the node as often as one does. Errors are not remembered. Safe for
// concurrent use; who comes while the source is asked waits for that answer.
type cached[T any] struct {
	ttl time.Duration
	ask func(context.Context) (T, error)

	turn  chan struct{} // held while the source is asked
	mu    sync.Mutex    // guards what follows
	value T
	until time.Time
}

func newCached[T any](ttl time.Duration, ask func(context.Context) (T, error)) *cached[T] {
	return &cached[T]{ttl: ttl, ask: ask, turn: make(chan struct{}, 1)}
}

func (c *cached[T]) fresh() (T, bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.value, time.Now().Before(c.until)
}

// get returns what must not be changed.
func (c *cached[T]) get(ctx context.Context) (T, error) {
	if v, ok := c.fresh(); ok {
		return v, nil
	}
	var none T
	select {
	case c.turn <- struct{}{}:
		defer func() { <-c.turn }()
	case <-ctx.Done():
		return none, ctx.Err()
	}
	if v, ok := c.fresh(); ok { // somebody else has asked meanwhile
		return v, nil
	}
	v, err := c.ask(ctx)
	if err != nil {
		return none, err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.value, c.until = v, time.Now().Add(c.ttl)
	return v, nil
}
