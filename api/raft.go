package api

import (
	"encoding/json"
	"time"
)

// States of a Raft peer.
const (
	RaftLeader    = "leader"
	RaftFollower  = "follower"
	RaftCandidate = "candidate"
	RaftSilent    = "silent"    // does not answer the leader
	RaftRegressed = "regressed" // has lost entries that it had acknowledged
)

// RaftPeer is a server of Raft as this node knows it.
type RaftPeer struct {
	Node           string `json:"node"` // name; empty when no member has the id
	ID             string `json:"id"`
	Address        string `json:"address"`
	State          string `json:"state"` // empty: not known
	Voter          bool   `json:"voter"`
	CommitIndex    uint64 `json:"commitIndex"`    // 0: not known
	TrailsLeaderBy int64  `json:"trailsLeaderBy"` // entries; negative: not known
}

// RaftChange names a server of Raft that is to be changed.
type RaftChange struct {
	Node  string // id, when it reaches a backend
	Force bool   // although a quorum would be lost, or just be met
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
	// Ahead is the index of the leader's state that the node shows while its own
	// Raft is behind; 0: it is not.
	Ahead uint64 `json:"ahead"`
	// Followers is nil on a node that follows a server itself, Following on a member
	// of Raft.
	Followers *RaftFollowers `json:"followers"`
	Following *RaftFollowing `json:"following"`
}

// RaftFollowers is what a member of Raft knows of the nodes that follow it.
type RaftFollowers struct {
	Count         int    `json:"count"`
	BehindMax     uint64 `json:"behindMax"`     // entries that the slowest was not sent yet
	SnapshotsSent uint64 `json:"snapshotsSent"` // since the agent's start
}

// RaftFollowing is how it stands with a node that follows a server.
type RaftFollowing struct {
	Server    string `json:"server"` // name; empty: none at present
	Connected bool   `json:"connected"`
	Behind    uint64 `json:"behind"` // entries, by the server's last word
	// LastBeat is how long ago a server, this one or the last, said something;
	// negative: none ever did.
	LastBeat          time.Duration `json:"-"`
	SnapshotsReceived uint64        `json:"snapshotsReceived"` // since the agent's start
}

// MarshalJSON writes lastContactMs, milliseconds, null for never.
func (s RaftStats) MarshalJSON() ([]byte, error) {
	type plain RaftStats
	return json.Marshal(struct {
		plain
		LastContact *float64 `json:"lastContactMs"`
	}{plain(s), millisAgo(s.LastContact)})
}

// MarshalJSON writes lastBeatMs, milliseconds, null for never.
func (f RaftFollowing) MarshalJSON() ([]byte, error) {
	type plain RaftFollowing
	return json.Marshal(struct {
		plain
		LastBeat *float64 `json:"lastBeatMs"`
	}{plain(f), millisAgo(f.LastBeat)})
}

// millisAgo returns an age in milliseconds, nil for never, which is negative.
func millisAgo(age time.Duration) *float64 {
	if age < 0 {
		return nil
	}
	return new(float64(age.Microseconds()) / 1000)
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
	Term       uint64 `json:"term"`
	Format     int    `json:"format"`
	Size       int64  `json:"size"` // of the state, bytes
	Hash       string `json:"hash"` // of the state, as RaftHash has it
}

// Restored is the answer to restoring a snapshot.
type Restored struct {
	Snapshot   SnapshotInfo `json:"snapshot"`
	Generation uint64       `json:"generation"` // the new one of the cluster
	Index      uint64       `json:"index"`      // of the state after the restore
	// Backup is the file with the state before it, on the node that was asked; as
	// NODE:FILE when that one passed the snapshot on to the leader.
	Backup string `json:"backup"`
}

// Recovery is what an offline recovery found and did. Of the survivors of a
// cluster the one with the highest term, and of those with the highest index, has
// every entry that was acknowledged, if any of them has.
type Recovery struct {
	Cluster    string `json:"cluster"`
	Node       string `json:"node"`
	Term       uint64 `json:"term"`  // of the last entry in its log
	Index      uint64 `json:"index"` // of the last entry in its log
	Servers    int    `json:"servers"`
	Voters     int    `json:"voters"`
	Generation uint64 `json:"generation"` // after the recovery
	Backup     string `json:"backup"`     // directory with the store as it was; empty: it was only looked at
	Done       bool   `json:"done"`       // false: it was only looked at
}
