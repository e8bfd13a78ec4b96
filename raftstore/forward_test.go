package raftstore

import (
	"bytes"
	"errors"
	"fmt"
	"testing"

	"github.com/google/go-cmp/cmp"

	"stellar.io/stellar/ipam"
)

func TestRequestCodec(t *testing.T) {
	t.Parallel()
	data, err := tickEnvelope().Encode()
	if err != nil {
		t.Fatal(err)
	}
	for _, q := range []request{
		{kind: ForwardPropose, node: testNode, tag: tag{1, 2, 3}, envelope: data},
		{kind: ForwardRead, node: otherNode},
		{kind: ForwardChange, node: otherNode, change: Change{Op: ChangeAdd, Node: testNode, Address: "a:1", Force: true}},
	} {
		b, err := q.encode()
		if err != nil {
			t.Fatal(err)
		}
		got, err := decodeRequest(b)
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(q, got, cmp.AllowUnexported(request{})); diff != "" {
			t.Error(diff)
		}
		f, err := InspectForward(b)
		if err != nil || f.Kind != q.kind || f.Node != q.node || f.Change != q.change || (len(f.Envelope.Commands) == 1) != (q.kind == ForwardPropose) {
			t.Errorf("inspect: %+v %v", f, err)
		}
		for i := range requestHead {
			if _, err := decodeRequest(b[:i]); !errors.Is(err, ErrRequest) {
				t.Errorf("cut at %d: %v", i, err)
			}
		}
	}
}

func TestAnswerCodec(t *testing.T) {
	t.Parallel()
	for _, c := range answerCodes {
		a, err := decodeAnswer(answerMsg{index: 7, err: fmt.Errorf("more: %w", c.err)}.encode())
		if err != nil || a.index != 7 || !errors.Is(a.err, c.err) || a.err.Error() != "more: "+c.err.Error() {
			t.Errorf("%v: %+v %v", c.err, a, err)
		}
	}
	both := fmt.Errorf("%w: %w", ErrUnknownOutcome, ErrShutdown)
	if a, _ := decodeAnswer(answerMsg{err: both}.encode()); !errors.Is(a.err, ErrUnknownOutcome) {
		t.Errorf("an unknown outcome became %v", a.err)
	}
	if a, _ := decodeAnswer(answerMsg{err: errors.New("x")}.encode()); !errors.Is(a.err, ErrRefused) || errors.Is(a.err, ErrUnknownOutcome) {
		t.Errorf("another error: %v", a.err)
	}
	if a, err := decodeAnswer(answerMsg{index: 9}.encode()); err != nil || a.err != nil || a.index != 9 {
		t.Errorf("%+v %v", a, err)
	}
	if _, err := decodeAnswer([]byte{1}); !errors.Is(err, ErrRequest) {
		t.Error(err)
	}
}

func FuzzRequest(f *testing.F) {
	data, _ := tickEnvelope().Encode()
	for _, q := range []request{
		{kind: ForwardPropose, node: testNode, envelope: data}, {kind: ForwardRead, node: otherNode},
		{kind: ForwardChange, node: otherNode, change: Change{Op: ChangeRemove, Node: testNode}},
	} {
		b, err := q.encode()
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		q, err := decodeRequest(b)
		if err != nil || q.kind == ForwardChange { // JSON has many forms of one value
			return
		}
		if again, err := q.encode(); err != nil || q.kind == ForwardPropose && !bytes.Equal(again, b) {
			t.Errorf("%v", err)
		}
		_, _ = InspectForward(b)
	})
}

func FuzzSnapshotInspect(f *testing.F) {
	s := ipam.New()
	data, err := firstEnvelope().Encode()
	if err != nil {
		f.Fatal(err)
	}
	if _, err := s.Apply(2, data); err != nil {
		f.Fatal(err)
	}
	m := newFSM(nil)
	m.state = s
	var w bytes.Buffer
	if _, err := (&Store{fsm: m}).writeBackup(&w, 1); err != nil {
		f.Fatal(err)
	}
	f.Add(w.Bytes())
	f.Fuzz(func(t *testing.T, b []byte) {
		if _, err := SnapshotInspect(bytes.NewReader(b)); err == nil && !bytes.Equal(b, w.Bytes()) && len(b) == w.Len() {
			t.Error("another file of the same length is accepted")
		}
	})
}

// TestHandleForward: what is not a request, or cannot be executed by everybody, or
// comes from somebody who is no member, is refused before it is proposed.
func TestHandleForward(t *testing.T) {
	b := newBed(t, func(c *Config) { c.Voters = -1 })
	b.form(2, 1)
	l := b.nodes[0]
	if _, err := l.HandleForward(t.Context(), []byte("nonsense")); !errors.Is(err, ErrRequest) {
		t.Error(err)
	}
	last := l.Stats().LastIndex
	ask := func(n *member1, q request) error {
		t.Helper()
		data, err := q.encode()
		if err != nil {
			t.Fatal(err)
		}
		answer, err := n.HandleForward(t.Context(), data)
		if err != nil {
			t.Fatal(err)
		}
		a, err := decodeAnswer(answer)
		if err != nil {
			t.Fatal(err)
		}
		return a.err
	}
	good, _ := tickEnvelope().Encode()
	if err := ask(l, request{kind: ForwardPropose, node: idOf(1), envelope: []byte("poison")}); !errors.Is(err, ipam.ErrUnknownCommand) {
		t.Error(err)
	}
	if err := ask(l, request{kind: ForwardPropose, node: idOf(8), envelope: good}); !errors.Is(err, ErrRemoved) {
		t.Error(err)
	}
	for _, kind := range []ForwardKind{ForwardPropose, ForwardRead, ForwardChange} {
		q := request{kind: kind, node: idOf(0), envelope: good, change: Change{Op: ChangeAdd, Node: idOf(5), Address: "x:1"}}
		if err := ask(b.nodes[1], q); !errors.Is(err, ErrNoLeader) {
			t.Errorf("kind %d on a follower, which must not forward it again: %v", kind, err)
		}
	}
	if now := l.Stats().LastIndex; now != last {
		t.Errorf("something was proposed: %d, was %d", now, last)
	}
}
