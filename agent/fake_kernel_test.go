package agent

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"stellar.io/stellar/ipam"
	"stellar.io/stellar/netsetup"
)

// fakeKernel has namespaces, processes and links. Numbers of processes are used
// again soon, those of namespaces at once. A namespace lives as
// long as a process or a descriptor is in it, and takes its links along.
type fakeKernel struct {
	mu       sync.Mutex // guards all below
	procs    map[int]*fakeProc
	freePIDs []int
	freeInos []uint64
	// sparePIDs is how many pids are passed over before one is used again.
	sparePIDs int
	lastPID   int
	lastIno   uint64
	host      *fakeNS
	links     map[ipam.Owner]*fakeLink
	attaches  atomic.Int64
	open      int // handles that are not closed
	broken    []string
	paths     map[string]*fakeNS

	// mayDetach judges the removal of a link from a namespace with processes.
	mayDetach func(ipam.Owner, *fakeNS) bool
	// held is the address that an owner holds.
	held func(ipam.Owner) (netip.Addr, bool)
	// lost is told of links that vanish without Detach; nil: nobody is.
	lost func(ipam.Owner)
	// fail is asked before each call; nil: nothing fails.
	fail func(op string) error
}

type fakeNS struct {
	id      netsetup.NSID
	procs   int
	fds     int
	foreign map[string]bool // interfaces that others made
	gateway bool            // others made a default route
}

type fakeProc struct {
	pid    int
	ns     *fakeNS
	start  time.Time
	parked bool
	exited chan struct{}
}

type fakeLink struct {
	netsetup.Endpoint
	ns      *fakeNS
	gateway bool
	mtu     int
}

func newFakeKernel() *fakeKernel {
	k := &fakeKernel{procs: map[int]*fakeProc{}, lastPID: 100, sparePIDs: 3, lastIno: 4026531840, links: map[ipam.Owner]*fakeLink{}, paths: map[string]*fakeNS{}}
	k.host = &fakeNS{id: netsetup.NSID{Dev: 4, Ino: 1}, fds: 1}
	return k
}

func (k *fakeKernel) breaks(format string, args ...any) {
	k.broken = append(k.broken, fmt.Sprintf(format, args...))
}

// newNS makes a namespace without processes, held by a descriptor (a pin).
func (k *fakeKernel) newNS() *fakeNS {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.lastIno++
	ino := k.lastIno
	if n := len(k.freeInos); n > 0 {
		ino, k.freeInos = k.freeInos[n-1], k.freeInos[:n-1]
	}
	return &fakeNS{id: netsetup.NSID{Dev: 4, Ino: ino}, fds: 1, foreign: map[string]bool{}}
}

func (k *fakeKernel) unpin(ns *fakeNS) {
	k.mu.Lock()
	defer k.mu.Unlock()
	ns.fds--
	k.reap(ns)
}

// fork makes a process, parked before its exec.
func (k *fakeKernel) fork(ns *fakeNS) *fakeProc {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.lastPID++
	pid := k.lastPID
	if len(k.freePIDs) > k.sparePIDs {
		pid, k.freePIDs = k.freePIDs[0], k.freePIDs[1:]
	}
	p := &fakeProc{pid: pid, ns: ns, start: time.Now(), parked: true, exited: make(chan struct{})}
	ns.procs++
	k.procs[pid] = p
	return p
}

func (k *fakeKernel) exec(p *fakeProc) {
	k.mu.Lock()
	defer k.mu.Unlock()
	p.parked = false
}

func (k *fakeKernel) kill(p *fakeProc) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.procs[p.pid] != p {
		return
	}
	close(p.exited)
	delete(k.procs, p.pid)
	k.freePIDs = append(k.freePIDs, p.pid)
	p.ns.procs--
	k.reap(p.ns)
}

// reap ends a namespace that nobody holds.
func (k *fakeKernel) reap(ns *fakeNS) {
	if ns.procs > 0 || ns.fds > 0 || ns == k.host {
		return
	}
	k.freeInos = append(k.freeInos, ns.id.Ino)
	for o, l := range k.links {
		if l.ns == ns {
			k.lose(o)
		}
	}
}

// lose removes a link as others do.
func (k *fakeKernel) lose(o ipam.Owner) {
	delete(k.links, o)
	if k.lost != nil {
		go k.lost(o)
	}
}

func (k *fakeKernel) failing(op string) error {
	time.Sleep(200 * time.Microsecond)
	k.mu.Lock()
	fail := k.fail
	k.mu.Unlock()
	if fail == nil {
		return nil
	}
	return fail(op)
}

func (k *fakeKernel) OpenPID(pid int, before time.Time) (Process, error) {
	if err := k.failing("open"); err != nil {
		return nil, err
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	p := k.procs[pid]
	switch {
	case pid <= 0:
		return nil, netsetup.ErrNotNamespace
	case p == nil:
		return nil, netsetup.ErrProcessGone
	case !before.IsZero() && p.start.After(before.Add(20*time.Millisecond)):
		return nil, netsetup.ErrPIDReused
	case p.ns == k.host:
		return nil, netsetup.ErrHostNamespace
	}
	p.ns.fds++
	k.open++
	return &fakeHandle{k: k, p: p, inNS: true, closed: make(chan struct{})}, nil
}

// OpenPath opens a namespace that pathOf has named.
func (k *fakeKernel) OpenPath(path string) (Process, error) {
	if err := k.failing("open"); err != nil {
		return nil, err
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	ns := k.paths[path]
	switch ns {
	case nil:
		return nil, fmt.Errorf("open %s: %w", path, os.ErrNotExist)
	case k.host:
		return nil, netsetup.ErrHostNamespace
	}
	ns.fds++
	k.open++
	return &fakeHandle{k: k, p: &fakeProc{ns: ns, exited: make(chan struct{})}, inNS: true, closed: make(chan struct{})}, nil
}

// pin gives a namespace a path.
func (k *fakeKernel) pin(path string, ns *fakeNS) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.paths[path] = ns
}

func (k *fakeKernel) Detach(_ context.Context, o ipam.Owner) error {
	if err := k.failing("detach"); err != nil {
		return err
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	l := k.links[o]
	if l == nil {
		return nil
	}
	if l.ns.procs > 0 && k.mayDetach != nil && !k.mayDetach(o, l.ns) {
		k.breaks("%s detached from a living namespace", o)
	}
	delete(k.links, o)
	return nil
}

func (k *fakeKernel) List(context.Context) ([]netsetup.Endpoint, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	var out []netsetup.Endpoint
	for _, l := range k.links {
		e := l.Endpoint
		e.MAC, e.NSID = nil, netsetup.NSID{} // a new process sees the host's end alone
		out = append(out, e)
	}
	return out, nil
}

func (k *fakeKernel) Inhabited(_ context.Context, o ipam.Owner) (bool, error) {
	if err := k.failing("inhabited"); err != nil {
		return false, err
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	l := k.links[o]
	return l != nil && l.ns.procs > 0, nil
}

// fakeHandle is an open process.
type fakeHandle struct {
	k      *fakeKernel
	p      *fakeProc
	inNS   bool
	closed chan struct{}
}

func (h *fakeHandle) PID() int          { return h.p.pid }
func (h *fakeHandle) ID() netsetup.NSID { return h.p.ns.id }

func (h *fakeHandle) Exited() bool {
	select {
	case <-h.p.exited:
		return true
	default:
		return false
	}
}

func (h *fakeHandle) WaitExit(ctx context.Context) error {
	select {
	case <-h.p.exited:
		return nil
	case <-h.closed:
		return errors.New("closed")
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (h *fakeHandle) Parked() bool {
	h.k.mu.Lock()
	defer h.k.mu.Unlock()
	return h.p.parked && !h.Exited()
}

func (h *fakeHandle) Attach(_ context.Context, s netsetup.Spec) (e netsetup.Endpoint, t netsetup.Timing, err error) {
	if err := h.k.failing("attach"); err != nil {
		return e, t, err
	}
	k := h.k
	k.mu.Lock()
	defer k.mu.Unlock()
	k.attaches.Add(1)
	if !h.inNS {
		k.breaks("%s attached through a closed namespace", s.Owner)
	}
	if a, ok := k.held(s.Owner); !ok || a != s.Addr {
		k.breaks("%s attached with %s, but it holds %s", s.Owner, s.Addr, a)
	}
	if s.Ifname != s.Owner.Interface {
		return e, t, netsetup.ErrInvalid
	}
	l := k.links[s.Owner]
	if l != nil && (l.ns != h.p.ns || l.Addr != s.Addr) {
		delete(k.links, s.Owner)
		l = nil
	}
	t.Adopted = l != nil
	gateway := h.p.ns.gateway
	for o, other := range k.links {
		if o != s.Owner && other.Addr == s.Addr {
			k.breaks("%s is on two links, of %s and %s", s.Addr, o, s.Owner)
		}
		if o != s.Owner && other.ns == h.p.ns {
			gateway = gateway || other.gateway
			if other.Ifname == s.Ifname {
				return e, t, fmt.Errorf("attach: %w", netsetup.ErrInterfaceExists)
			}
		}
	}
	switch {
	case h.p.ns.foreign[s.Ifname]:
		return e, t, fmt.Errorf("attach: %w", netsetup.ErrInterfaceExists)
	case gateway && s.DefaultRoute:
		return e, t, fmt.Errorf("attach: %w", netsetup.ErrDefaultRouteExists)
	}
	if l == nil {
		l = &fakeLink{ns: h.p.ns, mtu: s.MTU}
		k.links[s.Owner] = l
	}
	l.gateway = s.DefaultRoute
	l.Endpoint = netsetup.Endpoint{
		Owner: s.Owner, Addr: s.Addr, MAC: netsetup.MACFor(s.Addr), Ifname: s.Ifname,
		HostIfname: fmt.Sprintf("veth%x", s.Addr.As4()), NSID: h.p.ns.id, Up: true,
	}
	return l.Endpoint, t, nil
}

func (h *fakeHandle) Endpoint(context.Context) (netsetup.Endpoint, bool, error) {
	if err := h.k.failing("endpoint"); err != nil {
		return netsetup.Endpoint{}, false, err
	}
	h.k.mu.Lock()
	defer h.k.mu.Unlock()
	for _, l := range h.k.links {
		if l.ns == h.p.ns {
			return l.Endpoint, true, nil
		}
	}
	return netsetup.Endpoint{}, false, nil
}

func (h *fakeHandle) CloseNS() error {
	h.k.mu.Lock()
	defer h.k.mu.Unlock()
	if h.inNS {
		h.inNS = false
		h.p.ns.fds--
		h.k.reap(h.p.ns)
	}
	return nil
}

func (h *fakeHandle) Close() error {
	_ = h.CloseNS()
	h.k.mu.Lock()
	defer h.k.mu.Unlock()
	select {
	case <-h.closed:
	default:
		close(h.closed)
		h.k.open--
	}
	return nil
}
