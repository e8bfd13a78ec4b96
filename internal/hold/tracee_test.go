package hold

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// hold1 holds a new process of key one.
func hold1(t *testing.T, b *bed, sleep int, flags ...string) *parked {
	t.Helper()
	must(t, os.RemoveAll(bundle(b.root, one))) // each task has a bundle of its own
	p := park(t, sleep, flags...)
	b.h.Arm(one, 0)
	p.announce(b.root, one)
	b.waitHeld(p)
	return p
}

// TestKilledWhileHeld: SIGKILL works at once, parked and in the exec, and the parent
// learns of it.
func TestKilledWhileHeld(t *testing.T) {
	for _, stopped := range []bool{false, true} {
		t.Run(fmt.Sprint(stopped), func(t *testing.T) {
			b := newBed(t)
			p := hold1(t, b, 0)
			if stopped {
				p.start()
				waitStopped(t, p)
			}
			before := time.Now()
			must(t, unix.Kill(p.pid, unix.SIGKILL))
			if code := p.exit(); code != 100+int(unix.SIGKILL) {
				t.Errorf("its parent sees %d", code)
			}
			t.Logf("its parent knew after %v", time.Since(before))
			if e := b.waitEnd(p); e.How != Exited || e.InTime {
				t.Errorf("end: %+v", e)
			}
			if p.ran() != 0 {
				t.Error("it ran")
			}
			if r := b.h.Release(one, p.pid); r.Held || !r.Known {
				t.Errorf("Release of the dead: %+v", r)
			}
		})
	}
}

// TestTerminated: SIGTERM acts at once on a parked init, and after the release on a
// program that has not begun.
func TestTerminated(t *testing.T) {
	b := newBed(t)
	p := hold1(t, b, 0)
	must(t, unix.Kill(p.pid, unix.SIGTERM))
	if code := p.exit(); code != 100+int(unix.SIGTERM) {
		t.Errorf("parked: its parent sees %d", code)
	}
	b.waitEnd(p)

	p = hold1(t, b, 0)
	p.start()
	waitStopped(t, p)
	must(t, unix.Kill(p.pid, unix.SIGTERM))
	settle()
	if state(p.pid) != 't' {
		t.Fatalf("state %c after SIGTERM", state(p.pid))
	}
	b.h.Release(one, p.pid)
	if code := p.exit(); code != 100+int(unix.SIGTERM) || p.ran() != 0 {
		t.Errorf("held: its parent sees %d", code)
	}
}

// TestGroupStop: job control works on what is held: stop, continue, and a release
// while stopped leaves it stopped.
func TestGroupStop(t *testing.T) {
	b := newBed(t)
	p := hold1(t, b, 0)
	must(t, unix.Kill(p.pid, unix.SIGSTOP))
	within(t, "it is stopped", func() bool { s := state(p.pid); return s == 'T' || s == 't' })
	must(t, unix.Kill(p.pid, unix.SIGCONT))
	p.start()
	waitStopped(t, p)
	b.h.Release(one, p.pid)
	p.waitRan()

	p = hold1(t, b, 0)
	must(t, unix.Kill(p.pid, unix.SIGSTOP))
	within(t, "it is stopped", func() bool { s := state(p.pid); return s == 'T' || s == 't' })
	if r := b.h.Release(one, p.pid); !r.Held {
		t.Errorf("Release: %+v", r)
	}
	b.waitEnd(p)
	within(t, "it stays stopped", func() bool { return state(p.pid) == 'T' && tracerOf(p.pid) == "0" })
	must(t, unix.Kill(p.pid, unix.SIGCONT))
	p.start()
	p.waitRan()
}

// TestSiblingExecs: a program that is executed by another thread than the leader
// escapes, is not hindered, and is reported.
func TestSiblingExecs(t *testing.T) {
	b := newBed(t)
	p := hold1(t, b, 0, "-sibling")
	p.start()
	p.waitRan()
	if code := p.exit(); code != 7 {
		t.Errorf("its parent sees %d", code)
	}
	if e := b.waitEnd(p); e.InTime || (e.How != TooLate && e.How != Exited) {
		t.Errorf("end: %+v", e)
	}
}

// TestLeftAlone: what init.pid names is not touched unless it is the container's
// init beyond doubt.
func TestLeftAlone(t *testing.T) {
	for _, tc := range []struct {
		name string
		do   func(t *testing.T, b *bed) (pid int)
		how  func(Status) bool
	}{
		{"process of the host", func(t *testing.T, b *bed) int {
			p := park(t, 0, "-host")
			p.announce(b.root, one)
			return p.pid
		}, doubted},
		{"later process", func(t *testing.T, b *bed) int {
			p := park(t, 0)
			dir := bundle(b.root, one)
			must(t, os.MkdirAll(dir, 0o700))
			tmp := filepath.Join(dir, "tmp")
			must(t, os.WriteFile(tmp, []byte(strconv.Itoa(p.pid)), 0o600))
			must(t, os.Chtimes(tmp, time.Time{}, time.Now().Add(-10*time.Second)))
			must(t, os.Rename(tmp, filepath.Join(dir, pidFile)))
			return p.pid
		}, doubted},
		{"exec'ed", func(t *testing.T, b *bed) int {
			p := park(t, 100)
			p.start()
			p.waitRan()
			p.announce(b.root, one)
			return p.pid
		}, func(s Status) bool { return s.Ends[TooLate] == 1 && s.Doubtful == 0 }},
		{"ourselves", func(t *testing.T, b *bed) int {
			(&parked{t: t, pid: os.Getpid()}).announce(b.root, one)
			return os.Getpid()
		}, doubted},
		{"process 1", func(t *testing.T, b *bed) int {
			(&parked{t: t, pid: 1}).announce(b.root, one)
			return 1
		}, doubted},
		{"kernel thread", func(t *testing.T, b *bed) int {
			(&parked{t: t, pid: 2}).announce(b.root, one)
			return 2
		}, doubted},
		{"bundle that others write", func(t *testing.T, b *bed) int {
			p := park(t, 0)
			dir := bundle(b.root, one)
			must(t, os.MkdirAll(dir, 0o700))
			must(t, os.Chmod(dir, 0o777))
			p.announce(b.root, one)
			return p.pid
		}, doubted},
		{"file of another user", func(t *testing.T, b *bed) int {
			p := park(t, 0)
			dir := bundle(b.root, one)
			must(t, os.MkdirAll(dir, 0o700))
			tmp := filepath.Join(dir, "tmp")
			must(t, os.WriteFile(tmp, []byte(strconv.Itoa(p.pid)), 0o600))
			must(t, os.Chown(tmp, 65534, 65534))
			must(t, os.Rename(tmp, filepath.Join(dir, pidFile)))
			return p.pid
		}, doubted},
		{"symbolic link", func(t *testing.T, b *bed) int {
			p := park(t, 0)
			dir := bundle(b.root, one)
			must(t, os.MkdirAll(dir, 0o700))
			target := filepath.Join(t.TempDir(), "pid")
			must(t, os.WriteFile(target, []byte(strconv.Itoa(p.pid)), 0o600))
			must(t, os.Symlink(target, filepath.Join(dir, "tmp")))
			must(t, os.Rename(filepath.Join(dir, "tmp"), filepath.Join(dir, pidFile)))
			return p.pid
		}, doubted},
		{"nonsense", func(t *testing.T, b *bed) int {
			dir := bundle(b.root, one)
			must(t, os.MkdirAll(dir, 0o700))
			must(t, os.WriteFile(filepath.Join(dir, pidFile), []byte("-1\x00 no pid, and long"), 0o600))
			return os.Getpid()
		}, doubted},
	} {
		t.Run(tc.name, func(t *testing.T) {
			b := newBed(t)
			b.h.Arm(one, 0)
			pid := tc.do(t, b)
			within(t, "it was looked at", func() bool { return tc.how(b.h.Status()) })
			settle()
			if s := b.h.Status(); s.Holds != 0 || !tc.how(s) || !s.Working {
				t.Errorf("status: %+v", s)
			}
			if tracer := tracerOf(pid); tracer != "0" {
				t.Errorf("process %d is traced by %s", pid, tracer)
			}
		})
	}
}

func doubted(s Status) bool { return s.Doubtful == 1 && len(s.Ends) == 0 }

// TestOldTask: a program that ran when its container was armed is no miss.
func TestOldTask(t *testing.T) {
	b := newBed(t)
	p := park(t, 100)
	p.announce(b.root, one)
	p.start()
	p.waitRan()
	settle()
	b.h.Arm(one, 0)
	settle()
	if s := b.h.Status(); len(s.Ends) != 0 || s.Doubtful != 0 {
		t.Errorf("status: %+v", s)
	}
}

// TestTracedAlready: an init that someone else traces is refused, with the reason,
// and the next one is held.
func TestTracedAlready(t *testing.T) {
	b := newBed(t)
	first := hold1(t, b, 0)
	other := newBedOf(t, b.root, Config{Roots: []string{b.root}, Deadline: time.Minute})
	other.h.Arm(one, 0)
	if e := other.waitEnd(first); e.How != Refused {
		t.Errorf("end: %+v", e)
	}
	if s := other.h.Status(); s.Working || s.Ends[Refused] != 1 {
		t.Errorf("status: %+v", s)
	}
	b.h.Disarm(one)
	b.waitEnd(first)
	must(t, os.RemoveAll(bundle(b.root, one)))
	next := park(t, 0)
	next.announce(b.root, one)
	other.waitHeld(next)
	if s := other.h.Status(); !s.Working {
		t.Errorf("status: %+v", s)
	}
}

// TestChildrenOfOthers: the children of this process are not waited for.
func TestChildrenOfOthers(t *testing.T) {
	b := newBed(t)
	p := hold1(t, b, 0)
	p.start()
	for i := range 200 {
		code := i % 100
		err := exec.Command("sh", "-c", "exit "+strconv.Itoa(code)).Run()
		if got := exitCode(err); got != code {
			t.Fatalf("child %d: %v", i, err)
		}
	}
	waitStopped(t, p)
	b.h.Release(one, p.pid)
	p.waitRan()
}

func exitCode(err error) int {
	if err == nil {
		return 0
	}
	if e, ok := err.(*exec.ExitError); ok {
		return e.ExitCode()
	}
	return -1
}

// TestNothingLeftOpen: descriptors and watches do not add up.
func TestNothingLeftOpen(t *testing.T) {
	b := newBed(t)
	count := func() int {
		fds, err := os.ReadDir("/proc/self/fd")
		must(t, err)
		return len(fds)
	}
	round := func(i int) {
		k := Key{Namespace: "ns" + strconv.Itoa(i), ID: "x"}
		p := park(t, 0)
		b.h.Arm(k, 0)
		p.announce(b.root, k)
		b.waitHeld(p)
		b.h.Release(k, p.pid)
		b.waitEnd(p)
		p.start()
		p.exit()
		b.h.Disarm(k)
	}
	round(0)
	watches := func() (n int) {
		done := make(chan int)
		b.h.tell(func(l *loop) { done <- len(l.watch.paths) + 1000*(len(l.watch.names)-len(l.watch.paths)) })
		return <-done
	}
	fds, before := count(), watches()
	for i := range 20 {
		round(i + 1)
	}
	within(t, "descriptors are closed", func() bool { return count() <= fds })
	if after := watches(); after != before || before != 1 {
		t.Errorf("%d watches, %d before", after, before)
	}
}
