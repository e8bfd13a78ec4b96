package agent

import (
	"cmp"
	"iter"
	"maps"
	"slices"
	"time"

	"stellar.io/stellar/events"
	"stellar.io/stellar/ipam"
	"stellar.io/stellar/raftstore/holder"
)

// hint is what the events of one container boil down to until a worker has the
// time: however many came, it is one look.
type hint struct {
	pid      int       // of the newest /tasks/create, 0 for none
	created  time.Time // that event's timestamp
	received time.Time // when it arrived
	record   bool      // an event was about the record: labels, or even the container, may be others
	deleted  time.Time // of the newest /containers/delete, zero for none
	exited   int       // pid of the newest task that was said to be over, 0 for none
	exit     time.Time // that event's timestamp
	repair   bool      // forget what is known to be in place
	lost     string    // what became of the endpoint's link
}

// Hint implements events.Sink. It does not block.
func (a *Agent) Hint(h events.Hint) {
	a.cfg.Metrics.eventReceived(h)
	if h.Topic == events.NamespaceDelete {
		for _, key := range a.keysIn(h.Key.Namespace) {
			a.queue.add(key)
		}
		return
	}
	a.mu.Lock()
	p := a.hints[h.Key]
	switch h.Topic {
	case events.TaskCreate:
		// A restored checkpoint announces pid 0: not a process. Its task is found by a look.
		p.pid, p.created, p.received = int(h.PID), h.Time, h.Received
		if p.pid != 0 && a.cfg.Hold != nil {
			a.cfg.Hold.Second(h.Key, p.pid, h.Time)
		}
	case events.TaskExit, events.TaskDelete:
		p.pid = 0
		if h.PID != 0 {
			p.exited, p.exit = int(h.PID), h.Time
		}
	case events.ContainerDelete:
		p.record, p.deleted = true, h.Time
		if h.Time.IsZero() {
			p.deleted = h.Received
		}
	case events.ContainerCreate, events.ContainerUpdate:
		p.record = true
	}
	a.hints[h.Key] = p
	a.mu.Unlock()
	if h.Topic == events.ContainerCreate || h.Topic == events.TaskCreate {
		a.queue.hurry(h.Key)
		return
	}
	a.queue.add(h.Key)
}

func (a *Agent) keysIn(namespace string) []events.Key {
	a.mu.Lock()
	defer a.mu.Unlock()
	var keys []events.Key
	for key := range a.records {
		if key.Namespace == namespace {
			keys = append(keys, key)
		}
	}
	return inOrder(slices.Values(keys))
}

// inOrder returns keys sorted: whatever happens to many containers at once happens
// in the same order each time.
func inOrder(keys iter.Seq[events.Key]) []events.Key {
	return slices.SortedFunc(keys, func(x, y events.Key) int {
		return cmp.Or(cmp.Compare(x.Namespace, y.Namespace), cmp.Compare(x.ID, y.ID))
	})
}

// Connected implements events.Sink.
func (a *Agent) Connected(up bool, err error) {
	a.mu.Lock()
	changed := a.link.connected != up || a.link.since.IsZero()
	if changed {
		a.link = linkState{connected: up, since: a.now()}
		a.doubt.unheard = true
	}
	a.link.err = err
	a.mu.Unlock()
	if !changed {
		return
	}
	a.cfg.Metrics.containerdConnected(up)
	if up {
		a.Record("containerd", "containerd", "connected")
	} else if err != nil {
		a.Record("containerd", "containerd", "lost: "+err.Error())
	}
}

// Synced implements events.Sink: the listing is the truth, so whatever differs
// from what is known, and whatever is not as it should be, is worked on again.
func (a *Agent) Synced(l events.Listing) {
	held := a.cfg.Leases.All()
	a.mu.Lock()
	a.doubt.hear(l, a.now())
	server, keep := a.doubt.keep(a.now())
	due := a.compare(l, held)
	if a.pending == nil {
		a.pending = maps.Clone(due)
		a.settleLocked()
	}
	a.mu.Unlock()
	if keep {
		a.requests.keepServer(server, func(err error) {
			a.log.Warn("the containerd that is listened to could not be noted", "err", err)
		})
	}
	for _, key := range inOrder(maps.Keys(due)) {
		a.queue.add(key)
	}
}

// compare returns the keys that a listing gives reason to look at. It is called
// with the agent's lock held.
func (a *Agent) compare(l events.Listing, held []holder.Held) map[events.Key]bool {
	due := map[events.Key]bool{}
	seen := make(map[events.Key]bool, len(l.Containers))
	for i := range l.Containers {
		c := &l.Containers[i]
		seen[c.Key] = true
		if r := a.records[c.Key]; r == nil || !r.matches(c) {
			due[c.Key] = true
		}
	}
	for key := range a.records {
		if !seen[key] {
			due[key] = true
		}
	}
	for _, h := range held {
		if h.Owner.Kind != ipam.OwnerContainer {
			continue // its own client ends it
		}
		key := keyOf(h.Owner)
		if r := a.records[key]; r == nil || r.owner != h.Owner {
			due[key] = true
		}
	}
	return due
}

// absence is how much longer a record must stay absent that was first missed at since.
func (a *Agent) absence(since time.Time) time.Duration {
	a.mu.Lock()
	defer a.mu.Unlock()
	now := a.now()
	return max(0, a.doubt.pause(now)-now.Sub(since))
}

// takeHint removes and returns what was hinted of key, and begins a pass.
func (a *Agent) takeHint(key events.Key) (h hint, pass uint64) {
	a.mu.Lock()
	defer a.mu.Unlock()
	h = a.hints[key]
	delete(a.hints, key)
	a.passes++
	return h, a.passes
}

// worked ends a pass over key.
func (a *Agent) worked(key events.Key, pass uint64) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if r := a.records[key]; r != nil {
		r.over(pass)
	}
	if len(a.pending) > 0 {
		delete(a.pending, key)
		a.settleLocked()
	}
}

func (a *Agent) settleLocked() {
	if len(a.pending) == 0 {
		close(a.settled)
	}
}

// matches reports whether c, a light container of a listing, is what r knows
// and what r has done about it. It is called with the agent's lock held.
func (r *record) matches(c *events.Container) bool {
	if r.unsettled || !r.created.Equal(c.Created) || !maps.Equal(r.labels, c.Labels) {
		return false
	}
	return livePID(c.Task) == r.taskPID
}

// livePID is the init process of a task that has one, else 0.
func livePID(t *events.Task) int {
	if t == nil || stateOf(t) != taskLive {
		return 0
	}
	return int(t.PID)
}

// stateOf says what a task's status proves.
func stateOf(t *events.Task) taskState {
	switch {
	case t == nil, t.Status == events.TaskStopped:
		return taskNone
	case t.Status == events.TaskUnknown, t.PID == 0:
		return taskUnknown
	}
	return taskLive
}
