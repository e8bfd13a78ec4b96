package peer

import (
	"context"
	"net"
	"strings"
	"time"

	"stellar.io/stellar/ipam"
)

// StreamLayer carries Raft's connections over the port. It satisfies
// raftstore.StreamLayer. An address is HOST:PORT, where any member may answer
// that may speak Raft, or NODE-ID@HOST:PORT, where it must be that node
// (RaftAddress): Raft itself does not say whom it means, so a server id is best
// made part of the address where server ids are turned into addresses.
type StreamLayer struct {
	*queue
	port *Port
}

// RaftAddress returns the address by which StreamLayer.Dial connects to the node
// and to no other.
func RaftAddress(node ipam.NodeID, hostPort string) string { return string(node) + "@" + hostPort }

// splitRaftAddress is the inverse of RaftAddress.
func splitRaftAddress(address string) (node ipam.NodeID, hostPort string) {
	if id, rest, ok := strings.Cut(address, "@"); ok {
		return ipam.NodeID(id), rest
	}
	return "", address
}

// Raft starts to serve the protocol and returns what Raft needs of it. From then
// on connections wait for Accept, up to the handshake's deadline. Closing it ends
// the serving and leaves the port open. A second call takes the place of the
// first, whose StreamLayer it closes: Raft was opened again.
func (p *Port) Raft() *StreamLayer {
	l := &StreamLayer{queue: newQueue(p.Addr()), port: p}
	if old := p.raft.Swap(l); old != nil {
		old.queue.Close()
	}
	select {
	case <-p.done:
		l.Close()
	default:
	}
	return l
}

// Close implements net.Listener.
func (l *StreamLayer) Close() error {
	l.port.raft.CompareAndSwap(l, nil)
	return l.queue.Close()
}

// Dial connects to a node's advertised address. timeout (zero: the port's
// handshake timeout, which also is the most) covers everything up to the other
// side's verdict.
func (l *StreamLayer) Dial(address string, timeout time.Duration) (net.Conn, error) {
	ctx := context.Background()
	if timeout > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, timeout)
		defer cancel()
	}
	node, hostPort := splitRaftAddress(address)
	return l.port.dial(ctx, hostPort, Raft, node)
}
