package nsx

import (
	"errors"
	"os"
	"runtime"
	"sync"
	"testing"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// newNS makes a namespace that lives as long as its descriptor.
func newNS(t *testing.T) *os.File {
	t.Helper()
	before := current(t)
	f, err := New()
	if err != nil {
		t.Fatal(err)
	}
	if id, err := IDOf(int(f.Fd())); err != nil || id == before || current(t) != before {
		t.Fatalf("made %v, %v; the caller is in %v, was in %v", id, err, current(t), before)
	}
	t.Cleanup(func() { f.Close() })
	return f
}

func current(t *testing.T) ID {
	t.Helper()
	f, err := Current()
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	id, err := IDOf(int(f.Fd()))
	if err != nil {
		t.Fatal(err)
	}
	return id
}

func TestDo(t *testing.T) {
	before := current(t)
	ns := newNS(t)
	want, err := IDOf(int(ns.Fd()))
	if err != nil || want == before {
		t.Fatalf("namespace %v, %v", want, err)
	}
	boom := errors.New("boom")
	var inside ID
	err = Do(int(ns.Fd()), func() error { inside = current(t); return boom })
	if !errors.Is(err, boom) || inside != want {
		t.Errorf("Do = %v in %v, want %v", err, inside, want)
	}
	if err := Do(int(ns.Fd()), func() error { runtime.Goexit(); return nil }); err == nil {
		t.Error("Do of a function that does not return = nil")
	}
	if err := Do(-1, func() error { t.Error("called"); return nil }); err == nil {
		t.Error("Do with a bad descriptor = nil")
	}
	if after := current(t); after != before {
		t.Errorf("namespace %v before, %v after", before, after)
	}
}

// TestDoMany: whatever runs inside, every thread comes back.
func TestDoMany(t *testing.T) {
	defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(16))
	want := current(t)
	spaces := []*os.File{newNS(t), newNS(t), newNS(t)}
	var ids []ID
	for _, ns := range spaces {
		id, err := IDOf(int(ns.Fd()))
		if err != nil {
			t.Fatal(err)
		}
		ids = append(ids, id)
	}
	var wait sync.WaitGroup
	for i := range 16 {
		wait.Go(func() {
			for range 500 {
				err := Do(int(spaces[i%3].Fd()), func() error {
					if got := current(t); got != ids[i%3] {
						t.Errorf("in %v, want %v", got, ids[i%3])
					}
					runtime.Gosched()
					return nil
				})
				if err != nil {
					t.Error(err)
				}
				if got := current(t); got != want {
					t.Errorf("caller is in %v", got)
				}
			}
		})
	}
	wait.Wait()
	tasks, err := os.ReadDir("/proc/self/task")
	if err != nil {
		t.Fatal(err)
	}
	for _, task := range tasks {
		f, err := os.Open("/proc/self/task/" + task.Name() + "/ns/net")
		if err != nil {
			continue
		}
		id, err := IDOf(int(f.Fd()))
		f.Close()
		if err != nil || id != want {
			t.Errorf("thread %s is in %v, %v", task.Name(), id, err)
		}
	}
}
