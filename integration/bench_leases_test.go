package integration

import (
	"fmt"
	"testing"
	"time"
)

const (
	leaseCallers = 256
	leaseRounds  = 5
	leaseBurst   = 20_000 // of ours in a round; etcd, which is slower, makes a quarter
	leaseSerial  = 300    // one after the other, in a round
)

// benchLeaseRate measures how fast one node of three gets leases, by our store and by
// etcd, in turns: many callers at once, and one alone. Both ask a follower, both have
// their files on the same disk and sync them, and neither answers before a majority has
// the lease on disk. Ours is in the node's journal as well.
func benchLeaseRate(b *testing.B, t *table) {
	etcd := newEtcdBench(b)
	ours := newStoreBench(b, 3)
	node := ours.follower()
	var rate, etcdRate, serial, etcdSerial, each, etcdEach samples
	ours.bind(node, leaseCallers, scaled(2000)) // warm
	etcd.bind(leaseCallers, scaled(2000))
	p := newProgress(fmt.Sprintf("leases by %d callers, rounds", leaseCallers), leaseRounds)
	for i := range leaseRounds {
		sides := []func(){
			func() {
				n := scaled(leaseBurst)
				took, waited := ours.bind(node, leaseCallers, n)
				rate, each = append(rate, float64(n)/took.Seconds()), append(each, waited...)
				ours.release(node)
			},
			func() {
				n := scaled(leaseBurst / 4)
				took, waited := etcd.bind(leaseCallers, n)
				etcdRate, etcdEach = append(etcdRate, float64(n)/took.Seconds()), append(etcdEach, waited...)
			},
			func() {
				_, waited := ours.bind(node, 1, scaled(leaseSerial))
				serial = append(serial, waited...)
			},
			func() {
				_, waited := etcd.bind(1, scaled(leaseSerial))
				etcdSerial = append(etcdSerial, waited...)
			},
		}
		for k := range sides {
			sides[(i+k)%len(sides)]()
			time.Sleep(100 * time.Millisecond) // what is written behind is done
		}
		p.done(i + 1)
	}
	t.spread(fmt.Sprintf("leases by %d callers on a follower of three", leaseCallers), "/s", rate, bar{})
	t.spread("  each caller waits", "ms", each, bar{})
	t.spread(fmt.Sprintf("etcd 3.4, create if absent, %d clients of a follower of three", leaseCallers), "/s", etcdRate, bar{})
	t.spread("  each client waits", "ms", etcdEach, bar{})
	t.ratio("leases / etcd's", rate, etcdRate, bar{p50: 5, atLeast: true})
	t.spread("one lease after the other, on the follower", "ms", serial, bar{})
	t.spread("  etcd", "ms", etcdSerial, bar{})
	t.ratio("etcd / one lease after the other", etcdSerial, serial, bar{})
}
