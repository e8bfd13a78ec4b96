package raftstore

import (
	"time"

	"github.com/hashicorp/raft"

	"stellar.io/stellar/ipam"
)

// Stats is the condition of a store at one moment.
type Stats struct {
	// State is leader, follower, candidate or shutdown; "stopped" after FSMError,
	// "starting" before Run, "joining" before the leader has added this node, "removed"
	// after it was taken out of the configuration: View goes on showing what it had.
	State         string
	Term          uint64
	LastIndex     uint64 // of the log
	CommitIndex   uint64
	AppliedIndex  uint64
	Leader        ipam.NodeID // "" when there is none
	LeaderAddress string
	LastContact   time.Duration // since the leader was heard; 0 on the leader, negative if never
	Voters        int
	Servers       int // voters and others
	SnapshotIndex uint64
	Ahead         uint64        // index of the leader's state that View shows while this node is behind; 0: it is not
	LogBytes      int64         // size of the log's file
	DiskBusy      time.Duration // for how long the present write to the log has taken; 0: none
	DiskHung      bool          // for so long that this node neither leads nor follows: others elect a leader
	DiskError     error         // why the last write failed; nil: it did not
	FSMError      error         // why Raft was stopped on this node; nil: it was not
}

// Stats returns the present condition. It is cheap enough for every scrape.
func (s *Store) Stats() Stats {
	now := time.Now()
	st := Stats{
		State: "starting", FSMError: s.fsm.err(), LogBytes: logSize(s.cfg.Dir),
	}
	st.DiskBusy, st.DiskError = s.files.bolt.condition(now)
	st.DiskHung = st.DiskBusy >= hangAfter
	s.mu.Lock()
	r := s.raft
	if r == nil && s.stopping {
		st.State = "shutdown"
	}
	s.mu.Unlock()
	if r == nil {
		return st
	}
	st.State = stateName(r.State())
	if st.FSMError != nil {
		st.State = "stopped"
	}
	st.Term, st.LastIndex = r.CurrentTerm(), r.LastIndex()
	st.CommitIndex, st.AppliedIndex = r.CommitIndex(), r.AppliedIndex()
	addr, id := r.LeaderWithID()
	st.Leader, st.LeaderAddress = ipam.NodeID(id), string(addr)
	st.LastContact = lastContact(r, now)
	list := servers(r)
	st.Servers, st.Voters = len(list), len(voters(list))
	st.Ahead = s.fsm.aheadAt()
	switch {
	case st.State != "follower":
	case len(list) == 0:
		st.State = "joining"
	case s.removed(r):
		st.State = "removed"
	}
	st.SnapshotIndex, _ = lastSnapshot(r)
	return st
}

func lastContact(r *raft.Raft, now time.Time) time.Duration {
	if r.State() == raft.Leader {
		return 0
	}
	if at := r.LastContact(); !at.IsZero() {
		return now.Sub(at)
	}
	return -1
}

func stateName(s raft.RaftState) string {
	switch s {
	case raft.Leader:
		return "leader"
	case raft.Follower:
		return "follower"
	case raft.Candidate:
		return "candidate"
	}
	return "shutdown"
}

// SnapshotSize returns how many bytes the newest snapshot on disk has, 0 for none.
func (s *Store) SnapshotSize() (int64, error) {
	list, err := s.files.snapshots.List()
	if err != nil || len(list) == 0 {
		return 0, err
	}
	return list[0].Size, nil
}
