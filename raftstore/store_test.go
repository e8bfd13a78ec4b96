package raftstore

import (
	"context"
	"errors"
	"net/netip"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"

	"stellar.io/stellar/ipam"
)

func TestMain(m *testing.M) {
	if dir := os.Getenv(crashDirEnv); dir != "" {
		crashChild(dir)
	}
	goleak.VerifyTestMain(m)
}

const (
	testNode  = ipam.NodeID("0123456789abcdef0123456789abcdef")
	otherNode = ipam.NodeID("fedcba9876543210fedcba9876543210")
	cluster   = "00112233445566778899aabbccddeeff"
)

func testConfig(dir string) Config {
	return Config{Dir: filepath.Join(dir, "raft"), NodeID: testNode, LockTimeout: 200 * time.Millisecond}
}

// firstEnvelope makes a cluster, its first node and the node's subnet.
func firstEnvelope() ipam.Envelope {
	return ipam.Envelope{Commands: []ipam.Command{
		ipam.InitCluster{ClusterID: cluster, Network: ipam.DefaultNetwork, Prefix: netip.MustParsePrefix("172.16.0.0/12"), SubnetBits: 22},
		ipam.RegisterNode{Node: testNode, Name: "a", MachineID: strings.Repeat("1", 32), Address: "127.0.0.1:9640", Version: "1", Mode: ipam.ModeBridge},
		ipam.ClaimSubnet{Node: testNode, Network: ipam.DefaultNetwork},
	}}
}

func mustInit(t testing.TB, cfg Config) {
	t.Helper()
	if err := Init(t.Context(), cfg, firstEnvelope()); err != nil {
		t.Fatal(err)
	}
}

// running is a store whose Run goes on in the background.
type running struct {
	*Store
	cancel context.CancelFunc
	done   chan error
}

// mustRun opens and runs the store until the test ends, and waits for its leader.
func mustRun(t testing.TB, cfg Config) *running {
	t.Helper()
	s, err := Open(cfg)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	r := &running{Store: s, cancel: cancel, done: make(chan error, 1)}
	go func() { r.done <- s.Run(ctx) }()
	t.Cleanup(func() {
		if r.cancel != nil {
			r.mustStop(t)
		}
	})
	wctx, wcancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer wcancel()
	if err := s.WaitLeader(wctx); err != nil {
		t.Fatal(err)
	}
	return r
}

func (r *running) mustStop(t testing.TB) {
	t.Helper()
	r.cancel()
	r.cancel = nil
	begin := time.Now()
	select {
	case err := <-r.done:
		if err != nil {
			t.Errorf("Run: %v", err)
		}
	case <-time.After(10 * time.Second):
		t.Fatal("Run does not end")
	}
	if took := time.Since(begin); took > 5*time.Second {
		t.Errorf("Run took %s to end", took)
	}
}

func testSubnet(t testing.TB, s *Store) ipam.Subnet {
	t.Helper()
	var sub ipam.Subnet
	s.View(func(st *ipam.State) {
		for sub = range st.SubnetsOf(testNode) {
			break
		}
	})
	if sub.State != ipam.Held {
		t.Fatal("the node holds no subnet")
	}
	return sub
}

func owner(id string) ipam.Owner {
	return ipam.Owner{Kind: ipam.OwnerContainer, Namespace: "default", ID: id, Created: 1, Interface: "eth0"}
}

func bind(sub ipam.Subnet, host int, id string) ipam.BindLease {
	a := sub.Prefix.Addr().As4()
	a[2] += byte(host >> 8)
	a[3] = byte(host)
	return ipam.BindLease{Fence: sub.Fence(), Addr: netip.AddrFrom4(a), Owner: owner(id)}
}

func mustPropose(t testing.TB, s *Store, env ipam.Envelope) []ipam.Result {
	t.Helper()
	res, err := s.Propose(t.Context(), env)
	if err != nil {
		t.Fatal(err)
	}
	for _, r := range res {
		if r.Err != nil {
			t.Fatal(r.Err)
		}
	}
	return res
}

func TestRestartKeepsState(t *testing.T) {
	cfg := testConfig(t.TempDir())
	mustInit(t, cfg)
	r := mustRun(t, cfg)
	sub := testSubnet(t, r.Store)
	if want := netip.MustParsePrefix("172.16.0.0/22"); sub.Prefix != want {
		t.Fatalf("subnet %s, want %s", sub.Prefix, want)
	}
	env := ipam.Envelope{Request: ipam.RequestID{Node: testNode, Seq: 7}, Commands: []ipam.Command{bind(sub, 2, "x")}}
	mustPropose(t, r.Store, env)
	var hash [32]byte
	r.View(func(st *ipam.State) { hash = st.Hash() })
	r.mustStop(t)
	if _, err := r.Propose(t.Context(), env); !errors.Is(err, ErrShutdown) || errors.Is(err, ErrUnknownOutcome) {
		t.Errorf("after Run: %v", err)
	}

	r = mustRun(t, cfg)
	r.View(func(st *ipam.State) {
		if st.Hash() != hash {
			t.Error("the state changed over a restart")
		}
	})
	mustPropose(t, r.Store, env) // the same request again changes nothing
	r.View(func(st *ipam.State) {
		if st.Hash() != hash {
			t.Error("a repeated request changed the state")
		}
	})
	if st := r.Stats(); st.State != "leader" || st.Leader != testNode || st.Voters != 1 || st.Servers != 1 ||
		st.Term < 3 || st.AppliedIndex < 3 || st.LogBytes == 0 || st.FSMError != nil || st.LastContact != 0 || st.DiskBusy != 0 {
		t.Errorf("stats: %+v", st)
	}
}

func TestSnapshotAndRestore(t *testing.T) {
	cfg := testConfig(t.TempDir())
	cfg.SnapshotThreshold, cfg.SnapshotInterval, cfg.TrailingLogs = 20, 10*time.Millisecond, 5
	mustInit(t, cfg)
	r := mustRun(t, cfg)
	sub := testSubnet(t, r.Store)
	for i := range 200 {
		mustPropose(t, r.Store, ipam.Envelope{Commands: []ipam.Command{bind(sub, 2+i, strconv.Itoa(i))}})
	}
	waitFor(t, func() bool { return r.Stats().SnapshotIndex > 150 })
	var hash [32]byte
	r.View(func(st *ipam.State) { hash = st.Hash() })
	r.mustStop(t)
	r = mustRun(t, cfg)
	r.View(func(st *ipam.State) {
		if st.Hash() != hash {
			t.Error("the state changed over snapshot and restart")
		}
		if err := st.Check(); err != nil {
			t.Error(err)
		}
	})
	for _, dir := range []string{cfg.Dir, filepath.Join(cfg.Dir, snapshotDir)} {
		if st, err := os.Stat(dir); err != nil || st.Mode().Perm() != 0o700 {
			t.Errorf("%s: %v, %v", dir, st.Mode(), err)
		}
	}
}

func TestOpenRefuses(t *testing.T) {
	cfg := testConfig(t.TempDir())
	if _, err := Open(cfg); !errors.Is(err, ErrNotFound) {
		t.Errorf("no store: %v", err)
	}
	mustInit(t, cfg)
	other := cfg
	other.NodeID = otherNode
	if _, err := Open(other); !errors.Is(err, ErrForeign) {
		t.Errorf("another node's: %v", err)
	}
	s, err := Open(cfg)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := s.Propose(t.Context(), firstEnvelope()); !errors.Is(err, ErrNotStarted) {
		t.Errorf("before Run: %v", err)
	}
	begin := time.Now()
	if _, err := Open(cfg); !errors.Is(err, ErrLocked) || time.Since(begin) > 2*time.Second {
		t.Errorf("second open: %v after %s", err, time.Since(begin))
	}
	if err := s.Close(); err != nil {
		t.Error(err)
	}
	if err := s.Close(); err != nil {
		t.Error(err)
	}
	if _, err := s.Propose(t.Context(), firstEnvelope()); !errors.Is(err, ErrShutdown) {
		t.Errorf("after Close: %v", err)
	}
	if err := s.WaitLeader(t.Context()); !errors.Is(err, ErrShutdown) {
		t.Errorf("WaitLeader after Close: %v", err)
	}
	if err := s.Run(t.Context()); !errors.Is(err, ErrShutdown) {
		t.Errorf("Run after Close: %v", err)
	}
}

func TestWatch(t *testing.T) {
	cfg := testConfig(t.TempDir())
	var seen []uint64 // touched by the apply goroutine, read after Run
	cfg.OnApply = func(index uint64, deltas []ipam.Delta) { seen = append(seen, index) }
	mustInit(t, cfg)
	r := mustRun(t, cfg)
	sub := testSubnet(t, r.Store)
	changed := r.ViewAndWatch(func(st *ipam.State) {
		if _, ok := st.LeaseByOwner(owner("x")); ok {
			t.Error("bound before")
		}
	})
	mustPropose(t, r.Store, ipam.Envelope{Commands: []ipam.Command{bind(sub, 2, "x")}})
	select {
	case <-changed:
	case <-time.After(time.Second):
		t.Error("not woken")
	}
	changed = r.Changed()
	mustPropose(t, r.Store, ipam.Envelope{Commands: []ipam.Command{bind(sub, 2, "x")}})
	select {
	case <-changed:
		t.Error("woken by an entry that changed nothing")
	default:
	}
	r.mustStop(t)
	for i := 1; i < len(seen); i++ {
		if seen[i] <= seen[i-1] {
			t.Errorf("deltas out of order: %v", seen)
		}
	}
	if len(seen) < 2 {
		t.Errorf("deltas of %v", seen)
	}
}

func TestProposeContext(t *testing.T) {
	cfg := testConfig(t.TempDir())
	mustInit(t, cfg)
	r := mustRun(t, cfg)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := r.Propose(ctx, firstEnvelope()); !errors.Is(err, context.Canceled) || errors.Is(err, ErrUnknownOutcome) {
		t.Errorf("cancelled before: %v", err)
	}
	if _, err := r.Propose(t.Context(), ipam.Envelope{Commands: []ipam.Command{ipam.RegisterNode{Name: "\xff"}}}); !errors.Is(err, ipam.ErrInvalid) {
		t.Errorf("unencodable: %v", err)
	}
}

func TestTick(t *testing.T) {
	cfg := testConfig(t.TempDir())
	cfg.TickEvery = 20 * time.Millisecond
	mustInit(t, cfg)
	begin := time.Now()
	r := mustRun(t, cfg)
	now := func() (d time.Duration) {
		r.View(func(st *ipam.State) {
			c, _ := st.Cluster()
			d = time.Duration(c.Time)
		})
		return d
	}
	waitFor(t, func() bool { return now() > 100*time.Millisecond })
	if got, real := now(), time.Since(begin); got > real {
		t.Errorf("cluster time %s ran ahead of %s", got, real)
	}
}

func waitFor(t testing.TB, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(10 * time.Second); !ok(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal("did not happen within 10 s")
		}
	}
}

func BenchmarkProposeSerial(b *testing.B) {
	cfg := testConfig(b.TempDir())
	mustInit(b, cfg)
	r := mustRun(b, cfg)
	sub := testSubnet(b, r.Store)
	took := make([]time.Duration, 0, b.N)
	for i := 0; b.Loop(); i++ {
		begin := time.Now()
		mustPropose(b, r.Store, ipam.Envelope{
			Request:  ipam.RequestID{Node: testNode, Seq: uint64(i + 1)},
			Commands: []ipam.Command{bind(sub, 2+i%1000, "x"), ipam.ReleaseLease{Fence: sub.Fence(), Addr: bind(sub, 2+i%1000, "x").Addr, Owner: owner("x")}},
		})
		took = append(took, time.Since(begin))
	}
	reportPercentiles(b, took)
}
