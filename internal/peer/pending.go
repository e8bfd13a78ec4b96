package peer

import (
	"net"
	"net/netip"
	"sync"
	"time"
)

// pending bounds the connections whose handshake is not over. A new one is never
// turned away: the oldest goes, so that somebody who opens many and says nothing
// keeps honest ones out only if he opens a full set within the few milliseconds
// that theirs takes.
type pending struct {
	max, maxPerIP int

	mu   sync.Mutex // guards what follows
	list []waiting  // oldest first
}

type waiting struct {
	c    net.Conn
	from netip.Addr
}

// add takes c in and closes another one if there are too many. done must be
// called when the handshake is over.
func (p *pending) add(c net.Conn) (done func()) {
	w := waiting{c, remoteIP(c)}
	p.mu.Lock()
	victim := p.victim(w.from)
	if victim >= 0 {
		defer p.list[victim].c.Close() // its handshake fails, and calls done for it
		p.list = append(p.list[:victim:victim], p.list[victim+1:]...)
	}
	p.list = append(p.list, w)
	p.mu.Unlock()
	return func() { p.remove(c) }
}

// victim returns the index of the connection that must go for one more from the
// address, or -1: the oldest of that address if that has its share, else the
// oldest of the address that has most.
func (p *pending) victim(from netip.Addr) int {
	count := map[netip.Addr]int{}
	most := from
	for _, w := range p.list {
		count[w.from]++
		if count[w.from] > count[most] {
			most = w.from
		}
	}
	switch {
	case count[from] >= p.maxPerIP:
		most = from
	case len(p.list) < p.max:
		return -1
	}
	for i, w := range p.list {
		if w.from == most {
			return i
		}
	}
	return -1
}

func (p *pending) remove(c net.Conn) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for i, w := range p.list {
		if w.c == c {
			p.list = append(p.list[:i:i], p.list[i+1:]...)
			return
		}
	}
}

func (p *pending) closeAll() {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, w := range p.list {
		w.c.Close()
	}
}

// rate allows each address burst events at once and one more each interval.
type rate struct {
	burst int
	every time.Duration

	mu    sync.Mutex // guards what follows
	taken map[netip.Addr]bucket
}

// bucket: level events were counted at the time at; it drains one each interval.
type bucket struct {
	level float64
	at    time.Time
}

// maxBuckets bounds the memory that strangers can take; when it is reached, the
// addresses that have been quiet longest are forgotten.
const maxBuckets = 4096

func (r *rate) allow(from netip.Addr, now time.Time) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.taken == nil {
		r.taken = map[netip.Addr]bucket{}
	}
	b := r.drained(r.taken[from], now)
	if b.level+1 > float64(r.burst) {
		return false
	}
	if len(r.taken) >= maxBuckets {
		r.prune(now)
	}
	r.taken[from] = bucket{b.level + 1, now}
	return true
}

func (r *rate) drained(b bucket, now time.Time) bucket {
	if b.at.IsZero() {
		return bucket{0, now}
	}
	return bucket{max(0, b.level-float64(now.Sub(b.at))/float64(r.every)), now}
}

// prune drops what has drained, and the whole table if nothing has.
func (r *rate) prune(now time.Time) {
	for a, b := range r.taken {
		if r.drained(b, now).level == 0 {
			delete(r.taken, a)
		}
	}
	if len(r.taken) >= maxBuckets {
		clear(r.taken)
	}
}
