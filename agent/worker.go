package agent

import (
	"context"
	"errors"
	"time"

	"stellar.io/stellar/events"
	"stellar.io/stellar/netsetup"
)

// lookAgainPause is short: it only keeps a task that dies slowly from a storm of looks.
const lookAgainPause = 10 * time.Millisecond

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
	defer a.worked(key)
	j := &job{Agent: a, record: a.record(key), hint: a.takeHint(key)}
	j.clock.start(j.hint)
	defer j.closeNS()
	start := time.Now()
	defer func() { a.cfg.Metrics.reconciled(time.Since(start)) }()
	err := j.converge(ctx)
	if err == nil || ctx.Err() != nil {
		return false
	}
	j.showFailure(err)
	return true
}

func (j *job) converge(ctx context.Context) error {
	f, err := j.look(ctx)
	if refused, ok := asRejection(err); ok {
		j.showRejected(refused)
		return nil
	}
	if err != nil {
		return err
	}
	left, err := j.letStraysGo(ctx, f)
	if err != nil {
		return err
	}
	p := decide(f)
	for _, s := range p.steps {
		if s == stepForget && left {
			continue
		}
		err := j.do(ctx, s)
		if refused, ok := asRejection(err); ok {
			j.showRejected(refused)
			return nil
		}
		if taskGone(err) || errors.Is(err, errLookAgain) {
			j.queue.addAfter(j.key, lookAgainPause)
			return nil
		}
		if err != nil {
			return err
		}
		if s == stepForget {
			return nil
		}
	}
	if p.recheck > 0 || left {
		j.queue.addAfter(j.key, max(p.recheck, inhabitedPause))
	}
	if left && p.hide {
		j.showStray(j.strays[0])
		return nil
	}
	j.showOutcome(f, p)
	return nil
}

// letStraysGo gives back what earlier owners of this key still hold: containers
// that had the same id before, or interfaces that are no longer asked for. It
// reports whether any is left.
func (j *job) letStraysGo(ctx context.Context, f facts) (left bool, err error) {
	if f.containerd == answerUnknown {
		return len(j.strays) > 0, nil
	}
	var kept []stray
	for i, s := range j.strays {
		_, held := j.cfg.Leases.Lookup(s.owner)
		// A present record with another creation time is proof that s is gone.
		of := facts{containerd: answerGone, lease: held, evidence: f.containerd == answerPresent || f.evidence}
		if s.endpoint {
			of.endpoint = placeOther
			if of.inhabited, err = j.cfg.Network.Inhabited(ctx, s.owner); err != nil {
				j.strays = append(kept, j.strays[i:]...)
				return true, err
			}
		}
		p := decide(of)
		for _, step := range p.steps {
			if err := j.doStray(ctx, step, s.owner); err != nil {
				j.strays = append(kept, j.strays[i:]...)
				return true, err
			}
		}
		if len(p.steps) == 0 {
			kept = append(kept, s)
		}
	}
	j.strays = kept
	return len(kept) > 0, nil
}

func (j *job) closeNS() {
	if j.ns != nil {
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
