package agent

import (
	"context"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"stellar.io/stellar/events"
)

func TestQueueCoalesces(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		q := newQueue()
		key := events.Key{Namespace: "default", ID: "a"}
		var runs atomic.Int32
		ctx, stop := context.WithCancel(t.Context())
		var wg sync.WaitGroup
		wg.Go(func() {
			q.run(ctx, 4, func(context.Context, events.Key) bool {
				runs.Add(1)
				time.Sleep(time.Second)
				return false
			})
		})
		for range 1000 {
			q.add(key)
		}
		time.Sleep(500 * time.Millisecond) // a worker has it now
		for range 1000 {
			q.add(key)
		}
		time.Sleep(time.Minute)
		if n := runs.Load(); n != 2 {
			t.Errorf("worked %d times, want 2", n)
		}
		stop()
		wg.Wait()
	})
}

func TestQueueOneWorkerPerKey(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		q := newQueue()
		ctx, stop := context.WithCancel(t.Context())
		var mu sync.Mutex
		busy := map[events.Key]bool{}
		most := 0
		var wg sync.WaitGroup
		wg.Go(func() {
			q.run(ctx, 3, func(_ context.Context, key events.Key) bool {
				mu.Lock()
				if busy[key] {
					t.Errorf("%s with two workers", key)
				}
				busy[key] = true
				most = max(most, len(busy))
				mu.Unlock()
				time.Sleep(10 * time.Millisecond)
				mu.Lock()
				delete(busy, key)
				mu.Unlock()
				return false
			})
		})
		for i := range 500 {
			q.add(events.Key{Namespace: "default", ID: fmt.Sprint(i % 7)})
			if i%5 == 0 {
				time.Sleep(time.Millisecond)
			}
		}
		time.Sleep(time.Minute)
		stop()
		wg.Wait()
		if most != 3 {
			t.Errorf("%d at once, want 3", most)
		}
		if n := q.len(); n != 0 {
			t.Errorf("%d keys left", n)
		}
	})
}

func TestQueueBackoff(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		q := newQueue()
		key := events.Key{Namespace: "default", ID: "a"}
		ctx, stop := context.WithCancel(t.Context())
		var times []time.Time
		var wg sync.WaitGroup
		wg.Go(func() {
			q.run(ctx, 1, func(context.Context, events.Key) bool {
				times = append(times, time.Now())
				return len(times) < 14
			})
		})
		q.add(key)
		time.Sleep(time.Hour)
		stop()
		wg.Wait()
		if len(times) != 14 {
			t.Fatalf("%d attempts, want 14", len(times))
		}
		for i := 1; i < len(times); i++ {
			pause, nominal := times[i].Sub(times[i-1]), min(retryMin<<(i-1), retryMax)
			if pause < nominal*4/5 || pause > nominal*6/5 || pause > retryMax {
				t.Errorf("pause %d is %s, want about %s", i, pause, nominal)
			}
		}
	})
}

func TestQueueDelayGivesWay(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		q := newQueue()
		key := events.Key{Namespace: "default", ID: "a"}
		start := time.Now()
		var at []time.Duration
		ctx, stop := context.WithCancel(t.Context())
		var wg sync.WaitGroup
		wg.Go(func() {
			q.run(ctx, 1, func(context.Context, events.Key) bool {
				at = append(at, time.Since(start))
				return false
			})
		})
		q.addAfter(key, time.Hour)
		q.addAfter(key, time.Second) // the earlier one counts
		q.addAfter(key, time.Minute)
		time.Sleep(2 * time.Second)
		q.addAfter(key, time.Hour)
		q.add(key) // now
		time.Sleep(2 * time.Hour)
		stop()
		wg.Wait()
		if len(at) != 2 || at[0] != time.Second || at[1] != 2*time.Second {
			t.Errorf("worked at %v, want 1s and 2s", at)
		}
	})
}
