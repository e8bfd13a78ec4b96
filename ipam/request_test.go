package ipam

import (
	"bytes"
	"errors"
	"testing"
	"time"
)

func TestRequestReplay(t *testing.T) {
	t.Parallel()
	s := cluster(t, 1)
	f := fence(t, s, 1)
	env := Envelope{Request: RequestID{nodeID(1), 5}, Commands: []Command{
		BindLease{Fence: f, Addr: mustAddr("172.16.0.2"), Owner: owner("a")},
		BindLease{Fence: f, Addr: mustAddr("172.16.0.3"), Owner: owner("a")},
		ClaimSubnet{Node: nodeID(1), Network: DefaultNetwork},
		Tick{time.Second},
	}}
	first := apply(t, s, env)
	if first.Duplicate {
		t.Fatal("the first one is no duplicate")
	}
	ok(t, s, ReleaseLease{f, mustAddr("172.16.0.2"), owner("a")})
	restored, err := Restore(bytes.NewReader(written(t, s)))
	if err != nil {
		t.Fatal(err)
	}
	for _, s := range []*State{s, restored} {
		before := s.Hash()
		again := apply(t, s, env)
		if !again.Duplicate || len(again.Deltas) > 0 || s.Hash() != before {
			t.Fatalf("a replay was executed: %v", again)
		}
		for i, r := range again.Results {
			if ErrorCode(r.Err) != ErrorCode(first.Results[i].Err) {
				t.Errorf("result %d: got %v, want %v", i, r.Err, first.Results[i].Err)
			}
			r.Err, first.Results[i].Err = nil, nil
			equal(t, "result", r, first.Results[i])
		}
		first = again
	}
}

func TestRequestReused(t *testing.T) {
	t.Parallel()
	s := cluster(t, 1)
	id := RequestID{nodeID(1), 1}
	apply(t, s, Envelope{id, []Command{Tick{time.Second}}})
	before := s.Hash()
	out := apply(t, s, Envelope{id, []Command{Tick{2 * time.Second}, Tick{}}})
	for _, r := range out.Results {
		if !errors.Is(r.Err, ErrRequestReused) {
			t.Errorf("got %v", r.Err)
		}
	}
	if s.Hash() != before {
		t.Error("the state has changed")
	}
}

func TestRequestInvalid(t *testing.T) {
	t.Parallel()
	s := cluster(t, 1)
	for _, id := range []RequestID{{nodeID(1), 0}, {"x", 1}, {"", 1}} {
		out := apply(t, s, Envelope{id, []Command{Tick{time.Second}}})
		if !errors.Is(out.Results[0].Err, ErrInvalid) {
			t.Errorf("%v: %v", id, out.Results[0].Err)
		}
	}
	if s.requests.len() != 0 {
		t.Error("an invalid request is remembered")
	}
}

// TestRequestWindow: the newest requests are remembered, an older one is refused
// rather than executed twice, whatever the order they come in.
func TestRequestWindow(t *testing.T) {
	t.Parallel()
	s := cluster(t, 1)
	tick := func(seq uint64) Outcome {
		return apply(t, s, Envelope{RequestID{nodeID(1), seq}, []Command{Tick{time.Millisecond}}})
	}
	const last = maxRequests + 50
	for seq := uint64(last); seq > 0; seq-- {
		if out := tick(seq); seq > last-maxRequests && out.Results[0].Err != nil {
			t.Fatalf("request %d: %v", seq, out.Results[0].Err)
		}
	}
	if n := s.requests.len(); n != maxRequests {
		t.Errorf("%d requests are remembered", n)
	}
	if out := tick(last); !out.Duplicate || out.Results[0].Err != nil {
		t.Errorf("the newest: %v", out)
	}
	if out := tick(1); !errors.Is(out.Results[0].Err, ErrRequestForgotten) || len(out.Deltas) > 0 {
		t.Errorf("an old one: %v", out)
	}
}

func TestRequestWindowCountsResults(t *testing.T) {
	t.Parallel()
	s := cluster(t, 1)
	many := make([]Command, MaxCommands/2)
	for i := range many {
		many[i] = Tick{}
	}
	for seq := range uint64(6) {
		apply(t, s, Envelope{RequestID{nodeID(1), seq + 1}, many})
	}
	if n := s.requests.len(); n != 4 {
		t.Errorf("%d requests are remembered", n)
	}
}

// TestRequestOfStranger: only those of members are remembered; removal forgets them.
func TestRequestOfStranger(t *testing.T) {
	t.Parallel()
	s := cluster(t, 1)
	apply(t, s, Envelope{RequestID{nodeID(2), 1}, []Command{Tick{time.Second}}})
	if n := s.requests.len(); n != 0 {
		t.Errorf("%d requests are remembered", n)
	}
	// A node's own registration makes it a member in the same entry.
	apply(t, s, Envelope{RequestID{nodeID(2), 1}, []Command{registerCmd(2)}})
	if n := s.requests.len(); n != 1 {
		t.Errorf("%d requests are remembered", n)
	}
	for seq := range uint64(maxRequests + 5) {
		apply(t, s, Envelope{RequestID{nodeID(2), seq + 2}, []Command{Tick{}}})
	}
	apply(t, s, Envelope{RequestID{nodeID(2), 1000}, []Command{RemoveNode{Node: nodeID(2)}}})
	if n := s.requests.len() + s.forgotten.len(); n != 0 {
		t.Errorf("%d requests are remembered of a removed node", n)
	}
}

// TestApplyTooMany: an entry with more commands than Encode allows is refused
// whole, with a result each.
func TestApplyTooMany(t *testing.T) {
	t.Parallel()
	s := cluster(t, 1)
	data := []byte{envelopeVersion}
	for range MaxCommands + 1 {
		data = append(data, 0x12, 2, 0x6a, 0) // an empty Tick
	}
	before := s.Hash()
	out, err := s.Apply(s.Index()+1, data)
	if err != nil || len(out.Results) != MaxCommands+1 || !errors.Is(out.Results[0].Err, ErrInvalid) || s.Hash() != before {
		t.Errorf("%v, %d results", err, len(out.Results))
	}
}
