package agent

import (
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

func TestDecide(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name string
		in   facts
		want plan
	}{
		{"an error proves nothing", facts{wanted: true, lease: true, endpoint: placeHere}, plan{}},
		{"not ours", facts{containerd: answerPresent}, plan{hide: true}},
		{"created, no task yet", facts{containerd: answerPresent, wanted: true, task: taskNone},
			plan{steps: []step{stepBind}, state: StateBound, reason: ""}},
		{"joins a namespace by path: wait for its task", facts{containerd: answerPresent, wanted: true, path: true, task: taskNone},
			plan{state: StatePending}},
		{"bound, no task", facts{containerd: answerPresent, wanted: true, lease: true, task: taskNone}, plan{state: StateBound}},
		{"task created", facts{containerd: answerPresent, wanted: true, lease: true, task: taskLive},
			plan{steps: []step{stepAttach}, state: StateAttached}},
		{"task created before the lease", facts{containerd: answerPresent, wanted: true, task: taskLive},
			plan{steps: []step{stepBind, stepAttach}, state: StateAttached}},
		{"in place", facts{containerd: answerPresent, wanted: true, lease: true, task: taskLive, endpoint: placeHere, inhabited: true},
			plan{state: StateAttached}},
		{"restarted task: the attach replaces the old endpoint",
			facts{containerd: answerPresent, wanted: true, lease: true, task: taskLive, endpoint: placeOther},
			plan{steps: []step{stepAttach}, state: StateAttached}},
		{"task ended", facts{containerd: answerPresent, wanted: true, lease: true, task: taskNone, endpoint: placeOther},
			plan{steps: []step{stepDetach}, state: StateBound}},
		{"task ended, others live in its namespace",
			facts{containerd: answerPresent, wanted: true, lease: true, task: taskNone, endpoint: placeOther, inhabited: true},
			plan{state: StateAttached, reason: "the task has ended, its namespace is still in use", recheck: inhabitedPause}},
		{"task unknown", facts{containerd: answerPresent, wanted: true, lease: true, endpoint: placeOther},
			plan{backoff: true}},
		{"another address asked for, idle",
			facts{containerd: answerPresent, wanted: true, lease: true, moved: true, task: taskNone},
			plan{steps: []step{stepRelease, stepBind}, state: StateBound}},
		{"another address asked for, running",
			facts{containerd: answerPresent, wanted: true, lease: true, moved: true, task: taskLive, endpoint: placeHere, inhabited: true},
			plan{state: StateAttached}},
		{"another address asked for, the task has started again",
			facts{containerd: answerPresent, wanted: true, lease: true, moved: true, task: taskLive, endpoint: placeOld},
			plan{steps: []step{stepDetach, stepRelease, stepBind, stepAttach}, state: StateAttached}},
		{"another address asked for, where the endpoint is is not known",
			facts{containerd: answerPresent, wanted: true, lease: true, moved: true, task: taskLive, endpoint: placeOther},
			plan{steps: []step{stepAttach}, state: StateAttached}},
		{"shares another's namespace", facts{containerd: answerPresent, wanted: true, path: true, lease: true, task: taskLive, foreign: true},
			plan{steps: []step{stepRelease}, state: StateShared}},
		{"another was first in its own namespace", facts{containerd: answerPresent, wanted: true, lease: true, task: taskLive, foreign: true},
			plan{state: StateShared}},
		{"its new task shares another's namespace",
			facts{containerd: answerPresent, wanted: true, path: true, lease: true, task: taskLive, foreign: true, endpoint: placeOld},
			plan{steps: []step{stepDetach, stepRelease}, state: StateShared}},
		{"label removed while it runs", facts{containerd: answerPresent, lease: true, task: taskLive, endpoint: placeOther, inhabited: true},
			plan{steps: []step{stepDetach, stepRelease}, hide: true}},
		{"rejected", facts{containerd: answerPresent, rejected: true, task: taskLive}, plan{state: StateRejected}},
		{"label spoilt while it runs", facts{containerd: answerPresent, rejected: true, lease: true, task: taskLive, endpoint: placeOther, inhabited: true},
			plan{state: StateAttached}},
		{"label spoilt, task ended, others live in its namespace",
			facts{containerd: answerPresent, rejected: true, lease: true, task: taskNone, endpoint: placeOther, inhabited: true},
			plan{state: StateAttached, recheck: inhabitedPause}},
		{"label spoilt, task ended", facts{containerd: answerPresent, rejected: true, lease: true, task: taskNone, endpoint: placeOther},
			plan{steps: []step{stepDetach}, state: StateRejected}},
		{"deleted", facts{containerd: answerGone, lease: true},
			plan{steps: []step{stepRelease, stepForget}, hide: true}},
		{"deleted, link still there", facts{containerd: answerGone, lease: true, endpoint: placeOther},
			plan{steps: []step{stepDetach, stepRelease, stepForget}, hide: true}},
		{"record deleted while the task runs", facts{containerd: answerGone, lease: true, endpoint: placeOther, inhabited: true},
			plan{state: StateAttached, reason: "the container's record was deleted, its namespace is still in use", recheck: inhabitedPause}},
		{"absent once", facts{containerd: answerGone, absence: absentPause, lease: true}, plan{recheck: absentPause}},
		{"absent, nothing held", facts{containerd: answerGone, absence: absentPause}, plan{steps: []step{stepForget}, hide: true}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			if d := cmp.Diff(tt.want, decide(tt.in), cmp.AllowUnexported(plan{})); d != "" {
				t.Errorf("decide (-want +got):\n%s", d)
			}
		})
	}
}

// allFacts are all combinations that decide can meet.
func allFacts(yield func(facts) bool) {
	bools := []bool{false, true}
	for _, c := range []answer{answerUnknown, answerPresent, answerGone} {
		for _, task := range []taskState{taskUnknown, taskNone, taskLive} {
			for _, at := range []place{placeNone, placeHere, placeOther, placeOld} {
				for i := range 1 << 8 {
					bit := func(n int) bool { return bools[i>>n&1] }
					f := facts{containerd: c, task: task, endpoint: at, absence: time.Duration(i & 1), rejected: bit(1), wanted: bit(2),
						path: bit(3), moved: bit(4), lease: bit(5), inhabited: bit(6), foreign: bit(7)}
					if !yield(f) {
						return
					}
				}
			}
		}
	}
}

// after is f once step s has succeeded.
func after(f facts, s step) facts {
	switch s {
	case stepBind:
		f.lease, f.moved = true, false
	case stepRelease:
		f.lease, f.moved = false, false
	case stepAttach:
		f.endpoint = placeHere
	case stepDetach:
		f.endpoint = placeNone
	}
	return f
}

// TestDecideInvariants checks every combination of facts.
func TestDecideInvariants(t *testing.T) {
	t.Parallel()
	for f := range allFacts {
		p := decide(f)
		g := f
		for i, s := range p.steps {
			switch s {
			case stepRelease:
				if g.endpoint != placeNone {
					t.Errorf("%+v: address released while its link is there: %v", f, p.steps)
				}
				if !g.lease {
					t.Errorf("%+v: releases nothing", f)
				}
			case stepAttach:
				if !g.lease || g.task != taskLive {
					t.Errorf("%+v: attaches without lease or task: %v", f, p.steps)
				}
			case stepForget:
				if i != len(p.steps)-1 || g.lease || g.endpoint != placeNone {
					t.Errorf("%+v: forgets what is still held: %v", f, p.steps)
				}
			}
			g = after(g, s)
		}
		if f.containerd == answerUnknown && len(p.steps) > 0 {
			t.Errorf("%+v: acts on an error: %v", f, p.steps)
		}
		if f.inhabited && f.containerd != answerPresent && slices.Contains(p.steps, stepDetach) {
			t.Errorf("%+v: takes the link of a living namespace: %v", f, p.steps)
		}
		if again := decide(g); len(again.steps) > 0 && !slices.Equal(again.steps, []step{stepForget}) {
			t.Errorf("%+v: not idempotent: %v, then %v", f, p.steps, again.steps)
		}
	}
}
