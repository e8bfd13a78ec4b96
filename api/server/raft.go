package server

import (
	"cmp"
	"context"
	"io"
	"slices"

	"connectrpc.com/connect"

	"stellar.io/stellar/api"
	"stellar.io/stellar/api/internal/rpc"
	"stellar.io/stellar/api/internal/wire"
	stellarv1 "stellar.io/stellar/api/stellar/v1"
)

type raftHandler struct{ *Server }

func (h raftHandler) peers(ctx context.Context) ([]api.RaftPeer, error) {
	b, err := part[RaftStatus](h.Server)
	if err != nil {
		return nil, err
	}
	return b.RaftPeers(ctx)
}

func (h raftHandler) Peers(ctx context.Context, _ *stellarv1.RaftPeersRequest) (*stellarv1.RaftPeersResponse, error) {
	all, err := h.peers(ctx)
	if err != nil {
		return nil, rpc.Error(err)
	}
	all = slices.SortedFunc(slices.Values(all), func(a, b api.RaftPeer) int {
		return cmp.Or(cmp.Compare(a.Node, b.Node), cmp.Compare(a.ID, b.ID))
	})
	return &stellarv1.RaftPeersResponse{Peers: wire.Each(all, wire.FromPeer)}, nil
}

func (h raftHandler) Stats(ctx context.Context, _ *stellarv1.RaftStatsRequest) (*stellarv1.RaftStatsResponse, error) {
	b, err := part[RaftStatus](h.Server)
	if err != nil {
		return nil, rpc.Error(err)
	}
	s, err := b.RaftStats(ctx)
	if err != nil {
		return nil, rpc.Error(err)
	}
	return wire.FromRaftStats(s), nil
}

func (h raftHandler) Hash(ctx context.Context, m *stellarv1.RaftHashRequest) (*stellarv1.RaftHashResponse, error) {
	b, err := part[RaftStatus](h.Server)
	if err != nil {
		return nil, rpc.Error(err)
	}
	s, err := b.RaftHash(ctx, m.GetAt())
	if err != nil {
		return nil, rpc.Error(err)
	}
	return wire.FromRaftHash(s), nil
}

// resolve finds the server that the caller means, also one that no member has the
// name of any more.
func (h raftHandler) resolve(ctx context.Context, name string) (id string, err error) {
	all, err := h.peers(ctx)
	if err != nil {
		return "", err
	}
	p, err := resolvePeer(all, name)
	return p.ID, err
}

// resolveAny is resolve for what a node may be asked for that is no member of Raft: it
// follows a server.
func (h raftHandler) resolveAny(ctx context.Context, name string) (string, error) {
	all, err := h.backend.Nodes(ctx)
	if err != nil {
		return "", err
	}
	n, err := resolveNode(all, name)
	return n.ID, err
}

func (h raftHandler) TransferLeader(ctx context.Context, m *stellarv1.RaftTransferLeaderRequest) (*stellarv1.RaftTransferLeaderResponse, error) {
	b, err := part[RaftAdmin](h.Server)
	if err != nil {
		return nil, rpc.Error(err)
	}
	var id string
	if m.GetNode() != "" {
		if id, err = h.resolve(ctx, m.GetNode()); err != nil {
			return nil, rpc.Error(err)
		}
	}
	leader, err := b.TransferLeader(ctx, id)
	if err != nil {
		return nil, rpc.Error(err)
	}
	h.audit(ctx, "leadership handed over on request", "leader", leader)
	return &stellarv1.RaftTransferLeaderResponse{Leader: leader}, nil
}

// changeFunc is one of RaftAdmin's methods, as a method expression.
type changeFunc func(RaftAdmin, context.Context, api.RaftChange) (api.RaftPeer, error)

// change resolves a server's name and changes it.
func (h raftHandler) change(ctx context.Context, c api.RaftChange, msg string, follows bool, do changeFunc) (*stellarv1.RaftPeer, error) {
	b, err := part[RaftAdmin](h.Server)
	if err != nil {
		return nil, rpc.Error(err)
	}
	id, err := h.resolve(ctx, c.Node)
	if follows && api.CodeOf(err) == api.CodeNotFound {
		id, err = h.resolveAny(ctx, c.Node)
	}
	if err != nil {
		return nil, rpc.Error(err)
	}
	c.Node = id
	p, err := do(b, ctx, c)
	if err != nil {
		return nil, rpc.Error(err)
	}
	h.audit(ctx, msg, "node", p.Node, "id", p.ID, "force", c.Force)
	return wire.FromPeer(p), nil
}

func (h raftHandler) Promote(ctx context.Context, m *stellarv1.RaftPromoteRequest) (*stellarv1.RaftPromoteResponse, error) {
	p, err := h.change(ctx, api.RaftChange{Node: m.GetNode(), Force: m.GetForce()}, "promoted to voter on request", true, RaftAdmin.PromotePeer)
	if err != nil {
		return nil, err
	}
	return &stellarv1.RaftPromoteResponse{Peer: p}, nil
}

func (h raftHandler) Demote(ctx context.Context, m *stellarv1.RaftDemoteRequest) (*stellarv1.RaftDemoteResponse, error) {
	p, err := h.change(ctx, api.RaftChange{Node: m.GetNode(), Force: m.GetForce()}, "demoted on request", false, RaftAdmin.DemotePeer)
	if err != nil {
		return nil, err
	}
	return &stellarv1.RaftDemoteResponse{Peer: p}, nil
}

func (h raftHandler) Remove(ctx context.Context, m *stellarv1.RaftRemoveRequest) (*stellarv1.RaftRemoveResponse, error) {
	p, err := h.change(ctx, api.RaftChange{Node: m.GetNode(), Force: m.GetForce()}, "taken out of raft on request", false, RaftAdmin.RemovePeer)
	if err != nil {
		return nil, err
	}
	return &stellarv1.RaftRemoveResponse{Peer: p}, nil
}

func (h raftHandler) SnapshotSave(ctx context.Context, _ *stellarv1.RaftSnapshotSaveRequest, out *connect.ServerStream[stellarv1.RaftSnapshotSaveResponse]) error {
	b, err := part[Snapshots](h.Server)
	if err != nil {
		return rpc.Error(err)
	}
	w := rpc.NewChunkWriter(func(p []byte) error {
		return out.Send(&stellarv1.RaftSnapshotSaveResponse{Part: &stellarv1.RaftSnapshotSaveResponse_Chunk{Chunk: p}})
	})
	info, err := b.SaveSnapshot(ctx, w)
	if err != nil {
		return rpc.Error(err)
	}
	if err := w.Flush(); err != nil {
		return err
	}
	h.audit(ctx, "snapshot saved on request", "index", info.Index, "bytes", w.Size())
	end := &stellarv1.SnapshotEnd{Snapshot: wire.FromSnapshot(info), Bytes: w.Size()}
	return out.Send(&stellarv1.RaftSnapshotSaveResponse{Part: &stellarv1.RaftSnapshotSaveResponse_End{End: end}})
}

func (h raftHandler) SnapshotRestore(ctx context.Context, in *connect.ClientStream[stellarv1.RaftSnapshotRestoreRequest]) (*stellarv1.RaftSnapshotRestoreResponse, error) {
	b, err := part[Snapshots](h.Server)
	if err != nil {
		return nil, rpc.Error(err)
	}
	var size int64
	r := rpc.NewChunkReader(func() ([]byte, error) {
		// A sender that breaks off may look like one that is done, but for the end.
		if !in.Receive() {
			return nil, api.Errorf(api.CodeInvalid, "the snapshot was not sent to its end: %w", cmp.Or(in.Err(), io.ErrUnexpectedEOF))
		}
		switch part := in.Msg().GetPart().(type) {
		case *stellarv1.RaftSnapshotRestoreRequest_Chunk:
			size += int64(len(part.Chunk))
			return part.Chunk, nil
		case *stellarv1.RaftSnapshotRestoreRequest_End:
			if part.End == size {
				return nil, io.EOF
			}
		}
		return nil, api.Errorf(api.CodeInvalid, "the snapshot was not sent whole: %d bytes have come", size)
	})
	out, err := b.RestoreSnapshot(ctx, r)
	if err != nil {
		return nil, rpc.Error(err)
	}
	h.audit(ctx, "snapshot restored on request", "index", out.Snapshot.Index, "generation", out.Generation)
	return wire.FromRestored(out), nil
}
