// Package peerapi is what the nodes of a cluster ask of each other: the Peer
// service for members, who have shown a certificate, and the Join service for
// those who have only a token. It says what each certificate may ask (Allowed,
// CheckForward), serves both, and calls them. Connections are not made here:
// package internal/peer has them, and says who is at their other end.
package peerapi

import (
	"context"
	"net/netip"
	"time"

	"stellar.io/stellar/api"
	"stellar.io/stellar/ipam"
)

// Caller is who sent a request, as the certificate on its connection says.
type Caller struct {
	Node ipam.NodeID
	Name string
	Role string // api.RoleServer or api.RoleNode
	Raft bool   // may speak Raft
}

type callerKey struct{}

// WithCaller returns a context for a request of c.
func WithCaller(ctx context.Context, c Caller) context.Context {
	return context.WithValue(ctx, callerKey{}, c)
}

// CallerOf returns the node whose request ctx is of; false for a request that no
// node sent.
func CallerOf(ctx context.Context) (Caller, bool) {
	c, ok := ctx.Value(callerKey{}).(Caller)
	return c, ok
}

// Membership is what a cluster thinks of a node.
type Membership string

const (
	Member  Membership = "member"
	Removed Membership = "removed" // a tombstone: this incarnation never comes back
	// Unknown: the answering node's state has never heard of it. A node that lags
	// says so of the newest member: compare Standing.Index.
	Unknown Membership = "unknown"
)

// Standing is the answer to WhoAmI.
type Standing struct {
	Membership Membership
	Generation uint64       // of the answering node's state
	Subnet     netip.Prefix // that the caller holds; zero: none
	Epoch      ipam.Epoch
	Draining   bool
	Index      uint64 // up to which the answering node has applied
	Life       uint32 // of the generation (ipam.Cluster)
}

// Announcement tells where a node is reached and which version it runs.
type Announcement struct {
	Address string // host:port
	Version string
}

// Claim is what a node says of itself and of what it holds.
type Claim struct {
	Name      string
	MachineID string
	Address   string // host:port
	Version   string
	Mode      ipam.Mode
	Subnet    netip.Prefix // zero: none
	Epoch     ipam.Epoch
	// Empty: the node's store has nothing in it, and Raft is to have the node. Else
	// what the node has from an earlier life of the cluster may contradict Raft's log.
	Empty bool
}

// ClaimAnswer is what became of a claim. When nothing has, for the node that was
// asked does not lead, Leader says who does, as far as it knows.
type ClaimAnswer struct {
	Generation    uint64
	Life          uint32
	Accepted      bool
	Leader        ipam.NodeID
	LeaderAddress string
}

// JoinRequest is what a node asks that wants to become a member.
type JoinRequest struct {
	TokenID   string
	Secret    [16]byte // of the token; hashed before anything keeps it
	CSR       []byte   // DER, PKCS #10
	Node      ipam.NodeID
	Name      string
	MachineID string
	Address   string // host:port of its node-to-node port
	Version   string
	Mode      ipam.Mode
	// ModeImplied: Mode is not configured, the cluster chooses.
	ModeImplied bool
	HostRanges  []netip.Prefix // that its host already uses for something else
	Replace     string         // name of a member whose place it takes; empty: none
	Time        time.Time      // its clock
	Follow      bool           // it wants no part in Raft
}

// JoinAnswer is a membership.
type JoinAnswer struct {
	Chain         [][]byte // DER, leaf first
	CA            []byte   // DER
	Cluster       string
	Generation    uint64
	Network       string
	NetworkPrefix netip.Prefix
	Subnet        netip.Prefix
	Epoch         ipam.Epoch
	Role          string
	Leader        ipam.NodeID // empty: unknown
	Members       []MemberInfo
	Index         uint64         // of the entry that made the membership
	Reserved      []netip.Prefix // host ranges that were reserved
}

// MemberInfo is a member as a joiner is told of it.
type MemberInfo struct {
	ID      ipam.NodeID
	Name    string
	Address string
	Role    string
}

// denied is the refusal of a caller.
func denied(c Caller, format string, args ...any) error {
	e := api.Errorf(api.CodeDenied, format, args...)
	if c.Role == api.RoleNode {
		return e.WithHint("a certificate of role node may not; run the command on a server, `stellar node ls` shows them")
	}
	return e
}
