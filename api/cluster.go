package api

import (
	"net/netip"
	"time"
)

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

// Roles of a token, and of a node in what concerns Raft.
const (
	RoleServer = "server" // may become a voter
	RoleNode   = "node"   // never votes
	// RoleFollower is shown for a node that follows a server and has no part in Raft.
	RoleFollower = "follower"
)

// JoinSpec says which cluster this node is to join, and by what right.
type JoinSpec struct {
	Address string // host:port of the node-to-node port of any server
	Token   Secret
	Replace string // name of a member whose place and subnet it takes; empty: none
	Follow  bool   // it follows a server and has no part in Raft
}

// Joined is the answer to joining.
type Joined struct {
	Cluster string       `json:"cluster"`
	Node    string       `json:"node"`
	Network netip.Prefix `json:"network"`
	Subnet  netip.Prefix `json:"subnet"`
	Role    string       `json:"role"`
	// Warnings are what the operator should know, e.g. host ranges that were
	// reserved.
	Warnings []string `json:"warnings"`
}

// Removal is what became of a node that is no member any more.
type Removal struct {
	Node        string       `json:"node"`
	ID          string       `json:"id"`
	Subnet      netip.Prefix `json:"subnet"`      // zero: it had none
	SubnetState string       `json:"subnetState"` // SubnetFree or SubnetQuarantined; empty without a subnet
}

// NodeRemoval says which node is to be removed, and how surely.
type NodeRemoval struct {
	Node  string // id, when it reaches a backend
	Force bool   // although endpoints run there or nobody knows; quarantines its subnet
	Dead  bool   // with Force: the operator has seen that it is dead; frees its subnet
}

// States of a token.
const (
	TokenValid   = "valid"
	TokenUsed    = "used"
	TokenRevoked = "revoked"
	TokenExpired = "expired"
)

// TokenSpec is what a new token is to be.
type TokenSpec struct {
	Role string // RoleServer or RoleNode
	TTL  time.Duration
}

// Token is a right to join once, without its secret.
type Token struct {
	ID      string    `json:"id"`
	Role    string    `json:"role"`
	Expires time.Time `json:"expires"`
	Uses    int       `json:"uses"`
	State   string    `json:"state"`
	Node    string    `json:"node"` // who joined with it; empty: nobody
}

// NewToken is a token as it is made: only this answer has the secret.
type NewToken struct {
	Token
	Secret Secret // the whole token, as joiners need it
}
