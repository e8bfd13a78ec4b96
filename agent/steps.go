package agent

import (
	"context"
	"errors"
	"fmt"
	"net/netip"

	"stellar.io/stellar/internal/failpoint"
	"stellar.io/stellar/ipam"
	"stellar.io/stellar/netsetup"
	"stellar.io/stellar/raftstore/holder"
)

// do takes one step for the record's owner.
func (j *job) do(ctx context.Context, s step) error {
	j.cfg.Metrics.acted(s)
	switch s {
	case stepBind:
		return j.bind(ctx)
	case stepAttach:
		return j.attach(ctx)
	case stepDetach:
		return j.detach(ctx)
	case stepRelease:
		return j.release(ctx, j.owner)
	case stepForget:
		j.forget(j.record)
		failpoint.Hit(failpoint.AgentForget)
		return j.requests.drop(containerRequest(j.key))
	}
	panic(fmt.Sprintf("agent: unknown step %d", s))
}

func (j *job) bind(ctx context.Context) error {
	if err := failpoint.Err(failpoint.AgentBind); err != nil {
		return err
	}
	begin := j.now()
	held, err := j.cfg.Leases.Bind(ctx, holder.BindRequest{Owner: j.owner, Want: j.wish.IP, Hostname: j.wish.Hostname})
	j.cfg.Metrics.allocated(j.now().Sub(begin), held.Provisional, err)
	j.clock.lap("lease")
	failpoint.Hit(failpoint.AgentBound)
	return bindError(err, j.wish.IP)
}

// bindError says what a failed bind means for its container.
func bindError(err error, want netip.Addr) error {
	switch {
	case err == nil:
		return nil
	case errors.Is(err, holder.ErrUnresolved):
		// What its holder of before has given up is free in a moment.
	case errors.Is(err, ipam.ErrOutOfSubnet):
		return rejectf("address", "address %s is not in this node's subnet", want)
	case errors.Is(err, ipam.ErrAddressTaken):
		return rejectf("address-taken", "address %s is taken", want)
	case errors.Is(err, ipam.ErrAddressReserved):
		return rejectf("address-reserved", "address %s is reserved", want)
	case errors.Is(err, ipam.ErrNoAvailableIP):
		return rejectf("subnet-full", "subnet full: no address is free")
	}
	return fmt.Errorf("bind address: %w", err)
}

// barred says why there is to be no endpoint that there was not before, though its
// owner has a lease.
func (a *Agent) barred() error {
	if a.cfg.Barred == nil {
		return nil
	}
	if err := a.cfg.Barred(); err != nil {
		return fmt.Errorf("no new endpoint: %w", err)
	}
	return nil
}

// attach makes the endpoint in the present task's namespace, or finds it there.
func (j *job) attach(ctx context.Context) error {
	held, ok := j.cfg.Leases.Lookup(j.owner)
	if !ok {
		return fmt.Errorf("attach: %w", ipam.ErrLeaseNotFound)
	}
	if anew := j.endpoint == nil || j.nsid != (netsetup.NSID{}) && j.nsid != j.ns.ID(); anew {
		if err := j.barred(); err != nil {
			return err
		}
	}
	spec := netsetup.Spec{
		Owner: j.owner, Addr: held.Addr, MAC: j.wish.MAC, MTU: j.wish.MTU,
		Ifname: j.owner.Interface, DefaultRoute: !j.beside,
	}
	j.warning = ""
	if j.beside {
		j.warning = "the container has a network of its own: no default route here"
	}
	j.grip()
	j.clock.lap("prepare")
	moving := j.endpoint != nil && j.nsid != j.ns.ID()
	e, timing, err := j.attachBeside(ctx, spec)
	if err != nil {
		if !errors.Is(err, errLookAgain) {
			j.cfg.Metrics.attached(j.source(), "error", nil)
		}
		return err
	}
	if err := failpoint.Err(failpoint.AgentAttached); err != nil {
		return err
	}
	parked := j.ns.Parked()
	j.clock.attach(timing)
	j.routed = spec.DefaultRoute && j.warning == ""
	j.settle(ctx, e, timing.Adopted, parked)
	j.cfg.Leases.Attached(j.owner, true)
	failpoint.Hit(failpoint.AgentSettled)
	if moving && !timing.Adopted {
		j.endpointGone(j.owner)
	}
	return nil
}

// errLookAgain ends a pass whose facts have turned out to be wrong: what is true
// now, a new look tells.
var errLookAgain = errors.New("the namespace is not what it was a moment ago")

// attachBeside attaches by spec. A namespace that turns out to have a network
// already gets the interface beside that one: the container is another owner
// then, which the next look makes it.
func (j *job) attachBeside(ctx context.Context, spec netsetup.Spec) (netsetup.Endpoint, netsetup.Timing, error) {
	e, timing, err := j.ns.Attach(ctx, spec)
	switch {
	case err == nil:
		return e, timing, nil
	case errors.Is(err, netsetup.ErrInterfaceExists):
		return e, timing, j.crowd(ctx, spec)
	case errors.Is(err, netsetup.ErrDefaultRouteExists) && spec.DefaultRoute:
		j.warning = reasonOwnDefault
		spec.DefaultRoute = false
		return j.attachBeside(ctx, spec)
	}
	return e, timing, attachError(err, spec.Ifname)
}

// reasonOwnDefault is the warning of an endpoint without the default route.
const reasonOwnDefault = "the container has a default route of its own"

// attachError says what a failed attach means for its container.
func attachError(err error, ifname string) error {
	switch {
	case errors.Is(err, netsetup.ErrInterfaceExists):
		return rejectf("interface", "interface %s exists in the container already", ifname)
	case errors.Is(err, netsetup.ErrFull):
		return rejectf("node-full", "node full: %v", err)
	case errors.Is(err, netsetup.ErrInvalid):
		return rejectf("address", "%v", err)
	case errors.Is(err, netsetup.ErrRouteExists):
		return rejectf("route", "the container has a route of its own to the network")
	}
	return fmt.Errorf("attach: %w", err)
}

// crowd finds out why the interface's name is taken: another container's
// endpoint serves the namespace, or the container has a network of its own.
func (j *job) crowd(ctx context.Context, spec netsetup.Spec) error {
	e, ok, err := j.ns.Endpoint(ctx)
	switch {
	case err != nil:
		return err
	case ok && e.Owner != j.owner:
		j.shared = true
	case spec.Ifname == defaultIfname && j.wish.Ifname == "":
		j.crowded = true
	default:
		return attachError(netsetup.ErrInterfaceExists, spec.Ifname)
	}
	return errLookAgain
}

// settle notes that the endpoint is up, and has its process watched.
func (j *job) settle(ctx context.Context, e netsetup.Endpoint, adopted, parked bool) {
	first := j.grade == ""                               // since the agent started, or the last detach
	again := j.proc != nil && j.proc.PID() != j.ns.PID() // for a new task
	waited, _ := j.waiting(j.key)
	switch {
	case parked && waited == j.ns.PID():
		j.grade = GradeSync
	case j.unhand():
		j.grade = GradeHeld
	case parked:
		j.grade = GradeEarly
	case adopted && first:
		j.grade = GradeAdopted
	case !adopted:
		j.grade = GradeLate
	}
	j.endpoint = &e
	j.serve(j.record, j.ns.ID())
	j.closeProc()
	proc := j.ns
	j.ns = nil
	proc.CloseNS() // an open descriptor would keep the namespace alive
	j.proc = proc
	j.watch(ctx, j.key, proc)
	if adopted && !first && !again {
		return // nothing has changed
	}
	if j.hint.lost != "" && !adopted {
		j.Record("lost", j.key.String(), j.hint.lost)
	}
	j.showAttached(adopted)
}

func (j *job) detach(ctx context.Context) error {
	if err := j.detachOwner(ctx, j.owner); err != nil {
		return err
	}
	j.endpoint, j.grade, j.warning = nil, "", ""
	j.closeProc()
	j.unserve(j.record)
	return nil
}

// source says where the wish for a network was found; "": there is none.
func (j *job) source() string {
	if j.wish == nil {
		return ""
	}
	return j.wish.Source
}

// unlink removes an owner's endpoint from the kernel, and counts and times it.
func (a *Agent) unlink(ctx context.Context, o ipam.Owner) error {
	begin := a.now()
	err := a.cfg.Network.Detach(ctx, o)
	a.cfg.Metrics.detached(a.now().Sub(begin), err)
	if err != nil {
		return fmt.Errorf("detach: %w", err)
	}
	return nil
}

// detachOwner removes the endpoint of the record's owner or of a stray.
func (j *job) detachOwner(ctx context.Context, o ipam.Owner) error {
	if err := failpoint.Err(failpoint.AgentDetach); err != nil {
		return err
	}
	if err := j.unlink(ctx, o); err != nil {
		return err
	}
	failpoint.Hit(failpoint.AgentDetached)
	j.cfg.Leases.Attached(o, false)
	j.endpointGone(o)
	message := "interface removed"
	if o != j.owner {
		message = "interface of a former container removed"
	}
	j.log.Info("endpoint detached", "container", j.key, "interface", o.Interface, "duration", j.clock.total())
	j.Record("detach", j.key.String(), message)
	return nil
}

func (j *job) release(ctx context.Context, o ipam.Owner) error {
	held, ok := j.cfg.Leases.Lookup(o)
	if !ok {
		return nil
	}
	if err := failpoint.Err(failpoint.AgentRelease); err != nil {
		return err
	}
	if err := j.cfg.Leases.Release(ctx, o); err != nil {
		return fmt.Errorf("release %s: %w", held.Addr, err)
	}
	failpoint.Hit(failpoint.AgentReleased)
	j.log.Info("address released", "container", j.key, "ip", held.Addr)
	j.Record("release", j.key.String(), held.Addr.String()+" released")
	j.AddressFreed()
	return nil
}
