package raftstore

import (
	"context"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"

	"github.com/hashicorp/raft"

	"stellar.io/stellar/ipam"
)

// A request is one message of a node that does not lead to the leader's
// HandleForward. It is forwarded once: a node that does not lead refuses it.
//
//	request   version (1) kind (1) node (16) body
//	answer    version (1) code (1) index (8) text
//
// The body of a proposal is its tag (16) and the encoded envelope; of a change its
// JSON; a read has none.
const (
	forwardVersion = 1
	requestHead    = 2 + 16
	answerHead     = 2 + 8
)

// ForwardKind is what a forwarded request asks for.
type ForwardKind uint8

// The kinds of requests.
const (
	ForwardPropose ForwardKind = iota + 1
	ForwardRead
	ForwardChange
)

// Forwarded is a request as InspectForward shows it.
type Forwarded struct {
	Kind     ForwardKind
	Node     ipam.NodeID   // that sends it, by its own word: compare with its certificate
	Envelope ipam.Envelope // of ForwardPropose
	Change   Change        // of ForwardChange
}

// InspectForward decodes a request, so that the server can check what its caller may
// ask for before it hands the request to HandleForward. It returns ErrRequest, or
// ipam.ErrUnknownCommand for commands of a newer version.
func InspectForward(data []byte) (Forwarded, error) {
	req, err := decodeRequest(data)
	if err != nil {
		return Forwarded{}, err
	}
	f := Forwarded{Kind: req.kind, Node: req.node, Change: req.change}
	if req.kind == ForwardPropose {
		f.Envelope, err = ipam.DecodeEnvelope(req.envelope)
	}
	return f, err
}

type request struct {
	kind     ForwardKind
	node     ipam.NodeID
	tag      tag
	envelope []byte
	change   Change
}

func (q request) encode() ([]byte, error) {
	id, err := hex.DecodeString(string(q.node))
	if err != nil {
		return nil, fmt.Errorf("%w: node id: %w", ErrRequest, err)
	}
	b := make([]byte, 0, requestHead+len(q.tag)+len(q.envelope))
	b = append(b, forwardVersion, byte(q.kind))
	b = append(b, id...)
	switch q.kind {
	case ForwardPropose:
		b = append(b, q.tag[:]...)
		b = append(b, q.envelope...)
	case ForwardChange:
		j, err := json.Marshal(q.change)
		if err != nil {
			return nil, err
		}
		b = append(b, j...)
	}
	return b, nil
}

func decodeRequest(data []byte) (request, error) {
	if len(data) < requestHead || data[0] != forwardVersion {
		return request{}, fmt.Errorf("%w: %d bytes", ErrRequest, len(data))
	}
	q := request{kind: ForwardKind(data[1]), node: ipam.NodeID(hex.EncodeToString(data[2:requestHead]))}
	body := data[requestHead:]
	switch q.kind {
	case ForwardPropose:
		if len(body) < len(q.tag) {
			return request{}, fmt.Errorf("%w: no tag", ErrRequest)
		}
		q.envelope = body[copy(q.tag[:], body):]
	case ForwardRead:
	case ForwardChange:
		if err := json.Unmarshal(body, &q.change); err != nil {
			return request{}, fmt.Errorf("%w: %w", ErrRequest, err)
		}
	default:
		return request{}, fmt.Errorf("%w: kind %d", ErrRequest, q.kind)
	}
	return q, nil
}

// answerCodes gives each error that the leader may answer its number. Codes are
// never given a second meaning; 0 is success, otherRefusal an error of another kind
// that is a definite no.
var answerCodes = [...]struct {
	code byte
	err  error
}{
	{1, ErrUnknownOutcome}, // first: it wraps others
	{2, ErrNoLeader}, {3, ErrBusy}, {4, ErrNotStarted}, {5, ErrShutdown}, {6, ErrStopped},
	{7, ipam.ErrInvalid}, {8, ErrNotMember}, {9, ErrQuorum}, {10, ErrNotReady}, {11, ErrRequest},
	{12, ipam.ErrUnknownCommand}, {13, ErrRemoved},
}

const otherRefusal = 255

type answerMsg struct {
	index uint64 // of the entry, or of the read
	err   error
}

func (a answerMsg) encode() []byte {
	b := binary.BigEndian.AppendUint64([]byte{forwardVersion, 0}, a.index)
	if a.err == nil {
		return b
	}
	b[1] = otherRefusal
	for _, c := range answerCodes {
		if errors.Is(a.err, c.err) {
			b[1] = c.code
			break
		}
	}
	return append(b, a.err.Error()...)
}

// leaderError is an error that the leader answered.
type leaderError struct {
	text string
	kind error
}

func (e *leaderError) Error() string { return e.text }
func (e *leaderError) Unwrap() error { return e.kind }

func decodeAnswer(b []byte) (answerMsg, error) {
	if len(b) < answerHead || b[0] != forwardVersion {
		return answerMsg{}, fmt.Errorf("%w: answer of %d bytes", ErrRequest, len(b))
	}
	a := answerMsg{index: binary.BigEndian.Uint64(b[2:])}
	if b[1] == 0 {
		return a, nil
	}
	e := &leaderError{text: string(b[answerHead:]), kind: ErrRefused}
	for _, c := range answerCodes {
		if c.code == b[1] {
			e.kind = c.err
		}
	}
	a.err = e
	return a, nil
}

// ask sends a request to the leader and returns its answer. An error that wraps
// ErrUnknownOutcome means that the leader may have done it; it is what the leader
// said, or that no answer came.
func (s *Store) ask(ctx context.Context, leader ipam.NodeID, addr string, q request) (answerMsg, error) {
	if leader == s.cfg.NodeID {
		return answerMsg{}, ErrNoLeader // just elected, or just deposed: it never asks itself
	}
	q.node = s.cfg.NodeID
	data, err := q.encode()
	if err != nil {
		return answerMsg{}, err
	}
	b, err := s.cfg.Forward(ctx, leader, addr, data)
	switch {
	case errors.Is(err, ErrNotSent):
		return answerMsg{}, fmt.Errorf("%w: leader %s: %w", ErrNoLeader, leader.Short(), err)
	case err != nil:
		return answerMsg{}, fmt.Errorf("%w: leader %s: %w", ErrUnknownOutcome, leader.Short(), err)
	}
	a, err := decodeAnswer(b)
	if err != nil {
		return answerMsg{}, fmt.Errorf("%w: leader %s: %w", ErrUnknownOutcome, leader.Short(), err)
	}
	if a.err != nil {
		return answerMsg{}, fmt.Errorf("leader %s: %w", leader.Short(), a.err)
	}
	return a, nil
}

// forwardProposal proposes through the leader and waits until the entry is applied
// here. That is known by the entry's tag, also when the leader's answer is lost.
func (s *Store) forwardProposal(ctx context.Context, r *raft.Raft, data []byte) ([]ipam.Result, error) {
	addr, leader := r.LeaderWithID()
	if leader == "" || nodeID(leader) == s.cfg.NodeID || s.removed(r) {
		return nil, s.notLeader(r)
	}
	t := s.newTag()
	seen := s.fsm.expect(t)
	defer s.fsm.unexpect(t)
	ctx, cancel := s.whileMember(ctx, r)
	defer cancel()
	type asked struct {
		index uint64
		err   error
	}
	answers := make(chan asked, 1)
	go func() { // ends with ctx at the latest, as Config.Forward promises
		a, err := s.ask(ctx, nodeID(leader), string(addr), request{kind: ForwardPropose, tag: t, envelope: data})
		answers <- asked{a.index, err}
	}()
	select {
	case a := <-seen:
		return a.results, a.err
	case <-ctx.Done():
		return nil, fmt.Errorf("%w: %w", ErrUnknownOutcome, context.Cause(ctx))
	case a := <-answers:
		if a.err != nil {
			return nil, a.err
		}
		if err := s.fsm.wait(ctx, a.index); err != nil {
			return nil, fmt.Errorf("%w: committed at %d, not applied here: %w", ErrUnknownOutcome, a.index, err)
		}
	}
	select {
	case a := <-seen:
		return a.results, a.err
	default: // a snapshot brought it here, without its results
		return nil, fmt.Errorf("%w: committed, its results came in a snapshot", ErrUnknownOutcome)
	}
}

// newTag returns a tag that no other proposal has, of this process or any other.
func (s *Store) newTag() (t tag) {
	copy(t[:8], s.tagBase[:])
	binary.BigEndian.PutUint64(t[8:], s.tagCount.Add(1))
	return t
}

// forwardChange makes a membership change through the leader.
func (s *Store) forwardChange(ctx context.Context, r *raft.Raft, c Change) error {
	addr, leader := r.LeaderWithID()
	if leader == "" || s.cfg.Forward == nil {
		return s.notLeader(r)
	}
	_, err := s.ask(ctx, nodeID(leader), string(addr), request{kind: ForwardChange, change: c})
	return err
}

// HandleForward executes a request that another node's Config.Forward has sent, and
// returns the answer for it. It never forwards. It returns an error only for what is
// not a request (ErrRequest): whatever happened to the request is in the answer. The
// caller has checked that the sender may ask for it (InspectForward).
func (s *Store) HandleForward(ctx context.Context, data []byte) (answer []byte, err error) {
	q, err := decodeRequest(data)
	if err != nil {
		return nil, fmt.Errorf("handle forward: %w", err)
	}
	var a answerMsg
	switch q.kind {
	case ForwardPropose:
		a.index, a.err = s.proposeFor(ctx, q)
	case ForwardRead:
		a.index, a.err = s.readFor(ctx, q.node)
	case ForwardChange:
		a.err = s.change(ctx, q.change, false)
	}
	return a.encode(), nil
}

// proposeFor proposes for another node.
func (s *Store) proposeFor(ctx context.Context, q request) (uint64, error) {
	if _, err := ipam.DecodeEnvelope(q.envelope); err != nil {
		return 0, err // committed, it would stop every node
	}
	r, err := s.begin()
	if err != nil {
		return 0, err
	}
	if !member(r, raft.ServerID(q.node)) {
		s.proposals.Done()
		return 0, ErrRemoved // it would wait for an entry that it never gets
	}
	a := s.apply(ctx, r, taggedEntry(q.envelope, q.tag[:]))
	if a.err == nil {
		s.tellOf(r, q.node, a.index)
	}
	return a.index, a.err
}

// readFor answers a linearizable read of another node.
func (s *Store) readFor(ctx context.Context, node ipam.NodeID) (uint64, error) {
	r, err := s.begin()
	if err != nil {
		return 0, err
	}
	defer s.proposals.Done()
	index, err := s.readIndex(ctx, r)
	if err == nil {
		s.tellOf(r, node, index)
	}
	return index, err
}

// tellOf lets a node that waits for an entry know at once that it is committed.
func (s *Store) tellOf(r *raft.Raft, node ipam.NodeID, index uint64) {
	var l raft.Log
	term := leadTerm(r)
	if s.trans == nil || term == 0 || !member(r, raft.ServerID(node)) || s.log.GetLog(index, &l) != nil {
		return
	}
	s.trans.hint(raft.ServerID(node), term, index, l.Term)
}
