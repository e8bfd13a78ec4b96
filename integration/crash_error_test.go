package integration

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"stellar.io/stellar/internal/failpoint"
	"stellar.io/stellar/internal/failpoint/failctl"
	"stellar.io/stellar/internal/testx/faults"
)

// disturbed are the operations whose steps are made to fail and to take long.
var disturbed = []string{"attach", "detach", "cni add", "cni add again", "cni del", "cni down"}

// failing says which failpoints can fail.
func failing() map[failpoint.Name]bool {
	out := map[failpoint.Name]bool{}
	for _, p := range failpoint.All() {
		out[p.Name] = p.Fails
	}
	return out
}

// bears has the operation meet a failure or a delay at a failpoint, once. It is
// repeated by the agent, or its client is told and repeats it: then it is done, and
// nothing is left of the first attempt.
func (b *crashBed) bears(p failpoint.Name, a failctl.Action, pause time.Duration, op crashOp) {
	b.t.Helper()
	if op.before != nil {
		op.before()
	}
	fired := b.table.Fired(string(p))
	b.arm(p, a, 1, pause)
	op.during()
	b.eventually(quiet, fmt.Sprintf("%s is reached", p), func() error {
		if b.table.Fired(string(p)) == fired {
			return fmt.Errorf("it was reached %d times", b.table.Reached(string(p)))
		}
		return nil
	})
	if op.after != nil {
		op.after()
	}
	b.table.Disarm()
	b.check()
	if !b.running() {
		b.t.Fatalf("the agent has ended\n%s", b.tail())
	}
}

// TestFaultErrors: each step of attach, detach, commit and journal fails once, on a
// node with real containers.
func TestFaultErrors(t *testing.T) {
	b, n := newLoneBed(t), 0
	b.mayLog = "injected failure"
	fails := failing()
	for _, c := range inOrder(t, nodeCrashes) {
		for _, p := range c.reach {
			if fails[p] && slices.Contains(disturbed, c.op) {
				b.each(t, c.op, p, func() { b.bears(p, failctl.Error, 0, c.make(b)) })
				n++
			}
		}
	}
	b.checkAll(true)
	if !t.Failed() {
		faults.Report(t, faults.RealContainerd, "a step fails at a failpoint", "%d failures, 0 half-states", n)
	}
}

// slow is longer than a commit is waited for.
const slow = 700 * time.Millisecond

// TestFaultDelays: each of the same steps takes longer once than a commit is waited for.
func TestFaultDelays(t *testing.T) {
	b, n := newLoneBed(t), 0
	for _, c := range inOrder(t, nodeCrashes) {
		for _, p := range c.reach {
			if slices.Contains(disturbed, c.op) {
				b.each(t, c.op, p, func() { b.bears(p, failctl.Sleep, slow, c.make(b)) })
				n++
			}
		}
	}
	b.checkAll(true)
	if !t.Failed() {
		faults.Report(t, faults.RealContainerd, "a step takes long at a failpoint", "%d delays of %s, 0 half-states", n, slow)
	}
}
