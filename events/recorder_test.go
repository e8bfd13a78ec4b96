package events

import (
	"context"
	"errors"
	"slices"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// recorder is a Sink that remembers everything.
type recorder struct {
	mu       sync.Mutex
	hints    []Hint
	listings []Listing
	states   []bool
	errs     []error
	order    []string
	changed  chan struct{} // closed at each change
}

func newRecorder() *recorder { return &recorder{changed: make(chan struct{})} }

func (r *recorder) note(what string, f func()) {
	r.mu.Lock()
	defer r.mu.Unlock()
	f()
	r.order = append(r.order, what)
	close(r.changed)
	r.changed = make(chan struct{})
}

func (r *recorder) Hint(h Hint) { r.note("hint", func() { r.hints = append(r.hints, h) }) }
func (r *recorder) Synced(l Listing) {
	r.note("synced", func() { r.listings = append(r.listings, l) })
}
func (r *recorder) Connected(ok bool, err error) {
	what := "down"
	if ok {
		what = "up"
	}
	r.note(what, func() { r.states, r.errs = append(r.states, ok), append(r.errs, err) })
}

// wait blocks until cond, which is called with the lock held, is true.
func (r *recorder) wait(t *testing.T, what string, cond func() bool) {
	t.Helper()
	limit := time.After(20 * time.Second)
	for {
		r.mu.Lock()
		ok, changed := cond(), r.changed
		r.mu.Unlock()
		if ok {
			return
		}
		select {
		case <-changed:
		case <-limit:
			t.Fatalf("no %s within 20 s", what)
		}
	}
}

func (r *recorder) waitSynced(t *testing.T, n int) {
	t.Helper()
	r.wait(t, "listing", func() bool { return len(r.listings) >= n })
}

func (r *recorder) hinted(key Key, topic Topic) bool {
	return slices.ContainsFunc(r.hints, func(h Hint) bool { return h.Key == key && h.Topic == topic })
}

// watch runs a client until the test ends.
func watch(t *testing.T, cfg Config) (*Client, *recorder) {
	t.Helper()
	c, err := New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	r := newRecorder()
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- c.Run(ctx, r) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; !errors.Is(err, context.Canceled) {
			t.Errorf("Run returned %v", err)
		}
		if err := c.Close(); err != nil {
			t.Error(err)
		}
	})
	return c, r
}

// quick is a config for tests against the fake.
func quick(f *fake) Config {
	return Config{
		Address: f.address, ProbeEvery: 20 * time.Millisecond, RelistEvery: time.Minute,
		ConnectTimeout: 2 * time.Second, CallTimeout: 300 * time.Millisecond, MaxBackoff: 100 * time.Millisecond,
	}
}
