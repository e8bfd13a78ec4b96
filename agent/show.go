package agent

import (
	"errors"
	"time"

	"stellar.io/stellar/netsetup"
)

// stopwatch measures one pass over a container, phase by phase. Its zero is the
// event that led to the pass, or the pass's own start.
type stopwatch struct {
	now        func() time.Time
	zero, last time.Time
	phases     []Phase
}

func (s *stopwatch) start(h hint) {
	now := s.now()
	s.zero, s.last = now, now
	if h.pid == 0 || h.created.IsZero() {
		return
	}
	// The event's timestamp is another process's wall clock on the same machine.
	s.zero = h.created
	s.phases = append(s.phases, Phase{"event", h.received.Sub(h.created)}, Phase{"queue", now.Sub(h.received)})
}

func (s *stopwatch) lap(name string) {
	now := s.now()
	s.phases = append(s.phases, Phase{name, now.Sub(s.last)})
	s.last = now
}

// attach takes over what the attach measured itself.
func (s *stopwatch) attach(t netsetup.Timing) {
	if !t.Adopted {
		s.phases = append(s.phases, Phase{"netns", t.Open}, Phase{"link", t.Link}, Phase{"host", t.Host}, Phase{"guest", t.Guest})
	}
	s.last = s.now()
}

func (s *stopwatch) total() time.Duration { return s.now().Sub(s.zero) }

// face is the endpoint as it is now, without State and Reason.
func (j *job) face() Endpoint {
	e := Endpoint{
		Key: j.key, Owner: j.owner, Created: j.created, PID: j.taskPID, Grade: j.grade, Phases: j.phases, Reason: j.warning,
	}
	if j.wish != nil {
		e.Network, e.Source, e.Hostname = j.wish.Network, j.wish.Source, j.wish.Hostname
		e.MTU, e.Strict = j.wish.MTU, j.wish.Strict
	}
	if held, ok := j.cfg.Leases.Lookup(j.owner); ok {
		e.Address = held.Addr
		if e.Network == "" {
			e.Network = j.shown.Network
		}
	}
	if j.endpoint != nil {
		e.NetNS, e.DefaultRoute = j.nsid.Ino, j.routed
		e.MAC, e.Ifname, e.HostIfname = j.endpoint.MAC.String(), j.endpoint.Ifname, j.endpoint.HostIfname
	}
	return e
}

// showOutcome publishes what a pass without errors has led to.
func (j *job) showOutcome(f facts, p plan) {
	if p.hide {
		j.show(j.record, Endpoint{}, false)
		return
	}
	e := j.shown
	if p.state != "" {
		e = j.face()
		e.State = p.state
	}
	if p.reason != "" {
		e.Reason = p.reason
	}
	switch p.state {
	case StateAttached:
		held, ok := j.cfg.Leases.Lookup(j.owner)
		if ok && held.Provisional {
			e.State, e.Reason = StateProvisional, reasonProvisional
		}
		switch {
		case j.refused != nil:
			e.Reason = j.refused.Reason + " (the endpoint stays until the task ends)"
		case j.moved():
			e.Reason = "another address is asked for: it is taken up when the task starts again"
		case j.renamed():
			e.Reason = "another interface is asked for: it is taken up when the task starts again"
		}
	case StateRejected:
		j.showRejected(j.refused)
		return
	case StateShared:
		e.Address, e.Ifname, e.HostIfname = j.host.Addr, j.host.Ifname, j.host.HostIfname
		e.Reason = "the namespace has the endpoint of " + j.host.Owner.Namespace + "/" + j.host.Owner.ID
	}
	unsettled := e.State == StateProvisional || f.task == taskUnknown
	was := j.show(j.record, e, unsettled)
	if was.State == e.State || e.State == "" || e.State == StateAttached {
		return // an attach has its own line
	}
	if e.State == StateBound && was.Address == e.Address && (was.State == StateAttached || was.State == StateProvisional) {
		return // and so has a detach
	}
	j.log.Info("endpoint "+string(e.State), "container", j.key, "ip", e.Address, "reason", e.Reason)
	j.Record(string(e.State), j.key.String(), text(e.Address.IsValid(), e.Address.String(), e.Reason))
}

// showAttached publishes, logs and counts an endpoint that is up.
func (j *job) showAttached(adopted bool) {
	if !adopted {
		j.phases = j.clock.phases
	}
	e := j.face()
	e.State = StateAttached
	if held, ok := j.cfg.Leases.Lookup(j.owner); ok && held.Provisional {
		e.State = StateProvisional
	}
	j.show(j.record, e, false)
	result := "attached"
	if adopted {
		result = "adopted"
	}
	total := j.clock.total()
	attrs := []any{"container", j.key, "ip", e.Address, "host_if", e.HostIfname, "grade", e.Grade, "total", total}
	for _, p := range j.clock.phases {
		attrs = append(attrs, p.Name, p.Duration)
	}
	j.log.Info("endpoint "+result, attrs...)
	j.cfg.Metrics.ready(e.Grade)
	j.cfg.Metrics.attached(e.Source, result, append(j.clock.phases, Phase{"total", total}))
	j.Record(result, j.key.String(), text(true, e.Address.String()+" on "+e.HostIfname, e.Reason))
}

// showRejected publishes a refusal: one log line and one event for each reason.
func (j *job) showRejected(why *RejectError) {
	e := j.face()
	e.State, e.Reason = StateRejected, why.Reason
	was := j.show(j.record, e, true)
	if why.heals() {
		j.healable(j.record)
	}
	if was.State == StateRejected && was.Reason == e.Reason {
		return
	}
	j.cfg.Metrics.rejected(why.Code)
	j.log.Warn("container rejected", "container", j.key, "reason", why.Reason)
	j.Record("reject", j.key.String(), why.Reason)
}

// showFailure publishes an attempt that failed and comes again.
func (j *job) showFailure(err error) {
	e := j.face()
	e.State, e.Reason = StateRetrying, err.Error()
	var unseen *lookError
	switch {
	case errors.As(err, &unseen):
		e = j.shown
		e.Reason = err.Error()
	case j.endpoint != nil && j.alive():
		e.State = StateAttached
	}
	if e.State == "" {
		e = Endpoint{}
	}
	was := j.show(j.record, e, true)
	if was.State == e.State && was.Reason == e.Reason {
		return
	}
	j.log.Warn("container will be tried again", "container", j.key, "err", err)
	j.Record("retry", j.key.String(), err.Error())
}

// text joins what there is to say.
func text(first bool, s, reason string) string {
	switch {
	case !first:
		return reason
	case reason == "":
		return s
	}
	return s + ": " + reason
}
