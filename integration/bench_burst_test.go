package integration

import (
	"fmt"
	"net/netip"
	"os"
	"sync"
	"testing"
	"time"

	"stellar.io/stellar/internal/nsx"
	"stellar.io/stellar/ipam"
	"stellar.io/stellar/netsetup"
)

const (
	burstSize    = 1000 // what a bridge takes
	burstWorkers = 8
	burstRounds  = 5
)

// benchBurst attaches as many containers as a bridge takes, several at a time, by
// netsetup and by hand, in turns and each on a host of its own. Namespaces are made
// before and not counted.
func benchBurst(b *testing.B, t *table, mode ipam.Mode) {
	ours, floor := newAttachBench(b, mode), newAttachBench(b, mode)
	workers := []*rawWorker{floor.worker}
	for len(workers) < burstWorkers {
		workers = append(workers, newRawWorker(b, floor.host.FD, floor.bridge))
	}
	size, rounds := scaled(burstSize), burstRounds
	var own, hand, first, last samples
	p := newProgress(fmt.Sprintf("mode %s: bursts of %d by %d workers, namespaces", mode, size, burstWorkers), 2*size*rounds)
	for round := range rounds {
		sides := []func(){
			func() {
				rate, each := ours.burst(size, func(n int) { p.done(2*size*round + n) })
				own, first, last = append(own, rate), append(first, each[:size/10]...), append(last, each[size-size/10:]...)
			},
			func() {
				hand = append(hand, floor.rawBurst(size, workers, func(n int) { p.done(2*size*round + size + n) }))
			},
		}
		sides[round%2]()
		sides[1-round%2]()
	}
	in := fmt.Sprintf(", mode %s", mode)
	t.spread(fmt.Sprintf("burst of %d by hand, %d workers", size, burstWorkers)+in, "/s", hand, bar{})
	t.spread(fmt.Sprintf("burst of %d by netsetup, %d workers", size, burstWorkers)+in, "/s", own, bar{})
	t.spread(fmt.Sprintf("  one of the first %d", size/10), "ms", first, bar{})
	t.spread(fmt.Sprintf("  one of the last %d", size/10), "ms", last, bar{})
	t.pairs("burst, netsetup / by hand"+in, own, hand, bar{p50: 0.8, atLeast: true})
}

// spaces makes namespaces without processes.
func (a *attachBench) spaces(n int, told func(int)) []*os.File {
	out := make([]*os.File, n)
	for i := range out {
		var err error
		out[i], err = nsx.New()
		a.check(err)
		told(i)
	}
	return out
}

// burstAddr is the i-th address of 172.16.0.0/22 that a container may have.
func burstAddr(i int) netip.Addr {
	return netip.AddrFrom4([4]byte{172, 16, byte((i + 2) >> 8), byte(i + 2)})
}

// burst returns the rate, in endpoints per second, and what each took.
func (a *attachBench) burst(n int, told func(int)) (rate float64, each samples) {
	files := a.spaces(n, told)
	specs := make([]netsetup.Spec, n)
	for i, f := range files {
		target, err := a.own.OpenPath(fmt.Sprintf("/proc/self/fd/%d", f.Fd()))
		a.check(err)
		specs[i] = netsetup.Spec{
			Owner: ipam.Owner{Kind: ipam.OwnerContainer, Namespace: "default", ID: fmt.Sprintf("burst%d", i), Created: 1, Interface: "eth0"},
			Addr:  burstAddr(i), DefaultRoute: true, NS: target,
		}
	}
	next := make(chan int, n)
	for i := range specs {
		next <- i
	}
	close(next)
	each = make(samples, n)
	var wg sync.WaitGroup
	start := time.Now()
	for range burstWorkers {
		wg.Go(func() {
			for i := range next {
				_, t, err := a.own.Attach(a.b.Context(), specs[i])
				if err != nil {
					a.b.Error(err)
					return
				}
				each[i] = ms(t.Total)
			}
		})
	}
	wg.Wait()
	rate = float64(n) / time.Since(start).Seconds()
	if a.b.Failed() {
		a.b.FailNow()
	}
	for i, s := range specs {
		s.NS.Close()
		files[i].Close()
	}
	for _, s := range specs {
		wg.Go(func() {
			if err := a.own.Detach(a.b.Context(), s.Owner); err != nil {
				a.b.Error(err)
			}
		})
	}
	wg.Wait()
	a.empty()
	return rate, each
}

// rawBurst is burst by hand, as fast as the workers can, and what they make is the same.
func (a *attachBench) rawBurst(n int, workers []*rawWorker, told func(int)) float64 {
	files := a.spaces(n, told)
	next := make(chan int, n)
	for i := range files {
		next <- i
	}
	close(next)
	var wg sync.WaitGroup
	start := time.Now()
	for _, w := range workers {
		wg.Go(func() {
			w.do(func(attach func(rawJob)) {
				for i := range next {
					attach(rawJob{mode: a.mode, ns: int(files[i].Fd()), name: fmt.Sprintf("raw%d", i), addr: burstAddr(i), wait: true})
				}
			})
		})
	}
	wg.Wait()
	rate := float64(n) / time.Since(start).Seconds()
	if a.b.Failed() {
		a.b.FailNow()
	}
	for _, f := range files {
		f.Close()
	}
	a.empty()
	return rate
}
