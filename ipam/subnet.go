package ipam

import (
	"cmp"
	"fmt"
	"net/netip"
)

// SubnetState is a subnet's place in its life: (never held) → held →
// quarantined → free → held. A subnet that was never held has no record.
type SubnetState uint8

const (
	// Held: the node may hand out the subnet's addresses.
	Held SubnetState = iota + 1
	// Quarantined: the node was removed by force and may still be alive, or a
	// restore lost who holds the subnet; nobody else gets it until an operator has
	// confirmed that its holder is dead.
	Quarantined
	// SubnetFree: it was held once and may be handed out again.
	SubnetFree
)

func (s SubnetState) String() string {
	switch s {
	case Held:
		return "held"
	case Quarantined:
		return "quarantined"
	case SubnetFree:
		return "free"
	}
	return fmt.Sprintf("SubnetState(%d)", uint8(s))
}

// Subnet is a subnet that is or was held by a node.
type Subnet struct {
	SubnetKey
	State SubnetState
	// Node is the holder; of a quarantined or free subnet the last one, empty with
	// a zero Epoch and Mode when its record was lost (ClaimHeld).
	Node      NodeID
	Epoch     Epoch  // grows each time the subnet is handed out
	Mode      Mode   // of the holder
	Since     uint64 // Raft index of the last change of State
	SinceTime int64  // cluster time of the last change of State, ns
}

// Gateway returns the containers' next hop: the first address of the subnet in
// bridge mode; the zero Addr in routed mode, where it is a link-local one.
func (s Subnet) Gateway() netip.Addr {
	if s.Mode != ModeBridge {
		return netip.Addr{}
	}
	return s.Prefix.Addr().Next()
}

// Fence returns what a command of the subnet's holder carries.
func (s Subnet) Fence() Fence { return Fence{Subnet: s.SubnetKey, Node: s.Node, Epoch: s.Epoch} }

func (k SubnetKey) String() string { return k.Network + " " + k.Prefix.String() }

func compareSubnetKeys(a, b SubnetKey) int {
	if c := cmp.Compare(a.Network, b.Network); c != 0 {
		return c
	}
	if c := a.Prefix.Addr().Compare(b.Prefix.Addr()); c != 0 {
		return c
	}
	return cmp.Compare(a.Prefix.Bits(), b.Prefix.Bits())
}

// nodeSubnet is a subnet that is a node's: held, or left behind in quarantine.
type nodeSubnet struct {
	Node NodeID
	SubnetKey
}

func compareNodeSubnets(a, b nodeSubnet) int {
	if c := cmp.Compare(a.Node, b.Node); c != 0 {
		return c
	}
	return compareSubnetKeys(a.SubnetKey, b.SubnetKey)
}

// Usage counts the addresses of a subnet. Total = Used + Cooling + Reserved + Free.
type Usage struct {
	Total    int
	Used     int // bound or attached
	Cooling  int
	Reserved int
	Free     int
}
