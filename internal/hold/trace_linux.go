package hold

import (
	"errors"
	"time"

	"golang.org/x/sys/unix"

	"stellar.io/stellar/internal/failpoint"
	"stellar.io/stellar/internal/procfs"
)

// tracer is the ptrace part of the loop.
type tracer struct {
	l    *loop
	held map[int]*tracee // by pid
}

// tracee is a seized process.
type tracee struct {
	key      Key
	pid      int
	e        *entry
	seized   time.Time
	deadline time.Time
	// before: it is certain that the seizure came before the exec.
	before bool
	// atExec: it stands in its exec, since execAt.
	atExec bool
	execAt time.Time
	// leaving: it is to be detached at its next stop.
	leaving bool
	how     How
	inTime  bool
}

func newTracer(l *loop) *tracer { return &tracer{l: l, held: make(map[int]*tracee)} }

// ptrace does not give up the processor between two steps, hence RawSyscall.
func ptrace(request, pid int, data uintptr) error {
	_, _, errno := unix.RawSyscall6(unix.SYS_PTRACE, uintptr(request), uintptr(pid), 0, data, 0, 0)
	if errno != 0 {
		return errno
	}
	return nil
}

// seize begins the hold of a process that had not exec'ed when it was looked at.
func (tr *tracer) seize(k Key, e *entry, p initProcess) {
	err := ptrace(unix.PTRACE_SEIZE, p.pid, unix.PTRACE_O_TRACEEXEC)
	now := time.Now()
	switch {
	case err == nil:
	case errors.Is(err, unix.ESRCH) || !p.alive():
		return // nothing was begun
	default:
		tr.l.h.setReason(&tr.l.h.refusal, refusal(p.pid, err))
		tr.never(k, p.pid, Refused)
		return
	}
	tr.l.h.setReason(&tr.l.h.refusal, "")
	t := &tracee{key: k, pid: p.pid, e: e, seized: now, deadline: now.Add(e.deadline)}
	tr.held[p.pid] = t
	// The pid named the process that was looked at until now only if that one is
	// still there, dead or alive.
	after, err := procfs.ReadLive(p.pid)
	switch {
	case !p.exists() || (err == nil && named(after) != p.process):
		t.how, t.leaving = TooLate, true
		_ = ptrace(unix.PTRACE_INTERRUPT, t.pid, 0)
	case err == nil && after.ForkedOnly:
		tr.begin(t)
	default:
		// It exec'ed while it was seized. An interruption tells on which side of the
		// seizure: the next stop is that of the exec, or else the interruption's own.
		_ = ptrace(unix.PTRACE_INTERRUPT, t.pid, 0)
	}
}

// begin notes that t is held before its exec.
func (tr *tracer) begin(t *tracee) {
	failpoint.Hit(failpoint.HoldSeized)
	t.before, t.e.held = true, true
	tr.l.h.mu.Lock()
	tr.l.h.status.Holds++
	tr.l.h.status.Holding++
	tr.l.h.mu.Unlock()
	tr.l.tell.held(t.key, t.pid, t.seized)
}

// never reports a hold that could not begin.
func (tr *tracer) never(k Key, pid int, how How) {
	tr.l.h.mu.Lock()
	tr.l.h.status.Ends[how]++
	tr.l.h.mu.Unlock()
	tr.l.tell.ended(k, End{PID: pid, How: how})
}

// letGo detaches a process, now or at its next stop, which it is asked for: ptrace
// detaches only what is stopped. It is idempotent.
func (tr *tracer) letGo(t *tracee, how How, inTime bool) {
	if t.leaving {
		return
	}
	failpoint.Hit(failpoint.HoldRelease)
	t.leaving, t.how, t.inTime = true, how, inTime
	if t.atExec {
		tr.detach(t, 0)
		return
	}
	_ = ptrace(unix.PTRACE_INTERRUPT, t.pid, 0) // ESRCH: it is dead, and will be reaped
}

// detach lets a stopped process run on, with a signal if it is not 0.
func (tr *tracer) detach(t *tracee, sig unix.Signal) {
	if err := ptrace(unix.PTRACE_DETACH, t.pid, uintptr(sig)); err != nil {
		return // killed meanwhile: it will be reaped
	}
	failpoint.Hit(failpoint.HoldDetached)
	tr.ended(t, t.how)
}

// ended forgets a process and reports it.
func (tr *tracer) ended(t *tracee, how How) {
	delete(tr.held, t.pid)
	now := time.Now()
	e := End{PID: t.pid, How: how, Held: now.Sub(t.seized), InTime: t.inTime}
	if t.atExec {
		e.Stopped = now.Sub(t.execAt)
	}
	tr.l.h.mu.Lock()
	tr.l.h.status.Ends[how]++
	if t.before {
		tr.l.h.status.Holding--
	}
	tr.l.h.mu.Unlock()
	tr.l.tell.ended(t.key, e)
}

// reap takes the news of each held process. It asks for these pids alone, of this
// thread alone: the program's other children are not ours to wait for.
func (tr *tracer) reap() {
	for _, t := range tr.held {
		var ws unix.WaitStatus
		pid, err := unix.Wait4(t.pid, &ws, unix.WNOHANG|unix.WALL|unix.WNOTHREAD, nil)
		switch {
		case errors.Is(err, unix.ECHILD):
			tr.lost(t)
		case err != nil || pid == 0:
		case ws.Exited() || ws.Signaled():
			tr.ended(t, Exited)
		case ws.Stopped():
			tr.stopped(t, ws)
		}
	}
}

// lost ends the hold of a process that is no longer traced: another thread than
// its leader has exec'ed, which takes the leader's pid.
func (tr *tracer) lost(t *tracee) {
	how := Exited
	if _, err := procfs.ReadLive(t.pid); err == nil {
		how = TooLate
	}
	tr.ended(t, how)
}

// stopped handles the stops of ptrace(2), "Stopped states".
func (tr *tracer) stopped(t *tracee, ws unix.WaitStatus) {
	sig := ws.StopSignal()
	switch event := int(ws) >> 16; event {
	case unix.PTRACE_EVENT_EXEC:
		t.atExec, t.execAt = true, time.Now()
		failpoint.Hit(failpoint.HoldAtExec)
		if t.leaving {
			tr.detach(t, 0)
		} else if !t.before {
			tr.begin(t)
		}
	case unix.PTRACE_EVENT_STOP:
		switch {
		case t.leaving:
			tr.detach(t, 0)
		case !t.before: // the interruption came, the exec did not: it was over
			t.leaving, t.how = true, TooLate
			tr.detach(t, 0)
		case sig == unix.SIGSTOP || sig == unix.SIGTSTP || sig == unix.SIGTTIN || sig == unix.SIGTTOU:
			// A group stop: it shall stay stopped, and SIGCONT shall be able to end that.
			_ = ptrace(unix.PTRACE_LISTEN, t.pid, 0)
		default:
			_ = ptrace(unix.PTRACE_CONT, t.pid, 0)
		}
	case 0: // a signal is about to be delivered
		if t.leaving {
			tr.detach(t, sig)
		} else {
			_ = ptrace(unix.PTRACE_CONT, t.pid, uintptr(sig))
		}
	default:
		_ = ptrace(unix.PTRACE_CONT, t.pid, 0)
	}
}

func (tr *tracer) expire(now time.Time) {
	for _, t := range tr.held {
		if !now.Before(t.deadline) {
			tr.letGo(t, Expired, false)
		}
	}
}

// nextDeadline is that of the process to be let go next.
func (tr *tracer) nextDeadline() (next time.Time, ok bool) {
	for _, t := range tr.held {
		if !t.leaving && (!ok || t.deadline.Before(next)) {
			next, ok = t.deadline, true
		}
	}
	return next, ok
}
