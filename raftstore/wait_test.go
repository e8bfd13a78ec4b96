package raftstore

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/hashicorp/raft"

	"stellar.io/stellar/ipam"
)

func applyAt(t *testing.T, f *fsm, index uint64, env ipam.Envelope) {
	t.Helper()
	data, err := env.Encode()
	if err != nil {
		t.Fatal(err)
	}
	e := newEntry(data)
	e.Index = index
	if a := f.Apply(&e).(applied); a.err != nil {
		t.Fatal(a.err)
	}
}

// TestHashAt: the state at an index is the one after the last command up to it,
// whether commands come at the index, after it, or not at all.
func TestHashAt(t *testing.T) {
	t.Parallel()
	f := newFSM(nil)
	s := &Store{fsm: f}
	applyAt(t, f, 2, firstEnvelope())
	_, first, err := s.Hash(t.Context(), 0)
	if err != nil {
		t.Fatal(err)
	}
	type result struct {
		index uint64
		sum   [32]byte
		err   error
	}
	ask := func(at uint64) <-chan result {
		ch := make(chan result, 1)
		go func() {
			i, sum, err := s.Hash(t.Context(), at)
			ch <- result{i, sum, err}
		}()
		for end := time.Now().Add(5 * time.Second); time.Now().Before(end); time.Sleep(time.Millisecond) {
			f.mu.Lock()
			n := len(f.waiters)
			f.mu.Unlock()
			if n > 0 {
				break
			}
		}
		return ch
	}
	between := ask(3)
	applyAt(t, f, 5, tickEnvelope())
	if got := <-between; got.err != nil || got.index != 3 || got.sum != first {
		t.Errorf("between two commands: %+v", got)
	}
	exact := ask(7)
	applyAt(t, f, 7, tickEnvelope())
	_, now, _ := s.Hash(t.Context(), 0)
	if got := <-exact; got.err != nil || got.index != 7 || got.sum != now || now == first {
		t.Errorf("at a command: %+v", got)
	}
	if _, _, err := s.Hash(t.Context(), 6); !errors.Is(err, ErrPassed) {
		t.Errorf("passed: %v", err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Millisecond)
	defer cancel()
	if _, _, err := s.Hash(ctx, 100); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("never: %v", err)
	}
	stopped := ask(100)
	f.Apply(&raft.Log{Index: 8, Data: []byte("poison")})
	if got := <-stopped; !errors.Is(got.err, ErrStopped) {
		t.Errorf("stopped: %+v", got)
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if len(f.waiters) != 0 || len(f.pending) != 0 {
		t.Errorf("left: %v %v", f.waiters, f.pending)
	}
}

// TestAheadNeverBack: the leader's state is shown while it is newer, and only then.
func TestAheadNeverBack(t *testing.T) {
	t.Parallel()
	var told []uint64
	f := newFSM(func(index uint64, _ []ipam.Delta) { told = append(told, index) })
	shown := func() (i uint64) {
		f.view(func(st *ipam.State) { i = st.Index() })
		return i
	}
	other := newFSM(nil)
	applyAt(t, f, 2, firstEnvelope())
	applyAt(t, other, 2, firstEnvelope())
	applyAt(t, other, 9, tickEnvelope())
	if !f.lookAhead(other.state) || shown() != 9 || f.aheadAt() != 9 || f.lookAhead(other.state) {
		t.Errorf("shows %d", shown())
	}
	applyAt(t, f, 5, tickEnvelope())
	if shown() != 9 || f.index() != 5 {
		t.Errorf("shows %d at %d", shown(), f.index())
	}
	applyAt(t, f, 9, tickEnvelope())
	if shown() != 9 || f.aheadAt() != 0 {
		t.Errorf("shows %d, ahead %d", shown(), f.aheadAt())
	}
	if f.lookAhead(ipam.New()) || shown() != 9 {
		t.Error("went back")
	}
	applyAt(t, f, 10, tickEnvelope())
	if want := []uint64{2, 9, 10}; len(told) != 3 || told[1] != 9 || told[2] != 10 {
		t.Errorf("told of %v, want %v", told, want)
	}
}

// TestEntryTag: a tag is part of what the checksum covers.
func TestEntryTag(t *testing.T) {
	t.Parallel()
	tg := tag{1, 2, 3}
	e := taggedEntry([]byte("data"), tg[:])
	if err := checkEntry(&e); err != nil {
		t.Fatal(err)
	}
	if got, ok := entryTag(&e); !ok || got != tg {
		t.Errorf("%v %v", got, ok)
	}
	plain := newEntry([]byte("data"))
	if _, ok := entryTag(&plain); ok || checkEntry(&plain) != nil {
		t.Error("a tag from nowhere")
	}
	for i := range e.Extensions {
		bad := e
		bad.Extensions = append([]byte(nil), e.Extensions...)
		bad.Extensions[i] ^= 1
		if checkEntry(&bad) == nil {
			t.Errorf("bit in byte %d", i)
		}
	}
	for _, n := range []int{0, 3, 5, 19, 21} {
		if checkEntry(&raft.Log{Extensions: make([]byte, n)}) == nil {
			t.Errorf("%d bytes", n)
		}
	}
}
