package agent

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"stellar.io/stellar/events"
	"stellar.io/stellar/ipam"
	"stellar.io/stellar/netsetup"
)

// look gathers the facts. For a task that was just created, of a container
// whose wish is known, containerd is not asked: the kernel alone tells whether
// the event's process is what the event says, and a full look follows.
func (j *job) look(ctx context.Context) (facts, error) {
	if j.hint.repair {
		j.closeProc()
		j.unserve(j.record)
	}
	// A delete from before the container's creation was that of a namesake.
	if d := j.hint.deleted; !d.IsZero() && d.UnixNano() > j.owner.Created {
		j.deleted = true
	}
	if f, ok := j.glance(ctx); ok {
		j.queue.add(j.key)
		return f, nil
	}
	c, err := j.lookAtRecord(ctx)
	j.clock.lap("look")
	switch {
	case errors.Is(err, events.ErrNotFound):
		return j.lookGone(ctx)
	case err != nil:
		return facts{}, &lookError{err}
	}
	j.absent, j.deleted = time.Time{}, false
	return j.lookPresent(ctx, &c, j.now())
}

// lookAtRecord asks containerd about the container: for the record alone while a
// client waits for us in the middle of the task's creation or deletion. containerd
// answers for the task only after that (2.x: not at all for two seconds), so a
// question that was under way when the client came ends, too.
func (j *job) lookAtRecord(ctx context.Context) (events.Container, error) {
	full, cancel := context.WithCancel(ctx)
	defer cancel()
	defer j.endedByClient(j.key, cancel)()
	briefly := func() bool { return j.creating() || j.isEnding(j.key) }
	if !briefly() {
		c, err := j.cfg.Containers.Look(full, j.key)
		if full.Err() == nil || ctx.Err() != nil || !briefly() {
			return c, err
		}
	}
	return j.cfg.Containers.LookRecord(ctx, j.key)
}

// creating reports whether a client waits in the middle of the task's creation. It
// does not if another process is known to be the task.
func (j *job) creating() bool {
	pid, _ := j.waiting(j.key)
	return pid != 0 && (!j.alive() || j.proc.PID() == pid)
}

// lookError is a look that failed. It proves nothing, so it changes nothing.
type lookError struct{ err error }

func (e *lookError) Error() string { return "look at container: " + e.err.Error() }
func (e *lookError) Unwrap() error { return e.err }

// glance is the look of the attach path: all but the task is known already. Not
// so where an event may mean that the record is another one, where the event is from
// before the container's creation and so of a namesake, where its process cannot be
// told from a later one with its number, or where the namespace may be somebody
// else's.
func (j *job) glance(ctx context.Context) (facts, bool) {
	h := j.hint
	if !j.known || j.wish == nil || j.refused != nil || j.path || len(j.strays) > 0 ||
		h.pid == 0 || h.created.UnixNano() < j.owner.Created || h.record || h.repair {
		return facts{}, false
	}
	if j.alive() && j.proc.PID() == h.pid {
		return facts{}, false
	}
	if _, held := j.cfg.Leases.Lookup(j.owner); !held || j.moved() || j.renamed() {
		return facts{}, false
	}
	j.pid = h.pid
	if j.open(h.created) != nil {
		return facts{}, false
	}
	f := facts{containerd: answerPresent, wanted: true, lease: true, task: taskLive}
	err := j.place(ctx, &f)
	return f, err == nil && !f.foreign && f.endpoint != placeHere
}

// lookGone: containerd says that there is no such record.
func (j *job) lookGone(ctx context.Context) (facts, error) {
	f := facts{containerd: answerGone}
	if j.absent.IsZero() {
		j.absent = j.now()
	}
	if !j.deleted {
		f.absence = j.absence(j.absent)
	}
	_, f.lease = j.cfg.Leases.Lookup(j.owner)
	return f, j.lookAtEndpoint(ctx, &f)
}

// lookAtEndpoint fills in where the endpoint is when no task says where it should be.
func (j *job) lookAtEndpoint(ctx context.Context, f *facts) (err error) {
	if j.endpoint == nil {
		return nil
	}
	f.endpoint = placeOther
	if f.inhabited = j.alive(); !f.inhabited {
		f.inhabited, err = j.cfg.Network.Inhabited(ctx, j.owner)
	}
	return err
}

// lookPresent: containerd has the record. seen is when it said so.
func (j *job) lookPresent(ctx context.Context, c *events.Container, seen time.Time) (facts, error) {
	j.judge(c)
	j.learn(c, seen)
	f := facts{containerd: answerPresent, path: j.path, task: stateOf(c.Task), wanted: j.wish != nil, rejected: j.refused != nil}
	_, f.lease = j.cfg.Leases.Lookup(j.owner)
	f.moved = j.moved()
	f.down = j.asked != nil && j.asked.Down
	if j.cfg.Hold != nil && f.wanted && !f.rejected && !f.down {
		j.arm() // before the lease: the init may be parked any moment
	}
	j.pid = livePID(c.Task)
	before := j.pidSeen
	if pid, since := j.waiting(j.key); pid != 0 && f.task == taskNone {
		// A client waits in the middle of the task's creation.
		f.task, j.pid, before = taskLive, pid, since
	}
	if f.task != taskLive || !f.wanted || f.rejected {
		return f, j.lookAtEndpoint(ctx, &f)
	}
	// The kernel may know better: a process that has exited, and one that started
	// after its number was first seen here, is not the task, whatever containerd says.
	err := j.open(before)
	switch refused, isRefused := asRejection(err); {
	case err == nil:
		return f, j.place(ctx, &f)
	case isRefused:
		j.refused, f.rejected = refused, true
	case taskGone(err):
		f.task = taskNone
	default:
		return f, err
	}
	return f, j.lookAtEndpoint(ctx, &f)
}

// moved reports whether the labels ask for another address than the lease has.
func (j *job) moved() bool {
	held, ok := j.cfg.Leases.Lookup(j.owner)
	return ok && j.wish != nil && j.wish.IP.IsValid() && j.wish.IP != held.Addr
}

// renamed reports whether the labels ask for another interface than the owner has.
func (j *job) renamed() bool { return j.wish != nil && j.slot() != j.owner.Interface }

// open opens the present task's namespace, through the gate. before is a time
// at which the process is known to have existed.
func (j *job) open(before time.Time) error {
	j.closeNS()
	ns, err := j.cfg.Network.OpenPID(j.pid, before)
	j.clock.lap("open")
	if errors.Is(err, netsetup.ErrHostNamespace) {
		return rejectf("host-network", "host network: the task runs in a namespace of the host")
	}
	if err != nil {
		return fmt.Errorf("open namespace: %w", err)
	}
	j.ns = ns
	return nil
}

// place says where the endpoint is in relation to the opened namespace, and
// whether another one serves that.
func (j *job) place(ctx context.Context, f *facts) error {
	switch {
	case j.endpoint == nil:
		f.endpoint = placeNone
	case j.alive() && j.nsid == j.ns.ID():
		f.endpoint = placeHere
		return nil
	case j.proc != nil && (j.proc.PID() != j.pid || j.proc.Exited()):
		f.endpoint = placeOld
	default:
		f.endpoint = placeOther
	}
	left := j.endpoint != nil && slices.ContainsFunc(j.strays, func(s stray) bool { return s.endpoint != nil })
	if j.claim() && !j.path && !j.shared && !left {
		return nil
	}
	e, ok, err := j.ns.Endpoint(ctx)
	if err != nil {
		return fmt.Errorf("look for a shared endpoint: %w", err)
	}
	if ok && left && j.trade(e.Owner) {
		return errLookAgain
	}
	if ok && slices.ContainsFunc(j.strays, func(s stray) bool { return s.wrong && s.owner == e.Owner }) {
		ok = false // it goes before anything is made
	}
	if !ok && !j.takeClaim() {
		return errUnknown
	}
	j.host = nil
	if f.foreign = ok && e.Owner != j.owner; f.foreign {
		j.host = &e
	}
	j.shared = f.foreign
	return nil
}

// trade makes a stray with an endpoint the record's owner, and the owner a stray:
// of several endpoints that an earlier agent left of one container, the one in the
// present task's namespace is the container's. It reports false for any other owner.
func (j *job) trade(o ipam.Owner) bool {
	i := slices.IndexFunc(j.strays, func(s stray) bool { return s.owner == o && s.endpoint != nil })
	if i < 0 || o.Created != j.owner.Created {
		return false
	}
	s := j.strays[i]
	j.strays[i] = stray{owner: j.owner, endpoint: j.endpoint}
	j.leaveBehind()
	j.closeProc()
	j.unserve(j.record)
	j.endpoint, j.grade, j.phases, j.warning, j.shared = s.endpoint, "", nil, "", false
	j.setOwner(j.record, o)
	return true
}
