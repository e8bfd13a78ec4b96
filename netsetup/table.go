package netsetup

import (
	"context"
	"net/netip"
	"slices"
	"sync"

	"stellar.io/stellar/internal/nlx"
	"stellar.io/stellar/ipam"
)

// port is an endpoint with what its host end must look like. The table is what
// this process believes; before anything is changed the kernel is asked.
type port struct {
	Endpoint
	alias    string
	routed   bool // attached in routed mode
	mtu      int
	pid      int  // process of the namespace, 0 unknown
	leaving  bool // Detach is at work: its disappearance is no loss
	hardened bool // IPv6 is off on the host end
}

// table holds the endpoints by owner and by host link. Its locks are never held
// over a system call.
type table struct {
	mu      sync.Mutex // guards everything below
	byOwner map[ipam.Owner]*port
	byIndex map[int]*port
	byAddr  map[netip.Addr]*port
	busy    map[ipam.Owner]chan struct{}
	gone    map[int]chan struct{} // closed when the link's deletion is announced
}

func newTable() *table {
	return &table{
		byOwner: make(map[ipam.Owner]*port),
		byIndex: make(map[int]*port),
		byAddr:  make(map[netip.Addr]*port),
		busy:    make(map[ipam.Owner]chan struct{}),
		gone:    make(map[int]chan struct{}),
	}
}

// hold makes the caller the only one who changes an owner's endpoint and returns
// the function that ends that. It waits for others until ctx ends.
func (t *table) hold(ctx context.Context, o ipam.Owner) (func(), error) {
	for {
		t.mu.Lock()
		other, busy := t.busy[o]
		if !busy {
			mine := make(chan struct{})
			t.busy[o] = mine
			t.mu.Unlock()
			return func() {
				t.mu.Lock()
				delete(t.busy, o)
				t.mu.Unlock()
				close(mine)
			}, nil
		}
		t.mu.Unlock()
		select {
		case <-other:
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
}

// held reports whether somebody changes the owner's endpoint now.
func (t *table) held(o ipam.Owner) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	_, ok := t.busy[o]
	return ok
}

// get returns a copy of the owner's port.
func (t *table) get(o ipam.Owner) (port, bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	p, ok := t.byOwner[o]
	if !ok {
		return port{}, false
	}
	return *p, true
}

// at returns a copy of the port with the given host link.
func (t *table) at(index int) (port, bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	p, ok := t.byIndex[index]
	if !ok {
		return port{}, false
	}
	return *p, true
}

// holder returns a copy of the port that has the address.
func (t *table) holder(a netip.Addr) (port, bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	p, ok := t.byAddr[a]
	if !ok {
		return port{}, false
	}
	return *p, true
}

// put adds or replaces an owner's port.
func (t *table) put(p port) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if old, ok := t.byOwner[p.Owner]; ok {
		t.remove(old)
	}
	t.enter(&p)
}

// enter and remove change the maps; t.mu is held.
func (t *table) enter(p *port) {
	t.byOwner[p.Owner], t.byIndex[p.HostIndex], t.byAddr[p.Addr] = p, p, p
}

func (t *table) remove(p *port) {
	if t.byIndex[p.HostIndex] == p {
		delete(t.byIndex, p.HostIndex)
	}
	if t.byOwner[p.Owner] == p {
		delete(t.byOwner, p.Owner)
	}
	if t.byAddr[p.Addr] == p {
		delete(t.byAddr, p.Addr)
	}
}

// change calls fn on the port with the given host link, if there is one.
func (t *table) change(index int, fn func(*port)) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if p, ok := t.byIndex[index]; ok {
		fn(p)
	}
}

// drop forgets the port with the given host link and wakes who waits for its end.
func (t *table) drop(index int) (port, bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if c, ok := t.gone[index]; ok {
		close(c)
		delete(t.gone, index)
	}
	p, ok := t.byIndex[index]
	if !ok {
		return port{}, false
	}
	t.remove(p)
	return *p, true
}

// watch returns a channel that drop(index) closes.
func (t *table) watch(index int) <-chan struct{} {
	t.mu.Lock()
	defer t.mu.Unlock()
	c, ok := t.gone[index]
	if !ok {
		c = make(chan struct{})
		t.gone[index] = c
	}
	return c
}

// all returns copies of all ports in the order of their addresses.
func (t *table) all() []port {
	t.mu.Lock()
	defer t.mu.Unlock()
	ports := make([]port, 0, len(t.byOwner))
	for _, p := range t.byOwner {
		ports = append(ports, *p)
	}
	slices.SortFunc(ports, func(a, b port) int { return a.Addr.Compare(b.Addr) })
	return ports
}

func (t *table) len() int {
	t.mu.Lock()
	defer t.mu.Unlock()
	return len(t.byOwner)
}

// merge enters the ports among all of the host's links.
func (t *table) merge(links []nlx.Link) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, l := range links {
		p, ok := portOf(l)
		if !ok {
			continue
		}
		known, ok := t.byOwner[p.Owner]
		switch _, busy := t.busy[p.Owner]; {
		case ok && known.HostIndex == p.HostIndex:
			known.HostIfname, known.Up = p.HostIfname, p.Up
		case !ok && !busy:
			t.enter(&p)
		}
	}
}

// endpoints returns the endpoints among links, with what is known of them, in the
// order of their addresses.
func (t *table) endpoints(links []nlx.Link) []Endpoint {
	t.mu.Lock()
	defer t.mu.Unlock()
	var eps []Endpoint
	for _, l := range links {
		p, ok := portOf(l)
		if !ok {
			continue
		}
		if known, ok := t.byIndex[l.Index]; ok && known.Owner == p.Owner {
			p = *known
		}
		eps = append(eps, p.Endpoint)
	}
	slices.SortFunc(eps, func(a, b Endpoint) int { return a.Addr.Compare(b.Addr) })
	return eps
}

// reset forgets everything.
func (t *table) reset() {
	t.mu.Lock()
	defer t.mu.Unlock()
	clear(t.byOwner)
	clear(t.byIndex)
	clear(t.byAddr)
}
