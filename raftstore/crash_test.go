package raftstore

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/hashicorp/raft"

	"stellar.io/stellar/ipam"
)

// crashDirEnv makes the test binary a child that proposes until it is killed, and
// crashStubbornEnv one that goes on past errors.
const (
	crashDirEnv      = "STELLAR_TEST_CRASH_DIR"
	crashStubbornEnv = "STELLAR_TEST_CRASH_STUBBORN"
)

// crashChild binds one address after another and prints each host number once its
// lease is committed.
func crashChild(dir string) {
	fail := func(err error) {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	stubborn, patience := os.Getenv(crashStubbornEnv) != "", time.Minute
	if stubborn {
		patience = 300 * time.Millisecond
	}
	cfg := testConfig(dir)
	cfg.SnapshotThreshold, cfg.SnapshotInterval, cfg.TrailingLogs = 50, 5*time.Millisecond, 20
	s, err := Open(cfg)
	if err != nil {
		fail(err)
	}
	go s.Run(context.Background())
	if err := s.WaitLeader(context.Background()); err != nil {
		fail(err)
	}
	var sub ipam.Subnet
	next := 2
	s.View(func(st *ipam.State) {
		for sub = range st.SubnetsOf(testNode) {
			break
		}
		for l := range st.Leases(sub.SubnetKey) {
			next = max(next, hostOf(l)+1)
		}
	})
	for i := next; i < 1000; i++ {
		ctx, cancel := context.WithTimeout(context.Background(), patience)
		res, err := s.Propose(ctx, ipam.Envelope{
			Request:  ipam.RequestID{Node: testNode, Seq: uint64(i)},
			Commands: []ipam.Command{bind(sub, i, strconv.Itoa(i))},
		})
		cancel()
		if err == nil {
			err = res[0].Err
		}
		if err != nil && stubborn {
			fmt.Println("refused")
			time.Sleep(20 * time.Millisecond)
			i--
			continue
		}
		if err != nil {
			fail(err)
		}
		fmt.Println(i)
	}
	select {}
}

func hostOf(l ipam.Lease) int {
	a := l.Addr.As4()
	return int(a[2]&3)<<8 | int(a[3])
}

// A process killed in the middle of proposing has lost nothing that it acknowledged.
func TestKillLosesNothing(t *testing.T) {
	dir := t.TempDir()
	cfg := testConfig(dir)
	mustInit(t, cfg)
	acked := map[int]bool{}
	for round := range 8 {
		cmd := exec.Command(os.Args[0], "-test.run=^$")
		cmd.Env = append(os.Environ(), crashDirEnv+"="+dir)
		cmd.Stderr = os.Stderr
		out, err := cmd.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		lines := bufio.NewScanner(out)
		for n := 20 + rand.IntN(40); n > 0 && lines.Scan(); n-- {
			i, err := strconv.Atoi(lines.Text())
			if err != nil {
				t.Fatal(err)
			}
			acked[i] = true
		}
		if err := cmd.Process.Kill(); err != nil {
			t.Fatal(err)
		}
		for lines.Scan() { // what it acknowledged before it died
			if i, err := strconv.Atoi(lines.Text()); err == nil {
				acked[i] = true
			}
		}
		cmd.Wait()
		if len(acked) < 20*(round+1) {
			t.Fatalf("the child got no further than %d", len(acked))
		}
	}
	r := mustRun(t, cfg)
	sub := testSubnet(t, r.Store)
	r.View(func(st *ipam.State) {
		if err := st.Check(); err != nil {
			t.Error(err)
		}
		for i := range acked {
			l, ok := st.LeaseByOwner(owner(strconv.Itoa(i)))
			if !ok || l.Addr != bind(sub, i, "").Addr {
				t.Errorf("acknowledged lease %d is lost", i)
			}
		}
	})
	t.Logf("%d acknowledged leases over 8 kills", len(acked))
}

func TestInitOnce(t *testing.T) {
	cfg := testConfig(t.TempDir())
	mustInit(t, cfg)
	if err := Init(t.Context(), cfg, firstEnvelope()); !errors.Is(err, ErrExists) {
		t.Errorf("second init: %v", err)
	}
	for what, env := range map[string]ipam.Envelope{
		"empty":   {},
		"refused": {Commands: []ipam.Command{ipam.ClaimSubnet{Node: testNode, Network: "default"}}},
		"two clusters": {Commands: []ipam.Command{firstEnvelope().Commands[0], ipam.InitCluster{
			ClusterID: strings.Repeat("a", 32), Network: "default", Prefix: testPrefix, SubnetBits: 22}}},
	} {
		cfg := testConfig(t.TempDir())
		if err := Init(t.Context(), cfg, env); err == nil {
			t.Errorf("%s: accepted", what)
		}
		if names, _ := os.ReadDir(filepath.Dir(cfg.Dir)); len(names) != 0 {
			t.Errorf("%s: left %v", what, names)
		}
	}
}

func TestInitForeignDirectory(t *testing.T) {
	cfg := testConfig(t.TempDir())
	if err := os.MkdirAll(cfg.Dir, 0o700); err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(cfg.Dir, "precious")
	if err := os.WriteFile(file, []byte("data"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := Init(t.Context(), cfg, firstEnvelope()); !errors.Is(err, ErrForeign) {
		t.Errorf("init: %v", err)
	}
	if _, err := Open(cfg); !errors.Is(err, ErrForeign) {
		t.Errorf("open: %v", err)
	}
	if b, err := os.ReadFile(file); err != nil || string(b) != "data" {
		t.Errorf("the file was touched: %q %v", b, err)
	}
	if err := os.Remove(file); err != nil {
		t.Fatal(err)
	}
	mustInit(t, cfg) // an empty directory is no store
}

// Whatever part of a store a killed Init has left, the next one succeeds.
func TestInitAfterCrash(t *testing.T) {
	whole := testConfig(t.TempDir())
	mustInit(t, whole)
	var steps []string
	err := filepath.WalkDir(whole.Dir, func(path string, d fs.DirEntry, err error) error {
		rel, _ := filepath.Rel(whole.Dir, path)
		steps = append(steps, rel)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	slices.Sort(steps)
	for n := range len(steps) + 1 {
		cfg := testConfig(t.TempDir())
		left := filepath.Join(filepath.Dir(cfg.Dir), ".raft.init-123")
		for _, s := range steps[:n] {
			copyPart(t, filepath.Join(whole.Dir, s), filepath.Join(left, s))
		}
		if there, err := Initialized(cfg.Dir); there || err != nil {
			t.Errorf("%d steps: initialized %v %v", n, there, err)
		}
		mustInit(t, cfg)
		if names, _ := os.ReadDir(filepath.Dir(cfg.Dir)); len(names) != 1 {
			t.Errorf("%d steps: left %v", n, names)
		}
		mustRun(t, cfg).mustStop(t)
	}
}

func copyPart(t *testing.T, from, to string) {
	t.Helper()
	st, err := os.Stat(from)
	if err != nil {
		t.Fatal(err)
	}
	if st.IsDir() {
		if err := os.MkdirAll(to, 0o700); err != nil {
			t.Fatal(err)
		}
		return
	}
	b, err := os.ReadFile(from)
	if err == nil {
		err = os.WriteFile(to, b[:len(b)/2], 0o600)
	}
	if err != nil {
		t.Fatal(err)
	}
}

// Damage to the log is a clean refusal at Open, or does not matter; it never gives a
// state that there was not. (It may give an earlier one: bbolt has no checksums, and a
// page that has lost its last entries looks like one that never had them.)
func TestDamagedLog(t *testing.T) {
	cfg := testConfig(t.TempDir())
	mustInit(t, cfg)
	r := mustRun(t, cfg)
	sub := testSubnet(t, r.Store)
	known := map[[32]byte]bool{ipam.New().Hash(): true}
	note := func() { r.View(func(st *ipam.State) { known[st.Hash()] = true }) }
	note()
	for i := range 50 {
		mustPropose(t, r.Store, ipam.Envelope{Commands: []ipam.Command{bind(sub, 2+i, strconv.Itoa(i))}})
		note()
	}
	r.mustStop(t)
	good, err := os.ReadFile(filepath.Join(cfg.Dir, logFile))
	if err != nil {
		t.Fatal(err)
	}
	used := len(good)
	for used > 0 && good[used-1] == 0 {
		used--
	}
	refused := 0
	const rounds = 200
	for range rounds {
		bad := slices.Clone(good)
		// Not in the two meta pages: if the newer is damaged, bbolt goes back to the
		// older, for it may be a torn write.
		bad[8192+rand.IntN(used-8192)] ^= 1 << rand.IntN(8)
		if err := os.WriteFile(filepath.Join(cfg.Dir, logFile), bad, 0o600); err != nil {
			t.Fatal(err)
		}
		s, err := Open(cfg)
		if err != nil {
			refused++
			if !errors.Is(err, ErrCorrupt) {
				t.Errorf("refused with %v", err)
			}
			continue
		}
		checkDamaged(t, s, known)
	}
	t.Logf("%d of %d damaged logs refused", refused, rounds)
}

func checkDamaged(t *testing.T, s *Store, known map[[32]byte]bool) {
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	done := make(chan error, 1)
	rctx, stop := context.WithCancel(context.Background())
	go func() { done <- s.Run(rctx) }()
	err := s.WaitLeader(ctx)
	cancel()
	if err == nil {
		s.View(func(st *ipam.State) {
			if !known[st.Hash()] {
				t.Error("a damaged log gave another state")
			}
		})
	}
	stop()
	<-done
}

// A committed entry that nobody can decode stops Raft here; View goes on.
func TestUndecodableEntryStops(t *testing.T) {
	cfg := testConfig(t.TempDir())
	mustInit(t, cfg)
	r := mustRun(t, cfg)
	sub := testSubnet(t, r.Store)
	mustPropose(t, r.Store, ipam.Envelope{Commands: []ipam.Command{bind(sub, 2, "x")}})
	changed := r.Changed()
	if err := r.raft.ApplyLog(newEntry([]byte("poison")), time.Second).Error(); err != nil {
		t.Fatal(err)
	}
	<-changed
	waitFor(t, func() bool { return r.raft.State() == raft.Shutdown })
	for range 2 { // and again after a restart, which replays the entry
		st := r.Stats()
		if !errors.Is(st.FSMError, ErrStopped) || !errors.Is(st.FSMError, ipam.ErrUnknownCommand) || st.State != "stopped" {
			t.Errorf("stats: %+v", st)
		}
		if _, err := r.Propose(t.Context(), ipam.Envelope{Commands: []ipam.Command{bind(sub, 3, "y")}}); !errors.Is(err, ErrStopped) || errors.Is(err, ErrUnknownOutcome) {
			t.Errorf("propose: %v", err)
		}
		r.View(func(st *ipam.State) {
			if _, ok := st.LeaseByOwner(owner("x")); !ok {
				t.Error("the state before the entry is gone")
			}
		})
		select {
		case err := <-r.done:
			t.Errorf("Run ended: %v", err)
		default:
		}
		r.mustStop(t)
		s, err := Open(cfg)
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(context.Background())
		r = &running{Store: s, cancel: cancel, done: make(chan error, 1)}
		go func() { r.done <- s.Run(ctx) }()
		if err := s.WaitLeader(t.Context()); !errors.Is(err, ErrStopped) {
			t.Errorf("WaitLeader: %v", err)
		}
	}
	r.mustStop(t)
}

// TestSweep: a snapshot and a backup that a crash has left half written are gone when
// the store is open, and whole ones stay.
func TestSweep(t *testing.T) {
	t.Parallel()
	cfg := testConfig(t.TempDir())
	mustInit(t, cfg)
	left := []string{filepath.Join(cfg.Dir, snapshotDir, "1-2-3.tmp"), filepath.Join(cfg.Dir, backupDir, backupNew+"1")}
	whole := filepath.Join(cfg.Dir, backupDir, "before-restore-1.snapshot")
	for _, dir := range append(left[:1:1], filepath.Join(cfg.Dir, backupDir)) {
		if err := os.MkdirAll(dir, 0o700); err != nil {
			t.Fatal(err)
		}
	}
	for _, path := range []string{filepath.Join(left[0], "state.bin"), left[1], whole} {
		if err := os.WriteFile(path, []byte("half"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	mustRun(t, cfg).mustStop(t)
	for _, path := range left {
		if _, err := os.Stat(path); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("left over: %s, %v", path, err)
		}
	}
	if _, err := os.Stat(whole); err != nil {
		t.Error(err)
	}
}
