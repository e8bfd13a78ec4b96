package peer

import (
	"net"
	"runtime"
)

// A handshake costs this node about a millisecond of a processor. When hundreds come
// at once, since a server has died that many nodes followed, their goroutines alone
// would keep the processors busy for so long that Raft's have to wait for their turn,
// miss heartbeats, and cost the cluster its leader. So no more handshakes compute at
// the same time than there are processors; the others wait in line. Who waits for the
// other side keeps nobody waiting.

// turns are what handshakes hold while they compute.
type turns chan struct{}

func newTurns() turns { return make(turns, max(1, runtime.GOMAXPROCS(0))) }

// turn is a connection whose handshake computes between two reads only when it is its
// turn. One goroutine uses it until end.
type turn struct {
	net.Conn
	turns turns
	held  bool
	over  bool
}

// Read gives the turn up until there is something to compute with.
func (t *turn) Read(b []byte) (int, error) {
	if t.over {
		return t.Conn.Read(b)
	}
	t.release()
	n, err := t.Conn.Read(b)
	t.turns <- struct{}{}
	t.held = true
	return n, err
}

func (t *turn) release() {
	if t.held {
		t.held = false
		<-t.turns
	}
}

// end is called when the handshake is over. The connection then is as it was.
func (t *turn) end() {
	t.release()
	t.over = true
}
