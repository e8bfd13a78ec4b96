package agent

import (
	"context"
	"maps"
	"slices"
	"time"

	"stellar.io/stellar/events"
	"stellar.io/stellar/ipam"
)

// simContainerd has a few names, each with a record or none, and tells of changes.
type simContainerd struct {
	w       *world
	up      bool
	starts  int
	id      string
	slots   []*simContainer              // by name; nil: no record
	orphans []*simProc                   // of tasks whose records were deleted
	hints   []events.Hint                // told, not yet delivered
	gone    map[int64]fate               // of records that are no more, by creation time
	removed map[events.Key]time.Duration // when a record of a name was deleted last
	known   string                       // that an agent has kept
	newest  map[events.Key]time.Duration // when the newest record of a name was made
}

// fate is how a record ended.
type fate struct {
	at   time.Duration
	lost bool // by a containerd that lost all it knew
}

type simContainer struct {
	events.Container
	proc    *simProc
	join    *simNS // of the spec's path; nil: each task has a new one
	changed time.Duration
	pids    []int // of its tasks
	twin    bool  // the task has the pid of one before
}

// simList is a listing under way: tasks are read before containers.
type simList struct{ tasks []*events.Task }

var simKeys = []events.Key{
	{Namespace: "default", ID: "a"}, {Namespace: "default", ID: "b"}, {Namespace: "default", ID: "c"},
	{Namespace: "default", ID: "d"}, {Namespace: "other", ID: "a"}, {Namespace: "other", ID: "b"},
}

// simLabels are never changed: containers share them.
var simLabels = []map[string]string{
	nil, networked, networked, networked, networked, with(labelMTU, "bad"),
	with(labelIP, "172.16.0.9"), with(labelIP, "172.16.0.10"), with(labelIfname, "net1"), with(labelStrict, "true"),
}

func (c *simContainerd) init(w *world) {
	c.w, c.up, c.id = w, true, "1"
	c.slots = make([]*simContainer, len(simKeys))
	c.gone, c.newest, c.removed = map[int64]fate{}, map[events.Key]time.Duration{}, map[events.Key]time.Duration{}
}

func (c *simContainerd) labels() map[string]string { return simLabels[c.w.rng.IntN(len(simLabels))] }

// tell queues a hint; it may be lost, or doubled.
func (c *simContainerd) tell(k events.Key, topic events.Topic, pid int) {
	w := c.w
	h := events.Hint{Key: k, Topic: topic, PID: uint32(pid), Time: w.time()}
	n := 1
	if w.faults {
		switch r := w.rng.IntN(100); {
		case r < 20:
			n = 0
		case r < 30:
			n = 2
		}
	}
	w.trace.line(string(topic)).key(k).num(int64(pid)).num(int64(n)).end(w)
	for range n {
		c.hints = append(c.hints, h)
	}
}

func (c *simContainerd) create(i int) {
	w := c.w
	w.now++ // no two records are created at the same moment
	x := &simContainer{changed: w.now}
	x.Container = events.Container{
		Key: simKeys[i], Created: w.time(), Labels: c.labels(), Runtime: "io.containerd.runc.v2",
		NetNS: events.NetNSNew, HasImage: true, ImageKnown: true,
	}
	switch n := w.rng.IntN(12); {
	case n == 0:
		x.join = w.k.crowded
	case n == 1:
		for _, other := range c.slots {
			if other != nil && other.proc != nil && !other.proc.dead && other.join == nil {
				x.join = other.proc.ns
				x.join.fds++ // a pin: the path leads to it for good
				break
			}
		}
	}
	if x.join != nil {
		x.NetNS, x.NetNSPath = events.NetNSPath, "/run/netns/x"
	}
	c.slots[i], c.newest[x.Key] = x, w.now
	c.tell(x.Key, events.ContainerCreate, 0)
}

func (c *simContainerd) remove(i int) {
	x := c.slots[i]
	c.slots[i] = nil
	c.gone[x.Created.UnixNano()] = fate{at: c.w.now}
	c.removed[x.Key] = c.w.now
	if x.proc != nil && !x.proc.dead {
		c.orphans = append(c.orphans, x.proc)
	}
	c.tell(x.Key, events.ContainerDelete, 0)
}

func (c *simContainerd) task(x *simContainer) {
	ns := x.join
	if ns == nil {
		ns = c.w.k.newNS()
		defer func() { ns.fds--; c.w.k.reap(ns) }()
	}
	x.proc, x.changed = c.w.k.fork(ns), c.w.now
	x.twin = slices.Contains(x.pids, x.proc.pid)
	x.pids = append(x.pids, x.proc.pid)
	x.Task = &events.Task{PID: uint32(x.proc.pid), Status: events.TaskCreated}
	c.tell(x.Key, events.TaskCreate, x.proc.pid)
}

func (c *simContainerd) run(x *simContainer) {
	x.proc.parked = false
	x.Task = &events.Task{PID: x.Task.PID, Status: events.TaskRunning}
	c.tell(x.Key, events.TaskStart, x.proc.pid)
}

// exit ends the task's process, and the task.
func (c *simContainerd) exit(x *simContainer) {
	p := x.proc
	x.proc, x.Task, x.changed = nil, nil, c.w.now
	c.w.k.kill(p)
	c.tell(x.Key, events.TaskExit, p.pid)
	c.tell(x.Key, events.TaskDelete, p.pid)
}

// mistaken reports whether a dead process's number must not be used again yet: what
// containerd says of it is old, and the agent would see it for the first time. It has
// then no way to tell, which is a limit of what is promised.
func (w *world) mistaken(pid int) bool {
	for _, x := range w.c.slots {
		if x != nil && x.Task != nil && int(x.Task.PID) == pid {
			if w.life == nil {
				return true
			}
			r := w.life.agent.records[x.Key]
			return r == nil || r.taskPID != pid
		}
	}
	return false
}

// notices makes containerd see the end of tasks whose numbers others have now.
func (c *simContainerd) notices() {
	for _, x := range c.slots {
		if x != nil && x.proc != nil && x.proc.dead && c.w.k.procs[x.proc.pid] != nil {
			x.proc, x.Task, x.changed = nil, nil, c.w.now
		}
	}
}

// lose makes containerd forget all it knew, as a new data directory does.
func (c *simContainerd) lose() {
	if c.known != c.id {
		return // an agent that has never heard of the one before cannot tell
	}
	c.id += "x"
	c.w.trace.line("containerd forgets all").end(c.w)
	for i, x := range c.slots {
		if x == nil {
			continue
		}
		c.gone[x.Created.UnixNano()] = fate{c.w.now, true}
		if x.proc != nil && !x.proc.dead {
			c.orphans = append(c.orphans, x.proc)
		}
		c.slots[i] = nil
	}
}

// deliver hands a hint over, usually the oldest.
func (c *simContainerd) deliver() {
	i := 0
	if c.w.faults && c.w.luck(200) {
		i = c.w.rng.IntN(len(c.hints))
	}
	h := c.hints[i]
	c.hints = slices.Delete(c.hints, i, i+1)
	if l := c.w.life; l != nil && l.connected && l.server == c.starts {
		h.Received = c.w.time()
		c.w.trace.line("hint").key(h.Key).text(string(h.Topic)).end(c.w)
		l.agent.Hint(h)
	}
}

func (c *simContainerd) beginList() *simList {
	s := &simList{tasks: make([]*events.Task, len(c.slots))}
	for i, x := range c.slots {
		if x != nil {
			s.tasks[i] = x.Task
		}
	}
	return s
}

// endList reads the containers of a listing and hands it over.
func (c *simContainerd) endList(l *life) {
	out := events.Listing{ServerID: c.id, At: c.w.time(), First: !l.listed}
	for i, x := range c.slots {
		if x == nil {
			continue
		}
		light := events.Container{Key: x.Key, Created: x.Created, Labels: x.Labels, Runtime: x.Runtime, Task: l.listing.tasks[i]}
		out.Containers = append(out.Containers, light)
	}
	l.listing, l.listed = nil, true
	c.w.trace.line("listing").num(int64(len(out.Containers))).end(c.w)
	l.agent.Synced(out)
	c.known = l.agent.doubt.kept
}

// simLooks is containerd as one process sees it.
type simLooks struct {
	*simContainerd
	l *life
}

func (c simLooks) Look(_ context.Context, key events.Key) (events.Container, error) {
	w := c.w
	if err := w.effect(c.l, "look"); err != nil {
		return events.Container{}, err
	}
	if !c.up || !c.l.connected || c.l.server != c.starts { // see events.Client.connected
		return events.Container{}, events.ErrNotConnected
	}
	x := c.slots[slices.Index(simKeys, key)]
	if x == nil {
		return events.Container{}, events.ErrNotFound
	}
	out := x.Container
	if w.faults && w.luck(20) { // record and task are read apart
		w.meanwhile()
		out.Task = x.Task
	}
	if out.Task != nil && w.faults && w.luck(20) {
		out.Task = &events.Task{Status: events.TaskUnknown}
	}
	return out, nil
}

func (c simLooks) LookRecord(ctx context.Context, key events.Key) (events.Container, error) {
	out, err := c.Look(ctx, key)
	out.Task = nil
	return out, err
}

func (c simLooks) Kill(_ context.Context, key events.Key, pid int) error {
	if err := c.w.effect(c.l, "kill"); err != nil {
		return err
	}
	if !c.up {
		return events.ErrNotConnected
	}
	x := c.slots[slices.Index(simKeys, key)]
	if x != nil && x.proc != nil && x.proc.pid == pid {
		if l := c.w.k.link(c.w.ownerIn(x)); x.Labels[labelStrict] == "" && l != nil {
			c.w.breaks("%s was killed and is not strict", key)
		}
		c.exit(x)
	}
	return c.w.after(c.l, "kill")
}

// ownerIn is the owner that a container has by its labels.
func (w *world) ownerIn(x *simContainer) ipam.Owner {
	o := ipam.Owner{Kind: ipam.OwnerContainer, Namespace: x.Namespace, ID: x.ID, Created: x.Created.UnixNano(), Interface: "eth0"}
	if name := x.Labels[labelIfname]; name != "" {
		o.Interface = name
	}
	return o
}

func sortedPIDs(m map[int]*simProc) []int { return slices.Sorted(maps.Keys(m)) }
