package ipam

import (
	"cmp"
	"fmt"
	"net/netip"
	"strings"
)

// NodeID is a node's incarnation: 128 random bits as 32 lower-case hexadecimal
// digits, made together with the node's data directory. A directory that is
// lost takes its NodeID with it; the machine comes back as a new incarnation.
// The same text is the node's Raft server id.
type NodeID string

// Short returns the first eight digits, for people and for marks in the kernel.
func (n NodeID) Short() string {
	if len(n) > 8 {
		return string(n[:8])
	}
	return string(n)
}

// Valid reports whether n has the form of a NodeID.
func (n NodeID) Valid() bool {
	if len(n) != 32 {
		return false
	}
	return strings.Trim(string(n), "0123456789abcdef") == ""
}

// Epoch orders the holders of one subnet. Counter grows each time the subnet
// changes hands; Generation grows with each restore or recovery of the cluster
// and outranks Counter. A command that carries an older epoch is refused.
type Epoch struct {
	Generation uint64
	Counter    uint64
}

// Compare returns -1, 0 or +1 as e is older than, equal to or newer than f.
func (e Epoch) Compare(f Epoch) int {
	if c := cmp.Compare(e.Generation, f.Generation); c != 0 {
		return c
	}
	return cmp.Compare(e.Counter, f.Counter)
}

func (e Epoch) String() string { return fmt.Sprintf("%d.%d", e.Generation, e.Counter) }

// RequestID names one proposal for ever: the proposing node and a counter that
// the node never uses twice. The zero RequestID is not remembered.
type RequestID struct {
	Node NodeID
	Seq  uint64
}

// OwnerKind tells what kind of thing holds an address, and so what ends its hold.
type OwnerKind uint8

const (
	// OwnerContainer is a containerd container; deleting its record ends the hold.
	OwnerContainer OwnerKind = iota + 1
	// OwnerCNI is a CNI attachment without a containerd container; DEL or GC ends it.
	OwnerCNI
	// OwnerManual is an attachment made by hand; detaching it by hand ends it.
	OwnerManual
)

func (k OwnerKind) String() string {
	switch k {
	case OwnerContainer:
		return "container"
	case OwnerCNI:
		return "cni"
	case OwnerManual:
		return "manual"
	}
	return fmt.Sprintf("OwnerKind(%d)", uint8(k))
}

// Owner is what holds an address. It is comparable. Created tells a container
// from a later one that reuses its id: nanoseconds since the Unix epoch as
// containerd recorded them, 0 where there is no containerd container.
type Owner struct {
	Kind      OwnerKind
	Namespace string // containerd namespace
	ID        string // container id, at most 76 bytes (containerd's limit)
	Created   int64
	Interface string // interface name inside the container
}

func (o Owner) String() string { return o.Namespace + "/" + o.ID + ":" + o.Interface }

// LeaseState is a lease's place in its life: bound → attached → cooling → free.
// A free address has no lease.
type LeaseState uint8

const (
	// Bound: the owner has the address, no interface carries it.
	Bound LeaseState = iota + 1
	// Attached: an interface of the owner carries the address.
	Attached
	// Cooling: the owner is gone; the address is kept from others for a while.
	Cooling
)

func (s LeaseState) String() string {
	switch s {
	case Bound:
		return "bound"
	case Attached:
		return "attached"
	case Cooling:
		return "cooling"
	}
	return fmt.Sprintf("LeaseState(%d)", uint8(s))
}

// Mode is how a node attaches its containers.
type Mode uint8

const (
	// ModeBridge puts the containers of a node on one Linux bridge.
	ModeBridge Mode = iota + 1
	// ModeRouted gives each container a /32 and a host route.
	ModeRouted
)

func (m Mode) String() string {
	switch m {
	case ModeBridge:
		return "bridge"
	case ModeRouted:
		return "routed"
	}
	return fmt.Sprintf("Mode(%d)", uint8(m))
}

// Role is what a node may become in Raft.
type Role uint8

const (
	// RoleServer may be made a voter.
	RoleServer Role = iota + 1
	// RoleNode never votes.
	RoleNode
)

func (r Role) String() string {
	switch r {
	case RoleServer:
		return "server"
	case RoleNode:
		return "node"
	}
	return fmt.Sprintf("Role(%d)", uint8(r))
}

// DefaultNetwork is the name of the one network that is served today.
const DefaultNetwork = "default"

// SubnetKey names a subnet of a network.
type SubnetKey struct {
	Network string
	Prefix  netip.Prefix
}
