package hold

import (
	"sync"
	"time"
)

// teller calls the callbacks of a Config, in order, on a goroutine of its own, so
// that the loop never waits for them.
type teller struct {
	cfg Config

	mu     sync.Mutex // guards what follows
	more   *sync.Cond
	queue  []func()
	closed bool
}

func newTeller(cfg Config) *teller {
	t := &teller{cfg: cfg}
	t.more = sync.NewCond(&t.mu)
	return t
}

func (t *teller) held(k Key, pid int, at time.Time) {
	if t.cfg.OnHeld != nil {
		t.add(func() { t.cfg.OnHeld(k, pid, at) })
	}
}

func (t *teller) ended(k Key, e End) {
	if t.cfg.OnEnd != nil {
		t.add(func() { t.cfg.OnEnd(k, e) })
	}
}

func (t *teller) add(call func()) {
	t.mu.Lock()
	t.queue = append(t.queue, call)
	t.mu.Unlock()
	t.more.Signal()
}

// close lets run return when all that was told so far has been passed on.
func (t *teller) close() {
	t.mu.Lock()
	t.closed = true
	t.mu.Unlock()
	t.more.Signal()
}

func (t *teller) run() {
	for {
		t.mu.Lock()
		for len(t.queue) == 0 && !t.closed {
			t.more.Wait()
		}
		queue := t.queue
		t.queue = nil
		t.mu.Unlock()
		if len(queue) == 0 {
			return
		}
		for _, call := range queue {
			call()
		}
	}
}
