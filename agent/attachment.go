package agent

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"stellar.io/stellar/events"
	"stellar.io/stellar/internal/failpoint"
	"stellar.io/stellar/ipam"
	"stellar.io/stellar/netsetup"
	"stellar.io/stellar/raftstore/holder"
)

// attachment is a network of a CNI client that has no container of containerd.
type attachment struct {
	req   Request
	shown Endpoint
}

// processNS is a namespace named by its process, as clients of containerd do.
var processNS = regexp.MustCompile(`^/proc/([1-9][0-9]*)/ns/net$`)

// Add is CNI's ADD. It returns when the interface is up and its lease durable.
// Where r.ContainerID is NAMESPACE-ID of a container of containerd, and the
// namespace that of its process, the endpoint is the container's: labels count,
// it is repaired, and its address stays until the container is deleted.
//
// Errors: *RejectError, netsetup's of the gate, ctx's.
func (a *Agent) Add(ctx context.Context, r Request) (Endpoint, error) {
	r.Source = SourceCNI
	if err := errors.Join(a.adoptedAll(ctx), r.validate()); err != nil {
		return Endpoint{}, err
	}
	process := processNS.FindStringSubmatch(r.NetNS)
	if r.IPAMOnly || process == nil {
		return a.addPath(ctx, r)
	}
	c, ok, err := a.containerOf(ctx, r.ContainerID)
	if err != nil {
		return Endpoint{}, err
	}
	if !ok {
		return a.addPath(ctx, r)
	}
	r.Key, r.Created = c.Key, c.Created.UnixNano()
	pid, err := strconv.Atoi(process[1])
	if err != nil {
		return Endpoint{}, fmt.Errorf("%s: %w", r.NetNS, netsetup.ErrNotNamespace)
	}
	return a.addContainer(ctx, r, pid)
}

// containerOf finds the container that a client calls NAMESPACE-ID; both parts
// may have dashes.
func (a *Agent) containerOf(ctx context.Context, id string) (events.Container, bool, error) {
	for i, letter := range id {
		key := events.Key{Namespace: id[:i], ID: strings.TrimPrefix(id[i:], "-")}
		if letter != '-' || key.Namespace == "" || key.ID == "" || slices.Contains(a.cfg.IgnoreNamespaces, key.Namespace) {
			continue
		}
		c, err := a.cfg.Containers.LookRecord(ctx, key)
		if err == nil || !errors.Is(err, events.ErrNotFound) {
			return c, err == nil, err
		}
	}
	return events.Container{}, false, nil
}

// addContainer attaches a container of containerd for its CNI client.
func (a *Agent) addContainer(ctx context.Context, r Request, pid int) (Endpoint, error) {
	now := a.now()
	proc, err := a.cfg.Network.OpenPID(pid, now)
	if err != nil {
		return Endpoint{}, err
	}
	defer proc.Close()
	release, err := a.turns.take(ctx, r.id())
	if err != nil {
		return Endpoint{}, err
	}
	defer release()
	was, had := a.requests.get(r.id())
	had = had && was.Created == r.Created
	if had && !was.Down && was.Source == SourceCNI && was.Ifname != r.Ifname {
		return Endpoint{}, rejectf("interface", "the container has an endpoint already, %s", was.Ifname)
	}
	written := a.requests.put(r)
	defer a.await(r.Key, pid, now)()
	e, err := a.ask(ctx, r.Key, func(h *hint) {
		h.pid, h.created, h.received, h.record = pid, now, now, true
	}, up(proc.ID().Ino, r.Ifname))
	err = errors.Join(err, <-written)
	if err != nil {
		a.withdraw(r, was, had)
	}
	return e, err
}

// addPath attaches a namespace that is no container's of containerd, or hands out
// an address for one.
func (a *Agent) addPath(ctx context.Context, r Request) (Endpoint, error) {
	r.Key, r.Created, r.Down = events.Key{}, 0, false
	o := r.owner()
	release, err := a.turns.take(ctx, r.id())
	if err != nil {
		return Endpoint{}, err
	}
	defer release()
	var ns Process
	if !r.IPAMOnly {
		if ns, err = a.cfg.Network.OpenPath(r.NetNS); err != nil {
			return Endpoint{}, err
		}
		defer ns.Close()
	}
	_, held := a.cfg.Leases.Lookup(o)
	was, had := a.requests.get(r.id())
	written := a.requests.put(r)
	e, err := a.raise(ctx, &r, ns)
	if err = errors.Join(err, <-written); err == nil {
		a.enter(r, e)
		return e, nil
	}
	// What was there before stays; what this call made does not.
	if had {
		return e, errors.Join(err, <-a.requests.put(was))
	}
	if !held {
		err = errors.Join(err, a.takeBack(context.WithoutCancel(ctx), &r))
	}
	return e, errors.Join(err, a.requests.drop(r.id()))
}

// raise binds the address and makes the interface, if there is to be one.
func (a *Agent) raise(ctx context.Context, r *Request, ns Process) (Endpoint, error) {
	o := r.owner()
	if err := a.barred(); err != nil && !a.isUp(o) {
		return Endpoint{}, err
	}
	clock := stopwatch{now: a.now}
	clock.start(hint{})
	begin := a.now()
	held, err := a.cfg.Leases.Bind(ctx, holder.BindRequest{Owner: o, Want: r.Address, Hostname: r.Hostname})
	a.cfg.Metrics.allocated(a.now().Sub(begin), held.Provisional, err)
	clock.lap("lease")
	if err != nil {
		return Endpoint{}, bindError(err, r.Address)
	}
	if err := failpoint.Err(failpoint.AttachmentBound); err != nil {
		return Endpoint{}, err
	}
	e := r.face(held.Addr)
	if held.Provisional {
		e.Reason = reasonProvisional
	}
	if r.IPAMOnly {
		return e, nil
	}
	spec := netsetup.Spec{Owner: o, Addr: held.Addr, MTU: r.MTU, Ifname: o.Interface, DefaultRoute: true}
	if r.MAC != "" {
		if spec.MAC, err = parseMAC(r.MAC); err != nil {
			return Endpoint{}, err
		}
	}
	made, timing, err := ns.Attach(ctx, spec)
	if errors.Is(err, netsetup.ErrDefaultRouteExists) {
		spec.DefaultRoute, e.Reason = false, reasonOwnDefault
		made, timing, err = ns.Attach(ctx, spec)
	}
	if err != nil {
		a.cfg.Metrics.attached(r.Source, "error", nil)
		return Endpoint{}, attachError(err, spec.Ifname)
	}
	if err := failpoint.Err(failpoint.AttachmentUp); err != nil {
		return Endpoint{}, err
	}
	clock.attach(timing)
	a.cfg.Leases.Attached(o, true)
	e.State, e.Grade, e.NetNS, e.DefaultRoute = StateAttached, GradeSync, ns.ID().Ino, spec.DefaultRoute
	e.MAC, e.HostIfname, e.Phases = made.MAC.String(), made.HostIfname, clock.phases
	a.log.Info("endpoint attached", "container", e.Key, "ip", e.Address, "host_if", e.HostIfname, "grade", e.Grade, "total", clock.total())
	a.cfg.Metrics.ready(e.Grade)
	a.cfg.Metrics.attached(e.Source, "attached", append(clock.phases, Phase{"total", clock.total()}))
	a.Record("attached", e.Key.String(), e.Address.String()+" on "+e.HostIfname)
	return e, nil
}

// face is the endpoint of a request without a container, bound.
func (r *Request) face(addr netip.Addr) Endpoint {
	e := Endpoint{
		Key: events.Key{Namespace: r.Network, ID: r.ContainerID}, Owner: r.owner(), Network: ipam.DefaultNetwork,
		Address: addr, Ifname: r.Ifname, State: StateBound, Source: SourceCNI, Hostname: r.Hostname, MTU: r.MTU,
	}
	if r.IPAMOnly {
		e.Reason = "the interface is another CNI plugin's"
	}
	return e
}

// enter publishes an attachment without a container.
func (a *Agent) enter(r Request, e Endpoint) {
	a.mu.Lock()
	defer a.mu.Unlock()
	o := r.owner()
	e.Since = a.now()
	if was := a.attachments[o]; was != nil && was.shown.State == e.State {
		e.Since = was.shown.Since
	}
	a.attachments[o] = &attachment{req: r, shown: e}
}

// Del is CNI's DEL, idempotent: it takes the interface away. A container of
// containerd keeps its address until it is deleted; what has none gives it back.
// found is false where there was nothing.
func (a *Agent) Del(ctx context.Context, r Request) (found bool, err error) {
	if err := a.adoptedAll(ctx); err != nil {
		return false, err
	}
	for _, had := range a.requests.list(r.same) {
		if had.Key == (events.Key{}) {
			continue
		}
		found = true
		if err := a.takeDown(ctx, had); err != nil {
			return true, err
		}
	}
	gone, err := a.delPath(ctx, r)
	return found || gone, err
}

// same reports whether b is the attachment that r names.
func (r *Request) same(b *Request) bool {
	return b.Source == SourceCNI && b.Network == r.Network && b.ContainerID == r.ContainerID && b.Ifname == r.Ifname && b.IPAMOnly == r.IPAMOnly
}

// takeDown takes a container's endpoint away and leaves it its address.
func (a *Agent) takeDown(ctx context.Context, r Request) error {
	release, err := a.turns.take(ctx, r.id())
	if err != nil {
		return err
	}
	defer release()
	if now, ok := a.requests.get(r.id()); !ok || now != r || r.Down {
		return nil // it was taken down, or asked for anew, meanwhile
	}
	r.Down = true
	if err := <-a.requests.put(r); err != nil {
		return err
	}
	defer a.end(r.Key)()
	failpoint.Hit(failpoint.AttachmentDown)
	_, err = a.ask(ctx, r.Key, func(h *hint) { h.record = true }, func(e Endpoint) (bool, error) {
		return e.State != StateAttached && e.State != StateProvisional && e.State != StateRetrying, nil
	})
	if errors.Is(err, errGone) {
		return nil
	}
	return err
}

// delPath ends an attachment without a container, known or not.
func (a *Agent) delPath(ctx context.Context, r Request) (found bool, err error) {
	r.Key = events.Key{}
	o := r.owner()
	release, err := a.turns.take(ctx, r.id())
	if err != nil {
		return false, err
	}
	defer release()
	_, asked := a.requests.get(r.id())
	_, held := a.cfg.Leases.Lookup(o)
	a.mu.Lock()
	shown := a.attachments[o] != nil
	a.mu.Unlock()
	if !asked && !held && !shown {
		return false, nil
	}
	if err := a.unlink(ctx, o); err != nil {
		return true, err
	}
	if err := failpoint.Err(failpoint.AttachmentDetached); err != nil {
		return true, err
	}
	if err := a.cfg.Leases.Release(ctx, o); err != nil {
		return true, fmt.Errorf("release: %w", err)
	}
	if err := failpoint.Err(failpoint.AttachmentReleased); err != nil {
		return true, err
	}
	a.mu.Lock()
	delete(a.attachments, o)
	a.mu.Unlock()
	a.Record("detach", o.Namespace+"/"+o.ID, "taken down by its CNI client")
	a.AddressFreed()
	return true, a.requests.drop(r.id())
}

// Verify is CNI's CHECK: it changes nothing. It returns events.ErrNotFound where
// there is no such attachment, and a *RejectError that says what differs.
func (a *Agent) Verify(ctx context.Context, r Request) error {
	if err := a.adoptedAll(ctx); err != nil {
		return err
	}
	var e Endpoint
	for _, had := range a.requests.list(r.same) {
		if !had.Down {
			e = a.shownOf(&had)
		}
	}
	switch {
	case e.State == "":
		return events.ErrNotFound
	case r.Address.IsValid() && r.Address != e.Address:
		return rejectf("address", "its address is %s, not %s", e.Address, r.Address)
	case r.IPAMOnly:
		return nil
	case e.State != StateAttached && e.State != StateProvisional:
		return rejectf("state", "it is %s: %s", e.State, e.Reason)
	}
	return a.verifyKernel(ctx, r, e)
}

// verifyKernel looks whether the endpoint is in the namespace that r names, with
// the MAC address that r expects.
func (a *Agent) verifyKernel(ctx context.Context, r Request, e Endpoint) error {
	var ns Process
	var err error
	if process := processNS.FindStringSubmatch(r.NetNS); process != nil {
		pid, _ := strconv.Atoi(process[1])
		ns, err = a.cfg.Network.OpenPID(pid, a.now())
	} else {
		ns, err = a.cfg.Network.OpenPath(r.NetNS)
	}
	if err != nil {
		return err
	}
	defer ns.Close()
	there, ok, err := ns.Endpoint(ctx)
	if err != nil {
		return err
	}
	switch mac := there.MAC.String(); {
	case !ok || there.Owner != e.Owner:
		return rejectf("interface", "the namespace %s does not have its interface", r.NetNS)
	case r.MAC != "" && mac != "" && !strings.EqualFold(r.MAC, mac):
		return rejectf("mac", "its MAC address is %s, not %s", mac, r.MAC)
	}
	return nil
}

// shownOf is what people see of a request's endpoint.
func (a *Agent) shownOf(r *Request) Endpoint {
	a.mu.Lock()
	defer a.mu.Unlock()
	if r.Key != (events.Key{}) {
		if rec := a.records[r.Key]; rec != nil {
			return rec.shown
		}
		return Endpoint{}
	}
	if x := a.attachments[r.owner()]; x != nil {
		return x.shown
	}
	return Endpoint{}
}

// CollectUnknown is CNI's GC: it ends the attachments of a CNI network that valid does
// not know, and says which. What a crash has left without a request is among them.
func (a *Agent) CollectUnknown(ctx context.Context, network string, ipamOnly bool, valid func(containerID, ifname string) bool) ([]string, error) {
	if err := a.adoptedAll(ctx); err != nil {
		return nil, err
	}
	due := a.requests.list(func(r *Request) bool {
		return r.Source == SourceCNI && r.Network == network && r.IPAMOnly == ipamOnly && !r.Down && !valid(r.ContainerID, r.Ifname)
	})
	for _, h := range a.cfg.Leases.All() {
		r := Request{Source: SourceCNI, Network: h.Owner.Namespace, ContainerID: h.Owner.ID, Ifname: h.Owner.Interface, IPAMOnly: ipamOnly}
		if _, asked := a.requests.get(r.id()); h.Owner.Kind == ipam.OwnerCNI && !asked && r.Network == network && !valid(r.ContainerID, r.Ifname) {
			due = append(due, r)
		}
	}
	var done []string
	var errs []error
	for _, r := range due {
		if found, err := a.Del(ctx, r); err != nil {
			errs = append(errs, fmt.Errorf("%s %s: %w", r.ContainerID, r.Ifname, err))
		} else if found {
			done = append(done, r.ContainerID+" "+r.Ifname)
		}
	}
	slices.Sort(done)
	return done, errors.Join(errs...)
}
