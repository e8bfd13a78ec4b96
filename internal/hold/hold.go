// Package hold keeps the init process of a container from its program's first
// instruction until the container's network is up, whoever created it.
//
// What stands in the way is that nobody asks us: a client calls create and
// start one after the other and the runtime's init, which waits on a fifo in
// between, goes on as soon as start is called. So:
//
//   - inotify reports the bundle's init.pid, which the runtime writes when its
//     init is parked, some ten milliseconds before start can come. The task-create
//     event, which comes later, is the second chance (Second).
//   - The init is seized with PTRACE_SEIZE and PTRACE_O_TRACEEXEC. It runs on,
//     start returns, the task is RUNNING; the kernel stops it in the exec that
//     begins the program, before an instruction of it has run. There it stays
//     until Release, Disarm or its deadline.
//   - PTRACE_O_EXITKILL is not set: when this process dies, the kernel lets go at
//     once. A held process can be killed, listed, paused and entered as always.
//
// Only the leader of the thread group is seized, since it is the thread that
// executes the program: runc's init is a Go program whose main goroutine is locked
// to the first thread, crun's init has one thread. A runtime that did otherwise
// would lose its hold, and be reported as TooLate.
//
// Only an armed container's init is touched, and only if it is one beyond doubt:
// see identify.
//
// The alternatives, and why not: SIGSTOP stops the init before its exec, where
// `runc start` waits for it with the shim's lock held, so kill, exec and list hang,
// and it stays stopped when we die. The cgroup freezer takes away pause and resume,
// blocks exec into the container, and also outlives us. A seccomp listener or an
// LSM (BPF) must be there before the container is made, by its creator or for the
// whole machine. See docs/adr/0006-the-hold-by-ptrace.md.
package hold

import (
	"context"
	"errors"
	"log/slog"
	"maps"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"
)

// defaultDeadline is how long a process is kept if nobody says otherwise.
const defaultDeadline = 2 * time.Second

// maxRoots bounds what Learn remembers.
const maxRoots = 16

// Processors is how many of Go's processors (GOMAXPROCS) a Holder keeps for itself
// while an init is expected: the program should have that many more.
const Processors = 1

// Key names a container, as in package events.
type Key struct{ Namespace, ID string }

// Config of a Holder.
type Config struct {
	// Roots are containerd's state directories ("/run/containerd"); below them
	// io.containerd.runtime.v2.task/NAMESPACE/ID/init.pid appears when the init of a
	// task is parked. They need not exist yet.
	Roots []string
	// Deadline is how long one process is kept at most, from its seizure; 0: 2 s.
	Deadline time.Duration
	// Logger may be nil.
	Logger *slog.Logger
	// OnHeld is called when a process has been seized before its exec; at is the
	// time of the seizure.
	OnHeld func(k Key, pid int, at time.Time)
	// OnEnd is called when the hold of a process has ended, or could not begin:
	// then (Refused, TooLate) without OnHeld before.
	//
	// Both are called one after the other on one goroutine of Run's, which is not
	// the tracer's, so they may call any method; they must not block for long.
	OnEnd func(k Key, e End)
}

// End says how the hold of a process ended.
type End struct {
	PID int
	How How
	// Held is the time from the seizure to the process being let go.
	Held time.Duration
	// Stopped is how long the program itself waited in its exec; 0 if it never got
	// there.
	Stopped time.Duration
	// InTime: Release was called before the program's first instruction.
	InTime bool
}

// How a hold ended.
type How int

const (
	// Released: by Release, or by Disarm (then End.InTime is false).
	Released How = iota
	// Expired: the deadline has passed.
	Expired
	// Exited: the process is gone.
	Exited
	// Refused: the kernel did not permit ptrace.
	Refused
	// TooLate: the program was running already.
	TooLate
	// Ended: Run's context ended.
	Ended
)

// Hows lists all.
func Hows() []How { return []How{Released, Expired, Exited, Refused, TooLate, Ended} }

func (h How) String() string {
	names := [...]string{"released", "expired", "exited", "refused", "too-late", "ended"}
	if h < 0 || int(h) >= len(names) {
		return "unknown"
	}
	return names[h]
}

// Release is the answer of Holder.Release.
type Release struct {
	// Held: the process was kept by us and its program's first instruction had not
	// run when Release was called: it was seized before its exec, and was not
	// there yet or stood in it.
	Held bool
	// Known: a hold of this process had begun, whether it still lasted or not.
	Known bool
}

// Status of a Holder.
type Status struct {
	// Working: the init of every armed container is expected to be held. If not,
	// Reason says why; what still can be held, is.
	Working bool
	Reason  string
	// Armed containers, and processes that are held now.
	Armed, Holding int
	// Holds begun.
	Holds uint64
	// Doubtful counts the files init.pid whose process was not beyond doubt the
	// container's init, and was left alone.
	Doubtful uint64
	// Ends counts the ends of holds by their kind.
	Ends map[How]uint64
}

// arming is what is known of an armed container.
type arming struct {
	deadline time.Duration
	at       time.Time
}

// Holder holds the inits of armed containers. Its methods may be called from any
// goroutine, before, while and after Run runs.
type Holder struct {
	cfg Config
	log *slog.Logger
	// newInotify is unix.InotifyInit1 but in tests.
	newInotify func() (int, error)

	mu      sync.Mutex // guards what follows
	armed   map[Key]arming
	roots   []string
	queue   []func(*loop) // what the loop is to do next
	wakeup  int           // the loop's eventfd, -1 if no loop runs
	refusal string        // why ptrace does not work
	blind   string        // why inotify does not work
	status  Status        // without Working, Reason, Armed
}

// New makes a Holder; it does nothing before Run.
func New(cfg Config) *Holder {
	if cfg.Deadline <= 0 {
		cfg.Deadline = defaultDeadline
	}
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	h := &Holder{cfg: cfg, log: cfg.Logger, newInotify: newInotify, armed: make(map[Key]arming), wakeup: -1}
	h.status.Ends = make(map[How]uint64)
	h.refusal = notRunning
	for _, root := range cfg.Roots {
		h.Learn(root)
	}
	return h
}

const notRunning = "not running"

// ErrRunning is returned when Run is called while it runs.
var ErrRunning = errors.New("hold: runs already")

// Run holds processes until ctx ends, and lets go of all before it returns. That
// ptrace is refused or inotify impossible is no error; Status says so. It may run
// again afterwards, not twice at once.
func (h *Holder) Run(ctx context.Context) error { return h.run(ctx) }

// Arm lets each next init of k be held, until Disarm; also one that is parked
// already. A deadline of 0 is that of the Config. It is idempotent; a repeated
// call changes the deadline of holds to come. It does not block.
func (h *Holder) Arm(k Key, deadline time.Duration) {
	if !plain(k.Namespace) || !plain(k.ID) {
		return
	}
	if deadline <= 0 {
		deadline = h.cfg.Deadline
	}
	h.mu.Lock()
	before, again := h.armed[k]
	if again && before.deadline == deadline {
		h.mu.Unlock()
		return // it costs nothing to say it again
	}
	a := arming{deadline: deadline, at: time.Now()}
	if again {
		a.at = before.at
	}
	h.armed[k] = a
	h.mu.Unlock()
	h.tell(func(l *loop) { l.arm(k, a) })
}

// plain reports whether s is the name of one directory entry.
func plain(s string) bool {
	return s != "" && s != "." && s != ".." && !strings.ContainsAny(s, "/\x00")
}

// Disarm ends what Arm began; an init that is being held is let go. It is
// idempotent and does not block.
func (h *Holder) Disarm(k Key) {
	h.mu.Lock()
	_, armed := h.armed[k]
	delete(h.armed, k)
	h.mu.Unlock()
	if armed {
		h.tell(func(l *loop) { l.disarm(k) })
	}
}

// Second is the second chance, by the task-create event: the process is seized
// now if k is armed, pid is k's init beyond doubt, has not exec'ed and is not held
// yet. It was started not later than started, if that is not zero. It does not block.
func (h *Holder) Second(k Key, pid int, started time.Time) {
	if pid <= 1 {
		return // a restored checkpoint is announced as process 0
	}
	h.tell(func(l *loop) { l.second(k, pid, started) })
}

// Release lets a process go: its network is up. It returns as soon as the
// process was told, and answers whether it had been kept. A process that Release
// was called for is not held afterwards.
func (h *Holder) Release(k Key, pid int) (r Release) {
	answer := make(chan Release, 1)
	if !h.tell(func(l *loop) { answer <- l.release(k, pid) }) {
		return Release{}
	}
	return <-answer
}

// Learn adds a state directory, found in an event's bundle path. It is
// idempotent; beyond a number that no machine has, directories are ignored.
func (h *Holder) Learn(root string) {
	if !filepath.IsAbs(root) {
		return
	}
	root = filepath.Clean(root)
	if real, err := filepath.EvalSymlinks(root); err == nil {
		root = real // one directory has one name: inotify knows it once
	}
	h.mu.Lock()
	known := slices.Contains(h.roots, root) || len(h.roots) >= maxRoots
	if !known {
		h.roots = append(h.roots, root)
	}
	h.mu.Unlock()
	if !known {
		h.tell(func(l *loop) { l.watch.addRoot(root) })
	}
}

// Status is a snapshot.
func (h *Holder) Status() Status {
	h.mu.Lock()
	defer h.mu.Unlock()
	s := h.status
	s.Ends = maps.Clone(s.Ends)
	s.Armed = len(h.armed)
	s.Reason = h.refusal
	if s.Reason == "" {
		s.Reason = h.blind
	}
	s.Working = s.Reason == ""
	return s
}

// setReason notes why ptrace (or inotify) does not work, or that it does, and
// logs what is new.
func (h *Holder) setReason(where *string, reason string) {
	h.mu.Lock()
	changed := *where != reason
	before := *where
	*where = reason
	h.mu.Unlock()
	switch {
	case !changed || (before == notRunning && reason == ""):
	case reason == "":
		h.log.Info("containers are held again until their network is up")
	default:
		h.log.Warn("containers may start before their network is up", "reason", reason)
	}
}
