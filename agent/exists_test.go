package agent

import (
	"errors"
	"testing"
	"time"

	"stellar.io/stellar/events"
)

// TestExists: what an operator is told of a lease is as good as what the agent itself
// would release it on: no answer, no listing yet, or a containerd that knows nobody,
// prove nothing.
func TestExists(t *testing.T) {
	withAgent(t, func(b *bed) {
		x, y := b.running("a", networked), b.running("b", networked)
		owner := func(c *fakeContainer) (o struct{ err, there bool }) {
			b.a.mu.Lock()
			own := b.a.records[c.Key].owner
			b.a.mu.Unlock()
			there, err := b.a.Exists(t.Context(), own)
			if err != nil && !errors.Is(err, ErrUnproven) {
				t.Errorf("%v", err)
			}
			o.err, o.there = err != nil, there
			return o
		}
		b.list()
		if got := owner(x); got.err || !got.there {
			t.Errorf("present: %+v", got)
		}
		b.c.mu.Lock()
		b.c.fail = func(events.Key) error { return errors.New("unavailable") }
		b.c.mu.Unlock()
		if got := owner(x); !got.err {
			t.Errorf("no answer: %+v", got)
		}
		b.c.mu.Lock()
		b.c.fail = nil
		delete(b.c.all, x.Key)
		b.c.mu.Unlock()
		if got := owner(x); got.err || got.there {
			t.Errorf("gone: %+v", got)
		}
		b.c.mu.Lock()
		saved := b.c.all[y.Key]
		delete(b.c.all, y.Key)
		b.c.mu.Unlock()
		b.list()
		if got := owner(x); !got.err {
			t.Errorf("nobody is there: %+v", got)
		}
		b.c.mu.Lock()
		b.c.all[y.Key] = saved
		b.c.id = "other"
		b.c.mu.Unlock()
		b.list()
		if got := owner(x); !got.err {
			t.Errorf("another containerd: %+v", got)
		}
		b.wait(doubtPause + time.Second)
		b.c.mu.Lock()
		delete(b.c.all, x.Key)
		b.c.mu.Unlock()
	})
}
