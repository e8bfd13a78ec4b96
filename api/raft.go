package api

import (
	"encoding/json"
	"time"
)

// States of a Raft peer.
const (
	RaftLeader      = "leader"
	RaftFollower    = "follower"
	RaftCandidate   = "candidate"
	RaftUnreachable = "unreachable"
)

// RaftPeer is a server of Raft as this node knows it.
type RaftPeer struct {
	Node         string `json:"node"` // name; empty when no member has the id
	ID           string `json:"id"`
	Address      string `json:"address"`
	State        string `json:"state"`
	Voter        bool   `json:"voter"`
	CommitIndex  uint64 `json:"commitIndex"`
	TrailsLeader uint64 `json:"trailsLeaderBy"` // in entries
}

// RaftStats is the condition of Raft on one node.
type RaftStats struct {
	Node          string `json:"node"`
	State         string `json:"state"`
	Term          uint64 `json:"term"`
	Leader        string `json:"leader"` // name; empty: none is known
	LastIndex     uint64 `json:"lastIndex"`
	CommitIndex   uint64 `json:"commitIndex"`
	AppliedIndex  uint64 `json:"appliedIndex"`
	SnapshotIndex uint64 `json:"snapshotIndex"`
	// LastContact is how long ago the leader was heard; 0 on the leader, negative:
	// never.
	LastContact time.Duration `json:"-"`
	Voters      int           `json:"voters"`
	Servers     int           `json:"servers"` // voters and others
	LogBytes    int64         `json:"logBytes"`
	Generation  uint64        `json:"generation"`
	// Tolerates is how many voters may fail before the cluster cannot decide any
	// more.
	Tolerates int    `json:"tolerates"`
	Error     string `json:"error"` // why Raft was stopped on this node; empty: it was not
}

// MarshalJSON writes lastContactMs, milliseconds, null for never.
func (s RaftStats) MarshalJSON() ([]byte, error) {
	type plain RaftStats
	var ms *float64
	if s.LastContact >= 0 {
		ms = new(float64(s.LastContact.Microseconds()) / 1000)
	}
	return json.Marshal(struct {
		plain
		LastContact *float64 `json:"lastContactMs"`
	}{plain(s), ms})
}

// RaftHash is the hash of the replicated state of a node: equal on all nodes at
// an equal index.
type RaftHash struct {
	Node  string `json:"node"`
	Index uint64 `json:"index"`
	Hash  string `json:"hash"` // hexadecimal
}

// SnapshotInfo is what a snapshot file holds.
type SnapshotInfo struct {
	Cluster    string `json:"cluster"`
	Generation uint64 `json:"generation"`
	Index      uint64 `json:"index"`
	Format     int    `json:"format"`
	Size       int64  `json:"size"` // bytes
	Hash       string `json:"hash"` // of the state, as RaftHash has it
	Nodes      int    `json:"nodes"`
	Subnets    int    `json:"subnets"` // held or quarantined
	Leases     int    `json:"leases"`
}

// Restored is the answer to restoring a snapshot.
type Restored struct {
	Snapshot   SnapshotInfo `json:"snapshot"`
	Generation uint64       `json:"generation"` // the new one of the cluster
}

// Recovery is what an offline recovery did, or would do.
type Recovery struct {
	Cluster    string       `json:"cluster"`
	Node       string       `json:"node"`  // the one voter of the recovered cluster
	Index      uint64       `json:"index"` // of the last entry in the log: compare survivors by it
	Term       uint64       `json:"term"`
	Generation uint64       `json:"generation"` // the new one
	Dropped    []RaftServer `json:"dropped"`    // servers that are in Raft no more
	Done       bool         `json:"done"`       // false: it was only looked at
}

// RaftServer names a server of Raft.
type RaftServer struct {
	Node  string `json:"node"`
	ID    string `json:"id"`
	Voter bool   `json:"voter"`
}
