package hold

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

var one = Key{Namespace: "default", ID: "one"}

// TestHeld: however the parked init becomes known, it is held before its first
// instruction and runs on Release.
func TestHeld(t *testing.T) {
	write := func(t *testing.T, b *bed, p *parked) { p.announce(b.root, one) }
	for _, tc := range []struct {
		name string
		do   func(t *testing.T, b *bed, p *parked)
	}{
		{"armed first", func(t *testing.T, b *bed, p *parked) {
			b.h.Arm(one, 0)
			write(t, b, p)
		}},
		{"the bundle was there", func(t *testing.T, b *bed, p *parked) {
			must(t, os.MkdirAll(bundle(b.root, one), 0o700))
			b.h.Arm(one, 0)
			settle()
			write(t, b, p)
		}},
		{"armed when parked", func(t *testing.T, b *bed, p *parked) {
			write(t, b, p)
			b.h.Arm(one, 0)
		}},
		{"written in place", func(t *testing.T, b *bed, p *parked) {
			b.h.Arm(one, 0)
			must(t, os.MkdirAll(bundle(b.root, one), 0o700))
			settle()
			f, err := os.OpenFile(filepath.Join(bundle(b.root, one), pidFile), os.O_CREATE|os.O_WRONLY|os.O_TRUNC, 0o700)
			must(t, err)
			settle()
			_, err = f.WriteString(strconv.Itoa(p.pid))
			must(t, err)
			must(t, f.Close())
		}},
		{"state directory made later", func(t *testing.T, b *bed, p *parked) {
			b.h.Arm(one, 0)
			must(t, os.Remove(b.root))
			settle()
			write(t, b, p)
		}},
		{"state directory learned", func(t *testing.T, b *bed, p *parked) {
			b.h.Arm(one, 0)
			other := filepath.Join(t.TempDir(), "a", "b")
			b.h.Learn(other)
			b.h.Learn(other)
			p.announce(other, one)
		}},
		{"bundle made anew", func(t *testing.T, b *bed, p *parked) {
			b.h.Arm(one, 0)
			dir := bundle(b.root, one)
			must(t, os.MkdirAll(dir, 0o700))
			settle()
			must(t, os.Rename(dir, filepath.Join(filepath.Dir(dir), ".one")))
			must(t, os.Mkdir(dir, 0o700))
			must(t, os.RemoveAll(filepath.Join(filepath.Dir(dir), ".one")))
			write(t, b, p)
		}},
		{"reports lost", func(t *testing.T, b *bed, p *parked) {
			b.h.Arm(one, 0)
			b.h.tell(func(l *loop) {
				write(t, b, p)
				buf := make([]byte, 64<<10)
				for {
					if _, err := unix.Read(l.watch.fd, buf); err != nil {
						break
					}
				}
				l.watch.event(-1, unix.IN_Q_OVERFLOW, "")
			})
		}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			b := newBed(t)
			p := park(t, 0)
			tc.do(t, b, p)
			b.waitHeld(p)
			if s := b.h.Status(); !s.Working || s.Armed != 1 || s.Holding != 1 || s.Holds != 1 {
				t.Errorf("status while holding: %+v", s)
			}
			p.start() // returns at once
			waitStopped(t, p)
			if p.ran() != 0 {
				t.Fatal("the program ran while it was held")
			}
			before := monotonic()
			if r := b.h.Release(one, p.pid); !r.Held || !r.Known {
				t.Errorf("Release: %+v", r)
			}
			if ran := p.waitRan(); ran < before {
				t.Errorf("the program ran %v before it was released", before-ran)
			}
			if code := p.exit(); code != 7 {
				t.Errorf("the program's code is %d", code)
			}
			if e := b.waitEnd(p); e.How != Released || !e.InTime || e.Held <= 0 || e.Stopped <= 0 || e.Stopped > e.Held || b.rec.keys[p.pid] != one {
				t.Errorf("end: %+v", e)
			}
			if r := b.h.Release(one, p.pid); r.Held || !r.Known {
				t.Errorf("second Release: %+v", r)
			}
			if s := b.h.Status(); s.Holding != 0 || s.Ends[Released] != 1 {
				t.Errorf("status in the end: %+v", s)
			}
		})
	}
}

// TestReleasedBeforeExec: an init whose network is up before it is started is
// detached, and its start is not held up.
func TestReleasedBeforeExec(t *testing.T) {
	b := newBed(t)
	p := park(t, 0)
	b.h.Arm(one, 0)
	p.announce(b.root, one)
	b.waitHeld(p)
	if r := b.h.Release(one, p.pid); !r.Held || !r.Known {
		t.Errorf("Release: %+v", r)
	}
	if e := b.waitEnd(p); e.How != Released || !e.InTime || e.Stopped != 0 {
		t.Errorf("end: %+v", e)
	}
	if tracer := tracerOf(p.pid); tracer != "0" {
		t.Errorf("still traced by %s", tracer)
	}
	p.start()
	p.waitRan()
}

// TestReleasedBeforeSeen: whose network is up before init.pid was seen is not held.
func TestReleasedBeforeSeen(t *testing.T) {
	b := newBed(t)
	p := park(t, 0)
	b.h.Arm(one, 0)
	if r := b.h.Release(one, p.pid); r.Held || r.Known {
		t.Errorf("Release: %+v", r)
	}
	p.announce(b.root, one)
	settle()
	if b.rec.isHeld(p.pid) || tracerOf(p.pid) != "0" {
		t.Error("held")
	}
	p.start()
	p.waitRan()
}

func TestDeadline(t *testing.T) {
	for _, tc := range []struct {
		name        string
		config, arm time.Duration
	}{{"of the config", 300 * time.Millisecond, 0}, {"of the container", time.Hour, 300 * time.Millisecond}} {
		t.Run(tc.name, func(t *testing.T) {
			b := newBed(t, func(c *Config) { c.Deadline = tc.config })
			p := park(t, 0)
			b.h.Arm(one, tc.arm)
			p.announce(b.root, one)
			b.waitHeld(p)
			p.start()
			p.waitRan()
			e := b.waitEnd(p)
			if e.How != Expired || e.InTime || e.Held < 300*time.Millisecond || e.Stopped == 0 {
				t.Errorf("end: %+v", e)
			}
			if r := b.h.Release(one, p.pid); r.Held || !r.Known {
				t.Errorf("Release afterwards: %+v", r)
			}
		})
	}
}

// TestParkedBeyondDeadline: an init that was not started by its deadline is left
// alone from then on, also when its file is seen again.
func TestParkedBeyondDeadline(t *testing.T) {
	b := newBed(t, func(c *Config) { c.Deadline = 100 * time.Millisecond })
	p := park(t, 0)
	b.h.Arm(one, 0)
	p.announce(b.root, one)
	if e := b.waitEnd(p); e.How != Expired || e.Stopped != 0 {
		t.Errorf("end: %+v", e)
	}
	p.announce(b.root, one)
	b.h.Second(one, p.pid, time.Time{})
	settle()
	if s := b.h.Status(); s.Holds != 1 || tracerOf(p.pid) != "0" {
		t.Errorf("held again: %+v", s)
	}
	p.start()
	p.waitRan()
}

// TestUnarmed: a container that is not armed is not touched, next to one that is.
func TestUnarmed(t *testing.T) {
	b := newBed(t)
	p, other := park(t, 0), park(t, 0)
	b.h.Arm(one, 0)
	two := Key{Namespace: "default", ID: "two"}
	other.announce(b.root, two)
	b.h.Second(two, other.pid, time.Now())
	p.announce(b.root, one)
	b.waitHeld(p)
	settle()
	if tracer := tracerOf(other.pid); tracer != "0" {
		t.Errorf("the other container is traced by %s", tracer)
	}
	other.start()
	other.waitRan()
	if r := b.h.Release(two, other.pid); r.Held || r.Known {
		t.Errorf("Release of the other: %+v", r)
	}
}

// TestDisarm lets go of what is held, and of nothing else.
func TestDisarm(t *testing.T) {
	b := newBed(t)
	p, other := park(t, 0), park(t, 0)
	two := Key{Namespace: "default", ID: "two"}
	b.h.Arm(one, 0)
	b.h.Arm(two, 0)
	p.announce(b.root, one)
	other.announce(b.root, two)
	b.waitHeld(p)
	b.waitHeld(other)
	p.start()
	waitStopped(t, p)
	b.h.Disarm(one)
	b.h.Disarm(one)
	p.waitRan()
	if e := b.waitEnd(p); e.How != Released || e.InTime {
		t.Errorf("end: %+v", e)
	}
	if s := b.h.Status(); s.Armed != 1 || s.Holding != 1 {
		t.Errorf("status: %+v", s)
	}
	// The next init of a container that is armed again is held again.
	next := park(t, 0)
	must(t, os.RemoveAll(bundle(b.root, one)))
	b.h.Arm(one, 0)
	next.announce(b.root, one)
	b.waitHeld(next)
}

// TestNextInit: each init of an armed container is held, not its first alone.
func TestNextInit(t *testing.T) {
	b := newBed(t)
	b.h.Arm(one, 0)
	for range 3 {
		p := park(t, 0)
		p.announce(b.root, one)
		b.waitHeld(p)
		p.start()
		if r := b.h.Release(one, p.pid); !r.Held {
			t.Errorf("Release: %+v", r)
		}
		p.waitRan()
		must(t, os.RemoveAll(bundle(b.root, one)))
	}
}

// TestSecond: where inotify does not work, Status says so, and the event leads to a
// hold; inotify is taken into use as soon as it works.
func TestSecond(t *testing.T) {
	root := t.TempDir()
	rec := newRecorder()
	h := New(Config{Roots: []string{root}, Deadline: time.Minute, OnHeld: rec.onHeld, OnEnd: rec.onEnd})
	broken := make(chan struct{})
	h.newInotify = func() (int, error) {
		select {
		case <-broken:
			return newInotify()
		default:
			return -1, unix.EMFILE
		}
	}
	b := &bed{T: t, root: root, h: h, rec: rec}
	b.run()
	if s := h.Status(); s.Working || s.Reason == "" {
		t.Errorf("status without inotify: %+v", s)
	}
	p := park(t, 0)
	h.Arm(one, 0)
	// The pid must be that of the file, and the process as old as announced.
	settle()
	p.announce(root, one)
	h.Second(one, p.pid+1, time.Time{})
	h.Second(one, p.pid, time.Now().Add(-time.Hour))
	h.Second(one, 0, time.Time{})
	h.Second(one, p.pid, time.Now())
	b.waitHeld(p)
	p.start()
	if r := h.Release(one, p.pid); !r.Held {
		t.Errorf("Release: %+v", r)
	}
	p.waitRan()
	close(broken)
	within(t, "inotify is tried again", func() bool { return h.Status().Working })
	next := park(t, 0)
	next.announce(root, one)
	b.waitHeld(next)
}

// TestNotRunning: the methods may be called before and after Run; what was armed
// before is held, and a second Run works as the first.
func TestNotRunning(t *testing.T) {
	root := t.TempDir()
	rec := newRecorder()
	h := New(Config{Roots: []string{root}, OnHeld: rec.onHeld, OnEnd: rec.onEnd, Deadline: time.Minute})
	if s := h.Status(); s.Working || s.Reason != notRunning {
		t.Errorf("status before Run: %+v", s)
	}
	p := park(t, 0)
	h.Arm(one, 0)
	h.Arm(Key{Namespace: "..", ID: "x"}, 0)
	h.Arm(Key{Namespace: "a", ID: "b/c"}, 0)
	h.Learn("not/absolute")
	if r := h.Release(one, p.pid); r != (Release{}) {
		t.Errorf("Release before Run: %+v", r)
	}
	p.announce(root, one)
	b := &bed{T: t, root: root, h: h, rec: rec}
	b.run()
	b.waitHeld(p)
	if err := h.Run(t.Context()); err != ErrRunning {
		t.Errorf("second Run: %v", err)
	}
	p.start()
	waitStopped(t, p)
	b.stop()
	p.waitRan()
	if e := b.waitEnd(p); e.How != Ended || e.InTime {
		t.Errorf("end: %+v", e)
	}
	if s := h.Status(); s.Working || s.Armed != 1 || s.Holding != 0 {
		t.Errorf("status after Run: %+v", s)
	}
	h.Disarm(one)
	h.Arm(one, 0)
	must(t, os.RemoveAll(bundle(root, one))) // each task has a bundle of its own
	b.run()
	next := park(t, 0)
	next.announce(root, one)
	b.waitHeld(next)
}

// TestEndOfRun lets go of parked and of stopped processes alike.
func TestEndOfRun(t *testing.T) {
	b := newBed(t)
	var all []*parked
	for i := range 10 {
		p := park(t, 0)
		k := Key{Namespace: "default", ID: fmt.Sprint(i)}
		b.h.Arm(k, 0)
		p.announce(b.root, k)
		b.waitHeld(p)
		if i%2 == 0 {
			p.start()
			waitStopped(t, p)
		}
		all = append(all, p)
	}
	b.stop()
	for i, p := range all {
		if i%2 != 0 {
			p.start()
		}
		p.waitRan()
		if e := b.waitEnd(p); e.How != Ended || (e.Stopped > 0) != (i%2 == 0) {
			t.Errorf("end: %+v", e)
		}
	}
}
