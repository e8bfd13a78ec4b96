package api

import "net/netip"

// What Status of a node may be.
const (
	NodeReady    = "ready"
	NodeJoining  = "joining"  // a member without a subnet, or not caught up yet
	NodeDraining = "draining" // gets no new endpoints
	NodeLost     = "lost"     // does not answer
	NodeFenced   = "fenced"   // finds itself removed or of an older generation
	NodeRemoved  = "removed"  // a tombstone, listed while its subnet is quarantined
)

// Node is a member of the cluster.
type Node struct {
	Name    string       `json:"name"`
	ID      string       `json:"id"`
	Address string       `json:"address"` // host:port of the node-to-node port
	Subnet  netip.Prefix `json:"subnet"`
	Epoch   string       `json:"epoch"` // generation.counter of the subnet
	Status  string       `json:"status"`
	// Role is leader, voter, server (may become a voter) or node.
	Role string `json:"role"`
	// Endpoints is the number of attached addresses.
	Endpoints int    `json:"endpoints"`
	Version   string `json:"version"`
	Mode      string `json:"mode"` // bridge or routed
	Self      bool   `json:"-"`    // the node that answers
}
