package peer

import (
	"errors"
	"fmt"

	"stellar.io/stellar/internal/pki"
	"stellar.io/stellar/ipam"
)

var (
	// ErrNoRaft is returned when a certificate without the Raft capability is used for
	// Raft, and when one of role node is used to call: who never votes never calls.
	ErrNoRaft = errors.New("certificate does not allow to speak Raft")
	// ErrWrongNode is returned when another node than the expected one answers.
	ErrWrongNode = errors.New("another node answers at this address")
	// ErrNotServer is returned when any server would do and the one that answers is none.
	ErrNotServer = errors.New("the node that answers is not a server")
	// ErrGeneration is returned by Admit for the losing side of a restore.
	ErrGeneration = errors.New("the cluster was restored without this node")
	// ErrTooMany is returned to a machine that opens too many connections at once or too often.
	ErrTooMany = errors.New("too many connections from this address, try again in a minute")
	// ErrNotServed is returned when the node does not serve the protocol, or not yet.
	ErrNotServed = errors.New("protocol is not served here")
	// ErrProtocol is returned when the other side does not speak as this package does.
	ErrProtocol = errors.New("the other side does not speak the node-to-node protocol")
	// ErrRefused is wrapped by every RefusedError.
	ErrRefused = errors.New("connection refused by the peer")
)

// RefusedError tells that the server, whose certificate was in order, did not
// accept this node. It wraps ErrRefused and, where the server's reason is one of
// the known sentinels, that one.
type RefusedError struct {
	Server pki.Identity
	Text   string // the server's own words
	// Generation is the cluster's, as the server knows it (Config.Generation).
	Generation uint64
	code       uint8
}

func (e *RefusedError) Error() string {
	return fmt.Sprintf("node %s refused the connection: %s", e.Server, e.Text)
}

func (e *RefusedError) Unwrap() []error {
	for _, c := range codes {
		if c.code == e.code {
			return []error{ErrRefused, c.err}
		}
	}
	return []error{ErrRefused}
}

// codes are the reasons as they go over the wire. Numbers are for ever; 0 is
// "accepted", codeOther a reason without a sentinel.
var codes = [...]struct {
	code uint8
	err  error
}{
	{2, pki.ErrNoCertificate}, {3, pki.ErrUntrusted}, {4, pki.ErrOtherCluster}, {5, pki.ErrExpired},
	{6, pki.ErrNotYetValid}, {7, pki.ErrNoIdentity}, {8, ErrNoRaft}, {9, ipam.ErrNodeRemoved},
	{10, ErrGeneration}, {11, ErrTooMany}, {12, ErrNotServed}, {13, ErrProtocol}, {14, ipam.ErrNodeNotFound},
	{15, ipam.ErrMachineMismatch},
}

const (
	codeAccepted = 0
	codeOther    = 1
)

func codeOf(err error) uint8 {
	if err == nil {
		return codeAccepted
	}
	for _, c := range codes {
		if errors.Is(err, c.err) {
			return c.code
		}
	}
	return codeOther
}
