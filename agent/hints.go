package agent

import (
	"maps"
	"time"

	"stellar.io/stellar/events"
)

// hint is what the events of one container boil down to until a worker has the
// time: however many came, it is one look.
type hint struct {
	pid      int       // of the newest /tasks/create, 0 for none
	created  time.Time // that event's timestamp
	received time.Time // when the first of these hints arrived
	deleted  bool      // a /containers/delete was among them
	repair   bool      // forget what is known to be in place
}

// Hint implements events.Sink. It does not block.
func (a *Agent) Hint(h events.Hint) {
	a.cfg.Metrics.eventReceived(string(h.Topic), h.Received.Sub(h.Time))
	if h.Topic == events.NamespaceDelete {
		for _, key := range a.keysIn(h.Key.Namespace) {
			a.queue.add(key)
		}
		return
	}
	a.mu.Lock()
	p := a.hints[h.Key]
	if p.received.IsZero() {
		p.received = h.Received
	}
	switch h.Topic {
	case events.TaskCreate:
		// A restored checkpoint announces pid 0: not a process. Its task is found by a look.
		p.pid, p.created = int(h.PID), h.Time
	case events.TaskExit, events.TaskDelete:
		p.pid = 0
	case events.ContainerDelete:
		p.deleted = true
	case events.ContainerCreate:
		p.deleted = false
	}
	a.hints[h.Key] = p
	a.mu.Unlock()
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
	return keys
}

// Connected implements events.Sink.
func (a *Agent) Connected(up bool, err error) {
	a.mu.Lock()
	changed := a.link.connected != up || a.link.since.IsZero()
	if changed {
		a.link = linkState{connected: up, since: time.Now()}
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
	due := a.compare(l)
	for key := range due {
		a.queue.add(key)
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.synced {
		return
	}
	a.synced = true
	a.pending = due
	if len(due) == 0 {
		close(a.settled)
	}
}

// compare returns the keys that a listing gives reason to look at.
func (a *Agent) compare(l events.Listing) map[events.Key]bool {
	due := map[events.Key]bool{}
	seen := make(map[events.Key]bool, len(l.Containers))
	held := a.cfg.Leases.All()
	a.mu.Lock()
	defer a.mu.Unlock()
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
		key := events.Key{Namespace: h.Owner.Namespace, ID: h.Owner.ID}
		if r := a.records[key]; !seen[key] || r == nil || r.owner != h.Owner {
			due[key] = true
		}
	}
	return due
}

// takeHint removes and returns what was hinted of key.
func (a *Agent) takeHint(key events.Key) hint {
	a.mu.Lock()
	defer a.mu.Unlock()
	h := a.hints[key]
	delete(a.hints, key)
	return h
}

// restoreHint gives an unused hint back, under whatever came in since.
func (a *Agent) restoreHint(key events.Key, old hint) {
	a.mu.Lock()
	defer a.mu.Unlock()
	h := a.hints[key]
	if h.received.IsZero() {
		h.received = old.received
	}
	h.deleted = h.deleted || old.deleted
	a.hints[key] = h
}

// worked notes that key was worked on since the first listing.
func (a *Agent) worked(key events.Key) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if !a.synced || len(a.pending) == 0 {
		return
	}
	delete(a.pending, key)
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
