package wire

import (
	"google.golang.org/protobuf/types/known/durationpb"

	"stellar.io/stellar/api"
	stellarv1 "stellar.io/stellar/api/stellar/v1"
)

// FromPeer makes the message of a Raft peer.
func FromPeer(p api.RaftPeer) *stellarv1.RaftPeer {
	return &stellarv1.RaftPeer{
		Node: p.Node, Id: p.ID, Address: p.Address, State: p.State, Voter: p.Voter,
		CommitIndex: p.CommitIndex, TrailsLeaderBy: p.TrailsLeaderBy,
	}
}

// ToPeer reads a Raft peer.
func ToPeer(m *stellarv1.RaftPeer) api.RaftPeer {
	return api.RaftPeer{
		Node: m.GetNode(), ID: m.GetId(), Address: m.GetAddress(), State: m.GetState(), Voter: m.GetVoter(),
		CommitIndex: m.GetCommitIndex(), TrailsLeaderBy: m.GetTrailsLeaderBy(),
	}
}

// FromRaftStats makes the message of a condition.
func FromRaftStats(s api.RaftStats) *stellarv1.RaftStatsResponse {
	m := &stellarv1.RaftStatsResponse{
		Node: s.Node, State: s.State, Term: s.Term, Leader: s.Leader,
		LastIndex: s.LastIndex, CommitIndex: s.CommitIndex, AppliedIndex: s.AppliedIndex, SnapshotIndex: s.SnapshotIndex,
		Voters: int32(s.Voters), Servers: int32(s.Servers), LogBytes: s.LogBytes,
		Generation: s.Generation, Tolerates: int32(s.Tolerates), Error: text(s.Error), Ahead: s.Ahead,
	}
	if s.LastContact >= 0 {
		m.LastContact = durationpb.New(s.LastContact)
	}
	if f := s.Followers; f != nil {
		m.Followers = &stellarv1.RaftFollowers{Count: int32(f.Count), BehindMax: f.BehindMax, SnapshotsSent: f.SnapshotsSent}
	}
	if f := s.Following; f != nil {
		m.Following = &stellarv1.RaftFollowing{Server: f.Server, Connected: f.Connected, Behind: f.Behind, SnapshotsReceived: f.SnapshotsReceived}
		if f.LastBeat >= 0 {
			m.Following.LastBeat = durationpb.New(f.LastBeat)
		}
	}
	return m
}

// ToRaftStats reads a condition.
func ToRaftStats(m *stellarv1.RaftStatsResponse) api.RaftStats {
	s := api.RaftStats{
		Node: m.GetNode(), State: m.GetState(), Term: m.GetTerm(), Leader: m.GetLeader(),
		LastIndex: m.GetLastIndex(), CommitIndex: m.GetCommitIndex(), AppliedIndex: m.GetAppliedIndex(), SnapshotIndex: m.GetSnapshotIndex(),
		Voters: int(m.GetVoters()), Servers: int(m.GetServers()), LogBytes: m.GetLogBytes(),
		Generation: m.GetGeneration(), Tolerates: int(m.GetTolerates()), Error: m.GetError(), Ahead: m.GetAhead(), LastContact: -1,
	}
	if m.GetLastContact() != nil {
		s.LastContact = m.GetLastContact().AsDuration()
	}
	if f := m.GetFollowers(); f != nil {
		s.Followers = &api.RaftFollowers{Count: int(f.GetCount()), BehindMax: f.GetBehindMax(), SnapshotsSent: f.GetSnapshotsSent()}
	}
	if f := m.GetFollowing(); f != nil {
		s.Following = &api.RaftFollowing{Server: f.GetServer(), Connected: f.GetConnected(), Behind: f.GetBehind(), SnapshotsReceived: f.GetSnapshotsReceived(), LastBeat: -1}
		if f.GetLastBeat() != nil {
			s.Following.LastBeat = f.GetLastBeat().AsDuration()
		}
	}
	return s
}

// FromRaftHash makes the message of a hash.
func FromRaftHash(h api.RaftHash) *stellarv1.RaftHashResponse {
	return &stellarv1.RaftHashResponse{Node: h.Node, Index: h.Index, Hash: h.Hash}
}

// ToRaftHash reads a hash.
func ToRaftHash(m *stellarv1.RaftHashResponse) api.RaftHash {
	return api.RaftHash{Node: m.GetNode(), Index: m.GetIndex(), Hash: m.GetHash()}
}

// FromSnapshot makes the message of what a snapshot holds.
func FromSnapshot(s api.SnapshotInfo) *stellarv1.Snapshot {
	return &stellarv1.Snapshot{
		Cluster: s.Cluster, Generation: s.Generation, Index: s.Index, Term: s.Term, Format: uint32(s.Format), Size: s.Size, Hash: s.Hash,
	}
}

// ToSnapshot reads what a snapshot holds.
func ToSnapshot(m *stellarv1.Snapshot) api.SnapshotInfo {
	return api.SnapshotInfo{
		Cluster: m.GetCluster(), Generation: m.GetGeneration(), Index: m.GetIndex(), Term: m.GetTerm(),
		Format: int(m.GetFormat()), Size: m.GetSize(), Hash: m.GetHash(),
	}
}

// FromRestored makes the message of a restored snapshot.
func FromRestored(r api.Restored) *stellarv1.RaftSnapshotRestoreResponse {
	return &stellarv1.RaftSnapshotRestoreResponse{Snapshot: FromSnapshot(r.Snapshot), Generation: r.Generation, Index: r.Index, Backup: text(r.Backup)}
}

// ToRestored reads a restored snapshot.
func ToRestored(m *stellarv1.RaftSnapshotRestoreResponse) api.Restored {
	return api.Restored{Snapshot: ToSnapshot(m.GetSnapshot()), Generation: m.GetGeneration(), Index: m.GetIndex(), Backup: m.GetBackup()}
}
