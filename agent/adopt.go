package agent

import (
	"context"
	"errors"
	"fmt"
	"time"

	"stellar.io/stellar/events"
	"stellar.io/stellar/internal/failpoint"
	"stellar.io/stellar/ipam"
	"stellar.io/stellar/netsetup"
)

// adopt takes note of every endpoint in the kernel and every lease, before any
// worker runs, and shows them. What nobody claims is let go on evidence, what
// its container claims is taken up as it is.
func (a *Agent) adopt(ctx context.Context) error {
	if err := a.requests.load(); err != nil {
		return fmt.Errorf("read what was asked for: %w", err)
	}
	server, err := a.requests.loadServer()
	if err != nil {
		return fmt.Errorf("read which containerd was listened to: %w", err)
	}
	a.mu.Lock()
	a.doubt.remember(server, a.now())
	a.mu.Unlock()
	endpoints, err := a.cfg.Network.List(ctx)
	if err != nil {
		return fmt.Errorf("list endpoints: %w", err)
	}
	if err := failpoint.Err(failpoint.AgentAdopt); err != nil {
		return err
	}
	// Endpoints first: of several owners with one key, theirs is the record.
	inKernel := make(map[ipam.Owner]bool, len(endpoints))
	for _, e := range endpoints {
		inKernel[e.Owner] = true
		if !ownerless(e.Owner) {
			a.adopted[e.Owner] = true
		}
		a.adoptOwner(e.Owner, &e)
	}
	for _, h := range a.cfg.Leases.All() {
		if !inKernel[h.Owner] {
			a.adoptOwner(h.Owner, nil)
		}
	}
	failpoint.Hit(failpoint.AgentAdopted)
	return nil
}

func (a *Agent) adoptOwner(o ipam.Owner, e *netsetup.Endpoint) {
	if ownerless(o) {
		a.adoptOwnerless(o, e)
		return
	}
	r := a.record(keyOf(o))
	if r.owner != (ipam.Owner{}) {
		r.strays = append(r.strays, stray{owner: o, endpoint: e})
		return
	}
	r.endpoint = e
	a.setOwner(r, o)
	j := job{Agent: a, record: r}
	shown := j.face()
	shown.Network, shown.Created, shown.State = ipam.DefaultNetwork, time.Unix(0, o.Created), StateBound
	if e != nil {
		shown.State, shown.Grade = StateAttached, GradeAdopted
	}
	a.show(r, shown, true)
}

// watch sees the process's exit by its descriptor, whether containerd reports
// it or not, and has the container looked at.
func (a *Agent) watch(ctx context.Context, key events.Key, proc Process) {
	a.onExit(ctx, proc, func() { a.queue.add(key) })
}

// waitExit has then called, once, when proc exits before ctx ends.
func (a *Agent) waitExit(ctx context.Context, proc Process, then func()) {
	a.watchers.Go(func() {
		if proc.WaitExit(ctx) == nil {
			then()
		}
	})
}

// lostPause is the least time between two losses of one endpoint's link that are
// made good: a container can delete its interface as often as it likes.
const lostPause = 10 * time.Second

// Lost has a container looked at whose endpoint vanished from the kernel. That
// happens with every task that ends; otherwise the endpoint is made anew.
func (a *Agent) Lost(o ipam.Owner, what string) {
	if ownerless(o) {
		a.loseAttachment(o)
		return
	}
	key := keyOf(o)
	a.mu.Lock()
	r := a.records[key]
	if r == nil || r.owner != o {
		a.mu.Unlock()
		return
	}
	h := a.hints[key]
	h.repair, h.lost = true, what
	a.hints[key] = h
	wait := max(0, r.lostUntil.Sub(a.now()))
	r.lostUntil = a.now().Add(wait + lostPause)
	a.mu.Unlock()
	a.queue.addAfter(key, wait)
}

// ErrUnproven is returned when it cannot be told whether a container exists.
var ErrUnproven = errors.New("containerd cannot tell now")

// Exists asks containerd whether o is the owner that its container is now. An error,
// which wraps ErrUnproven, proves nothing: containerd does not answer, or seems to have
// lost all that it knew. An attachment without a container exists until its client ends it.
func (a *Agent) Exists(ctx context.Context, o ipam.Owner) (bool, error) {
	if ownerless(o) {
		return a.Knows(o), nil
	}
	if a.absenceDoubted() {
		return false, fmt.Errorf("%w: it lists no container at all, or has just been replaced", ErrUnproven)
	}
	c, err := a.cfg.Containers.Look(ctx, keyOf(o))
	switch {
	case errors.Is(err, events.ErrNotFound):
		return false, nil
	case err != nil:
		return false, fmt.Errorf("%w: %w", ErrUnproven, err)
	}
	return c.Created.UnixNano() == o.Created, nil
}

// absenceDoubted reports whether the absence of a record may be that of all records,
// or nothing was listed yet.
func (a *Agent) absenceDoubted() bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.pending == nil || a.doubt.pause(a.now()) != absentPause
}
