package client

import (
	"context"
	"errors"
	"fmt"
	"io"

	"stellar.io/stellar/api"
	"stellar.io/stellar/api/internal/rpc"
	"stellar.io/stellar/api/internal/wire"
	stellarv1 "stellar.io/stellar/api/stellar/v1"
)

// RaftPeers lists the servers of Raft.
func (c *Client) RaftPeers(ctx context.Context) ([]api.RaftPeer, error) {
	m, err := c.raft.Peers(ctx, &stellarv1.RaftPeersRequest{})
	return wire.Each(m.GetPeers(), wire.ToPeer), c.fail(ctx, err)
}

// RaftStats returns the condition of Raft on the node.
func (c *Client) RaftStats(ctx context.Context) (api.RaftStats, error) {
	m, err := c.raft.Stats(ctx, &stellarv1.RaftStatsRequest{})
	return wire.ToRaftStats(m), c.fail(ctx, err)
}

// RaftHash returns the hash of the node's replicated state, at 0 of the present
// one, else once it is at that index.
func (c *Client) RaftHash(ctx context.Context, at uint64) (api.RaftHash, error) {
	m, err := c.raft.Hash(ctx, &stellarv1.RaftHashRequest{At: at})
	return wire.ToRaftHash(m), c.fail(ctx, err)
}

// TransferLeader has another node lead, name "" the best one, and returns who
// leads then.
func (c *Client) TransferLeader(ctx context.Context, name string) (string, error) {
	m, err := c.raft.TransferLeader(ctx, &stellarv1.RaftTransferLeaderRequest{Node: name})
	return m.GetLeader(), c.fail(ctx, err)
}

// PromotePeer makes a server a voter.
func (c *Client) PromotePeer(ctx context.Context, r api.RaftChange) (api.RaftPeer, error) {
	m, err := c.raft.Promote(ctx, &stellarv1.RaftPromoteRequest{Node: r.Node, Force: r.Force})
	return wire.ToPeer(m.GetPeer()), c.fail(ctx, err)
}

// DemotePeer takes a server's vote.
func (c *Client) DemotePeer(ctx context.Context, r api.RaftChange) (api.RaftPeer, error) {
	m, err := c.raft.Demote(ctx, &stellarv1.RaftDemoteRequest{Node: r.Node, Force: r.Force})
	return wire.ToPeer(m.GetPeer()), c.fail(ctx, err)
}

// RemovePeer takes a server out of Raft.
func (c *Client) RemovePeer(ctx context.Context, r api.RaftChange) (api.RaftPeer, error) {
	m, err := c.raft.Remove(ctx, &stellarv1.RaftRemoveRequest{Node: r.Node, Force: r.Force})
	return wire.ToPeer(m.GetPeer()), c.fail(ctx, err)
}

// SaveSnapshot writes a snapshot of the committed state to w. Only without an
// error is what was written whole.
func (c *Client) SaveSnapshot(ctx context.Context, w io.Writer) (api.SnapshotInfo, error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	stream, err := c.raft.SnapshotSave(ctx, &stellarv1.RaftSnapshotSaveRequest{})
	if err != nil {
		return api.SnapshotInfo{}, c.fail(ctx, err)
	}
	var size int64
	var end *stellarv1.SnapshotEnd
	for stream.Receive() {
		if end = stream.Msg().GetEnd(); end != nil {
			break
		}
		n, err := w.Write(stream.Msg().GetChunk())
		size += int64(n)
		if err != nil {
			cancel() // else Close would wait for the stream's end
			stream.Close()
			return api.SnapshotInfo{}, err
		}
	}
	err = c.fail(ctx, stream.Err())
	stream.Close()
	switch {
	case err != nil:
		return api.SnapshotInfo{}, err
	case end == nil || end.GetBytes() != size:
		return api.SnapshotInfo{}, api.Errorf(api.CodeInternal, "%s sent %d bytes of a snapshot that is longer", c.name, size)
	}
	return wire.ToSnapshot(end.GetSnapshot()), nil
}

// RestoreSnapshot sends a snapshot and returns when it is the state of the
// cluster. An error of r aborts it.
func (c *Client) RestoreSnapshot(ctx context.Context, r io.Reader) (api.Restored, error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	stream, err := c.raft.SnapshotRestore(ctx)
	if err != nil {
		return api.Restored{}, c.fail(ctx, err)
	}
	w := rpc.NewChunkWriter(func(b []byte) error {
		return stream.Send(&stellarv1.RaftSnapshotRestoreRequest{Part: &stellarv1.RaftSnapshotRestoreRequest_Chunk{Chunk: b}})
	})
	src := &source{Reader: r}
	_, err = io.Copy(w, src)
	if src.err != nil {
		cancel() // without the end the other side does not take what it has for the whole
		_, _ = stream.CloseAndReceive()
		return api.Restored{}, fmt.Errorf("read the snapshot: %w", src.err)
	}
	if err == nil {
		err = w.Flush()
	}
	if err == nil {
		err = stream.Send(&stellarv1.RaftSnapshotRestoreRequest{Part: &stellarv1.RaftSnapshotRestoreRequest_End{End: w.Size()}})
	}
	if err != nil && !errors.Is(err, io.EOF) { // io.EOF: the answer is there already
		_, _ = stream.CloseAndReceive()
		return api.Restored{}, c.fail(ctx, err)
	}
	m, err := stream.CloseAndReceive()
	return wire.ToRestored(m), c.fail(ctx, err)
}

// source remembers whether it was reading that failed.
type source struct {
	io.Reader
	err error
}

func (s *source) Read(p []byte) (int, error) {
	n, err := s.Reader.Read(p)
	if err != nil && !errors.Is(err, io.EOF) {
		s.err = err
	}
	return n, err
}
