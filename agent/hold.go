package agent

import (
	"time"

	"stellar.io/stellar/events"
)

// Hold keeps the init process of an armed container from its program's first
// instruction until it is let go; see package hold. No method blocks.
type Hold interface {
	// Arm is idempotent; deadline 0 is the hold's own.
	Arm(key events.Key, deadline time.Duration)
	Disarm(key events.Key)
	// Second is the second chance: pid was announced as the container's init process.
	Second(key events.Key, pid int, created time.Time)
	// Release lets the process go and reports whether it had been kept from its
	// program until now.
	Release(key events.Key, pid int) (held bool)
}

// strictHold leaves it to enforce to end a strict container before its program
// is let go.
const strictHold = strictPatience + time.Second

// Held is called when the hold has a container's init process, usually before
// containerd announces it. It does not block.
func (a *Agent) Held(key events.Key, pid int, at time.Time) {
	a.mu.Lock()
	h := a.hints[key]
	if h.pid == 0 {
		h.pid, h.created, h.received = pid, at, at
		a.hints[key] = h
	}
	a.mu.Unlock()
	a.queue.hurry(key)
}

// unhand tells the hold that the endpoint is up in the opened process's namespace.
func (j *job) unhand() (held bool) {
	return j.cfg.Hold != nil && j.cfg.Hold.Release(j.key, j.ns.PID())
}

// hold arms or disarms the container at the end of a pass. One whose network
// cannot be is not kept waiting for it, unless it must not run without.
func (j *job) hold() {
	if j.cfg.Hold == nil {
		return
	}
	if !j.holdable() {
		j.cfg.Hold.Disarm(j.key)
		return
	}
	j.arm()
	switch {
	case j.shown.State == StateShared && j.pid != 0:
		j.cfg.Hold.Release(j.key, j.pid) // a guest's network is its host's, and is there
	case (j.shown.State == StateAttached || j.shown.State == StateProvisional) && j.proc != nil:
		j.cfg.Hold.Release(j.key, j.proc.PID()) // a client had waited, or the hold came late
	}
}

// holdable reports whether the container's program should wait.
func (j *job) holdable() bool {
	if j.shown.State == StateRejected {
		return j.strict()
	}
	return j.wish != nil && j.refused == nil && (j.asked == nil || !j.asked.Down)
}

func (j *job) arm() {
	deadline := time.Duration(0)
	if j.strict() {
		deadline = strictHold
	}
	j.cfg.Hold.Arm(j.key, deadline)
}

// grip holds the opened process if it is parked and was not armed in time.
func (j *job) grip() {
	if j.cfg.Hold != nil && j.ns.Parked() {
		j.arm()
		j.cfg.Hold.Second(j.key, j.ns.PID(), j.now())
	}
}
