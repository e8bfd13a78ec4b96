package holder

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"strconv"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"stellar.io/stellar/ipam"
)

// crowd binds for many owners at once and returns what each got.
func (n *node) crowd(count int, want func(i int) string) (held []Held, errs []error) {
	held, errs = make([]Held, count), make([]error, count)
	var wg sync.WaitGroup
	for i := range count {
		r := BindRequest{Owner: owner("crowd" + strconv.Itoa(i))}
		if w := want(i); w != "" {
			r.Want = addr(w)
		}
		wg.Go(func() { held[i], errs[i] = n.Bind(context.Background(), r) })
	}
	wg.Wait()
	return held, errs
}

func whatever(int) string { return "" }

// grouped is a node with one group at a time.
func grouped(t *testing.T, store *fakeStore) *node {
	n := newNode(t, store)
	n.groups = 1
	n.restart()
	return n
}

// What comes while a group is under way goes with the next: one envelope, one write of
// the journal, one request id.
func TestGroup(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := grouped(t, newFakeStore(t, 22))
		n.store.takes = 200 * time.Millisecond
		before, begin := n.store.proposals(), time.Now()
		held, errs := n.crowd(200, whatever)
		if took := time.Since(begin); took > 400*time.Millisecond {
			t.Errorf("two groups of 200 ms at most took %s", took)
		}
		if got := n.store.proposals() - before; got > 2 {
			t.Errorf("%d proposals", got)
		}
		for i, h := range held {
			if l := n.store.leases()[h.Addr]; errs[i] != nil || h.Provisional || l.Owner != h.Owner {
				t.Errorf("%+v %v, the replica has %+v", h, errs[i], l)
			}
		}
		if err := n.Check(); err != nil {
			t.Error(err)
		}
		if c := n.Counts(); c.Bound != 200 || c.Provisional != 0 {
			t.Errorf("%+v", c)
		}
	})
}

// More than a group holds goes in several, each within what an envelope may have.
func TestGroupIsBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := grouped(t, newFakeStore(t, 20))
		n.store.takes = time.Millisecond
		before := n.store.proposals()
		long := strings.Repeat("h", 253)
		var wg sync.WaitGroup
		for i := range 3*maxGroup + 1 {
			o := owner(fmt.Sprintf("%0128d", i))
			o.Namespace, o.Interface = strings.Repeat("n", 76), strings.Repeat("i", 15)
			wg.Go(func() {
				if h, err := n.Bind(context.Background(), BindRequest{Owner: o, Hostname: long}); err != nil || h.Provisional {
					t.Errorf("%+v %v", h, err)
				}
			})
		}
		wg.Wait()
		if got := n.store.proposals() - before; got != 4 && got != 5 {
			t.Errorf("%d proposals", got)
		}
	})
}

// A refusal is for the lease that it is about: one that had picked gets the next
// address, one that had asked is refused, the others do not notice.
func TestGroupRefusals(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := grouped(t, newFakeStore(t, 26))
		f := n.store.subnet()
		n.store.must(ipam.ReserveAddress{ // behind the holder's back
			Network: f.Network, Prefix: netipPrefix("172.16.0.5/32"), Reason: "elsewhere", Node: f.Node, Epoch: f.Epoch,
		}, ipam.ReserveAddress{
			Network: f.Network, Prefix: netipPrefix("172.16.0.40/32"), Reason: "elsewhere", Node: f.Node, Epoch: f.Epoch,
		})
		n.store.takes = time.Millisecond
		held, errs := n.crowd(20, func(i int) string {
			if i == 7 {
				return "172.16.0.40"
			}
			return ""
		})
		for i, h := range held {
			switch {
			case i == 7:
				if !errors.Is(errs[i], ipam.ErrAddressReserved) {
					t.Errorf("static: %+v %v", h, errs[i])
				}
			case errs[i] != nil || h.Provisional || h.Addr == addr("172.16.0.5"):
				t.Errorf("%+v %v", h, errs[i])
			}
		}
		n.restart()
		if c := n.Counts(); c.Bound != 19 {
			t.Errorf("%+v", c)
		}
		if err := n.Check(); err != nil {
			t.Error(err)
		}
	})
}

// A group of unknown outcome is unresolved for each of its leases, over a restart too,
// and is proposed again under the one id that it has.
func TestGroupUnknown(t *testing.T) {
	for _, f := range []fault{lost, late, replyLost, noLeader} {
		for _, restarts := range []bool{false, true} {
			synctest.Test(t, func(t *testing.T) {
				n := grouped(t, newFakeStore(t, 26))
				first := true // is committed, while the others gather
				n.store.takes = time.Millisecond
				n.store.setFault(func() fault {
					if first {
						first = false
						return none
					}
					return f
				})
				var ahead sync.WaitGroup
				ahead.Go(func() { n.mustBind("ahead", "") })
				synctest.Wait()
				held, errs := n.crowd(20, whatever)
				ahead.Wait()
				if err := errors.Join(errs...); err != nil {
					t.Fatal(err)
				}
				const at = 3
				gone := held[at]
				n.mustRelease(gone.Owner.ID)
				if restarts {
					n.kill()
					if err := n.start(); err != nil {
						t.Fatal(err)
					}
				}
				time.Sleep(2 * time.Minute) // long cooled, were it resolved
				if f == lost || f == late { // the others were executed, or never proposed
					if err := n.bindErr("other", gone.Addr.String()); !errors.Is(err, ErrUnresolved) {
						t.Errorf("fault %d restart %v: %v", f, restarts, err)
					}
				}
				n.store.setFault(always(none))
				before := n.store.proposals()
				time.Sleep(10 * time.Second)
				n.store.deliver(rand.New(rand.NewPCG(1, 1))) // is refused: its id was used
				time.Sleep(2 * time.Minute)
				if got := n.store.proposals() - before; got > 8 {
					t.Errorf("fault %d restart %v: %d proposals for 20 leases", f, restarts, got)
				}
				if c := n.Counts(); c.Bound != 20 || c.Provisional != 0 || c.Cooling != 0 {
					t.Errorf("fault %d restart %v: %+v", f, restarts, c)
				}
				have := n.store.leases()
				for i, h := range held {
					if l := have[h.Addr]; i != at && l.Owner != h.Owner || i == at && l.State != 0 {
						t.Errorf("fault %d restart %v: the replica has %+v for %+v", f, restarts, l, h)
					}
				}
				if err := n.Check(); err != nil {
					t.Error(err)
				}
			})
		}
	}
}

// Who waits behind a leader that does not answer waits no longer than CommitWait itself.
func TestGroupCommitWait(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := grouped(t, newFakeStore(t, 26))
		n.store.setFault(always(verySlow))
		var wg sync.WaitGroup
		for i := range 5 {
			wg.Go(func() {
				time.Sleep(time.Duration(i) * 100 * time.Millisecond)
				begin := time.Now()
				h, err := n.Bind(context.Background(), BindRequest{Owner: owner(strconv.Itoa(i))})
				if took := time.Since(begin); err != nil || !h.Provisional || took > 500*time.Millisecond {
					t.Errorf("%+v %v after %s", h, err, took)
				}
			})
		}
		wg.Wait()
	})
}

// What the state refuses for everything refuses the whole group, and frees its addresses.
func TestGroupFenced(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := grouped(t, newFakeStore(t, 26))
		n.store.must(ipam.RemoveNode{Node: testNode, Force: true})
		n.store.takes = time.Millisecond
		_, errs := n.crowd(20, whatever)
		for _, err := range errs {
			if !errors.Is(err, ErrFenced) {
				t.Errorf("%v", err)
			}
		}
		if c := n.Counts(); c.Bound != 0 {
			t.Errorf("%+v", c)
		}
		if err := n.Check(); err != nil {
			t.Error(err)
		}
	})
}

// A round that has waited for the leader does not hold up the next: when a leader is
// there again, what is to be replicated goes at once.
func TestRoundsDoNotRestForALeader(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNode(t, newFakeStore(t, 22))
		n.store.setFault(always(verySlow))
		held := n.mustBind("a", "")
		if !held.Provisional {
			t.Fatalf("%+v", held)
		}
		time.Sleep(time.Second) // a round proposes it again, and waits
		n.store.setFault(always(none))
		replicated := func(want ipam.LeaseState) time.Duration {
			t.Helper()
			for begin := time.Now(); ; time.Sleep(time.Millisecond) {
				if l, ok := n.store.leases()[held.Addr]; ok && l.State == want {
					return time.Since(begin)
				}
				if time.Since(begin) > time.Minute {
					t.Fatalf("not %v within a minute", want)
				}
			}
		}
		replicated(ipam.Bound)
		n.mustRelease("a")
		if took := replicated(ipam.Cooling); took > time.Second {
			t.Errorf("a release was replicated after %s", took)
		}
	})
}
