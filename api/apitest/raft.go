package apitest

import (
	"context"
	"encoding/hex"
	"io"

	"stellar.io/stellar/api"
	"stellar.io/stellar/ipam"
	"stellar.io/stellar/raftstore"
)

// SetSnapshot is what SaveSnapshot writes.
func (b *Backend) SetSnapshot(file []byte) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.snapshot = file
}

// quorumWithout refuses what the cluster would not survive.
func (b *Backend) quorumWithout(id ipam.NodeID) error {
	if !b.voters[id] {
		return nil
	}
	var voters, answer int
	for n := range b.state.Nodes() {
		if b.voters[n.ID] && !n.Removed && n.ID != id {
			voters++
			if !b.lost[n.ID] {
				answer++
			}
		}
	}
	if quorum := voters/2 + 1; answer < quorum {
		return api.Errorf(api.CodeConflict, "without it %d voters are left and %d of them answer, a quorum is %d", voters, answer, quorum)
	}
	return nil
}

func (b *Backend) peer(n ipam.Node) api.RaftPeer {
	p := api.RaftPeer{
		Node: n.Name, ID: string(n.ID), Address: n.Address, State: api.RaftFollower, Voter: b.voters[n.ID], TrailsLeaderBy: 0,
	}
	if n.ID == NodeID {
		p.CommitIndex = b.state.Index()
	}
	switch {
	case b.lost[n.ID]:
		p.State, p.TrailsLeaderBy = api.RaftSilent, 3
	case n.ID == b.leader:
		p.State = api.RaftLeader
	}
	return p
}

// RaftPeers implements server.RaftStatus.
func (b *Backend) RaftPeers(context.Context) ([]api.RaftPeer, error) {
	unlock, err := b.begin("RaftPeers")
	defer unlock()
	if err != nil {
		return nil, err
	}
	var out []api.RaftPeer
	for n := range b.state.Nodes() {
		if !n.Removed && !b.outOfRaft[n.ID] {
			out = append(out, b.peer(n))
		}
	}
	return out, nil
}

// RaftStats implements server.RaftStatus.
func (b *Backend) RaftStats(context.Context) (api.RaftStats, error) {
	unlock, err := b.begin("RaftStats")
	defer unlock()
	if err != nil {
		return api.RaftStats{}, err
	}
	c, _ := b.state.Cluster()
	leader, _ := b.state.Node(b.leader)
	s := api.RaftStats{
		Node: NodeName, State: api.RaftFollower, Term: 2, Leader: leader.Name, LastIndex: b.state.Index(), CommitIndex: b.state.Index(),
		AppliedIndex: b.state.Index(), LogBytes: 65536, Generation: c.Generation,
	}
	if b.leader == NodeID {
		s.State = api.RaftLeader
	}
	for n := range b.state.Nodes() {
		if n.Removed {
			continue
		}
		s.Servers++
		if b.voters[n.ID] {
			s.Voters++
		}
	}
	s.Tolerates = (s.Voters - 1) / 2
	if b.following != nil {
		s.State, s.LogBytes, s.Following = "following", 0, new(*b.following)
		return s, nil
	}
	s.Followers = new(b.followers)
	return s, nil
}

// Followed says who follows the node.
func (b *Backend) Followed(f api.RaftFollowers) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.followers = f
}

// Follow makes the node one that follows a server.
func (b *Backend) Follow(f api.RaftFollowing) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.following = &f
}

// RaftHash implements server.RaftStatus.
func (b *Backend) RaftHash(_ context.Context, at uint64) (api.RaftHash, error) {
	unlock, err := b.begin("RaftHash")
	defer unlock()
	if err != nil {
		return api.RaftHash{}, err
	}
	if at != 0 && at < b.state.Index() {
		return api.RaftHash{}, api.Errorf(api.CodeConflict, "the state is at index %d already", b.state.Index())
	}
	h := b.state.Hash()
	return api.RaftHash{Node: NodeName, Index: b.state.Index(), Hash: hex.EncodeToString(h[:])}, nil
}

// Linearize implements server.RaftStatus: it works until Fail says otherwise.
func (b *Backend) Linearize(context.Context) error {
	unlock, err := b.begin("Linearize")
	defer unlock()
	return err
}

// TransferLeader implements server.RaftAdmin.
func (b *Backend) TransferLeader(_ context.Context, id string) (string, error) {
	unlock, err := b.begin("TransferLeader")
	defer unlock()
	if err != nil {
		return "", err
	}
	for n := range b.state.Nodes() {
		if id == "" && b.voters[n.ID] && !b.lost[n.ID] && n.ID != b.leader || string(n.ID) == id {
			if !b.voters[n.ID] {
				return "", api.Errorf(api.CodeConflict, "%s does not vote and cannot lead", n.Name)
			}
			b.leader = n.ID
			return n.Name, nil
		}
	}
	return "", api.Errorf(api.CodeConflict, "no other voter answers")
}

// change looks a server up and changes it.
func (b *Backend) change(method string, c api.RaftChange, do func(ipam.Node) error) (api.RaftPeer, error) {
	unlock, err := b.begin(method)
	defer unlock()
	if err != nil {
		return api.RaftPeer{}, err
	}
	n, ok := b.state.Node(ipam.NodeID(c.Node))
	if !ok {
		return api.RaftPeer{}, ipam.ErrNodeNotFound
	}
	if err := do(n); err != nil && (!c.Force || api.CodeOf(err) != api.CodeConflict) {
		return api.RaftPeer{}, err
	}
	return b.peer(n), nil
}

// PromotePeer implements server.RaftAdmin.
func (b *Backend) PromotePeer(_ context.Context, c api.RaftChange) (api.RaftPeer, error) {
	return b.change("PromotePeer", c, func(n ipam.Node) error {
		if n.Role != ipam.RoleServer {
			return api.Errorf(api.CodeDenied, "%s has the role node and never votes", n.Name)
		}
		b.voters[n.ID] = true
		return nil
	})
}

// DemotePeer implements server.RaftAdmin.
func (b *Backend) DemotePeer(_ context.Context, c api.RaftChange) (api.RaftPeer, error) {
	return b.change("DemotePeer", c, func(n ipam.Node) error {
		err := b.quorumWithout(n.ID)
		if err == nil || c.Force {
			b.voters[n.ID] = false
		}
		return err
	})
}

// RemovePeer implements server.RaftAdmin.
func (b *Backend) RemovePeer(_ context.Context, c api.RaftChange) (api.RaftPeer, error) {
	return b.change("RemovePeer", c, func(n ipam.Node) error {
		err := b.quorumWithout(n.ID)
		if err == nil || c.Force {
			b.voters[n.ID], b.outOfRaft[n.ID] = false, true
		}
		return err
	})
}

func snapshotInfo(i raftstore.SnapshotInfo) api.SnapshotInfo {
	return api.SnapshotInfo{
		Cluster: i.Cluster, Generation: i.Generation, Index: i.Index, Term: i.Term, Format: int(i.Format), Size: i.Size,
		Hash: hex.EncodeToString(i.SHA256[:]),
	}
}

// SaveSnapshot implements server.Snapshots. It fails at the end of what
// SetSnapshot gave it when Fail("SnapshotEnd") says so.
func (b *Backend) SaveSnapshot(_ context.Context, w io.Writer) (api.SnapshotInfo, error) {
	unlock, err := b.begin("SaveSnapshot")
	defer unlock()
	if err != nil {
		return api.SnapshotInfo{}, err
	}
	if _, err := w.Write(b.snapshot); err != nil {
		return api.SnapshotInfo{}, err
	}
	return api.SnapshotInfo{Cluster: ClusterID, Generation: 1, Index: b.state.Index(), Term: 2, Format: 1, Size: int64(len(b.snapshot))}, b.fail["SnapshotEnd"]
}

// RestoreSnapshot implements server.Snapshots: it checks the file and keeps the
// state.
func (b *Backend) RestoreSnapshot(_ context.Context, r io.Reader) (api.Restored, error) {
	unlock, err := b.begin("RestoreSnapshot")
	defer unlock()
	if err != nil {
		return api.Restored{}, err
	}
	info, err := raftstore.SnapshotInspect(r)
	if err != nil {
		return api.Restored{}, err
	}
	if _, err := io.Copy(io.Discard, r); err != nil {
		return api.Restored{}, err
	}
	c, ok := b.state.Cluster()
	switch {
	case !ok:
		return api.Restored{}, ipam.ErrNotInitialized
	case c.ID != info.Cluster:
		return api.Restored{}, ipam.ErrSnapshotCluster
	}
	return api.Restored{
		Snapshot: snapshotInfo(info), Generation: max(c.Generation, info.Generation) + 1,
		Index: max(b.state.Index(), info.Index) + 1, Backup: "/var/lib/stellar/raft/backups/before-restore",
	}, nil
}
