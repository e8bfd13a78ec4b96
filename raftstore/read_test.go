package raftstore

import (
	"context"
	"fmt"
	"math/rand/v2"
	"sync"
	"testing"
	"time"

	"stellar.io/stellar/ipam"
)

// op is one operation of a history over one register that only grows.
type op struct {
	begin, end time.Time
	value      int
	write      bool
	acked      bool
}

// checkHistory checks that a history of one growing register is linearizable: a read
// returns no less than any write or read that ended before it began returned, and
// nothing that nobody had begun to write when it ended.
func checkHistory(ops []op) error {
	for i, r := range ops {
		if r.write {
			continue
		}
		begun := r.value == 0
		for _, o := range ops {
			if (o.acked || !o.write) && o.end.Before(r.begin) && o.value > r.value {
				return fmt.Errorf("read %d returned %d, although %d was seen %s before it began", i, r.value, o.value, r.begin.Sub(o.end))
			}
			begun = begun || o.write && o.value >= r.value && o.begin.Before(r.end)
		}
		if !begun {
			return fmt.Errorf("read %d returned %d, which was written later", i, r.value)
		}
	}
	return nil
}

func TestCheckHistory(t *testing.T) {
	at := func(ms int) time.Time { return time.UnixMilli(int64(ms)) }
	w := func(b, e, v int) op { return op{at(b), at(e), v, true, true} }
	r := func(b, e, v int) op { return op{at(b), at(e), v, false, true} }
	for i, tt := range []struct {
		ops []op
		ok  bool
	}{
		{[]op{w(0, 10, 1), r(11, 12, 1)}, true},
		{[]op{w(0, 10, 1), r(5, 6, 0)}, true},
		{[]op{w(0, 10, 1), r(11, 12, 0)}, false},
		{[]op{w(0, 10, 1), r(2, 3, 1), r(4, 5, 0)}, false},
		{[]op{r(0, 1, 1), w(2, 3, 1)}, false},
	} {
		if err := checkHistory(tt.ops); (err == nil) != tt.ok {
			t.Errorf("%d: %v", i, err)
		}
	}
}

// TestLinearizableRead reads on all nodes while leaders are frozen, cut off and
// replaced: the old leader must never answer from what it has.
func TestLinearizableRead(t *testing.T) {
	b := newBed(t, nil)
	b.form(3, 3)
	sub := b.subnet(b.nodes[0].Store, b.nodes[0].id)
	var mu sync.Mutex
	var ops []op
	note := func(o op) {
		mu.Lock()
		ops = append(ops, o)
		mu.Unlock()
	}
	stop := make(chan struct{})
	stopped := func() bool {
		select {
		case <-stop:
			return true
		default:
			return false
		}
	}
	var wg sync.WaitGroup
	wg.Go(func() { // the register is the number of leases of one owner after another
		for v := 1; !stopped() && v < 1000; {
			n := b.nodes[rand.IntN(3)]
			o := op{begin: time.Now(), value: v, write: true}
			ctx, cancel := context.WithTimeout(context.Background(), 300*time.Millisecond)
			_, err := n.Propose(ctx, ipam.Envelope{
				Request:  ipam.RequestID{Node: b.nodes[0].id, Seq: uint64(v)},
				Commands: []ipam.Command{bind(sub, 1+v, fmt.Sprint("v", v))},
			})
			cancel()
			o.end, o.acked = time.Now(), err == nil
			note(o)
			if err == nil {
				v++
			}
			time.Sleep(2 * time.Millisecond)
		}
	})
	reads := 0
	for _, n := range b.nodes {
		wg.Go(func() {
			for !stopped() {
				o := op{begin: time.Now()}
				ctx, cancel := context.WithTimeout(context.Background(), time.Second)
				err := n.LinearizableRead(ctx)
				cancel()
				if err == nil {
					n.View(func(st *ipam.State) { o.value = st.Usage(sub.SubnetKey).Used })
					o.end = time.Now()
					note(o)
					mu.Lock()
					reads++
					mu.Unlock()
				}
				time.Sleep(3 * time.Millisecond)
			}
		})
	}
	for range 5 {
		time.Sleep(300 * time.Millisecond)
		l := b.anyLeader()
		b.f.isolate(l.host, b.hosts(), true) // frozen: its lease of 500 ms still runs
		waitIn(t, 10*time.Second, func() bool { n := b.leader(); return n != nil && n != l })
		time.Sleep(200 * time.Millisecond)
		b.f.isolate(l.host, b.hosts(), false)
		b.waitLeader(l)
	}
	close(stop)
	wg.Wait()
	if err := checkHistory(ops); err != nil {
		t.Error(err)
	}
	t.Logf("%d operations, %d linearizable reads", len(ops), reads)
	if reads < 100 {
		t.Error("too few reads")
	}
}

// TestReadNeedsVoters: nodes that do not vote do not make a leader sure of itself.
func TestReadNeedsVoters(t *testing.T) {
	b := newBed(t, nil)
	b.form(5, 3)
	l := b.anyLeader()
	if err := l.LinearizableRead(within(t, time.Second)); err != nil {
		t.Fatal(err)
	}
	for _, p := range l.Peers() {
		if p.Voter && p.ID != l.id {
			b.f.hold(l.host, b.node(p.ID).host, true)
			b.f.hold(b.node(p.ID).host, l.host, true)
		}
	}
	for range 20 { // until it steps down, the nodes that do not vote confirm it
		ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
		err := l.LinearizableRead(ctx)
		cancel()
		if err == nil && l.Stats().State == "leader" {
			t.Fatal("a linearizable read without a majority of the voters")
		}
	}
}
