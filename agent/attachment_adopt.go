package agent

import (
	"context"
	"fmt"
	"time"

	"stellar.io/stellar/events"
	"stellar.io/stellar/ipam"
	"stellar.io/stellar/netsetup"
)

// adoptedAll waits until what an earlier agent has left is known.
func (a *Agent) adoptedAll(ctx context.Context) error {
	select {
	case <-a.adoption:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// adoptOwnerless takes note of an address, and perhaps an interface, that a CNI
// client has, whose own business its end is.
func (a *Agent) adoptOwnerless(o ipam.Owner, e *netsetup.Endpoint) {
	r := Request{Source: SourceCNI, Network: o.Namespace, ContainerID: o.ID, Ifname: o.Interface}
	if kept, ok := a.requests.get(r.id()); ok {
		r = kept
	}
	held, _ := a.cfg.Leases.Lookup(o)
	shown := r.face(held.Addr)
	if e == nil && !r.IPAMOnly && r.NetNS == "" {
		shown.Reason = reasonNoNamespace
	}
	if e != nil {
		shown.State, shown.Grade, shown.Address, shown.HostIfname = StateAttached, GradeAdopted, e.Addr, e.HostIfname
		shown.MAC = e.MAC.String()
	}
	a.enter(r, shown)
}

// takeBack undoes raise. The interface goes first: with it the address would still be
// in use, so it keeps its lease where that fails.
func (a *Agent) takeBack(ctx context.Context, r *Request) error {
	if !r.IPAMOnly {
		if err := a.cfg.Network.Detach(ctx, r.owner()); err != nil {
			return fmt.Errorf("detach: %w", err)
		}
	}
	return a.cfg.Leases.Release(ctx, r.owner())
}

// reasonNoNamespace is shown of an attachment whose namespace is not known, or was
// another boot's: its client ends it, and nobody else may take its address.
const reasonNoNamespace = "its namespace is not known, the machine was started anew; it ends with its client's DEL or GC"

// lostAttachment tries once more to make an interface that has vanished: a client
// without a container hears of no failure, and nobody else looks.
func (a *Agent) lostAttachment(ctx context.Context, o ipam.Owner) {
	a.mu.Lock()
	x := a.attachments[o]
	a.mu.Unlock()
	if x == nil || x.req.NetNS == "" {
		return
	}
	release, err := a.turns.take(ctx, x.req.id())
	if err != nil {
		return
	}
	defer release()
	r, ok := a.requests.get(x.req.id())
	if !ok {
		return // it was ended meanwhile
	}
	shown := x.shown
	shown.State, shown.HostIfname, shown.NetNS, shown.Grade = StateBound, "", 0, ""
	ns, err := a.cfg.Network.OpenPath(r.NetNS)
	if err != nil {
		shown.Reason = "its namespace is gone; it ends with its client's DEL or GC"
		a.cfg.Leases.Attached(o, false)
		a.enter(r, shown)
		return
	}
	defer ns.Close()
	e, err := a.raise(ctx, &r, ns)
	if err != nil {
		a.log.Warn("endpoint could not be made again", "container", shown.Key, "err", err)
		shown.State, shown.Reason = StateRetrying, err.Error()
		a.enter(r, shown)
		return
	}
	e.Grade = GradeLate
	a.enter(r, e)
}

// keepAttachments makes lost interfaces again, each at most every lostPause.
func (a *Agent) keepAttachments(ctx context.Context) {
	last := map[ipam.Owner]time.Time{}
	for {
		select {
		case <-ctx.Done():
			return
		case o := <-a.lost:
			if wait := lostPause - time.Since(last[o]); wait > 0 {
				a.watchers.Go(func() {
					select {
					case <-ctx.Done():
					case <-time.After(wait):
						a.loseAttachment(o)
					}
				})
				continue
			}
			last[o] = time.Now()
			a.lostAttachment(ctx, o)
			a.mu.Lock()
			if a.attachments[o] == nil {
				delete(last, o)
			}
			a.mu.Unlock()
		}
	}
}

// loseAttachment hands an owner to keepAttachments. With very many at once some
// wait for the next loss or their client.
func (a *Agent) loseAttachment(o ipam.Owner) {
	select {
	case a.lost <- o:
	default:
	}
}

// request returns what was asked for the container otherwise than by labels; one
// of a former container with this id is void.
func (j *job) request(c *events.Container) *Request {
	r, ok := j.requests.get(containerRequest(c.Key))
	if !ok {
		return nil
	}
	if r.Created == c.Created.UnixNano() {
		return &r
	}
	if r.Created < c.Created.UnixNano() {
		if err := j.requests.drop(r.id()); err != nil {
			j.log.Warn("request of a former container could not be dropped", "container", j.key, "err", err)
		}
	}
	return nil
}

// isUp reports whether an owner without a container has its interface.
func (a *Agent) isUp(o ipam.Owner) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	x := a.attachments[o]
	return x != nil && x.shown.State == StateAttached
}
