package raftstore

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
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

	// Of a follower, whose State is "following":
	Following ipam.NodeID   // the server; "": none at present
	Behind    uint64        // by how far it is behind that server
	Heard     time.Duration // since a server, this one or the last, said something; negative: none ever did
	Received  uint64        // snapshots since the start

	// Of a member of Raft that may be followed:
	Followers     int
	FollowLog     int    // commands that are kept for them
	FollowBytes   int    // their size
	SnapshotsSent uint64 // since the start
	FollowersCut  uint64 // that read too slowly, since the start
}

// Stats returns the present condition. It is cheap enough for every scrape.
func (s *Store) Stats() Stats {
	if s.following != nil {
		return s.following.stats()
	}
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
	s.followStats(&st)
	return st
}

func (s *Store) followStats(st *Stats) {
	f := s.followed.Load()
	if f == nil {
		return
	}
	st.SnapshotsSent, st.FollowersCut = f.sent.Load(), f.cut.Load()
	f.ring.mu.Lock()
	defer f.ring.mu.Unlock()
	st.Followers, st.FollowLog, st.FollowBytes = len(f.ring.streams), len(f.ring.recs), f.ring.bytes
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
	if s.following != nil {
		fi, err := os.Stat(filepath.Join(s.cfg.Dir, stateFile))
		if errors.Is(err, fs.ErrNotExist) {
			return 0, nil
		}
		if err != nil {
			return 0, err
		}
		return fi.Size(), nil
	}
	list, err := s.files.snapshots.List()
	if err != nil || len(list) == 0 {
		return 0, err
	}
	return list[0].Size, nil
}
