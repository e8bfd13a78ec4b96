package agent

import "time"

// State is what an endpoint is seen as. The zero State is a container that
// Stellar has nothing to do with.
type State string

const (
	// StatePending: the container asks for a network and has no address yet.
	StatePending State = "pending"
	// StateBound: it has an address and no running task to carry it.
	StateBound State = "bound"
	// StateAttached: its task has the interface, the address and the routes.
	StateAttached State = "attached"
	// StateProvisional: attached, and its lease is not replicated yet.
	StateProvisional State = "provisional"
	// StateShared: its task lives in a namespace that another endpoint serves.
	StateShared State = "shared"
	// StateRetrying: the last attempt failed; the reason says why, and it is tried again.
	StateRetrying State = "retrying"
	// StateRejected: it cannot be attached as it asks; the reason says why.
	StateRejected State = "rejected"
)

// answer is what containerd said of a container.
type answer uint8

const (
	answerUnknown answer = iota // an error proves nothing
	answerPresent
	answerGone // a healthy containerd says that this very record does not exist
)

// taskState is what is known of the container's init process.
type taskState uint8

const (
	taskUnknown taskState = iota // UNKNOWN, pid 0 or an error prove nothing
	taskNone                     // no task, or one that has ended
	taskLive                     // created, running or paused: its namespace exists
)

// place says where the container's endpoint is.
type place uint8

const (
	placeNone  place = iota // no endpoint
	placeHere               // in the namespace of the present task
	placeOther              // in another namespace, or unknown whether in this one
	placeOld                // made for an earlier task, whose process has ended
)

// facts is all that decide looks at: one container, at one moment.
type facts struct {
	containerd answer
	// absence is how much longer a record that is gone must stay so before that
	// is proof; 0: it is. Until then it may be a containerd that has just started.
	absence  time.Duration
	rejected bool // what the container asks for cannot be
	wanted   bool // the labels ask for a network
	path     bool // the spec names the namespace by a path, so its owner may be another container
	foreign  bool // the present task's namespace is served by another container's endpoint
	moved    bool // another address is asked for than the lease has
	down     bool // who asked for the network has taken it away, and may ask again
	task     taskState
	lease    bool
	endpoint place
	// inhabited: a process lives in the namespace that holds the endpoint.
	inhabited bool
}

// step is one thing to do, in the order of a plan.
type step uint8

const (
	stepDetach  step = iota + 1 // remove the endpoint and see it gone
	stepRelease                 // give the lease up: cooling starts
	stepBind                    // get a lease
	stepAttach                  // make the endpoint in the present task's namespace
	stepForget                  // nothing is left; drop the record
)

// plan is what to do about a container, and what it is afterwards if all goes well.
type plan struct {
	steps   []step
	state   State // "" keeps the state shown
	hide    bool  // nothing is shown of the container any more
	reason  string
	recheck time.Duration // 0: only when something happens
	backoff bool          // nothing was learned: look again with growing pauses
}

const (
	// absentPause is the least time between two looks that prove a record's absence.
	absentPause = 5 * time.Second
	// doubtPause takes its place while containerd seems to have lost all it knew.
	doubtPause = 10 * time.Minute
	// inhabitedPause is how often a namespace that outlives its task is looked at.
	inhabitedPause = time.Second
)

// decide says what to do about one container. It is pure, total and idempotent:
// facts that match the plan's outcome give a plan without steps.
func decide(f facts) plan {
	switch {
	case f.containerd == answerUnknown:
		return plan{}
	case f.containerd == answerGone:
		return decideGone(f)
	case f.rejected:
		return decideRejected(f)
	case !f.wanted:
		return leave(f)
	}
	return decideWanted(f)
}

// decideGone: the record does not exist. Its address stays while its link may
// carry it: containerd can delete a record while the task runs.
func decideGone(f facts) plan {
	switch {
	case f.endpoint != placeNone && f.inhabited:
		return plan{state: StateAttached, reason: "the container's record was deleted, its namespace is still in use", recheck: inhabitedPause}
	case f.absence > 0 && (f.lease || f.endpoint != placeNone):
		return plan{recheck: f.absence}
	}
	return leave(f)
}

// leave gives back whatever there is.
func leave(f facts) plan {
	p := plan{steps: f.giveBack(), hide: true}
	if f.containerd == answerGone {
		p.steps = append(p.steps, stepForget)
	}
	return p
}

// giveBack: the link first, for its address must not be anybody else's before.
func (f facts) giveBack() (steps []step) {
	if f.endpoint != placeNone {
		steps = append(steps, stepDetach)
	}
	if f.lease {
		steps = append(steps, stepRelease)
	}
	return steps
}

// decideRejected takes nothing from a container that already runs with a
// network; it loses the endpoint with its namespace, and keeps its lease.
func decideRejected(f facts) plan {
	switch {
	case f.endpoint == placeNone:
		return plan{state: StateRejected}
	case !f.inhabited && f.task != taskUnknown:
		return plan{steps: []step{stepDetach}, state: StateRejected}
	}
	p := plan{state: StateAttached}
	if f.task == taskNone {
		p.recheck = inhabitedPause
	}
	return p
}

// reasonDown is shown of an endpoint that its CNI client has taken away.
const reasonDown = "taken down by its CNI client"

func decideWanted(f facts) plan {
	if f.down {
		p := plan{state: StateBound, reason: reasonDown}
		if f.endpoint != placeNone {
			p.steps = []step{stepDetach}
		}
		return p
	}
	switch f.task {
	case taskUnknown:
		return plan{backoff: true}
	case taskNone:
		return decideIdle(f)
	}
	switch {
	case f.endpoint == placeHere:
		return plan{state: StateAttached}
	case f.foreign:
		// A namespace of its own is the container's again with its next task,
		// and so is its address; the guest of a path has no use for one.
		f.lease = f.lease && f.path
		return plan{steps: f.giveBack(), state: StateShared}
	case !f.lease, f.endpoint == placeNone:
		return plan{steps: append(f.rebind(), stepAttach), state: StateAttached}
	case f.endpoint == placeOld && f.moved:
		return plan{steps: append([]step{stepDetach}, append(f.rebind(), stepAttach)...), state: StateAttached}
	}
	// The attach replaces an endpoint in another namespace, or finds that it is
	// in this one; until that is known, its address is not exchanged.
	return plan{steps: []step{stepAttach}, state: StateAttached}
}

// decideIdle: no task runs. The address stays bound, the link goes with its
// namespace unless others live there.
func decideIdle(f facts) plan {
	if f.endpoint != placeNone && f.inhabited {
		return plan{state: StateAttached, reason: "the task has ended, its namespace is still in use", recheck: inhabitedPause}
	}
	p := plan{state: StateBound}
	if f.endpoint != placeNone {
		p.steps = append(p.steps, stepDetach)
	}
	if f.path && !f.lease {
		// Whose namespace it will join shows when its task is there.
		p.state = StatePending
		return p
	}
	p.steps = append(p.steps, f.rebind()...)
	return p
}

// rebind gets a lease, or another one where the labels now ask for another address.
func (f facts) rebind() []step {
	switch {
	case !f.lease:
		return []step{stepBind}
	case f.moved:
		return []step{stepRelease, stepBind}
	}
	return nil
}
