package peer

import (
	"context"
	"net"
	"strings"
	"sync/atomic"
	"time"

	"stellar.io/stellar/ipam"
)

// StreamLayer carries Raft's connections, or those of followers, over the port. It
// satisfies raftstore.StreamLayer. An address is HOST:PORT, where any member may answer
// that may speak Raft, or NODE-ID@HOST:PORT, where it must be that node
// (RaftAddress): Raft itself does not say whom it means, so a server id is best
// made part of the address where server ids are turned into addresses.
type StreamLayer struct {
	*queue
	port   *Port
	proto  Protocol
	served *atomic.Pointer[StreamLayer]
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
func (p *Port) Raft() *StreamLayer { return p.streams(Raft, &p.raft) }

// Followers is Raft for the streams that followers ask for. A follower has it to call
// servers, and closes it to serve nobody.
func (p *Port) Followers() *StreamLayer { return p.streams(Follow, &p.follow) }

func (p *Port) streams(proto Protocol, served *atomic.Pointer[StreamLayer]) *StreamLayer {
	l := &StreamLayer{queue: newQueue(p.Addr()), port: p, proto: proto, served: served}
	if old := served.Swap(l); old != nil {
		old.queue.Close()
	}
	select {
	case <-p.done:
		l.Close()
	default:
	}
	return l
}

// Close implements net.Listener. Dial goes on working.
func (l *StreamLayer) Close() error {
	l.served.CompareAndSwap(l, nil)
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
	return l.port.dial(ctx, hostPort, l.proto, node)
}
