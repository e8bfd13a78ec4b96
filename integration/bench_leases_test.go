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
	var rate, each, etcdEach, serial, etcdSerial samples
	etcdRate := map[int]*samples{1: {}, etcdConns: {}} // by connections
	burst, alone := scaled(leaseBurst), scaled(leaseSerial)
	theirs := func(conns int) func() {
		return func() {
			took, waited := etcd.bind(conns, leaseCallers, burst/4)
			*etcdRate[conns] = append(*etcdRate[conns], float64(burst/4)/took.Seconds())
			if conns == 1 {
				etcdEach = append(etcdEach, waited...)
			}
		}
	}
	sides := []func(){
		func() {
			took, waited := ours.bind(node, leaseCallers, burst)
			rate, each = append(rate, float64(burst)/took.Seconds()), append(each, waited...)
			ours.release(node)
		},
		theirs(1), theirs(etcdConns),
		func() {
			_, waited := ours.bind(node, 1, alone)
			serial = append(serial, waited...)
		},
		func() {
			_, waited := etcd.bind(1, 1, alone)
			etcdSerial = append(etcdSerial, waited...)
		},
	}
	ours.bind(node, leaseCallers, burst/10) // warm
	etcd.bind(etcdConns, leaseCallers, burst/10)
	p := newProgress(fmt.Sprintf("leases by %d callers, rounds", leaseCallers), leaseRounds)
	for i := range leaseRounds {
		for k := range sides {
			sides[(i+k)%len(sides)]()
			time.Sleep(100 * time.Millisecond) // what is written behind is done
		}
		p.done(i + 1)
	}
	t.spread(fmt.Sprintf("leases by %d callers on a follower of three", leaseCallers), "/s", rate, bar{})
	t.spread("  each caller waits", "ms", each, bar{})
	t.spread(fmt.Sprintf("etcd 3.4, create if absent, %d callers on a follower of three", leaseCallers), "/s", *etcdRate[1], bar{})
	t.spread("  each caller waits", "ms", etcdEach, bar{})
	t.spread(fmt.Sprintf("  over %d connections", etcdConns), "/s", *etcdRate[etcdConns], bar{})
	t.pairs("leases / etcd's", rate, *etcdRate[1], bar{p50: 5, atLeast: true})
	t.pairs(fmt.Sprintf("  over %d connections", etcdConns), rate, *etcdRate[etcdConns], bar{})
	t.spread("one lease after the other, on the follower", "ms", serial, bar{})
	t.spread("  etcd", "ms", etcdSerial, bar{})
	t.ratio("etcd / one lease after the other", etcdSerial, serial, bar{})
}
