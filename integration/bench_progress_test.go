package integration

import (
	"fmt"
	"os"
	"sync/atomic"
	"time"
)

// tellEvery is how often a benchmark says how far it is.
const tellEvery = 2 * time.Second

// lastTold is when the benchmark has said something, in nanoseconds since 1970.
var lastTold atomic.Int64

// tell writes a line to stderr.
func tell(format string, args ...any) {
	lastTold.Store(time.Now().UnixNano())
	fmt.Fprintf(os.Stderr, format+"\n", args...)
}

// progress tells how far something is.
type progress struct {
	what  string
	total int
	last  time.Time
}

func newProgress(what string, total int) *progress {
	p := &progress{what: what, total: total, last: time.Now()}
	tell("%s: %d …", what, total)
	return p
}

// done is called by one goroutine. A nil progress tells nothing.
func (p *progress) done(n int) {
	if now := time.Now(); p != nil && now.Sub(p.last) >= tellEvery {
		p.last = now
		tell("  %s: %d of %d", p.what, n, p.total)
	}
}

// pause waits, and returns how long that was.
func pause(what string, d time.Duration) time.Duration {
	began := time.Now()
	p := newProgress(what+", seconds", int(d/time.Second))
	for time.Since(began) < d {
		time.Sleep(min(time.Second, d-time.Since(began)))
		p.done(int(time.Since(began) / time.Second))
	}
	return time.Since(began)
}

// goesOn says that a section has begun and, where nothing else tells how far it is, that
// it goes on, until stop is called.
func goesOn(section string) (stop func()) {
	began := time.Now()
	tell("section %s", section)
	end, ended := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(ended)
		tick := time.NewTicker(tellEvery / 4)
		defer tick.Stop()
		for {
			select {
			case <-end:
				return
			case now := <-tick.C:
				if now.UnixNano()-lastTold.Load() > int64(tellEvery+tellEvery/4) {
					tell("  section %s: %.0f s so far", section, now.Sub(began).Seconds())
				}
			}
		}
	}()
	return func() {
		close(end)
		<-ended
	}
}
