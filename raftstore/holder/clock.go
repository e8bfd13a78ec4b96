package holder

import (
	"context"
	"time"
)

// Clock is time and concurrency as a Holder has them. The real one is used unless a
// simulation brings its own, in which everything happens in one goroutine.
type Clock interface {
	Now() time.Time
	// Sleep returns nil after d, or ctx's error as soon as ctx has ended.
	Sleep(ctx context.Context, d time.Duration) error
	// WithTimeout is context.WithTimeout in this clock's time.
	WithTimeout(ctx context.Context, d time.Duration) (context.Context, context.CancelFunc)
	// Go runs fn, before it returns or concurrently.
	Go(fn func())
}

type realClock struct{}

func (realClock) Now() time.Time { return time.Now() }

func (realClock) Sleep(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

func (realClock) WithTimeout(ctx context.Context, d time.Duration) (context.Context, context.CancelFunc) {
	return context.WithTimeout(ctx, d)
}

func (realClock) Go(fn func()) { go fn() }
