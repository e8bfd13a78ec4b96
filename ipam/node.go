package ipam

// Node is a member of the cluster, or the tombstone of one.
type Node struct {
	ID        NodeID
	Name      string // unique among the nodes that are not removed
	MachineID string // of the machine that the identity was made on
	Address   string // where other nodes reach it
	Version   string // of Stellar
	Mode      Mode
	Role      Role
	// Draining: an operator wants no new endpoints on the node. The node itself
	// heeds it; the state goes on accepting its leases, for what a node has
	// attached before it heard must stay recorded.
	Draining bool
	// Removed marks a tombstone: this incarnation never comes back. A tombstone
	// keeps its ID and Name only.
	Removed bool
	Joined  uint64 // Raft index at which it was registered
	Changed uint64 // Raft index of its last change
}
