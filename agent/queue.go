package agent

import (
	"container/heap"
	"context"
	"math/rand/v2"
	"sync"
	"time"

	"stellar.io/stellar/events"
)

const (
	// Retries of one container start at retryMin, double, and stay at retryMax.
	retryMin = 100 * time.Millisecond
	retryMax = time.Minute
)

// queue hands keys to workers. A key is in it at most once however often it is
// added, is never with two workers at a time, and comes back at once when it
// was added while a worker had it. Urgent keys, of containers that are about to
// start, pass all others. Adding never blocks, and its memory is bounded by the
// number of keys.
type queue struct {
	mu      sync.Mutex   // guards all below
	ready   []events.Key // some may be stale: those that are not in queued as what they were
	urgent  []events.Key
	waiting map[events.Key]*delayed // keys due later
	byDue   dueHeap
	queued  map[events.Key]urgency
	working map[events.Key]bool
	again   map[events.Key]urgency // added while working
	fails   map[events.Key]int
	wake    chan struct{} // capacity 1: there may be something to do
	now     func() time.Time
	jitter  func(time.Duration) time.Duration // a random pause shorter than its argument
}

// urgency of a key that is due; none is the zero value: it is not.
type urgency uint8

const (
	ordinary urgency = iota + 1
	urgent
)

type delayed struct {
	key events.Key
	due time.Time
	pos int
}

func newQueue() *queue {
	return &queue{
		waiting: map[events.Key]*delayed{}, queued: map[events.Key]urgency{}, working: map[events.Key]bool{},
		again: map[events.Key]urgency{}, fails: map[events.Key]int{}, wake: make(chan struct{}, 1), now: time.Now, jitter: rand.N[time.Duration],
	}
}

// add makes key due now.
func (q *queue) add(key events.Key) {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.addLocked(key, ordinary)
}

// hurry makes key due now, before all that is not urgent.
func (q *queue) hurry(key events.Key) {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.addLocked(key, urgent)
}

func (q *queue) addLocked(key events.Key, u urgency) {
	if d := q.waiting[key]; d != nil {
		heap.Remove(&q.byDue, d.pos)
		delete(q.waiting, key)
	}
	switch {
	case q.working[key]:
		q.again[key] = max(q.again[key], u)
	case q.queued[key] < u:
		q.queued[key] = u
		if u == urgent {
			q.urgent = append(q.urgent, key)
		} else {
			q.ready = append(q.ready, key)
		}
		q.signal()
	}
}

func (q *queue) signal() {
	select {
	case q.wake <- struct{}{}:
	default:
	}
}

// addAfter makes key due in d, or earlier if it already is.
func (q *queue) addAfter(key events.Key, d time.Duration) {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.addAfterLocked(key, d)
}

func (q *queue) addAfterLocked(key events.Key, d time.Duration) {
	if q.queued[key] > 0 || q.again[key] > 0 {
		return
	}
	due := q.now().Add(d)
	if w := q.waiting[key]; w != nil {
		if due.Before(w.due) {
			w.due = due
			heap.Fix(&q.byDue, w.pos)
		}
	} else {
		w = &delayed{key: key, due: due}
		q.waiting[key] = w
		heap.Push(&q.byDue, w)
	}
	q.signal()
}

// done gives key back after work. A failed key returns by itself after a
// back-off with jitter; one that was added meanwhile is due at once.
func (q *queue) done(key events.Key, failed bool) (retryIn time.Duration) {
	q.mu.Lock()
	defer q.mu.Unlock()
	delete(q.working, key)
	if failed {
		q.fails[key]++
		retryIn = backoff(q.fails[key], q.jitter)
	} else {
		delete(q.fails, key)
	}
	switch {
	case q.again[key] > 0:
		u := q.again[key]
		delete(q.again, key)
		q.addLocked(key, u)
	case failed:
		q.addAfterLocked(key, retryIn)
	}
	return retryIn
}

// backoff is the pause after the n-th failure in a row: doubling, with ±20% jitter.
func backoff(n int, jitter func(time.Duration) time.Duration) time.Duration {
	d := retryMax
	if n < 11 { // 100 ms << 10 is above retryMax
		d = min(retryMin<<(n-1), retryMax)
	}
	return min(d*4/5+jitter(d*2/5+1), retryMax)
}

// run calls work for each key that becomes due, n at a time, until ctx ends,
// and returns when all of them have returned. work reports whether it failed.
func (q *queue) run(ctx context.Context, n int, work func(context.Context, events.Key) bool) {
	var workers sync.WaitGroup
	keys := make(chan events.Key)
	for range n {
		workers.Go(func() {
			for key := range keys {
				q.done(key, work(ctx, key))
			}
		})
	}
	defer workers.Wait()
	defer close(keys)
	timer := time.NewTimer(time.Hour)
	defer timer.Stop()
	for {
		key, ok, next := q.take()
		if ok {
			select {
			case keys <- key:
				continue
			case <-ctx.Done():
				return
			}
		}
		timer.Reset(next)
		select {
		case <-ctx.Done():
			return
		case <-q.wake:
		case <-timer.C:
		}
	}
}

// take removes the next due key, or says how long until one is due.
func (q *queue) take() (events.Key, bool, time.Duration) {
	q.mu.Lock()
	defer q.mu.Unlock()
	now := q.now()
	for len(q.byDue) > 0 && !q.byDue[0].due.After(now) {
		q.addLocked(q.byDue[0].key, ordinary)
	}
	if key, ok := q.next(&q.urgent, urgent); ok {
		return key, true, 0
	}
	if key, ok := q.next(&q.ready, ordinary); ok {
		return key, true, 0
	}
	if len(q.byDue) > 0 {
		return events.Key{}, false, q.byDue[0].due.Sub(now)
	}
	return events.Key{}, false, time.Hour
}

// next takes the first key of a list that is still in it.
func (q *queue) next(list *[]events.Key, as urgency) (events.Key, bool) {
	for len(*list) > 0 {
		key := (*list)[0]
		*list = (*list)[1:]
		if q.queued[key] == as {
			delete(q.queued, key)
			q.working[key] = true
			return key, true
		}
	}
	return events.Key{}, false
}

// busy reports whether key is due or with a worker. A key that waits for its
// time is not.
func (q *queue) busy(key events.Key) bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	return q.queued[key] > 0 || q.working[key] || q.again[key] > 0
}

// len is the number of keys due, waiting or with a worker.
func (q *queue) len() int {
	q.mu.Lock()
	defer q.mu.Unlock()
	return len(q.queued) + len(q.waiting) + len(q.working)
}

type dueHeap []*delayed

func (h dueHeap) Len() int           { return len(h) }
func (h dueHeap) Less(i, j int) bool { return h[i].due.Before(h[j].due) }
func (h dueHeap) Swap(i, j int) {
	h[i], h[j] = h[j], h[i]
	h[i].pos, h[j].pos = i, j
}
func (h *dueHeap) Push(x any) {
	d := x.(*delayed)
	d.pos = len(*h)
	*h = append(*h, d)
}
func (h *dueHeap) Pop() any {
	old := *h
	d := old[len(old)-1]
	*h = old[:len(old)-1]
	return d
}

// sizes returns how many keys are due, due later, and with a worker.
func (q *queue) sizes() (due, later, working int) {
	q.mu.Lock()
	defer q.mu.Unlock()
	return len(q.queued), len(q.waiting), len(q.working)
}
