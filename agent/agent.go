// Package agent gives containers their networks: it turns hints about
// containers into looks at containers, and looks into leases and endpoints.
//
//	hint → key → worker: look (containerd, leases, kernel) → decide (pure) → steps
//
// One worker at a time has a container, several containers are worked on at
// once, and every step is idempotent, so that a hint that is lost, doubled or
// late costs time and nothing else. The agent declares the interfaces that it
// consumes; package cmd/stellar wires the real ones.
package agent

import (
	"context"
	"log/slog"
	"net/netip"
	"sync"
	"time"

	"stellar.io/stellar/events"
	"stellar.io/stellar/ipam"
	"stellar.io/stellar/netsetup"
	"stellar.io/stellar/raftstore/holder"
)

// Containers answers what a container is now. An error that is not
// events.ErrNotFound proves nothing.
type Containers interface {
	Look(ctx context.Context, key events.Key) (events.Container, error)
	// LookRecord is Look without the task. It answers while a task is being created.
	LookRecord(ctx context.Context, key events.Key) (events.Container, error)
	// Kill ends the container's task if its init process still is pid. A task
	// that has ended is no error.
	Kill(ctx context.Context, key events.Key, pid int) error
}

// Leases is the holder of this node's subnet. All methods are safe for
// concurrent use, and idempotent by owner.
type Leases interface {
	Bind(ctx context.Context, r holder.BindRequest) (holder.Held, error)
	Release(ctx context.Context, o ipam.Owner) error
	Attached(o ipam.Owner, attached bool)
	Lookup(o ipam.Owner) (holder.Held, bool)
	All() []holder.Held
}

// Config is what an Agent needs. It is not changed after New.
type Config struct {
	NodeName   string
	Containers Containers
	Leases     Leases
	Network    Network
	Logger     *slog.Logger // nil discards
	Metrics    *Metrics     // nil measures nothing
	Hold       Hold         // nil: programs are not held
	// Barred says why no endpoint may be made now, nil when it may; what is up stays as
	// it is, and is found again after a restart. nil: never. Calls are concurrent.
	Barred func() error
	// Dir keeps what was asked for by other means than labels; "": in memory only.
	Dir string
	// Boot is the id of the machine's present boot; "": not known.
	Boot string
	// IgnoreNamespaces are containerd's that are somebody else's.
	IgnoreNamespaces []string
	// Workers bounds how many containers are worked on at once; 0 means 128.
	Workers int
}

// defaultWorkers is generous: most of a worker's time is waiting for containerd,
// a commit, or a dying namespace (up to 200 ms), and new tasks must not queue
// behind those.
const defaultWorkers = 128

// lostBacklog is how many vanished interfaces wait to be made again.
const lostBacklog = 1024

// Agent converges the containers of this node. Make it with New, run it with Run.
type Agent struct {
	cfg Config
	log *slog.Logger
	// now and onExit are time.Now and waitExit but in a simulation, which has its own
	// time and no goroutines.
	now    func() time.Time
	onExit func(ctx context.Context, proc Process, then func())
	queue  *queue
	events *eventLog
	// requests are networks asked for by other means than labels. turns orders the
	// calls about each.
	requests *requests
	turns    turns
	adoption chan struct{}   // closed when what an earlier agent left is known
	lost     chan ipam.Owner // interfaces of attachments without a container that have vanished

	mu          sync.Mutex // guards what follows, never held over I/O
	records     map[events.Key]*record
	hints       map[events.Key]hint
	awaited     map[events.Key]*awaited
	looking     map[events.Key]context.CancelFunc // looks that a client's wait ends
	ending      map[events.Key]int                // clients that wait for an endpoint to go
	passes      uint64                            // begun, over all containers
	attachments map[ipam.Owner]*attachment        // those without a container
	byNS        map[netsetup.NSID]events.Key      // whose endpoint serves a namespace, or is being made there
	adopted     map[ipam.Owner]bool               // endpoints of before, in a namespace that is not known yet
	settled     chan struct{}                     // closed when the keys of the first listing have been worked on
	pending     map[events.Key]bool               // those that have not; nil before the first listing
	doubt       doubt
	link        linkState

	watchers sync.WaitGroup // one for each attached process
}

type linkState struct {
	connected bool
	since     time.Time
	err       error
}

// New returns an agent that has not started.
func New(cfg Config) *Agent {
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	if cfg.Workers == 0 {
		cfg.Workers = defaultWorkers
	}
	a := &Agent{
		cfg: cfg, log: cfg.Logger, now: time.Now, queue: newQueue(), events: newEventLog(),
		records: map[events.Key]*record{}, hints: map[events.Key]hint{},
		requests: newRequests(cfg.Dir, cfg.Boot), adoption: make(chan struct{}), lost: make(chan ipam.Owner, lostBacklog),
		awaited: map[events.Key]*awaited{}, looking: map[events.Key]context.CancelFunc{}, ending: map[events.Key]int{}, attachments: map[ipam.Owner]*attachment{},
		byNS: map[netsetup.NSID]events.Key{}, adopted: map[ipam.Owner]bool{}, settled: make(chan struct{}),
	}
	a.onExit = a.waitExit
	return a
}

// Run adopts what the kernel has, then works until ctx ends and all workers
// have returned. It removes nothing when it ends: the data plane outlives it.
func (a *Agent) Run(ctx context.Context) error {
	if err := a.adopt(ctx); err != nil {
		return err
	}
	close(a.adoption)
	a.watchers.Go(func() { a.keepAttachments(ctx) })
	a.queue.run(ctx, a.cfg.Workers, a.work)
	a.watchers.Wait()
	a.closeRecords()
	return nil
}

// keyOf is the container that holds an address.
func keyOf(o ipam.Owner) events.Key { return events.Key{Namespace: o.Namespace, ID: o.ID} }

// Endpoint is what is known of one container that asks for a network, or that
// still has one. Fields are zero where they do not apply.
type Endpoint struct {
	Key          events.Key
	Owner        ipam.Owner
	Network      string
	Address      netip.Addr
	MAC          string
	Ifname       string
	HostIfname   string
	State        State
	Grade        Grade
	Source       string
	Hostname     string
	Reason       string
	Since        time.Time // when State was reached
	Created      time.Time // the container's creation time
	PID          int
	Strict       bool   // it must not run without its network
	NetNS        uint64 // inode of the namespace
	DefaultRoute bool
	MTU          int     // asked for; 0: the node's
	Phases       []Phase // of the last attach
}

// Phase is one part of an attach and how long it took.
type Phase struct {
	Name     string
	Duration time.Duration
}

// Grade tells how an endpoint was ready in relation to its program's first
// instruction. It is verified, not assumed.
type Grade string

const (
	// GradeSync: the client waited for the endpoint before it started the program.
	GradeSync Grade = "sync"
	// GradeHeld: the program was kept from its first instruction until the endpoint
	// was up.
	GradeHeld Grade = "held"
	// GradeEarly: the program had not been started when the endpoint was up.
	GradeEarly Grade = "early"
	// GradeLate: the program may have run before the endpoint was up.
	GradeLate Grade = "late"
	// GradeAdopted: the endpoint was there when this agent started.
	GradeAdopted Grade = "adopted"
)

// Endpoints returns what is known now, sorted by namespace and id.
func (a *Agent) Endpoints() []Endpoint {
	a.mu.Lock()
	out := make([]Endpoint, 0, len(a.records))
	for _, r := range a.records {
		if r.shown.State != "" {
			out = append(out, r.shown)
		}
	}
	for _, x := range a.attachments {
		out = append(out, x.shown)
	}
	a.mu.Unlock()
	for i := range out {
		a.judgeReplication(&out[i])
	}
	sortEndpoints(out)
	return out
}

// reasonProvisional is shown while no leader has confirmed a lease.
const reasonProvisional = "the lease is not replicated yet: no leader answers"

// judgeReplication makes an endpoint provisional, or no more: a lease is
// replicated, or held without a leader, without anybody looking at its container.
func (a *Agent) judgeReplication(e *Endpoint) {
	if e.State != StateAttached && e.State != StateProvisional {
		return
	}
	held, ok := a.cfg.Leases.Lookup(e.Owner)
	switch {
	case !ok:
	case held.Provisional:
		e.State, e.Reason = StateProvisional, reasonProvisional
	case e.State == StateProvisional:
		e.State = StateAttached
		if e.Reason == reasonProvisional {
			e.Reason = ""
		}
	}
}

// Events returns the kept events from seq on, the next seq, and a channel that
// is closed when there are more.
func (a *Agent) Events(seq uint64) ([]Event, uint64, <-chan struct{}) { return a.events.since(seq) }

// Record adds an event of another part of the process to the same history.
func (a *Agent) Record(kind, subject, message string) {
	a.events.add(Event{Time: a.now(), Type: kind, Node: a.cfg.NodeName, Subject: subject, Message: message})
}

// Settled is closed when every container of the first full listing has been
// worked on once.
func (a *Agent) Settled() <-chan struct{} { return a.settled }

// Containerd reports whether containerd answers, since when, and why not.
func (a *Agent) Containerd() (connected bool, since time.Time, err error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.link.connected, a.link.since, a.link.err
}

// Knows reports whether o is the owner that its container is now, as far as
// containerd was last heard.
func (a *Agent) Knows(o ipam.Owner) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	if ownerless(o) {
		return a.attachments[o] != nil
	}
	r := a.records[keyOf(o)]
	return r != nil && r.owner == o && !r.created.IsZero()
}

// Idle returns when no worker has the container and none is about to.
func (a *Agent) Idle(ctx context.Context, key events.Key) error {
	poll := time.NewTicker(5 * time.Millisecond)
	defer poll.Stop()
	for a.queue.busy(key) {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-poll.C:
		}
	}
	return nil
}

// Repair works on a container again, now, as if everything about it were new.
// It reports false when nothing is known of the container.
func (a *Agent) Repair(key events.Key) bool {
	a.mu.Lock()
	_, known := a.records[key]
	if known {
		h := a.hints[key]
		h.repair = true
		a.hints[key] = h
	}
	a.mu.Unlock()
	if known {
		a.queue.add(key)
	}
	return known
}
