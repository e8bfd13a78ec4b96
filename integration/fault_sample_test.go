package integration

import (
	"fmt"
	"maps"
	"os"
	"slices"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"stellar.io/stellar/internal/nlx"
)

// faultSampler looks every 100 ms at what must never be, over all kernels: an
// address in two live namespaces, a subnet with two next hops.
type faultSampler struct {
	hosts, places []place
	end, done     chan struct{}
	once          sync.Once

	samples, most int // written until done is closed; most addresses seen at once
	seen          map[string]bool
}

// place is a namespace and the way to look into it.
type place struct {
	name string
	nl   *nlx.Handle
}

func newFaultSampler(t *testing.T, b *faultBed) *faultSampler {
	t.Helper()
	s := &faultSampler{end: make(chan struct{}), done: make(chan struct{}), seen: map[string]bool{}}
	t.Cleanup(func() {
		for _, p := range append(s.hosts, s.places...) {
			p.nl.Close()
		}
	})
	for _, n := range b.nodes {
		s.hosts = append(s.hosts, open(t, n.name, n.host.FD))
		pid, err := n.containerd.TaskPID("default", b.steady[n].Container)
		if err != nil {
			t.Fatal(err)
		}
		f, err := os.Open(fmt.Sprintf("/proc/%d/ns/net", pid))
		if err != nil {
			t.Fatal(err)
		}
		s.add(b.steady[n].Container, int(f.Fd()))
		f.Close()
	}
	return s
}

func open(t *testing.T, name string, fd int) place {
	t.Helper()
	nl, err := nlx.Open(fd)
	if err != nil {
		t.Fatal(err)
	}
	return place{name, nl}
}

// add has one more namespace looked at; before start.
func (s *faultSampler) add(name string, fd int) {
	nl, err := nlx.Open(fd)
	if err != nil {
		panic(err)
	}
	s.places = append(s.places, place{name, nl})
}

func (s *faultSampler) start(t *testing.T) {
	t.Cleanup(s.stop)
	go s.run()
}

func (s *faultSampler) stop() {
	s.once.Do(func() { close(s.end) })
	<-s.done
}

// wrong is what was seen, after stop.
func (s *faultSampler) wrong() []string { return slices.Sorted(maps.Keys(s.seen)) }

func (s *faultSampler) run() {
	defer close(s.done)
	tick := time.NewTicker(100 * time.Millisecond)
	defer tick.Stop()
	for {
		s.samples++
		s.nextHops()
		s.addresses()
		select {
		case <-s.end:
			return
		case <-tick.C:
		}
	}
}

func (s *faultSampler) nextHops() {
	via := map[string]string{}
	for _, h := range s.hosts {
		routes, err := h.nl.RouteList(nil, unix.AF_INET)
		if err != nil {
			s.seen["cannot look at "+h.name+": "+err.Error()] = true
		}
		for _, r := range routes {
			if r.Protocol != 147 || r.Gw == nil || r.Dst == nil {
				continue
			}
			dst, gw := r.Dst.String(), r.Gw.String()
			if other := via[dst]; other != "" && other != gw {
				s.seen[dst+" via "+other+" and "+gw] = true
			}
			via[dst] = gw
		}
	}
}

// addresses looks a second time where it finds an address twice: the first place
// may have lost it in between.
func (s *faultSampler) addresses() {
	at := map[string]place{}
	for _, p := range s.places {
		for _, addr := range p.addresses() {
			first, twice := at[addr]
			if twice && slices.Contains(first.addresses(), addr) {
				s.seen[addr+" in "+first.name+" and "+p.name] = true
			}
			at[addr] = p
		}
	}
	s.most = max(s.most, len(at))
}

// addresses are those of the namespace, but for loopback's; none if it is gone.
func (p place) addresses() (out []string) {
	list, err := p.nl.AddrList(nil, unix.AF_INET)
	if err != nil {
		return nil
	}
	for _, a := range list {
		if !a.IP.IsLoopback() {
			out = append(out, a.IP.String())
		}
	}
	return out
}
