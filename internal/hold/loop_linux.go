package hold

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"runtime"
	"sync"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"stellar.io/stellar/internal/procfs"
)

// loop is the one goroutine that reads inotify and calls ptrace. It is locked to a
// thread of its own: the kernel knows a tracer by its thread, and between the
// report of a parked init and its seizure no other thread has to be scheduled.
// That thread is SCHED_FIFO where permitted, for on a busy machine the runtime's
// next step would otherwise come first. All it does is short and never waits:
// what must not happen is that it stops reaping, since the shim learns of the
// death of a process that is traced only after its tracer has.
type loop struct {
	h     *Holder
	armed map[string]map[string]*entry // by namespace and id
	watch *watcher
	trace *tracer
	tell  *teller
	// barred: why this thread cannot trace at all; then nothing is looked at closely.
	barred string
	// expectUntil: an init of an armed container may be parked any moment.
	expectUntil time.Time
}

// entry is an armed container.
type entry struct {
	arming
	last process // the init that was dealt with last: it is not held again
	held bool    // its hold had begun
	// doubt is what was wrong with its init.pid last, which is reported once.
	doubt string
}

const (
	// expectFor is how long after a container was armed, or its bundle was made, its
	// init is expected: a client creates container, task and process in one go.
	expectFor = 3 * time.Second
	// expectTick bounds one wait with a processor in hand.
	expectTick = 5 * time.Millisecond
)

// reapTick is how often held processes are looked at even if no SIGCHLD came.
const reapTick = 10 * time.Millisecond

func (h *Holder) run(ctx context.Context) error {
	wakeup, err := unix.Eventfd(0, unix.EFD_CLOEXEC|unix.EFD_NONBLOCK)
	if err != nil {
		return fmt.Errorf("hold: eventfd: %w", err)
	}
	defer unix.Close(wakeup)
	l := &loop{h: h, armed: make(map[string]map[string]*entry), tell: newTeller(h.cfg)}
	l.trace = newTracer(l)
	l.watch = newWatcher(l)
	h.mu.Lock()
	if h.wakeup >= 0 {
		h.mu.Unlock()
		return ErrRunning
	}
	h.wakeup = wakeup
	for k, a := range h.armed {
		l.insert(k, a)
	}
	roots := append([]string(nil), h.roots...)
	h.mu.Unlock()

	defer context.AfterFunc(ctx, h.wake)()
	var helpers sync.WaitGroup
	defer helpers.Wait()
	children, quit := make(chan os.Signal, 1), make(chan struct{})
	signal.Notify(children, unix.SIGCHLD)
	defer close(quit)
	defer signal.Stop(children)
	helpers.Go(func() {
		for {
			select {
			case <-children:
				h.wake()
			case <-quit:
				return
			}
		}
	})
	helpers.Go(l.tell.run)
	defer l.tell.close()

	onOwnThread(func() {
		preferThread()
		l.barred = probe()
		h.setReason(&h.refusal, l.barred)
		l.watch.open(roots)
		l.turn(ctx, wakeup)
		l.finish(wakeup)
	})
	return nil
}

// onOwnThread runs fn on a thread that dies with it, so that the kernel lets go of
// whatever fn still traced. It returns when fn has. The first thread of a Go
// process cannot die: if fn would run there, it runs on another.
func onOwnThread(fn func()) {
	done := make(chan struct{})
	go func() {
		defer close(done)
		runtime.LockOSThread() // never unlocked
		if unix.Gettid() != os.Getpid() {
			fn()
			return
		}
		onOwnThread(fn) // this goroutine keeps the first thread occupied meanwhile
		runtime.UnlockOSThread()
	}()
	<-done
}

// turn serves until ctx ends.
func (l *loop) turn(ctx context.Context, wakeup int) {
	for ctx.Err() == nil {
		l.wait(wakeup, l.timeout())
		l.watch.read()
		l.commands(wakeup)
		l.trace.reap()
		l.trace.expire(time.Now())
		l.watch.retry(time.Now())
	}
}

// wait sleeps until something is to be done.
func (l *loop) wait(wakeup int, timeout time.Duration) {
	fds := []unix.PollFd{{Fd: int32(wakeup), Events: unix.POLLIN}, {Fd: int32(l.watch.fd), Events: unix.POLLIN}}
	var err error
	if time.Now().Before(l.expectUntil) {
		err = pollAlert(fds, timeout)
	} else {
		ms := -1
		if timeout >= 0 {
			ms = int((timeout + time.Millisecond - 1) / time.Millisecond)
		}
		_, err = unix.Poll(fds, ms) // an fd of -1 is ignored
	}
	if err != nil && !errors.Is(err, unix.EINTR) && !errors.Is(err, unix.EAGAIN) {
		time.Sleep(time.Millisecond) // no memory: anything but a busy loop
	}
}

// pollAlert waits without giving Go's processor away. After an ordinary system call
// a goroutine needs one of the GOMAXPROCS processors to go on, and when fifty
// containers start at once the rest of this program has taken them all: a thread of
// the highest priority would wait behind it. A raw system call keeps the processor
// that the goroutine has. It does not hold up the collector: that interrupts the
// thread by a signal, and a poll that was interrupted ends (signal(7)). Config's
// owner provides one processor more (see Processors).
func pollAlert(fds []unix.PollFd, timeout time.Duration) error {
	if timeout < 0 || timeout > expectTick {
		timeout = expectTick
	}
	ts := unix.NsecToTimespec(int64(timeout))
	_, _, errno := unix.RawSyscall6(unix.SYS_PPOLL, uintptr(unsafe.Pointer(&fds[0])), uintptr(len(fds)), uintptr(unsafe.Pointer(&ts)), 0, 0, 0)
	if errno != 0 {
		return errno
	}
	return nil
}

// expect has the loop stay alert for a while.
func (l *loop) expect() { l.expectUntil = time.Now().Add(expectFor) }

func (l *loop) timeout() time.Duration {
	timeout := time.Duration(-1)
	earlier := func(d time.Duration) {
		d = max(d, 0)
		if timeout < 0 || d < timeout {
			timeout = d
		}
	}
	if len(l.trace.held) > 0 {
		earlier(reapTick)
	}
	if next, ok := l.trace.nextDeadline(); ok {
		earlier(time.Until(next))
	}
	if !l.watch.retryAt.IsZero() {
		earlier(time.Until(l.watch.retryAt))
	}
	return timeout
}

// commands does what the methods of Holder have asked for, in their order.
func (l *loop) commands(wakeup int) {
	var drained [8]byte
	_, _ = unix.Read(wakeup, drained[:]) // before the queue is taken, so nothing is missed
	l.h.mu.Lock()
	queue := l.h.queue
	l.h.queue = nil
	l.h.mu.Unlock()
	for _, do := range queue {
		do(l)
	}
}

// finish lets go of everything and answers whoever still waits. A process that the
// freezer keeps from stopping is let go by the kernel, with the end of this thread.
func (l *loop) finish(wakeup int) {
	l.h.mu.Lock()
	l.h.wakeup = -1
	l.h.mu.Unlock()
	l.commands(wakeup)
	l.watch.close()
	for _, t := range l.trace.held {
		l.trace.letGo(t, Ended, false)
	}
	for end := time.Now().Add(200 * time.Millisecond); len(l.trace.held) > 0 && time.Now().Before(end); {
		l.wait(wakeup, time.Millisecond)
		var drained [8]byte
		_, _ = unix.Read(wakeup, drained[:])
		l.trace.reap()
	}
	for _, t := range l.trace.held {
		l.trace.ended(t, t.how)
	}
	l.h.mu.Lock()
	l.h.refusal, l.h.blind = notRunning, ""
	l.h.mu.Unlock()
}

// tell queues what the loop is to do; false if none runs.
func (h *Holder) tell(do func(*loop)) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.wakeup < 0 {
		return false
	}
	h.queue = append(h.queue, do)
	h.wakeLocked()
	return true
}

func (h *Holder) wake() {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.wakeLocked()
}

// wakeLocked writes under the lock, which keeps the descriptor open; it does not block.
func (h *Holder) wakeLocked() {
	if h.wakeup < 0 {
		return
	}
	var one [8]byte
	binary.NativeEndian.PutUint64(one[:], 1)
	_, _ = unix.Write(h.wakeup, one[:])
}

func (l *loop) entry(k Key) *entry { return l.armed[k.Namespace][k.ID] }

func (l *loop) insert(k Key, a arming) {
	if l.armed[k.Namespace] == nil {
		l.armed[k.Namespace] = make(map[string]*entry)
	}
	l.armed[k.Namespace][k.ID] = &entry{arming: a}
}

func (l *loop) arm(k Key, a arming) {
	if e := l.entry(k); e != nil {
		e.deadline = a.deadline
		return
	}
	l.insert(k, a)
	l.expect()
	l.watch.follow(k)
}

func (l *loop) disarm(k Key) {
	delete(l.armed[k.Namespace], k.ID)
	if len(l.armed[k.Namespace]) == 0 {
		delete(l.armed, k.Namespace)
	}
	l.watch.forget(k)
	for _, t := range l.trace.held {
		if t.key == k {
			l.trace.letGo(t, Released, false)
		}
	}
}

func (l *loop) release(k Key, pid int) Release {
	if t := l.trace.held[pid]; t != nil && t.key == k {
		r := Release{Held: t.before && !t.leaving, Known: t.before}
		l.trace.letGo(t, Released, r.Held)
		return r
	}
	e := l.entry(k)
	if e == nil {
		return Release{}
	}
	if e.last.pid == pid {
		return Release{Known: e.held}
	}
	// Released before it was seen: it must not be held later.
	if p, err := procfs.ReadLive(pid); err == nil {
		e.last, e.held = named(p), false
	}
	return Release{}
}

// second looks at k's bundles for a parked init with this pid.
func (l *loop) second(k Key, pid int, started time.Time) {
	if l.entry(k) == nil {
		return
	}
	for _, root := range l.watch.roots {
		l.look(k, bundle(root, k), chance{pid: pid, started: started, fresh: true})
	}
}

// chance is an occasion to seize an init.
type chance struct {
	pid     int       // 0: whatever init.pid says
	started time.Time // 0, or not before the process was started
	fresh   bool      // the init was announced now, not found when looking around
}

// look seizes the init that dir/init.pid names, if it is to be held. It reports
// whether there is nothing left to wait for in dir.
func (l *loop) look(k Key, dir string, c chance) (settled bool) {
	e := l.entry(k)
	if e == nil {
		return true
	}
	if l.barred != "" {
		return l.refuse(k, e, dir, c)
	}
	p, err := identify(dir, c.pid, c.started)
	switch {
	case errors.Is(err, errNoInit):
		return false
	case errors.Is(err, errOpaque):
		l.h.setReason(&l.h.refusal, err.Error())
		return l.refuse(k, e, dir, c)
	case err != nil:
		l.doubtful(k, e, err)
		return false
	}
	defer p.close()
	if e.last == p.process {
		return true
	}
	e.last, e.held = p.process, false
	if p.executed {
		// One that ran before its container was armed is no miss.
		if c.fresh || p.written.After(e.at) {
			l.trace.never(k, p.pid, TooLate)
		}
		return true
	}
	l.trace.seize(k, e, p)
	return true
}

// refuse reports an init that would have been held if ptrace were permitted.
func (l *loop) refuse(k Key, e *entry, dir string, c chance) (settled bool) {
	pid, written, err := readPIDFile(dir)
	if err != nil || (c.pid != 0 && c.pid != pid) {
		return false
	}
	p, err := procfs.ReadLive(pid)
	if err != nil || named(p) == e.last {
		return err == nil
	}
	e.last, e.held = named(p), false
	if c.fresh || written.After(e.at) {
		l.trace.never(k, pid, Refused)
	}
	return true
}

// doubtful counts an init that was left alone.
func (l *loop) doubtful(k Key, e *entry, err error) {
	if e.doubt == err.Error() {
		return
	}
	e.doubt = err.Error()
	l.h.mu.Lock()
	l.h.status.Doubtful++
	l.h.mu.Unlock()
	l.h.log.Warn("init left alone", "namespace", k.Namespace, "id", k.ID, "err", err)
}
