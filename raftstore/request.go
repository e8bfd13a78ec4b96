package raftstore

import (
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"

	"stellar.io/stellar/ipam"
)

// A request is one message of a node that does not lead to the leader's
// HandleForward. It is forwarded once: a node that does not lead refuses it. A follower
// sends it to the server that it follows, which passes it on, once: so the leader has
// connections with servers and not with all nodes, and a follower needs no way to it.
//
//	request   version (1) kind (1) node (16) body
//	answer    version (1) code (1) index (8) text
//
// The body of a proposal is its tag (16) and the encoded envelope; of a change its
// JSON; a read has none. followerBit is set in the kind when the node is no member of
// Raft but follows a server, passedBit when that server has passed the request on.
const (
	forwardVersion = 1
	requestHead    = 2 + 16
	answerHead     = 2 + 8
	followerBit    = 0x80
	passedBit      = 0x40
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
	// PassedOn: Node follows the server that sends this, which answers for it.
	PassedOn bool
}

// InspectForward decodes a request, so that the server can check what its caller may
// ask for before it hands the request to HandleForward. It returns ErrRequest, or
// ipam.ErrUnknownCommand for commands of a newer version.
func InspectForward(data []byte) (Forwarded, error) {
	req, err := decodeRequest(data)
	if err != nil {
		return Forwarded{}, err
	}
	f := Forwarded{Kind: req.kind, Node: req.node, Change: req.change, PassedOn: req.passed}
	if req.kind == ForwardPropose {
		f.Envelope, err = ipam.DecodeEnvelope(req.envelope)
	}
	return f, err
}

type request struct {
	kind     ForwardKind
	node     ipam.NodeID
	follows  bool // node is no member of Raft
	passed   bool // by the server that node follows
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
	kind := byte(q.kind)
	if q.follows {
		kind |= followerBit
	}
	if q.passed {
		kind |= passedBit
	}
	b = append(b, forwardVersion, kind)
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
	if data[1]&passedBit != 0 && data[1]&followerBit == 0 {
		return request{}, fmt.Errorf("%w: only a follower's is passed on", ErrRequest)
	}
	q := request{kind: ForwardKind(data[1] &^ (followerBit | passedBit)),
		follows: data[1]&followerBit != 0, passed: data[1]&passedBit != 0,
		node: ipam.NodeID(hex.EncodeToString(data[2:requestHead]))}
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
