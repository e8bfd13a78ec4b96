package raftstore

import (
	"errors"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/hashicorp/raft"

	"stellar.io/stellar/ipam"
)

// TestHint: what concerns all nodes is applied everywhere long before the library's
// own message; on nodes that do not vote too.
func TestHint(t *testing.T) {
	var mu sync.Mutex
	at := map[uint64][]time.Time{}
	b := newBed(t, func(c *Config) {
		c.CommitTimeout = 2 * time.Second // the library's message would come after 2 to 4 s
		c.OnApply = func(index uint64, _ []ipam.Delta) {
			mu.Lock()
			at[index] = append(at[index], time.Now())
			mu.Unlock()
		}
	})
	b.form(4, 3)
	l := b.anyLeader()
	var lags []time.Duration
	for i := range 100 {
		mustPropose(t, l.Store, ipam.Envelope{Commands: []ipam.Command{ipam.UpdateNode{
			Node: l.id, Address: "10.1.1.1:9640", Version: string(rune('a' + i%26)), Mode: ipam.ModeBridge}}})
		index := l.fsm.index()
		waitIn(t, 5*time.Second, func() bool {
			mu.Lock()
			defer mu.Unlock()
			list := at[index]
			if len(list) < 4 {
				return false
			}
			lags = append(lags, slices.MaxFunc(list, time.Time.Compare).Sub(slices.MinFunc(list, time.Time.Compare)))
			return true
		})
	}
	slices.Sort(lags)
	t.Logf("first to last of four nodes: p50 %s, p99 %s", lags[50], lags[98])
	if lags[50] > 30*time.Millisecond {
		t.Errorf("p50 %s", lags[50])
	}
	// A lease is its holder's business, and a forwarded one the forwarder's.
	f := b.follower()
	sub := b.subnet(l.Store, f.id)
	begin := time.Now()
	mustPropose(t, f.Store, ipam.Envelope{Commands: []ipam.Command{bind(sub, 2, "x")}})
	if took := time.Since(begin); took > time.Second {
		t.Errorf("a forwarded lease took %s", took)
	}
}

func TestWide(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		deltas []ipam.Delta
		want   bool
	}{
		{nil, false},
		{[]ipam.Delta{ipam.TimePut{}, ipam.LeasePut{}, ipam.LeaseRemoved{}, ipam.ReservationPut{}, ipam.ReservationRemoved{}}, false},
		{[]ipam.Delta{ipam.LeasePut{}, ipam.SubnetPut{}}, true},
		{[]ipam.Delta{ipam.NodePut{}}, true}, {[]ipam.Delta{ipam.ClusterPut{}}, true}, {[]ipam.Delta{ipam.NetworkPut{}}, true},
	} {
		if got := wide(tt.deltas); got != tt.want {
			t.Errorf("%T: %v", tt.deltas, got)
		}
	}
}

// TestRegressed: a peer whose log is shorter than what it has acknowledged is found out.
func TestRegressed(t *testing.T) {
	t.Parallel()
	c := newContacts("self", DefaultConfig().Logger)
	c.answered("p", answer{term: 3, match: 10, lastLog: 9})
	c.answered("p", answer{term: 3, lastLog: 9, acked: 0}) // asked before it acknowledged
	if c.get("p").regressed {
		t.Error("an answer that crossed the acknowledgement")
	}
	c.answered("p", answer{term: 3, lastLog: 10, acked: c.matched("p", 3)})
	if c.get("p").regressed {
		t.Error("nothing is lost")
	}
	c.answered("p", answer{term: 3, lastLog: 7, acked: c.matched("p", 3)})
	if !c.get("p").regressed {
		t.Error("not found")
	}
	c.answered("p", answer{term: 4, lastLog: 7, acked: c.matched("p", 4)})
	if p := c.get("p"); p.regressed || p.match != 0 {
		t.Errorf("a new leadership knows nothing yet: %+v", p)
	}
	c.failed("p", errors.New("x"))
	back := c.silent("p")
	c.answered("p", answer{term: 4})
	select {
	case <-back:
	default:
		t.Error("not woken")
	}
}

// TestForget: a log that does not lead to a given snapshot loses what is below it; one
// that does stays.
func TestForget(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name        string
		terms       []uint64 // of the entries from 1
		index, term uint64
		first, last uint64
	}{
		{"leads to it", []uint64{1, 1, 2, 2}, 3, 2, 1, 4},
		{"ends before", []uint64{1, 1, 2}, 9, 3, 0, 0},
		{"conflicts", []uint64{1, 1, 2, 2, 2}, 3, 3, 4, 5},
		{"empty", nil, 3, 3, 0, 0},
	} {
		log := raft.NewInmemStore()
		for i, term := range tt.terms {
			if err := log.StoreLog(&raft.Log{Index: uint64(i + 1), Term: term}); err != nil {
				t.Fatal(err)
			}
		}
		if err := forget(log, tt.index, tt.term); err != nil {
			t.Fatal(err)
		}
		first, _ := log.FirstIndex()
		last, _ := log.LastIndex()
		if first != tt.first || last != tt.last {
			t.Errorf("%s: %d to %d, want %d to %d", tt.name, first, last, tt.first, tt.last)
		}
	}
}

func TestStandInIsNeverSent(t *testing.T) {
	t.Parallel()
	e := newEntry([]byte("x"))
	if err := sendable([]*raft.Log{&e}); err != nil {
		t.Error(err)
	}
	if err := sendable([]*raft.Log{&e, {Extensions: []byte(standInMark)}}); !errors.Is(err, errStandIn) {
		t.Error(err)
	}
}
