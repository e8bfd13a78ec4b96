package agent

import (
	"context"
	"errors"
	"time"

	"stellar.io/stellar/events"
	"stellar.io/stellar/netsetup"
)

// job is one pass over one container.
type job struct {
	*Agent
	*record
	hint  hint
	clock stopwatch
	ns    Process // the present task's, once opened
	pid   int     // the present task's init process, 0 for none
}

// work looks at a container and takes the steps that the look calls for. It
// reports whether it must be tried again.
func (a *Agent) work(ctx context.Context, key events.Key) (failed bool) {
	hint, pass := a.takeHint(key)
	defer a.worked(key, pass)
	j := &job{Agent: a, record: a.record(key), hint: hint, clock: stopwatch{now: a.now}}
	j.clock.start(j.hint)
	defer j.closeNS()
	start := a.now()
	defer func() { a.cfg.Metrics.reconciled(a.now().Sub(start)) }()
	err := j.converge(ctx)
	if ctx.Err() != nil {
		return false
	}
	if err != nil && !errors.Is(err, errUnknown) {
		j.showFailure(err)
	}
	j.enforce(ctx)
	j.hold()
	return err != nil
}

// errUnknown ends a pass that has learned nothing yet; more passes follow, with
// growing pauses.
var errUnknown = errors.New("not known yet")

func (j *job) converge(ctx context.Context) error {
	f, err := j.look(ctx)
	if err != nil {
		return j.again(err)
	}
	recheck, strayErr := j.letStraysGo(ctx, f)
	p := decide(f)
	if err := j.take(ctx, f, p); err != nil {
		return errors.Join(err, strayErr)
	}
	for _, pause := range []time.Duration{recheck, p.recheck} {
		if pause > 0 {
			j.queue.addAfter(j.key, pause)
		}
	}
	if p.backoff && strayErr == nil {
		return errUnknown
	}
	return strayErr
}

// take takes the steps of a plan and publishes the outcome.
func (j *job) take(ctx context.Context, f facts, p plan) error {
	for _, s := range p.steps {
		err := j.do(ctx, s)
		if refused, ok := asRejection(err); ok {
			j.puzzled = false
			j.showRejected(refused)
			return nil
		}
		if err != nil {
			return j.again(err)
		}
	}
	j.puzzled = false
	j.showOutcome(f, p)
	return nil
}

// again has the container looked at once more, at once, where err says that a
// new look may tell more. Only the second time in a row it is a failure.
func (j *job) again(err error) error {
	if !errors.Is(err, errLookAgain) || j.puzzled {
		return err
	}
	j.puzzled = true
	j.queue.add(j.key)
	return nil
}

// letStraysGo gives back what earlier owners of this key still hold: containers
// that had the same id before, or interfaces that are no longer asked for. One
// that fails does not keep the others, or the container itself, from their due.
// recheck is when what is left should be looked at again, 0 for nothing left.
func (j *job) letStraysGo(ctx context.Context, f facts) (recheck time.Duration, err error) {
	var kept []stray
	var errs []error
	for _, s := range j.strays {
		again, err := j.letGo(ctx, f, &s)
		if err != nil {
			errs = append(errs, err)
		}
		if err != nil || again > 0 {
			kept = append(kept, s)
		}
		if again > 0 && (recheck == 0 || again < recheck) {
			recheck = again
		}
	}
	j.strays = kept
	return recheck, errors.Join(errs...)
}

// letGo takes the steps for one stray, or says when to look at it again. That
// its container is gone is proven by a record that is present: s is not it.
func (j *job) letGo(ctx context.Context, f facts, s *stray) (again time.Duration, err error) {
	of := facts{containerd: answerGone, absence: f.absence}
	_, of.lease = j.cfg.Leases.Lookup(s.owner)
	if s.endpoint != nil {
		of.endpoint = placeOther
		if of.inhabited, err = j.cfg.Network.Inhabited(ctx, s.owner); err != nil {
			return 0, err
		}
		// A namespace that was never its own is another container's, if that is still there.
		of.inhabited = of.inhabited && !(s.wrong && f.containerd == answerPresent)
	}
	p := decide(of)
	for _, step := range p.steps {
		switch step {
		case stepDetach:
			if err := j.detachOwner(ctx, s.owner); err != nil {
				return 0, err
			}
			s.endpoint = nil
			j.queue.add(j.key) // it may have served the container's own namespace
		case stepRelease:
			if err := j.release(ctx, s.owner); err != nil {
				return 0, err
			}
		}
	}
	return p.recheck, nil
}

func (j *job) closeNS() {
	if j.ns != nil {
		j.unclaim(j.record, j.ns.ID())
		j.ns.Close()
		j.ns = nil
	}
}

func asRejection(err error) (*RejectError, bool) {
	var refused *RejectError
	return refused, errors.As(err, &refused)
}

// taskGone reports whether err means that the process is not (any more) the one
// that was named.
func taskGone(err error) bool {
	return errors.Is(err, netsetup.ErrProcessGone) || errors.Is(err, netsetup.ErrPIDReused)
}
