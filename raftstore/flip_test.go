package raftstore

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strconv"
	"testing"
	"time"

	"github.com/hashicorp/raft"

	"stellar.io/stellar/internal/testx/faults"
	"stellar.io/stellar/ipam"
)

// seeds returns the seeds of n cases, of more in the long variant: one alone when it is
// given.
func seeds(t *testing.T, n, longer int) []uint64 {
	t.Helper()
	if text := os.Getenv(faults.EnvSeed); text != "" {
		return []uint64{faults.Seed(t, "./raftstore")}
	}
	if faults.Long() {
		n = longer
	}
	first := rand.Uint64() >> 12
	out := make([]uint64, n)
	for i := range out {
		out[i] = first + uint64(i)
	}
	return out
}

// damage is one way to spoil the files of a store.
type damage struct {
	what string
	do   func(r *rand.Rand, file []byte) []byte
}

// flip flips one bit among the first bytes of the file that are not zero, or, one time
// in four, in a page's head, and beside the names of the stable values.
func flip(r *rand.Rand, file []byte) []byte {
	used := len(bytes.TrimRight(file, "\x00"))
	at := r.IntN(max(1, used))
	switch r.IntN(4) {
	case 0:
		at = min(used-1, at&^4095+r.IntN(64))
	case 1:
		if i := bytes.LastIndex(file, []byte(keyCurrentTerm)); i > 0 {
			at = min(used-1, max(0, i-100+r.IntN(250)))
		}
	}
	file[at] ^= 1 << r.IntN(8)
	return file
}

var damages = []damage{
	{"flip", flip}, {"flip", flip}, {"flip", flip}, {"flip", flip}, {"flip", flip}, {"flip", flip},
	{"truncate", func(r *rand.Rand, file []byte) []byte { return file[:r.IntN(len(file))] }},
	{"swap", func(r *rand.Rand, file []byte) []byte {
		const block = 512
		if len(file) < 2*block {
			return flip(r, file)
		}
		n := len(file) / block
		i, j := r.IntN(n)*block, r.IntN(n)*block
		for k := range block {
			file[i+k], file[j+k] = file[j+k], file[i+k]
		}
		return file
	}},
}

// spoiled is a store whose files are damaged, again and again.
type spoiled struct {
	cfg   Config
	files map[string][]byte
	names []string
	want  [32]byte // hash of the state
	terms marked
}

// makeSpoiled makes a store with snapshots, a log beyond them, votes and terms.
func makeSpoiled(t *testing.T) *spoiled {
	t.Helper()
	s := &spoiled{cfg: testConfig(t.TempDir()), files: map[string][]byte{}}
	s.cfg.SnapshotThreshold, s.cfg.SnapshotInterval, s.cfg.TrailingLogs = 20, 5*time.Millisecond, 25
	mustInit(t, s.cfg)
	for round := range 3 {
		r := mustRun(t, s.cfg)
		sub := testSubnet(t, r.Store)
		for i := range 25 {
			mustPropose(t, r.Store, ipam.Envelope{Commands: []ipam.Command{bind(sub, 2+25*round+i, strconv.Itoa(25*round+i))}})
		}
		waitFor(t, func() bool { return r.Stats().SnapshotIndex > uint64(25*(round+1)-20) })
		r.View(func(st *ipam.State) { s.want = st.Hash() })
		r.mustStop(t)
	}
	s.cfg.SnapshotThreshold, s.cfg.SnapshotInterval = 8192, time.Hour
	store, err := Open(s.cfg)
	if err != nil {
		t.Fatal(err)
	}
	s.terms = store.files.bolt.mark.get()
	if err := store.Close(); err != nil {
		t.Fatal(err)
	}
	err = filepath.WalkDir(s.cfg.Dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		rel, _ := filepath.Rel(s.cfg.Dir, path)
		s.files[rel], err = os.ReadFile(path)
		s.names = append(s.names, rel)
		return err
	})
	if err != nil || len(s.names) < 7 {
		t.Fatalf("%v: %v", s.names, err)
	}
	return s
}

// fresh puts the good files into a new directory.
func (s *spoiled) fresh(t *testing.T) Config {
	cfg := s.cfg
	cfg.Dir = filepath.Join(t.TempDir(), "raft")
	for name, data := range s.files {
		path := filepath.Join(cfg.Dir, name)
		if err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o700), os.WriteFile(path, data, 0o600)); err != nil {
			t.Fatal(err)
		}
	}
	return cfg
}

// outcome opens the store and compares what it says with what was written.
func (s *spoiled) outcome(cfg Config) (refused bool, err error) {
	store, err := Open(cfg)
	if err != nil {
		if errors.Is(err, ErrCorrupt) || errors.Is(err, ErrForeign) || errors.Is(err, ErrVersion) {
			return true, nil
		}
		return true, fmt.Errorf("refused for another reason: %w", err)
	}
	term, err1 := store.files.bolt.stable(keyCurrentTerm)
	vote, err2 := store.files.bolt.stable(keyLastVoteTerm)
	if err1 != nil || err2 != nil || term != s.terms.term || vote != s.terms.vote {
		return false, errors.Join(fmt.Errorf("term %d, vote in %d; want %d, %d: %v %v", term, vote, s.terms.term, s.terms.vote, err1, err2), store.Close())
	}
	ctx, stop := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- store.Run(ctx) }()
	wait, cancel := context.WithTimeout(ctx, 10*time.Second)
	err = store.WaitLeader(wait)
	cancel()
	if err == nil {
		store.View(func(st *ipam.State) {
			if st.Hash() != s.want {
				err = fmt.Errorf("a state that is not the one that was written: index %d", st.Index())
			}
		})
	}
	stop()
	return false, errors.Join(err, <-done)
}

// TestFaultStoreDamage: a flipped bit, a lost end, blocks in each other's place, in any
// file of a store: the state that was written, or a clean refusal.
func TestFaultStoreDamage(t *testing.T) {
	s := makeSpoiled(t)
	if refused, err := s.outcome(s.fresh(t)); refused || err != nil {
		t.Fatalf("without damage: refused %v, %v", refused, err)
	}
	count := map[string]int{}
	for _, seed := range seeds(t, 200, 1000) {
		r := rand.New(rand.NewPCG(seed, 0))
		name := s.names[r.IntN(len(s.names))]
		if r.IntN(2) == 0 {
			name = logFile
		}
		d := damages[r.IntN(len(damages))]
		cfg := s.fresh(t)
		path := filepath.Join(cfg.Dir, name)
		if err := os.WriteFile(path, d.do(r, bytes.Clone(s.files[name])), 0o600); err != nil {
			t.Fatal(err)
		}
		if testing.Verbose() {
			fmt.Fprintf(os.Stderr, "%s of %s, seed %d\n", d.what, name, seed) // a panic would not say
		}
		refused, err := s.outcome(cfg)
		if err != nil {
			t.Errorf("%s of %s: %v\n%s", d.what, name, err, faults.Replay(t.Name(), "./raftstore", seed, false))
		}
		if refused {
			count["refused"]++
		} else {
			count["as written"]++
		}
		if err := os.RemoveAll(filepath.Dir(cfg.Dir)); err != nil {
			t.Fatal(err)
		}
	}
	faults.Report(t, faults.InProcess, "damaged log, stable values, snapshots, mark", "%d: %v, 0 wrong", count["refused"]+count["as written"], count)
	if os.Getenv(faults.EnvSeed) == "" && (count["refused"] == 0 || count["as written"] == 0) {
		t.Errorf("the damage does not vary: %v", count)
	}
}

// TestFaultLostTail: the end of the log or the terms are missing, and what is left is well formed.
func TestFaultLostTail(t *testing.T) {
	s := makeSpoiled(t)
	// bbolt falls back to the older meta page, which knows nothing of the last
	// transaction. What that was here is up to snapshots: nothing is missing, or it is
	// refused.
	cfg := s.fresh(t)
	path := filepath.Join(cfg.Dir, logFile)
	forgetLast(t, path)
	if refused, err := s.outcome(cfg); err != nil {
		t.Errorf("the older meta page: refused %v, %v", refused, err)
	}
	// Here it was an entry, which the mark knows of.
	cfg = s.fresh(t)
	path = filepath.Join(cfg.Dir, logFile)
	f, err := openFiles(cfg.withDefaults(), cfg.Dir, false)
	if err != nil {
		t.Fatal(err)
	}
	last, err := f.bolt.LastIndex()
	if err != nil {
		t.Fatal(err)
	}
	entry := raft.Log{Index: last + 1, Term: s.terms.term, Type: raft.LogNoop}
	if err := errors.Join(f.bolt.StoreLog(&entry), f.bolt.Close()); err != nil {
		t.Fatal(err)
	}
	whole, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	forgetLast(t, path)
	if _, err := Open(cfg); !errors.Is(err, ErrCorrupt) {
		t.Errorf("the older meta page, which lacks an entry: %v", err)
	}
	if err := os.WriteFile(path, whole, 0o600); err != nil {
		t.Fatal(err)
	}
	if refused, err := s.outcome(cfg); refused || err != nil {
		t.Errorf("with that entry: refused %v, %v", refused, err)
	}
	// The last entry is gone.
	cfg = s.fresh(t)
	if f, err = openFiles(cfg.withDefaults(), cfg.Dir, false); err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(f.bolt.bolt.DeleteRange(last, last), f.bolt.Close()); err != nil {
		t.Fatal(err)
	}
	if _, err := Open(cfg); !errors.Is(err, ErrCorrupt) {
		t.Errorf("without the last entry: %v", err)
	}
	// The term is an older one, with a good checksum.
	cfg = s.fresh(t)
	if f, err = openFiles(cfg.withDefaults(), cfg.Dir, false); err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(f.bolt.set([]byte(keyCurrentTerm), make([]byte, 8)), f.bolt.Close()); err != nil {
		t.Fatal(err)
	}
	if _, err := Open(cfg); !errors.Is(err, ErrCorrupt) {
		t.Errorf("with an older term: %v", err)
	}
}

// forgetLast spoils the newer of a log file's two meta pages.
func forgetLast(t *testing.T, path string) {
	t.Helper()
	file, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	m0, _ := readMeta(file)
	m1, _ := readMeta(file[m0.pageSize:])
	newer := 0
	if m1.tx > m0.tx {
		newer = int(m0.pageSize)
	}
	file[newer+boltHead+20] ^= 1
	if err := os.WriteFile(path, file, 0o600); err != nil {
		t.Fatal(err)
	}
}

// TestFaultEveryField: whatever part of an entry or of a value changes, it is noticed.
func TestFaultEveryField(t *testing.T) {
	cfg := testConfig(t.TempDir())
	mustInit(t, cfg)
	f, err := openFiles(cfg.withDefaults(), cfg.Dir, false)
	if err != nil {
		t.Fatal(err)
	}
	defer f.bolt.Close()
	good := raft.Log{Index: 3, Term: 2, Type: raft.LogCommand, Data: []byte("data"), Extensions: []byte("ext"), AppendedAt: time.Unix(1700000000, 123456789)}
	if err := f.bolt.StoreLog(&good); err != nil {
		t.Fatal(err)
	}
	var got raft.Log
	if err := f.bolt.GetLog(3, &got); err != nil || !got.AppendedAt.Equal(good.AppendedAt) || string(got.Extensions) != "ext" || string(got.Data) != "data" {
		t.Fatalf("%+v, %v", got, err)
	}
	for what, change := range map[string]func(*raft.Log){
		"term": func(l *raft.Log) { l.Term++ }, "type": func(l *raft.Log) { l.Type++ },
		"data": func(l *raft.Log) { l.Data = []byte("dat4") }, "extensions": func(l *raft.Log) { l.Extensions[0]++ },
		"time": func(l *raft.Log) { l.AppendedAt = l.AppendedAt.Add(1) }, "no time": func(l *raft.Log) { l.AppendedAt = time.Time{} },
		"no sum":     func(l *raft.Log) { l.Extensions = []byte("ext") },
		"moved byte": func(l *raft.Log) { l.Data, l.Extensions = []byte("dat"), append([]byte("a"), l.Extensions...) },
	} {
		bad := good
		bad.Extensions = appendSum([]byte("ext"), logSum(&good))
		change(&bad)
		if err := f.bolt.bolt.StoreLog(&bad); err != nil {
			t.Fatal(err)
		}
		if err := f.bolt.GetLog(3, &got); !errors.Is(err, ErrCorrupt) {
			t.Errorf("%s: %v", what, err)
		}
	}
	moved := good
	moved.Index = 4
	if err := f.bolt.StoreLog(&moved); err != nil {
		t.Fatal(err)
	}
	for key, value := range map[string]string{keyCurrentTerm: "\x00\x00\x00\x00\x00\x00\x00\x09", keyLastVoteCand: "x"} {
		if err := f.bolt.bolt.Set([]byte(key), []byte(value)); err != nil {
			t.Fatal(err)
		}
		if _, err := f.bolt.Get([]byte(key)); !errors.Is(err, ErrCorrupt) {
			t.Errorf("%s without a checksum: %v", key, err)
		}
		if err := f.bolt.bolt.Set([]byte(key), appendSum([]byte(value), valueSum([]byte("other"), []byte(value)))); err != nil {
			t.Fatal(err)
		}
		if _, err := f.bolt.Get([]byte(key)); !errors.Is(err, ErrCorrupt) {
			t.Errorf("%s with another's checksum: %v", key, err)
		}
	}
}

// TestFaultDamageWhileRunning: an entry that is damaged after it was read once stops the
// state here; it is an error to whoever asks for it, View goes on, and the next Open
// refuses.
func TestFaultDamageWhileRunning(t *testing.T) {
	cfg := testConfig(t.TempDir())
	mustInit(t, cfg)
	r := mustRun(t, cfg)
	mustPropose(t, r.Store, ipam.Envelope{Commands: []ipam.Command{bind(testSubnet(t, r.Store), 2, "x")}})
	var l raft.Log
	if err := r.files.bolt.bolt.GetLog(firstIndex, &l); err != nil {
		t.Fatal(err)
	}
	l.Data[0] ^= 1
	if err := r.files.bolt.bolt.StoreLog(&l); err != nil {
		t.Fatal(err)
	}
	if err := r.files.log.GetLog(firstIndex, &l); !errors.Is(err, ErrCorrupt) {
		t.Errorf("a damaged entry: %v", err)
	}
	waitFor(t, func() bool { return r.raft.State() == raft.Shutdown })
	if err := r.Stats().FSMError; !errors.Is(err, ErrStopped) || !errors.Is(err, ErrCorrupt) {
		t.Errorf("stats: %v", err)
	}
	r.View(func(st *ipam.State) {
		if _, ok := st.LeaseByOwner(owner("x")); !ok {
			t.Error("the state is gone")
		}
	})
	r.mustStop(t)
	if _, err := Open(cfg); !errors.Is(err, ErrCorrupt) {
		t.Errorf("open: %v", err)
	}
}
