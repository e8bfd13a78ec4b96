package node

import (
	"context"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"io"

	"stellar.io/stellar/api"
	"stellar.io/stellar/ipam"
	"stellar.io/stellar/raftstore"
)

// RestoreSnapshot implements server.Snapshots. The cluster goes on in a new
// generation with what a backup cannot undo kept (ipam.State.ForRestore), and hands
// out no subnet until the operator has ended the re-claim. Only the leader restores,
// any other node passes the snapshot on to it as it comes.
func (n *Node) RestoreSnapshot(ctx context.Context, r io.Reader) (api.Restored, error) {
	p, err := n.ready()
	if err != nil {
		return api.Restored{}, err
	}
	if s := p.store.Stats(); s.State != "leader" {
		if s.Leader == "" {
			return api.Restored{}, p.notLeading("")
		}
		c, err := p.relay(ctx, s.Leader, s.LeaderAddress)
		if err != nil {
			return api.Restored{}, err
		}
		out, err := c.RestoreSnapshot(ctx, r)
		if out.Backup != "" {
			out.Backup = p.nameOf(s.Leader) + ":" + out.Backup
		}
		return out, err
	}
	var generation uint64
	done, err := p.store.SnapshotRestore(ctx, r, raftstore.RestoreOptions{Merge: nextLife(&generation)})
	if err != nil {
		return api.Restored{}, p.restoreError(err)
	}
	n.log.Warn("the cluster was restored: nodes claim what they hold, and no subnet is handed out until `stellar cluster end-reclaim`",
		"generation", generation, "index", done.Index, "backup", done.Backup)
	return api.Restored{Snapshot: describeSnapshot(done.Snapshot), Generation: generation, Index: done.Index, Backup: done.Backup}, nil
}

// newLife draws what tells a generation from another of its number; never 0.
func newLife() uint32 {
	var raw [4]byte
	rand.Read(raw[:])
	return max(1, binary.BigEndian.Uint32(raw[:]))
}

// nextLife makes the state of the next generation and tells which that is.
func nextLife(generation *uint64) raftstore.Merge {
	return func(restored, live *ipam.State) (*ipam.State, error) {
		next, err := restored.ForRestore(live, newLife())
		if err != nil {
			return nil, err
		}
		c, _ := next.Cluster()
		*generation = c.Generation
		return next, nil
	}
}

// notLeading is the answer to what only the leader does.
func (p *parts) notLeading(leader ipam.NodeID) error {
	if leader == "" {
		return api.Errorf(api.CodeNoLeader, "no leader answers").WithHint("`stellar raft peers` shows who is missing")
	}
	name := p.nameOf(leader)
	return api.Errorf(api.CodeNoLeader, "this node does not lead, %s does", name).
		WithHint("run it on " + name + ", or make this node the leader: stellar raft transfer-leader")
}

// restoreError puts the store's words into the API's. Those of ipam and of the API
// are understood as they are.
func (p *parts) restoreError(err error) error {
	switch {
	case errors.Is(err, raftstore.ErrUnknownOutcome):
		return api.Errorf(api.CodeUnknownOutcome, "%w", err).
			WithHint("`stellar raft stats` shows the generation: it is higher if the snapshot was restored")
	case errors.Is(err, raftstore.ErrNoLeader):
		return p.notLeading(p.store.Stats().Leader)
	case errors.Is(err, raftstore.ErrOtherCluster):
		return api.Errorf(api.CodeConflict, "%w", err).WithHint("`stellar raft snapshot inspect FILE` shows whose it is")
	case errors.Is(err, raftstore.ErrBusy), errors.Is(err, raftstore.ErrRefused):
		return api.Errorf(api.CodeConflict, "%w", err)
	}
	return err
}
