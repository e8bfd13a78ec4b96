package agent

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
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
	if f, ok := j.glance(ctx); ok {
		j.queue.add(j.key)
		return f, nil
	}
	c, err := j.cfg.Containers.Look(ctx, j.key)
	j.clock.lap("look")
	switch {
	case errors.Is(err, events.ErrNotFound):
		return j.lookGone(ctx)
	case err != nil:
		if j.hint.deleted {
			j.deleted = true
		}
		return facts{}, fmt.Errorf("look at container: %w", err)
	}
	j.absent, j.deleted = time.Time{}, false
	return j.lookPresent(ctx, &c, time.Now())
}

// glance is the look of the attach path: all but the task is known already.
func (j *job) glance(ctx context.Context) (facts, bool) {
	h := j.hint
	if !j.known || j.wish == nil || j.refused != nil || h.pid == 0 || h.deleted || h.repair {
		return facts{}, false
	}
	if j.alive() && j.proc.PID() == h.pid {
		return facts{}, false
	}
	if _, held := j.cfg.Leases.Lookup(j.owner); !held || j.moved() {
		return facts{}, false
	}
	j.pid = h.pid
	if j.open(h.created) != nil {
		j.pid = 0
		return facts{}, false
	}
	at, err := j.place(ctx)
	f := facts{containerd: answerPresent, wanted: true, lease: true, task: taskLive, endpoint: at}
	return f, err == nil && (at == placeNone || at == placeOther)
}

// lookGone: containerd says that there is no such record.
func (j *job) lookGone(ctx context.Context) (facts, error) {
	f := facts{containerd: answerGone}
	j.deleted = j.deleted || j.hint.deleted
	switch {
	case j.deleted:
		f.evidence = true
	case j.absent.IsZero():
		j.absent = time.Now()
	default:
		f.evidence = time.Since(j.absent) >= absentPause
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
	f := facts{containerd: answerPresent, path: c.NetNS == events.NetNSPath, task: stateOf(c.Task)}
	j.judge(c)
	j.learn(c)
	f.wanted, f.rejected = j.wish != nil, j.refused != nil
	_, f.lease = j.cfg.Leases.Lookup(j.owner)
	f.moved = f.lease && j.moved()
	j.pid = livePID(c.Task)
	if j.pid != 0 && j.proc != nil && j.proc.PID() == j.pid && j.proc.Exited() {
		// The kernel knows better: an exit that containerd has not seen.
		j.pid, f.task = 0, taskNone
	}
	if f.task == taskLive && f.wanted && !f.rejected {
		err := j.open(seen)
		switch {
		case taskGone(err):
			j.pid, f.task = 0, taskNone
		case err != nil:
			return f, err
		default:
			f.endpoint, err = j.place(ctx)
			return f, err
		}
	}
	return f, j.lookAtEndpoint(ctx, &f)
}

// judge decides what the container asks for. The verdict on its labels' trust
// is kept with the record: copies and Prior.
func (j *job) judge(c *events.Container) {
	if !j.known || !j.created.Equal(c.Created) {
		j.copies, j.crowded = copiedAnnotations(c), false
	}
	wish, err := parseWish(c, Trust{Prior: j.trustedBefore(c), Copies: j.copies})
	j.wish, j.refused = wish, nil
	j.beside = c.CNI || j.crowded || j.foundBeside(c)
	if refused, ok := asRejection(err); ok {
		j.refused = refused
		return
	}
	switch {
	case wish == nil:
	case c.NetNS == events.NetNSHost:
		j.refused = rejectf("host-network", "host network: the container shares the host's namespace")
	case strings.HasPrefix(c.Runtime, "io.containerd.runsc"), strings.HasPrefix(c.Runtime, "io.containerd.kata"):
		j.refused = rejectf("runtime", "runtime: %s does not use the kernel's network namespaces", printable(c.Runtime))
	}
}

// trustedBefore reports whether this very container's labels were judged when
// its image could be read: then it holds a lease.
func (j *job) trustedBefore(c *events.Container) bool {
	created := c.Created.UnixNano()
	if j.owner.Created == created {
		if _, held := j.cfg.Leases.Lookup(j.owner); held {
			return true
		}
	}
	return slices.ContainsFunc(j.strays, func(s stray) bool { return s.owner.Created == created })
}

// foundBeside reports whether an earlier agent attached this container beside a
// network of its own.
func (j *job) foundBeside(c *events.Container) bool {
	created := c.Created.UnixNano()
	return slices.ContainsFunc(j.strays, func(s stray) bool {
		return s.owner.Created == created && s.owner.Interface == besideIfname && s.endpoint
	})
}

// learn makes the record that of c. An owner that differs from the one before
// turns that one into a stray, or takes up what a stray holds.
func (j *job) learn(c *events.Container) {
	j.remember(j.record, c)
	owner := ipam.Owner{
		Kind: ipam.OwnerContainer, Namespace: c.Namespace, ID: c.ID,
		Created: c.Created.UnixNano(), Interface: j.slot(),
	}
	j.known = true
	if j.wish == nil && j.owner.Created == owner.Created {
		return // what it had, it had as the owner it was
	}
	if owner == j.owner {
		return
	}
	if j.owner != (ipam.Owner{}) {
		j.strays = append(j.strays, stray{owner: j.owner, endpoint: j.endpoint != nil})
	}
	j.closeProc()
	j.unserve(j.record)
	j.endpoint = nil
	j.setOwner(j.record, owner)
	j.strays = slices.DeleteFunc(j.strays, func(s stray) bool {
		if s.owner != owner {
			return false
		}
		if s.endpoint {
			j.endpoint = &netsetup.Endpoint{Owner: owner}
		}
		return true
	})
}

// slot is the interface name that the owner is known by. The interface itself
// may get another name where a container unexpectedly has a network already.
func (j *job) slot() string {
	switch {
	case j.wish != nil && j.wish.Ifname != "":
		return j.wish.Ifname
	case j.beside:
		return besideIfname
	}
	return defaultIfname
}

// moved reports whether the labels ask for another address than the lease has.
func (j *job) moved() bool {
	held, ok := j.cfg.Leases.Lookup(j.owner)
	return ok && j.wish != nil && j.wish.IP.IsValid() && j.wish.IP != held.Addr
}

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

// place says where the endpoint is in relation to the opened namespace.
func (j *job) place(ctx context.Context) (place, error) {
	j.host = nil
	if j.shared || j.suspect(j.record, j.ns.ID()) {
		e, ok, err := j.ns.Endpoint(ctx)
		if err != nil {
			return placeNone, fmt.Errorf("look for a shared endpoint: %w", err)
		}
		if j.shared = ok && e.Owner != j.owner; j.shared {
			j.host = &e
			return placeForeign, nil
		}
	}
	switch {
	case j.endpoint == nil:
		return placeNone, nil
	case j.nsid == j.ns.ID() && j.alive() && !j.hint.repair:
		return placeHere, nil
	}
	return placeOther, nil
}
