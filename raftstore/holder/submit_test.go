package holder

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"stellar.io/stellar/ipam"
	"stellar.io/stellar/raftstore"
)

// TestSubmitOutlivesLeaders: a command that meets changes of leadership is executed
// once, and its result is that of this once.
func TestSubmitOutlivesLeaders(t *testing.T) {
	reserve := ipam.ReserveAddress{Network: ipam.DefaultNetwork, Prefix: netipPrefix("172.16.64.0/22"), Reason: "x"}
	release := ipam.UnreserveAddress{Network: ipam.DefaultNetwork, Prefix: reserve.Prefix}
	for _, tt := range []struct {
		name   string
		faults []fault
		sent   int
	}{
		{"the answer is lost", []fault{replyLost}, 2},
		{"the entry is lost", []fault{lost, lost}, 3},
		{"an election", []fault{noLeader, noLeader, noLeader}, 4},
		{"committed, then an election", []fault{replyLost, noLeader, noLeader}, 4},
		{"a slow leader", []fault{slow}, 1},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := newFakeStore(t, 22)
				n := newNode(t, s)
				synctest.Wait()
				s.must(reserve)
				before := s.proposals()
				left := tt.faults
				s.setFault(func() fault {
					if len(left) == 0 {
						return none
					}
					f := left[0]
					left = left[1:]
					return f
				})
				// Executed twice it would be refused: there is no such reservation any more.
				results, err := n.Submit(t.Context(), release)
				if err != nil || results[0].Err != nil {
					t.Errorf("%+v, %v", results, err)
				}
				if got := s.proposals() - before; got != tt.sent {
					t.Errorf("%d proposals, want %d", got, tt.sent)
				}
				for _, id := range s.sent()[before:] {
					if id != s.sent()[before] || id.Node != testNode {
						t.Errorf("request ids %v", s.sent()[before:])
					}
				}
			})
		})
	}
}

// TestSubmitGivesUp: it says in time what it knows.
func TestSubmitGivesUp(t *testing.T) {
	command := ipam.DrainNode{Node: testNode}
	for _, tt := range []struct {
		name   string
		faults []fault // the last one stays
		limit  time.Duration
		want   error
		within time.Duration
	}{
		{"no leader at all", []fault{noLeader}, time.Minute, raftstore.ErrNoLeader, 6 * time.Second},
		{"no leader in the caller's time", []fault{noLeader}, time.Second, raftstore.ErrNoLeader, 900 * time.Millisecond},
		{"in doubt for ever", []fault{lost}, 10 * time.Second, raftstore.ErrUnknownOutcome, 9900 * time.Millisecond},
		{"in doubt, then no leader", []fault{lost, noLeader}, time.Minute, raftstore.ErrUnknownOutcome, 6 * time.Second},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := newFakeStore(t, 22)
				n := newNode(t, s)
				synctest.Wait()
				left := tt.faults
				s.setFault(func() fault {
					f := left[0]
					if len(left) > 1 {
						left = left[1:]
					}
					return f
				})
				ctx, cancel := context.WithTimeout(t.Context(), tt.limit)
				defer cancel()
				began := time.Now()
				_, err := n.Submit(ctx, command)
				if !errors.Is(err, tt.want) || errors.Is(err, raftstore.ErrUnknownOutcome) != (tt.want == raftstore.ErrUnknownOutcome) {
					t.Errorf("%v, want %v", err, tt.want)
				}
				if took := time.Since(began); took > tt.within {
					t.Errorf("after %s, want %s", took, tt.within)
				}
				s.setFault(always(none))
			})
		})
	}
}

// TestSubmitSkipsStrangeNumbers: a request id that somebody else has used is not
// taken for an answer.
func TestSubmitSkipsStrangeNumbers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newFakeStore(t, 22)
		n := newNode(t, s)
		synctest.Wait()
		id, err := n.seq.next()
		if err != nil {
			t.Fatal(err)
		}
		id.Seq++
		s.mu.Lock()
		data, _ := ipam.Envelope{Request: id, Commands: []ipam.Command{ipam.Tick{Elapsed: time.Second}}}.Encode()
		s.apply(data)
		s.mu.Unlock()
		results, err := n.Submit(t.Context(), ipam.DrainNode{Node: testNode, Drain: true})
		if err != nil || results[0].Err != nil {
			t.Fatalf("%+v, %v", results, err)
		}
		s.View(func(st *ipam.State) {
			if m, _ := st.Node(testNode); !m.Draining {
				t.Error("not executed")
			}
		})
	})
}
