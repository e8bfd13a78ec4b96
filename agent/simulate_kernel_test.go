package agent

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"os"
	"slices"
	"strconv"
	"time"

	"stellar.io/stellar/ipam"
	"stellar.io/stellar/netsetup"
)

// simKernel has processes, namespaces and links. Numbers of processes are used again
// soon, those of namespaces at once. A namespace lives as long as a process or a
// descriptor is in it, and takes its links along.
type simKernel struct {
	w        *world
	procs    map[int]*simProc
	freePIDs []int
	freeInos []uint64
	lastPID  int
	lastIno  uint64
	links    []*simLink
	crowded  *simNS // in which others have made an eth0
	macs     map[netip.Addr]net.HardwareAddr
}

type simNS struct {
	id         netsetup.NSID
	procs, fds int
	crowded    bool
}

type simProc struct {
	pid    int
	ns     *simNS
	start  time.Time
	parked bool
	dead   bool
	then   []func() // at its exit
}

type simLink struct {
	netsetup.Endpoint
	ns      *simNS
	gateway bool
}

func (k *simKernel) init(w *world) {
	k.w, k.procs, k.lastPID, k.lastIno = w, map[int]*simProc{}, 100, 1000
	k.macs = map[netip.Addr]net.HardwareAddr{}
	k.crowded = k.newNS()
	k.crowded.crowded = true
}

// newNS makes a namespace that a descriptor holds.
func (k *simKernel) newNS() *simNS {
	k.lastIno++
	ino := k.lastIno
	if n := len(k.freeInos); n > 0 {
		ino, k.freeInos = k.freeInos[n-1], k.freeInos[:n-1]
	}
	return &simNS{id: netsetup.NSID{Dev: 4, Ino: ino}, fds: 1}
}

func (k *simKernel) fork(ns *simNS) *simProc {
	k.lastPID++
	pid := k.lastPID
	for i, free := range k.freePIDs[:max(0, len(k.freePIDs)-3)] {
		if !k.w.mistaken(free) {
			pid, k.freePIDs = free, slices.Delete(k.freePIDs, i, i+1)
			break
		}
	}
	p := &simProc{pid: pid, ns: ns, start: k.w.time(), parked: true}
	ns.procs++
	k.procs[pid] = p
	return p
}

func (k *simKernel) kill(p *simProc) {
	if p.dead {
		return
	}
	k.w.trace.line("exit").num(int64(p.pid)).end(k.w)
	p.dead = true
	delete(k.procs, p.pid)
	k.freePIDs = append(k.freePIDs, p.pid)
	k.w.over = append(k.w.over, p.then...)
	p.ns.procs--
	k.reap(p.ns)
}

func (k *simKernel) reap(ns *simNS) {
	if ns.procs > 0 || ns.fds > 0 {
		return
	}
	k.freeInos = append(k.freeInos, ns.id.Ino)
	k.links = slices.DeleteFunc(k.links, func(l *simLink) bool {
		if l.ns == ns {
			k.w.lost = append(k.w.lost, l.Owner)
		}
		return l.ns == ns
	})
}

// reboot ends all processes, and with them all namespaces.
func (k *simKernel) reboot() {
	for _, pid := range sortedPIDs(k.procs) {
		p := k.procs[pid]
		p.dead = true
		p.ns.procs--
	}
	clear(k.procs)
	k.links, k.freePIDs, k.freeInos = nil, nil, nil
	k.lastPID = 100
	k.crowded = k.newNS()
	k.crowded.crowded = true
}

func (k *simKernel) link(o ipam.Owner) *simLink {
	for _, l := range k.links {
		if l.Owner == o {
			return l
		}
	}
	return nil
}

// watch is the agent's onExit: the world delivers what pidfds tell.
func (k *simKernel) watch(l *life) func(context.Context, Process, func()) {
	return func(_ context.Context, p Process, then func()) {
		proc := p.(*simHandle).p
		tell := func() {
			if !l.dead {
				then()
			}
		}
		if proc.dead {
			k.w.over = append(k.w.over, tell)
			return
		}
		proc.then = append(proc.then, tell)
	}
}

// simNet is the kernel as one process sees it.
type simNet struct {
	*simKernel
	l *life
}

func (n simNet) OpenPID(pid int, before time.Time) (Process, error) {
	if err := n.w.effect(n.l, "open"); err != nil {
		return nil, err
	}
	p := n.procs[pid]
	switch {
	case pid <= 0:
		return nil, netsetup.ErrNotNamespace
	case p == nil:
		return nil, netsetup.ErrProcessGone
	case !before.IsZero() && p.start.After(before):
		return nil, netsetup.ErrPIDReused
	}
	p.ns.fds++
	return &simHandle{n: n, p: p, inNS: true}, nil
}

func (n simNet) OpenPath(path string) (Process, error) {
	return nil, fmt.Errorf("open %s: %w", path, os.ErrNotExist)
}

func (n simNet) Detach(_ context.Context, o ipam.Owner) error {
	if err := n.w.effect(n.l, "detach"); err != nil {
		return err
	}
	l := n.link(o)
	if l == nil {
		return n.w.after(n.l, "detach")
	}
	n.w.trace.line("detach").owner(o).end(n.w)
	if l.ns.procs > 0 {
		n.w.judgeDetach(o, l)
	}
	n.links = slices.DeleteFunc(n.links, func(x *simLink) bool { return x == l })
	return n.w.after(n.l, "detach")
}

func (n simNet) List(context.Context) ([]netsetup.Endpoint, error) {
	if err := n.w.effect(n.l, "list links"); err != nil {
		return nil, err
	}
	var out []netsetup.Endpoint
	for _, l := range n.links {
		e := l.Endpoint
		e.MAC, e.NSID = nil, netsetup.NSID{} // a new process sees the host's end alone
		out = append(out, e)
	}
	return out, nil
}

func (n simNet) Inhabited(_ context.Context, o ipam.Owner) (bool, error) {
	if err := n.w.effect(n.l, "inhabited"); err != nil {
		return false, err
	}
	l := n.link(o)
	return l != nil && l.ns.procs > 0, nil
}

// simHandle is an open process.
type simHandle struct {
	n      simNet
	p      *simProc
	inNS   bool
	closed bool
}

func (h *simHandle) PID() int                       { return h.p.pid }
func (h *simHandle) ID() netsetup.NSID              { return h.p.ns.id }
func (h *simHandle) Exited() bool                   { return h.p.dead }
func (h *simHandle) Parked() bool                   { return h.p.parked && !h.p.dead }
func (h *simHandle) WaitExit(context.Context) error { return errDead } // see onExit

func (h *simHandle) Attach(_ context.Context, s netsetup.Spec) (e netsetup.Endpoint, t netsetup.Timing, err error) {
	w, k := h.n.w, h.n.simKernel
	if err := w.effect(h.n.l, "attach"); err != nil {
		return e, t, err
	}
	if !h.inNS {
		w.breaks("%s is attached through a closed namespace", s.Owner)
	}
	if a, ok := w.acked[s.Owner]; ok && a != s.Addr {
		w.breaks("%s is attached with %s and was given %s", s.Owner, s.Addr, a)
	}
	l := k.link(s.Owner)
	if l != nil && (l.ns != h.p.ns || l.Addr != s.Addr) {
		k.links = slices.DeleteFunc(k.links, func(x *simLink) bool { return x == l })
		l = nil
	}
	t.Adopted = l != nil
	gateway := h.p.ns.crowded
	for _, other := range k.links {
		if other.Owner != s.Owner && other.Addr == s.Addr {
			w.breaks("I1: %s is on two links, of %s and %s", s.Addr, other.Owner, s.Owner)
		}
		if other.Owner != s.Owner && other.ns == h.p.ns {
			gateway = gateway || other.gateway
			if other.Ifname == s.Ifname {
				return e, t, netsetup.ErrInterfaceExists
			}
		}
	}
	switch {
	case h.p.ns.crowded && s.Ifname == "eth0":
		return e, t, netsetup.ErrInterfaceExists
	case gateway && s.DefaultRoute:
		return e, t, netsetup.ErrDefaultRouteExists
	}
	if l == nil {
		l = &simLink{ns: h.p.ns}
		k.links = append(k.links, l)
		w.trace.line("attach").owner(s.Owner).addr(s.Addr).num(int64(h.p.pid)).end(w)
	}
	l.gateway = s.DefaultRoute
	l.Endpoint = netsetup.Endpoint{
		Owner: s.Owner, Addr: s.Addr, MAC: k.mac(s.Addr), Ifname: s.Ifname,
		HostIfname: "veth" + strconv.Itoa(int(s.Addr.As4()[3])), NSID: h.p.ns.id, Up: true,
	}
	return l.Endpoint, t, w.after(h.n.l, "attach")
}

func (k *simKernel) mac(a netip.Addr) net.HardwareAddr {
	if k.macs[a] == nil {
		k.macs[a] = netsetup.MACFor(a)
	}
	return k.macs[a]
}

func (h *simHandle) Endpoint(context.Context) (netsetup.Endpoint, bool, error) {
	if err := h.n.w.effect(h.n.l, "endpoint"); err != nil {
		return netsetup.Endpoint{}, false, err
	}
	for _, l := range h.n.links {
		if l.ns == h.p.ns {
			return l.Endpoint, true, nil
		}
	}
	return netsetup.Endpoint{}, false, nil
}

func (h *simHandle) CloseNS() error {
	if h.inNS {
		h.inNS = false
		h.p.ns.fds--
		h.n.reap(h.p.ns)
	}
	return nil
}

func (h *simHandle) Close() error {
	h.closed = true
	return h.CloseNS()
}
