package api

import "net/netip"

// Node is a member of the cluster.
type Node struct {
	Name    string       `json:"name"`
	ID      string       `json:"id"`
	Address string       `json:"address"` // host:port of the node-to-node port
	Subnet  netip.Prefix `json:"subnet"`
	Epoch   string       `json:"epoch"` // generation.counter of the subnet
	Status  string       `json:"status"`
	Role    string       `json:"role"`
	// Endpoints is the number of attached addresses.
	Endpoints int    `json:"endpoints"`
	Version   string `json:"version"`
	Self      bool   `json:"-"` // the node that answers
}

// Route is a route that Stellar keeps on this node.
type Route struct {
	Destination netip.Prefix `json:"destination"`
	Via         netip.Addr   `json:"via"` // zero: none
	Dev         string       `json:"dev"`
	Node        string       `json:"node"`
	State       string       `json:"state"`
}
