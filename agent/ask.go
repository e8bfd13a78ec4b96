package agent

import (
	"context"
	"errors"
	"fmt"
	"time"

	"stellar.io/stellar/events"
	"stellar.io/stellar/ipam"
)

// awaited is a client that waits while a container's init process is parked: a
// CNI plugin or a runtime's hook. containerd may not know the task yet.
type awaited struct {
	pid   int
	since time.Time // the process existed then
	n     int       // clients
}

// await notes a waiting client until the returned function is called.
func (a *Agent) await(key events.Key, pid int, since time.Time) (done func()) {
	a.mu.Lock()
	defer a.mu.Unlock()
	w := a.awaited[key]
	if w == nil || w.pid != pid {
		w = &awaited{pid: pid, since: since}
		a.awaited[key] = w
	}
	w.n++
	if end := a.looking[key]; end != nil {
		end()
	}
	return func() {
		a.mu.Lock()
		defer a.mu.Unlock()
		if w.n--; w.n == 0 && a.awaited[key] == w {
			delete(a.awaited, key)
		}
	}
}

// waiting returns the process that a client waits for, pid 0 for none.
func (a *Agent) waiting(key events.Key) (pid int, since time.Time) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if w := a.awaited[key]; w != nil {
		return w.pid, w.since
	}
	return 0, time.Time{}
}

// end notes a client that waits for an endpoint to go until the returned function
// is called.
func (a *Agent) end(key events.Key) (done func()) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.ending[key]++
	if end := a.looking[key]; end != nil {
		end()
	}
	return func() {
		a.mu.Lock()
		defer a.mu.Unlock()
		if a.ending[key]--; a.ending[key] == 0 {
			delete(a.ending, key)
		}
	}
}

// isEnding reports whether a client waits for the endpoint to go.
func (a *Agent) isEnding(key events.Key) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.ending[key] > 0
}

// endedByClient has the next client that waits for key call end, until the returned
// function is called.
func (a *Agent) endedByClient(key events.Key, end context.CancelFunc) (done func()) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.looking[key] = end
	return func() {
		a.mu.Lock()
		defer a.mu.Unlock()
		delete(a.looking, key)
	}
}

// errGone ends a wait for a container that there is no more.
var errGone = errors.New("the container is gone")

// ask has the container worked on, with a hint, and returns what done makes of it:
// done is asked after each pass that began with the hint or later.
func (a *Agent) ask(ctx context.Context, key events.Key, hint func(*hint), done func(Endpoint) (bool, error)) (Endpoint, error) {
	a.mu.Lock()
	a.recordLocked(key)
	h := a.hints[key]
	hint(&h)
	a.hints[key] = h
	after := a.passes
	a.mu.Unlock()
	a.queue.hurry(key)
	for {
		a.mu.Lock()
		r := a.records[key]
		if r == nil {
			a.mu.Unlock()
			return Endpoint{}, errGone
		}
		shown, seen := r.shown, r.ended > after
		if r.changed == nil {
			r.changed = make(chan struct{})
		}
		changed := r.changed
		a.mu.Unlock()
		if seen {
			a.judgeReplication(&shown)
			if ok, err := done(shown); ok || err != nil {
				return shown, err
			}
		}
		select {
		case <-changed:
		case <-ctx.Done():
			err := context.Cause(ctx)
			if seen && shown.Reason != "" {
				err = fmt.Errorf("%w: %s", err, shown.Reason)
			}
			return shown, err
		}
	}
}

// up returns what ask waits for: an endpoint in the namespace ino (0: any), with
// the given interface name ("": any).
func up(ino uint64, ifname string) func(Endpoint) (bool, error) {
	return func(e Endpoint) (bool, error) {
		switch e.State {
		case StateAttached, StateProvisional:
			return (ino == 0 || e.NetNS == ino) && (ifname == "" || e.Ifname == ifname), nil
		case StateShared:
			if ifname == "" {
				return true, nil
			}
			return false, &RejectError{Code: "shared", Reason: e.Reason}
		case StateRejected:
			return false, &RejectError{Code: "rejected", Reason: e.Reason}
		}
		return false, nil
	}
}

// Asked looks at the container and says what its labels ask for: nil for nothing.
// A *RejectError says why that cannot be; events.ErrNotFound: there is no such
// container.
func (a *Agent) Asked(ctx context.Context, key events.Key) (*Wish, error) {
	if v := a.lastFound(key); v != nil {
		if v.refused != nil {
			return nil, v.refused
		}
		return v.wish, nil
	}
	c, err := a.cfg.Containers.LookRecord(ctx, key)
	if err != nil {
		return nil, err
	}
	var trust Trust
	a.mu.Lock()
	if r := a.records[key]; r != nil && r.owner.Created == c.Created.UnixNano() {
		_, trust.Prior = a.cfg.Leases.Lookup(r.owner)
	}
	a.mu.Unlock()
	if req, ok := a.requests.get(containerRequest(key)); ok && req.off() && req.Created == c.Created.UnixNano() {
		return nil, nil
	}
	return parseWish(&c, trust)
}

// lastFound is what the container was last found to ask for, nil while that may have
// changed: its creation is an event, too, and comes long before its task's.
func (a *Agent) lastFound(key events.Key) *judged {
	if a.queue.busy(key) {
		return nil
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	if r := a.records[key]; r != nil && !a.hints[key].record && r.ended > 0 && a.link.connected {
		return r.judged
	}
	return nil
}

// Strict reports whether the container of a refused wish must not run without a network.
func (e *RejectError) Strict() bool { return e.strict }

// Await waits for the container's endpoint in the namespace of its init process,
// which is parked. wanted is false for a container that asks for no network.
func (a *Agent) Await(ctx context.Context, key events.Key, pid int) (e Endpoint, wanted bool, err error) {
	now := a.now()
	proc, err := a.cfg.Network.OpenPID(pid, now)
	if err != nil {
		return Endpoint{}, true, err
	}
	defer proc.Close()
	defer a.await(key, pid, now)()
	ready := up(proc.ID().Ino, "")
	e, err = a.ask(ctx, key, func(h *hint) { h.pid, h.created, h.received = pid, now, now }, func(e Endpoint) (bool, error) {
		if e.State == "" {
			return true, nil
		}
		return ready(e)
	})
	return e, err != nil || e.State != "", err
}

// Attach gives a container a network by hand and returns when its endpoint is up,
// or its address bound when no task runs. r.Key names it; r.Created is filled in.
func (a *Agent) Attach(ctx context.Context, r Request) (Endpoint, error) {
	r.Source = SourceManual
	if err := r.validate(); err != nil {
		return Endpoint{}, err
	}
	release, err := a.turns.take(ctx, containerRequest(r.Key))
	if err != nil {
		return Endpoint{}, err
	}
	defer release()
	c, err := a.cfg.Containers.LookRecord(ctx, r.Key)
	if err != nil {
		return Endpoint{}, err
	}
	r.Created = c.Created.UnixNano()
	was, had := a.requests.get(r.id())
	if had && !was.Down && was.Source == SourceCNI {
		return Endpoint{}, rejectf("cni", "its CNI client has attached it already")
	}
	written := a.requests.put(r)
	ready := up(0, r.Ifname)
	e, err := a.ask(ctx, r.Key, func(h *hint) { h.record = true }, func(e Endpoint) (bool, error) {
		if e.State == StateBound {
			return true, nil
		}
		return ready(e)
	})
	err = errors.Join(err, <-written)
	if err != nil {
		a.withdraw(r, was, had)
	}
	return e, err
}

// withdraw puts back what there was before a request that could not be met.
func (a *Agent) withdraw(r, was Request, had bool) {
	var err error
	if had {
		err = <-a.requests.put(was)
	} else {
		err = a.requests.drop(r.id())
	}
	if err != nil {
		a.log.Warn("request could not be withdrawn", "request", r.id(), "err", err)
	}
	a.rework(r.Key)
}

// rework has a container looked at in full.
func (a *Agent) rework(key events.Key) {
	a.mu.Lock()
	h := a.hints[key]
	h.record = true
	a.hints[key] = h
	a.mu.Unlock()
	a.queue.add(key)
}

// Detach takes a container's network and address away, until Attach or until the
// container is deleted.
func (a *Agent) Detach(ctx context.Context, key events.Key) error {
	release, err := a.turns.take(ctx, containerRequest(key))
	if err != nil {
		return err
	}
	defer release()
	c, err := a.cfg.Containers.LookRecord(ctx, key)
	if err != nil {
		return err
	}
	off := Request{Source: SourceManual, Key: key, Created: c.Created.UnixNano(), Down: true}
	if err := <-a.requests.put(off); err != nil {
		return err
	}
	_, err = a.ask(ctx, key, func(h *hint) { h.record = true }, func(e Endpoint) (bool, error) { return e.State == "", nil })
	if errors.Is(err, errGone) {
		return nil
	}
	return err
}

// Containers are the keys of all containers that were seen, wanted or not.
func (a *Agent) Containers() []events.Key {
	a.mu.Lock()
	defer a.mu.Unlock()
	out := make([]events.Key, 0, len(a.records))
	for key, r := range a.records {
		if !r.created.IsZero() {
			out = append(out, key)
		}
	}
	return out
}

// ownerless reports whether o is held for a client without a container.
func ownerless(o ipam.Owner) bool { return o.Kind != ipam.OwnerContainer }
