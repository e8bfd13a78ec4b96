package raftstore

import (
	"net"
	"sync"
	"time"

	"github.com/hashicorp/raft"
)

// dialTimeout bounds the making of a connection: on a LAN, one lost packet.
const dialTimeout = 1500 * time.Millisecond

// streams lets the library use a StreamLayer. It knows the open connections,
// because the library forgets those that others have opened, and waits for answers
// on its own when it is shut down.
type streams struct {
	StreamLayer

	mu     sync.Mutex // guards the block
	conns  map[net.Conn]struct{}
	closed bool
}

func newStreams(l StreamLayer) *streams {
	return &streams{StreamLayer: l, conns: make(map[net.Conn]struct{})}
}

// Dial implements raft.StreamLayer.
func (s *streams) Dial(a raft.ServerAddress, timeout time.Duration) (net.Conn, error) {
	return s.track(s.StreamLayer.Dial(string(a), min(timeout, dialTimeout)))
}

// Accept implements net.Listener.
func (s *streams) Accept() (net.Conn, error) { return s.track(s.StreamLayer.Accept()) }

func (s *streams) track(c net.Conn, err error) (net.Conn, error) {
	if err != nil {
		return nil, err
	}
	t := &trackedConn{Conn: c, streams: s}
	s.mu.Lock()
	closed := s.closed
	if !closed {
		s.conns[t] = struct{}{}
	}
	s.mu.Unlock()
	if closed {
		c.Close()
		return nil, net.ErrClosed
	}
	return t, nil
}

// abort closes all connections, now and from now on.
func (s *streams) abort() {
	s.mu.Lock()
	conns := s.conns
	s.conns, s.closed = nil, true
	s.mu.Unlock()
	for c := range conns {
		c.Close()
	}
}

// Close implements net.Listener.
func (s *streams) Close() error {
	s.abort()
	return s.StreamLayer.Close()
}

type trackedConn struct {
	net.Conn
	streams *streams
}

// Close implements net.Conn.
func (c *trackedConn) Close() error {
	c.streams.mu.Lock()
	delete(c.streams.conns, c)
	c.streams.mu.Unlock()
	return c.Conn.Close()
}
