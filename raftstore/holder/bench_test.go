package holder

import (
	"context"
	"fmt"
	"net/netip"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"stellar.io/stellar/ipam"
	"stellar.io/stellar/raftstore"
)

// realStore is a running raftstore.Store whose node holds a /22.
func realStore(tb testing.TB, dir string) *raftstore.Store {
	tb.Helper()
	return runStore(tb, raftstore.Config{Dir: filepath.Join(dir, "raft"), NodeID: testNode})
}

func runStore(tb testing.TB, cfg raftstore.Config) *raftstore.Store {
	tb.Helper()
	env := ipam.Envelope{Commands: []ipam.Command{
		ipam.InitCluster{ClusterID: cluster, Network: ipam.DefaultNetwork, Prefix: netip.MustParsePrefix("172.16.0.0/12"), SubnetBits: 22},
		ipam.RegisterNode{Node: testNode, Name: "a", MachineID: strings.Repeat("1", 32), Address: "127.0.0.1:9640", Version: "1", Mode: ipam.ModeBridge},
		ipam.ClaimSubnet{Node: testNode, Network: ipam.DefaultNetwork},
	}}
	if there, err := raftstore.Initialized(cfg.Dir); err != nil {
		tb.Fatal(err)
	} else if !there {
		if err := raftstore.Init(context.Background(), cfg, env); err != nil {
			tb.Fatal(err)
		}
	}
	s, err := raftstore.Open(cfg)
	if err != nil {
		tb.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- s.Run(ctx) }()
	tb.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			tb.Error(err)
		}
	})
	if err := s.WaitLeader(context.Background()); err != nil {
		tb.Fatal(err)
	}
	return s
}

// realHolder is a running holder on a real store and a real disk.
func realHolder(tb testing.TB, dir string, live ...Live) *Holder {
	tb.Helper()
	return runHolder(tb, Config{JournalPath: filepath.Join(dir, "journal"), Store: realStore(tb, dir)}, live...)
}

func runHolder(tb testing.TB, cfg Config, live ...Live) *Holder {
	tb.Helper()
	var sub ipam.Subnet
	cfg.Store.View(func(st *ipam.State) {
		for sub = range st.SubnetsOf(testNode) {
			break
		}
	})
	cfg.Node, cfg.Subnet = testNode, sub
	h, err := Open(cfg)
	if err != nil {
		tb.Fatal(err)
	}
	if err := h.Adopt(context.Background(), live); err != nil {
		tb.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- h.Run(ctx) }()
	tb.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			tb.Error(err)
		}
	})
	return h
}

// The whole chain on a real disk: leases survive a restart, with a lost journal too.
func TestRealStore(t *testing.T) {
	dir := t.TempDir()
	var all []Held
	t.Run("bind", func(t *testing.T) {
		h := realHolder(t, dir)
		for i := range 50 {
			held, err := h.Bind(t.Context(), BindRequest{Owner: owner(strconv.Itoa(i))})
			if err != nil || held.Provisional {
				t.Fatal(held, err)
			}
		}
		if err := h.Release(t.Context(), owner("7")); err != nil {
			t.Fatal(err)
		}
		all = h.All()
	})
	for _, name := range []string{"restart", "again"} {
		t.Run(name, func(t *testing.T) {
			h := realHolder(t, dir)
			got := h.All()
			for i := range got {
				if got[i].Addr != all[i].Addr || got[i].Owner != all[i].Owner || got[i].Provisional {
					t.Errorf("had %+v, has %+v", all[i], got[i])
				}
			}
			if len(got) != 49 {
				t.Errorf("%d leases", len(got))
			}
		})
	}
}

// However many containers come and go, the files stay small: the log, which is cut when
// it is large, its file, whose pages are used again, and the journal.
func TestBounded(t *testing.T) {
	dir := t.TempDir()
	store := runStore(t, raftstore.Config{Dir: filepath.Join(dir, "raft"), NodeID: testNode, LogBytes: 256 << 10, SnapshotInterval: 50 * time.Millisecond})
	h := runHolder(t, Config{JournalPath: filepath.Join(dir, "journal"), Store: store, CoolDown: time.Millisecond})
	var log, journal int64
	var made, entries uint64
	for made < 60_000 {
		var wg sync.WaitGroup
		for i := range 500 {
			o := owner(fmt.Sprintf("%064d", made+uint64(i)))
			wg.Go(func() {
				if _, err := h.Bind(t.Context(), BindRequest{Owner: o}); err != nil {
					t.Error(err)
				}
			})
		}
		wg.Wait()
		for _, held := range h.All() {
			wg.Go(func() {
				if err := h.Release(t.Context(), held.Owner); err != nil {
					t.Error(err)
				}
			})
		}
		wg.Wait()
		if t.Failed() {
			t.FailNow()
		}
		made += 500
		for end := time.Now().Add(time.Minute); h.Counts().Free < 900 && time.Now().Before(end); {
			time.Sleep(time.Millisecond)
		}
		st := store.Stats()
		size, _ := h.JournalSize()
		log, journal, entries = max(log, st.LogBytes), max(journal, size), st.LastIndex
	}
	if err := h.Check(); err != nil {
		t.Error(err)
	}
	t.Logf("%d leases in %d entries: the log's file had %d KiB, the journal %d KiB at most", made, entries, log>>10, journal>>10)
	if log > 16<<20 || journal > 8<<20 { // what was written is some 25 MB each
		t.Errorf("the log's file has %d bytes, the journal %d", log, journal)
	}
	if st := store.Stats(); st.SnapshotIndex == 0 {
		t.Error("no snapshot was taken")
	}
}

func BenchmarkBind(b *testing.B) {
	h := realHolder(b, b.TempDir())
	var took []time.Duration
	var bound []ipam.Owner
	for i := 0; b.Loop(); i++ {
		o := owner(strconv.Itoa(i))
		begin := time.Now()
		if _, err := h.Bind(context.Background(), BindRequest{Owner: o}); err != nil {
			b.Fatal(err)
		}
		took = append(took, time.Since(begin))
		bound = append(bound, o)
		if len(bound) == 900 { // make room without waiting for the cool-down
			b.StopTimer()
			for _, o := range bound {
				if err := h.Release(context.Background(), o); err != nil {
					b.Fatal(err)
				}
			}
			bound = bound[:0]
			h.mu.Lock()
			for a, l := range h.leases {
				if l.flight == nil {
					l.released -= int64(h.cfg.CoolDown)
					h.picker.Free(a)
				}
			}
			h.mu.Unlock()
			b.StartTimer()
		}
	}
	slices.Sort(took)
	b.ReportMetric(float64(took[len(took)/2].Microseconds()), "p50-µs")
	b.ReportMetric(float64(took[len(took)*99/100].Microseconds()), "p99-µs")
}

// BenchmarkMemory is what the holder of a full /20 keeps in memory besides the replica.
func BenchmarkMemory(b *testing.B) {
	heap := func() uint64 {
		runtime.GC()
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		return m.HeapAlloc
	}
	for b.Loop() {
		store := newFakeStore(b, 20)
		n := newNode(b, store)
		leases := 0
		for ; leases < 4093; leases++ {
			if _, err := n.Bind(context.Background(), BindRequest{Owner: owner(fmt.Sprintf("%064d", leases))}); err != nil {
				b.Fatal(err)
			}
		}
		full := heap()
		n.stop()
		n.Holder, n.done = nil, nil
		store.requests = nil
		b.ReportMetric(float64(full-heap())/float64(leases), "B/lease")
	}
}
