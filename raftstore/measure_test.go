package raftstore

import (
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"stellar.io/stellar/ipam"
)

// BenchmarkLeaseCommit is the time of one lease change proposed on each of three
// nodes, one after the other, on real disks over loopback TCP.
func BenchmarkLeaseCommit(b *testing.B) {
	c := newBed(b, nil)
	c.f.direct = true
	c.form(3, 3)
	l := c.anyLeader()
	for _, n := range c.nodes {
		name := "follower"
		if n == l {
			name = "leader"
		}
		sub := c.subnet(n.Store, n.id)
		b.Run(name+"-"+n.host, func(b *testing.B) {
			took := make([]time.Duration, 0, b.N)
			for i := 0; b.Loop(); i++ {
				begin := time.Now()
				mustPropose(b, n.Store, ipam.Envelope{Commands: []ipam.Command{
					bind(sub, 2+i%1000, "x"), ipam.ReleaseLease{Fence: sub.Fence(), Addr: bind(sub, 2+i%1000, "x").Addr, Owner: owner("x")},
				}})
				took = append(took, time.Since(begin))
			}
			reportPercentiles(b, took)
		})
	}
}

// BenchmarkLeaseParallel is the throughput of proposals from a follower and the
// leader at the same time.
func BenchmarkLeaseParallel(b *testing.B) {
	for _, clients := range []int{16, 256} {
		b.Run(fmt.Sprint(clients), func(b *testing.B) {
			c := newBed(b, nil)
			c.f.direct = true
			c.form(3, 3)
			subs := map[*member1]ipam.Subnet{}
			for _, n := range c.nodes {
				subs[n] = c.subnet(n.Store, n.id)
			}
			var next atomic.Int64
			var wg sync.WaitGroup
			b.ResetTimer()
			for i := range clients {
				n := c.nodes[i%3]
				wg.Go(func() {
					for next.Add(1) <= int64(b.N) {
						id := fmt.Sprint("c", i)
						mustPropose(b, n.Store, ipam.Envelope{Commands: []ipam.Command{
							bind(subs[n], 2+i, id), ipam.ReleaseLease{Fence: subs[n].Fence(), Addr: bind(subs[n], 2+i, id).Addr, Owner: owner(id)},
						}})
					}
				})
			}
			wg.Wait()
			b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "proposals/s")
		})
	}
}

// BenchmarkCommitToApply is the time from the commit of a node's record to OnApply on
// each peer, on an otherwise idle cluster.
func BenchmarkCommitToApply(b *testing.B) {
	var mu sync.Mutex
	at := map[uint64][]time.Time{} // index → when it was applied
	c := newBed(b, func(cfg *Config) {
		cfg.OnApply = func(index uint64, _ []ipam.Delta) {
			now := time.Now()
			mu.Lock()
			at[index] = append(at[index], now)
			mu.Unlock()
		}
	})
	c.f.direct = true
	c.form(3, 3)
	l := c.anyLeader()
	var lags []time.Duration
	for i := 0; b.Loop(); i++ {
		mustPropose(b, l.Store, ipam.Envelope{Commands: []ipam.Command{
			ipam.UpdateNode{Node: l.id, Address: fmt.Sprintf("10.1.%d.%d:9640", i/200%200, i%200), Version: "1", Mode: ipam.ModeBridge}}})
		index := l.fsm.index()
		waitIn(b, 5*time.Second, func() bool {
			mu.Lock()
			defer mu.Unlock()
			list := at[index]
			if len(list) == 3 {
				slices.SortFunc(list, time.Time.Compare)
				lags = append(lags, list[2].Sub(list[0]))
			}
			return len(list) == 3
		})
		time.Sleep(10 * time.Millisecond) // idle in between
	}
	reportPercentiles(b, lags)
}

// BenchmarkIdle is the CPU of three stores that do nothing, in one process.
func BenchmarkIdle(b *testing.B) {
	for _, commit := range []time.Duration{50 * time.Millisecond, 200 * time.Millisecond} {
		b.Run(commit.String(), func(b *testing.B) {
			c := newBed(b, func(cfg *Config) { cfg.CommitTimeout = commit })
			c.f.direct = true
			c.form(3, 3)
			time.Sleep(500 * time.Millisecond)
			for b.Loop() {
				begin := cpuTime(b)
				time.Sleep(3 * time.Second)
				b.ReportMetric(float64(cpuTime(b)-begin)/float64(3*time.Second)*100, "%-of-a-core")
			}
		})
	}
}

func cpuTime(t testing.TB) time.Duration {
	var u unix.Rusage
	if err := unix.Getrusage(unix.RUSAGE_SELF, &u); err != nil {
		t.Fatal(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}
