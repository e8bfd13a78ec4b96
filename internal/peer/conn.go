package peer

import (
	"crypto/tls"
	"io"
	"math"
	"net"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"stellar.io/stellar/ipam"
)

// conn is an accepted connection, inbound or outbound. It hides that it is TLS,
// so that net/http takes it as it is instead of looking at its ALPN name.
type conn struct {
	net.Conn          // the *tls.Conn
	raw      net.Conn // what is below it
	peer     Peer     // without an identity on a join
	from     netip.Addr
	since    time.Time
	maxAge   time.Duration // inbound: from then on it is to end
	life     *time.Timer   // kills it; nil: never

	registry *registry
	once     sync.Once
	killed   atomic.Bool
}

func newConn(t *tls.Conn, raw net.Conn, p Peer, r *registry) *conn {
	return &conn{Conn: t, raw: raw, peer: p, from: remoteIP(raw), since: time.Now(), registry: r}
}

// Close says good-bye and closes. It may wait for a peer that does not read, up
// to five seconds.
func (c *conn) Close() error {
	c.forget()
	return c.Conn.Close()
}

// Read implements net.Conn. A connection that this side has ended reads as its
// end: it is no failure, and Raft's transport and net/http log it as none.
func (c *conn) Read(b []byte) (int, error) {
	n, err := c.Conn.Read(b)
	if err != nil && c.killed.Load() {
		err = io.EOF
	}
	return n, err
}

// PeerNode is the node at the other end, by its certificate.
func (c *conn) PeerNode() ipam.NodeID { return c.peer.Node }

// kill closes without a word and does not wait.
func (c *conn) kill() {
	c.killed.Store(true)
	c.forget()
	c.raw.Close()
}

func (c *conn) forget() {
	c.once.Do(func() {
		c.registry.remove(c)
		if c.life != nil {
			c.life.Stop()
		}
	})
}

// endAfter kills the connection after d. To be called before anybody else has it.
func (c *conn) endAfter(d time.Duration) {
	c.life = time.AfterFunc(math.MaxInt64, c.kill)
	c.life.Reset(d) // not sooner: kill looks at c.life
}

func (c *conn) old() bool { return c.maxAge > 0 && time.Since(c.since) > c.maxAge }

// registry holds the connections whose other side is known, and those of joins.
type registry struct {
	maxPerNode, maxJoins, maxJoinsPerIP int

	mu     sync.Mutex // guards what follows; never held over I/O
	conns  map[*conn]struct{}
	closed bool
}

// add takes c in. victim is to be killed in its place, if not nil. After close it
// takes nothing in.
func (r *registry) add(c *conn) (victim *conn, err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.closed {
		return nil, net.ErrClosed
	}
	if c.peer.Protocol == Join && c.peer.Inbound {
		if err := r.roomForJoin(c.from); err != nil {
			return nil, err
		}
	} else if c.peer.Inbound {
		victim = r.excess(c.peer.Node)
	}
	r.conns[c] = struct{}{}
	return victim, nil
}

func (r *registry) roomForJoin(from netip.Addr) error {
	all, same := 0, 0
	for c := range r.conns {
		if c.peer.Protocol == Join && c.peer.Inbound {
			all++
			if c.from == from {
				same++
			}
		}
	}
	if all >= r.maxJoins || same >= r.maxJoinsPerIP {
		return ErrTooMany
	}
	return nil
}

// excess returns the oldest inbound connection of a node that has too many.
func (r *registry) excess(node ipam.NodeID) *conn {
	var oldest *conn
	n := 0
	for c := range r.conns {
		if c.peer.Inbound && c.peer.Protocol != Join && c.peer.Node == node {
			n++
			if oldest == nil || c.since.Before(oldest.since) {
				oldest = c
			}
		}
	}
	if n < r.maxPerNode {
		return nil
	}
	return oldest
}

func (r *registry) remove(c *conn) {
	r.mu.Lock()
	defer r.mu.Unlock()
	delete(r.conns, c)
}

// kill ends the connections for which which is true, and returns how many.
func (r *registry) kill(which func(*conn) bool) int {
	r.mu.Lock()
	var list []*conn
	for c := range r.conns {
		if which(c) {
			list = append(list, c)
		}
	}
	r.mu.Unlock()
	for _, c := range list {
		c.kill()
	}
	return len(list)
}

// close ends all connections and lets no new one in.
func (r *registry) close() {
	r.mu.Lock()
	r.closed = true
	r.mu.Unlock()
	r.kill(func(*conn) bool { return true })
}

// remoteIP returns who is calling, as far as limits go: IPv6 by /64, which is what
// one machine has for itself.
func remoteIP(c net.Conn) netip.Addr {
	t, ok := c.RemoteAddr().(*net.TCPAddr)
	if !ok {
		return netip.Addr{}
	}
	a := t.AddrPort().Addr().Unmap().WithZone("")
	if a.Is6() {
		return netip.PrefixFrom(a, 64).Masked().Addr()
	}
	return a
}
