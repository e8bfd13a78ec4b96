package agent

import (
	"cmp"
	"maps"
	"slices"
	"time"

	"stellar.io/stellar/events"
	"stellar.io/stellar/ipam"
	"stellar.io/stellar/netsetup"
)

// record is what is known of one key. Its first half belongs to the worker that
// has the key (the queue gives it to one at a time); the second half is read by
// others and guarded by the agent's lock.
type record struct {
	key events.Key

	known    bool         // a look has succeeded since the agent started
	wish     *Wish        // nil: no network is asked for
	refused  *RejectError // why what is asked for cannot be
	asked    *Request     // by other means than labels; nil: not
	bare     time.Time    // since when a strict container's task has run without its network
	verdict  verdict
	path     bool               // the spec names the namespace by a path
	beside   bool               // the container has, or will have, a network of its own
	crowded  bool               // that it has one was found in its namespace
	shared   bool               // its task was found in a namespace that another endpoint serves
	endpoint *netsetup.Endpoint // what the kernel has for owner
	proc     Process            // the attached process; its namespace descriptor is closed
	pidSeen  time.Time          // when the task was first known to have its pid
	nsid     netsetup.NSID      // where endpoint is, zero when not known yet
	host     *netsetup.Endpoint // another owner's endpoint, in the namespace of this task
	routed   bool               // endpoint has the container's default route
	grade    Grade
	phases   []Phase   // of the last attach
	warning  string    // what a person should know of an endpoint that is up
	absent   time.Time // when the container was first seen to be gone
	deleted  bool      // its delete event was seen since it was last seen present
	puzzled  bool      // the last pass ended in errLookAgain
	strays   []stray   // earlier owners with this key that still hold something

	ended     uint64        // the last pass that is over
	changed   chan struct{} // closed when a pass is over; nil: nobody waits
	owner     ipam.Owner
	created   time.Time
	labels    map[string]string
	taskPID   int
	judged    *judged    // nil: not looked at yet
	guestOf   ipam.Owner // whose endpoint serves the task's namespace, if another's does
	lostUntil time.Time  // a link that is lost before then is made again only then
	unsettled bool       // not as it should be: look again at each listing
	heals     bool       // rejected for want of an address that may become free
	shown     Endpoint
}

// record returns the record of key, making one for a key not known yet.
func (a *Agent) record(key events.Key) *record {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.recordLocked(key)
}

func (a *Agent) recordLocked(key events.Key) *record {
	r := a.records[key]
	if r == nil {
		r = &record{key: key}
		a.records[key] = r
	}
	return r
}

// forget ends the record's container. What a stray still holds is then the
// record; without one there is none.
func (a *Agent) forget(r *record) {
	a.unserve(r)
	r.closeProc()
	a.mu.Lock()
	defer a.mu.Unlock()
	r.over(r.ended)
	if len(r.strays) == 0 {
		delete(a.records, r.key)
		return
	}
	next := record{key: r.key, owner: r.strays[0].owner, endpoint: r.strays[0].endpoint, strays: r.strays[1:], absent: r.absent, deleted: r.deleted}
	*r = next
}

// over notes that a pass has ended, and tells those who wait for it. It is called
// with the agent's lock held.
func (r *record) over(pass uint64) {
	r.ended = pass
	if r.changed != nil {
		close(r.changed)
		r.changed = nil
	}
}

// remember notes what containerd said of the container now.
func (a *Agent) remember(r *record, c *events.Container) {
	a.mu.Lock()
	defer a.mu.Unlock()
	r.created = c.Created
	r.labels = maps.Clone(c.Labels)
	r.taskPID = livePID(c.Task)
	r.judged = &judged{r.wish, r.refused}
}

// judged is what a record's labels and requests were last found to ask for.
type judged struct {
	wish    *Wish
	refused *RejectError
}

// show publishes what people see of the record.
func (a *Agent) show(r *record, e Endpoint, unsettled bool) (was Endpoint) {
	a.mu.Lock()
	defer a.mu.Unlock()
	was = r.shown
	e.Since = was.Since
	if e.State != was.State || e.Since.IsZero() {
		e.Since = a.now()
	}
	r.shown = e
	r.unsettled, r.heals = unsettled, false
	switch {
	case e.State != StateShared:
		r.guestOf = ipam.Owner{}
	case r.host != nil:
		r.guestOf = r.host.Owner
	}
	return was
}

// endpointGone has the containers looked at that live in the namespace which the
// owner's endpoint has gone from.
func (a *Agent) endpointGone(o ipam.Owner) {
	a.mu.Lock()
	defer a.mu.Unlock()
	delete(a.adopted, o)
	a.addEach(func(r *record) bool { return r.guestOf == o })
}

func (a *Agent) setOwner(r *record, o ipam.Owner) {
	a.mu.Lock()
	defer a.mu.Unlock()
	r.owner = o
}

func (a *Agent) healable(r *record) {
	a.mu.Lock()
	defer a.mu.Unlock()
	r.heals = true
}

// AddressFreed has the containers looked at again that were rejected for want of
// an address: one has become free.
func (a *Agent) AddressFreed() {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.addEach(func(r *record) bool { return r.heals })
}

// addEach has the containers looked at whose records are due. It is called with the
// agent's lock held.
func (a *Agent) addEach(due func(*record) bool) {
	var keys []events.Key
	for key, r := range a.records {
		if due(r) {
			keys = append(keys, key)
		}
	}
	for _, key := range inOrder(slices.Values(keys)) {
		a.queue.add(key)
	}
}

// claim enters the record as the one that makes an endpoint in the opened
// namespace, so that of two containers that share it one does. It reports false
// where another one may serve that already; the kernel knows.
func (j *job) claim() bool {
	id := j.ns.ID()
	j.mu.Lock()
	defer j.mu.Unlock()
	key, entered := j.byNS[id]
	if entered && key != j.key {
		return false
	}
	j.byNS[id] = j.key
	return j.endpoint != nil || len(j.adopted) == 0
}

// takeClaim claims a namespace in which the kernel has no endpoint. Numbers of
// namespaces are used again, so the entry of a finished endpoint is void there,
// but not that of one that is being made.
func (j *job) takeClaim() bool {
	id := j.ns.ID()
	j.mu.Lock()
	defer j.mu.Unlock()
	if key, entered := j.byNS[id]; entered && key != j.key {
		if other := j.records[key]; other != nil && other.nsid != id {
			return false
		}
	}
	j.byNS[id] = j.key
	return true
}

// serve notes that the record's endpoint serves the namespace id.
func (a *Agent) serve(r *record, id netsetup.NSID) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if r.nsid != id && a.byNS[r.nsid] == r.key {
		delete(a.byNS, r.nsid)
	}
	r.nsid = id
	a.byNS[id] = r.key
	delete(a.adopted, r.owner)
}

// unclaim takes back a claim on the namespace id that has led to no endpoint.
func (a *Agent) unclaim(r *record, id netsetup.NSID) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.byNS[id] == r.key && r.nsid != id {
		delete(a.byNS, id)
	}
}

func (a *Agent) unserve(r *record) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.byNS[r.nsid] == r.key {
		delete(a.byNS, r.nsid)
	}
	r.nsid = netsetup.NSID{}
}

// alive reports whether the attached process is known to run.
func (r *record) alive() bool { return r.proc != nil && !r.proc.Exited() }

func (r *record) closeProc() {
	if r.proc != nil {
		r.proc.Close()
		r.proc = nil
	}
}

// closeRecords lets go of all descriptors when the agent ends.
func (a *Agent) closeRecords() {
	a.mu.Lock()
	defer a.mu.Unlock()
	for _, r := range a.records {
		r.closeProc()
	}
}

func sortEndpoints(es []Endpoint) {
	slices.SortFunc(es, func(x, y Endpoint) int {
		return cmp.Or(cmp.Compare(x.Key.Namespace, y.Key.Namespace), cmp.Compare(x.Key.ID, y.Key.ID))
	})
}
