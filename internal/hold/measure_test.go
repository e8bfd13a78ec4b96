package hold

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"stellar.io/stellar/internal/testx"
)

func quantile(d []time.Duration, q float64) time.Duration {
	s := slices.Sorted(slices.Values(d))
	return s[min(int(q*float64(len(s))), len(s)-1)]
}

// TestSeizeLatency measures the time from init.pid to the seizure.
func TestSeizeLatency(t *testing.T) {
	b := newBed(t)
	var lags []time.Duration
	for i := range 100 {
		k := Key{Namespace: "default", ID: fmt.Sprint(i)}
		p := park(t, 0)
		b.h.Arm(k, 0)
		begin := time.Now()
		p.announce(b.root, k)
		b.waitHeld(p)
		b.rec.mu.Lock()
		lags = append(lags, b.rec.held[p.pid].Sub(begin))
		b.rec.mu.Unlock()
		b.h.Release(k, p.pid)
		b.waitEnd(p)
		p.start()
		p.exit()
	}
	t.Logf("from making the bundle with init.pid to the seizure: median %v, 90%% %v, worst %v", quantile(lags, .5), quantile(lags, .9), quantile(lags, 1))
}

// TestShare measures how many are held in bursts of 50. Not all must be: on a busy
// machine the kernel may run the runtime before us.
func TestShare(t *testing.T) {
	const bursts, size = 4, 50
	c, state := startContainerd(t, testx.V1)
	r := &releaser{after: 0}
	b := newBedOf(t, state, Config{Roots: []string{state}}, func(cfg *Config) { cfg.OnHeld = r.onHeld })
	r.h, r.rec = b.h, b.rec
	burst(t, c, b, bursts, size, nil)
	b.stop()
	r.wg.Wait()
	s := b.h.Status()
	t.Logf("bursts of %d: %d of %d held before their exec and released in time; %+v", size, r.held, bursts*size, s.Ends)
	if r.held*100 < bursts*size*95 {
		t.Errorf("only %d of %d were held", r.held, bursts*size)
	}
}

// TestCost measures what a hold that is released at once adds to `ctr run`; runs
// with and without alternate.
func TestCost(t *testing.T) {
	c, state := startContainerd(t, testx.V1)
	r := &releaser{after: 0}
	b := newBedOf(t, state, Config{Roots: []string{state}}, func(cfg *Config) { cfg.OnHeld = r.onHeld })
	r.h, r.rec = b.h, b.rec
	var with, without []time.Duration
	for range 50 {
		without = append(without, burst(t, c, nil, 1, 1, nil)...)
		with = append(with, burst(t, c, b, 1, 1, nil)...)
	}
	b.stop()
	r.wg.Wait()
	if r.held != len(with) {
		t.Errorf("%d of %d were held", r.held, len(with))
	}
	t.Logf("ctr run, median of %d: %v with a hold, %v without, difference %v", len(with), quantile(with, .5), quantile(without, .5), quantile(with, .5)-quantile(without, .5))
}
