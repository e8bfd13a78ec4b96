package api

import "net/netip"

// ClusterSpec is what a new cluster is made of. Zero values mean the defaults,
// 172.16.0.0/12 and 22.
type ClusterSpec struct {
	Network      netip.Prefix
	SubnetPrefix int
}

// Cluster is the answer to making one.
type Cluster struct {
	Cluster string       `json:"cluster"` // its id
	Node    string       `json:"node"`
	Network netip.Prefix `json:"network"`
	Subnet  netip.Prefix `json:"subnet"` // the subnet of this node
}
