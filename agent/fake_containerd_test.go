package agent

import (
	"context"
	"log/slog"
	"maps"
	"sync"
	"time"

	"stellar.io/stellar/events"
)

// fakeContainerd has records and tasks, and tells a sink what happens to them.
type fakeContainerd struct {
	k      *fakeKernel
	mu     sync.Mutex // guards all below
	all    map[events.Key]*fakeContainer
	looks  map[events.Key]int
	gone   map[events.Key]time.Time // when a record was removed
	id     string
	log    *slog.Logger                   // nil: no log
	fail   func(events.Key) error         // asked at each Look; nil: nothing fails
	filter func(events.Hint) (again int)  // how often a hint arrives; nil: once
	change func(*events.Container)        // edits what a Look says; nil: nothing
	sink   interface{ Hint(events.Hint) } // nil: nobody listens
}

type fakeContainer struct {
	events.Container
	ns   *fakeNS // to be joined; nil: a new one for each task
	proc *fakeProc
	busy chan struct{} // closed at the end of the task's creation; nil: it is not being created
	// changed is when its labels or its task were changed last.
	changed time.Time
	// stable: neither labels nor anything else ever asked for another address.
	stable bool
}

func newFakeContainerd(k *fakeKernel) *fakeContainerd {
	return &fakeContainerd{k: k, all: map[events.Key]*fakeContainer{}, looks: map[events.Key]int{}, gone: map[events.Key]time.Time{}, id: "server"}
}

// Look does not answer while the task is being created, as containerd 1.x.
func (c *fakeContainerd) Look(ctx context.Context, key events.Key) (events.Container, error) {
	c.mu.Lock()
	var busy chan struct{}
	if x := c.all[key]; x != nil {
		busy = x.busy
	}
	c.mu.Unlock()
	if busy != nil {
		select {
		case <-busy:
		case <-ctx.Done():
			return events.Container{}, ctx.Err()
		}
	}
	return c.answer(key)
}

func (c *fakeContainerd) LookRecord(_ context.Context, key events.Key) (events.Container, error) {
	out, err := c.answer(key)
	out.Task = nil
	return out, err
}

func (c *fakeContainerd) answer(key events.Key) (events.Container, error) {
	time.Sleep(time.Millisecond)
	c.mu.Lock()
	defer c.mu.Unlock()
	c.looks[key]++
	if c.fail != nil {
		if err := c.fail(key); err != nil {
			return events.Container{}, err
		}
	}
	x := c.all[key]
	if x == nil {
		return events.Container{}, events.ErrNotFound
	}
	out := x.copy()
	if c.change != nil {
		c.change(&out)
	}
	return out, nil
}

func (x *fakeContainer) copy() events.Container {
	out := x.Container
	out.Labels = maps.Clone(x.Labels)
	if x.Task != nil {
		task := *x.Task
		out.Task = &task
	}
	return out
}

// tell sends a hint, as often as the filter says.
func (c *fakeContainerd) tell(h events.Hint) {
	h.Time, h.Received = time.Now(), time.Now()
	c.mu.Lock()
	if c.log != nil {
		attrs := []any{"topic", h.Topic, "container", h.Key, "pid", h.PID}
		if x := c.all[h.Key]; x != nil && x.proc != nil {
			attrs = append(attrs, "ns", x.proc.ns.id.Ino)
		}
		c.log.Debug("happens", attrs...)
	}
	sink, n := c.sink, 1
	if c.filter != nil {
		n = c.filter(h)
	}
	c.mu.Unlock()
	if sink == nil {
		return
	}
	for range n {
		sink.Hint(h)
	}
}

// create adds a record; opts edit it before anybody sees it.
func (c *fakeContainerd) create(key events.Key, labels map[string]string, opts ...func(*fakeContainer)) *fakeContainer {
	c.mu.Lock()
	x := &fakeContainer{changed: time.Now()}
	x.Container = events.Container{
		Key: key, Created: time.Now(), Labels: labels, Runtime: "io.containerd.runc.v2", NetNS: events.NetNSNew,
		HasImage: true, ImageKnown: true,
	}
	for _, o := range opts {
		o(x)
	}
	c.all[key] = x
	c.mu.Unlock()
	c.tell(events.Hint{Key: key, Topic: events.ContainerCreate})
	return x
}

// joining makes a container join a namespace by its path.
func joining(ns *fakeNS) func(*fakeContainer) {
	return func(x *fakeContainer) { x.ns, x.NetNS, x.NetNSPath = ns, events.NetNSPath, "/run/netns/x" }
}

func (c *fakeContainerd) update(x *fakeContainer, labels map[string]string) {
	c.mu.Lock()
	x.Labels, x.changed, x.stable = labels, time.Now(), false
	c.mu.Unlock()
	c.tell(events.Hint{Key: x.Key, Topic: events.ContainerUpdate})
}

func (c *fakeContainerd) remove(x *fakeContainer) {
	c.mu.Lock()
	if c.all[x.Key] == x {
		delete(c.all, x.Key)
		c.gone[x.Key] = time.Now()
	}
	c.mu.Unlock()
	c.tell(events.Hint{Key: x.Key, Topic: events.ContainerDelete})
}

// task makes a task whose init process is parked.
func (c *fakeContainerd) task(x *fakeContainer) *fakeProc {
	ns := x.ns
	if ns == nil {
		ns = c.k.newNS()
		defer c.k.unpin(ns)
	}
	p := c.k.fork(ns)
	c.mu.Lock()
	x.proc, x.changed = p, time.Now()
	x.Task = &events.Task{PID: uint32(p.pid), Status: events.TaskCreated}
	c.mu.Unlock()
	c.tell(events.Hint{Key: x.Key, Topic: events.TaskCreate, PID: uint32(p.pid)})
	return p
}

func (c *fakeContainerd) run(x *fakeContainer) {
	c.k.exec(x.proc)
	c.mu.Lock()
	x.Task.Status = events.TaskRunning
	pid := x.Task.PID
	c.mu.Unlock()
	c.tell(events.Hint{Key: x.Key, Topic: events.TaskStart, PID: pid})
}

// exit ends the task's process, and the task.
func (c *fakeContainerd) exit(x *fakeContainer) {
	c.mu.Lock()
	p := x.proc
	x.proc, x.Task, x.changed = nil, nil, time.Now()
	c.mu.Unlock()
	c.k.kill(p)
	c.tell(events.Hint{Key: x.Key, Topic: events.TaskExit, PID: uint32(p.pid)})
	c.tell(events.Hint{Key: x.Key, Topic: events.TaskDelete, PID: uint32(p.pid)})
}

// Kill implements Containers.
func (c *fakeContainerd) Kill(_ context.Context, key events.Key, pid int) error {
	c.mu.Lock()
	x := c.all[key]
	same := x != nil && x.proc != nil && x.proc.pid == pid
	c.mu.Unlock()
	if same {
		c.exit(x)
	}
	return nil
}

func (c *fakeContainerd) list() events.Listing {
	c.mu.Lock()
	defer c.mu.Unlock()
	l := events.Listing{ServerID: c.id, At: time.Now()}
	for _, x := range c.all {
		out := x.copy()
		out.ImageLabels, out.Annotations, out.HasImage, out.ImageKnown = nil, nil, false, false
		out.NetNS, out.NetNSPath, out.Hostname = events.NetNSUnknown, "", ""
		l.Containers = append(l.Containers, out)
	}
	return l
}

func (c *fakeContainerd) looked(key events.Key) int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.looks[key]
}

func (c *fakeContainerd) allLooks() (n int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, i := range c.looks {
		n += i
	}
	return n
}
