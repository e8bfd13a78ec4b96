package agent

import (
	"context"
	"fmt"
	"net/netip"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"stellar.io/stellar/ipam"
	"stellar.io/stellar/raftstore/holder"
)

// fakeLeases is a holder without journal and replica: the real Picker says what
// is free.
type fakeLeases struct {
	mu       sync.Mutex // guards all below
	start    time.Time
	picker   *ipam.Picker
	leases   map[ipam.Owner]holder.Held
	binds    atomic.Int64
	releases atomic.Int64
	broken   []string
	given    map[ipam.Owner][]netip.Addr // by owner without interface: all it ever had

	provisional bool
	hang        time.Duration // of each Bind and Release
	linked      func(ipam.Owner) bool
	fail        func(op string) error
}

func newFakeLeases(subnet string) *fakeLeases {
	p := netip.MustParsePrefix(subnet)
	l := &fakeLeases{start: time.Now(), picker: ipam.NewPicker(p, time.Minute), leases: map[ipam.Owner]holder.Held{}, given: map[ipam.Owner][]netip.Addr{}}
	for _, a := range []netip.Addr{p.Addr(), p.Addr().Next(), lastOf(p)} {
		if err := l.picker.Reserve(a); err != nil {
			panic(err)
		}
	}
	return l
}

func lastOf(p netip.Prefix) netip.Addr {
	a := p.Addr()
	for p.Contains(a.Next()) {
		a = a.Next()
	}
	return a
}

func (l *fakeLeases) now() int64 { return int64(time.Since(l.start)) }

func (l *fakeLeases) failing(op string) error {
	l.mu.Lock()
	pause, fail := l.hang, l.fail
	l.mu.Unlock()
	time.Sleep(pause + 300*time.Microsecond)
	if fail == nil {
		return nil
	}
	return fail(op)
}

func (l *fakeLeases) Bind(_ context.Context, r holder.BindRequest) (holder.Held, error) {
	if err := l.failing("bind"); err != nil {
		return holder.Held{}, err
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.binds.Add(1)
	if h, ok := l.leases[r.Owner]; ok {
		if r.Want.IsValid() && r.Want != h.Addr {
			return holder.Held{}, ipam.ErrOwnerHasAddress
		}
		return h, nil
	}
	a, err := r.Want, error(nil)
	if a.IsValid() {
		err = l.picker.Take(a)
	} else {
		a, err = l.picker.Pick(l.now())
	}
	if err != nil {
		return holder.Held{}, fmt.Errorf("bind %s: %w", r.Owner, err)
	}
	h := holder.Held{Addr: a, Owner: r.Owner, Static: r.Want.IsValid(), Hostname: r.Hostname, Provisional: l.provisional, Since: time.Now()}
	l.leases[r.Owner] = h
	who := r.Owner
	who.Interface = ""
	l.given[who] = append(l.given[who], a)
	return h, nil
}

func (l *fakeLeases) Release(_ context.Context, o ipam.Owner) error {
	if err := l.failing("release"); err != nil {
		return err
	}
	if l.linked != nil && l.linked(o) {
		l.mu.Lock()
		l.broken = append(l.broken, fmt.Sprintf("%s released while its link is there", o))
		l.mu.Unlock()
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if h, ok := l.leases[o]; ok {
		l.releases.Add(1)
		delete(l.leases, o)
		l.picker.Release(h.Addr, l.now())
	}
	return nil
}

func (l *fakeLeases) Attached(o ipam.Owner, attached bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if h, ok := l.leases[o]; ok {
		h.Attached = attached
		l.leases[o] = h
	}
}

func (l *fakeLeases) Lookup(o ipam.Owner) (holder.Held, bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	h, ok := l.leases[o]
	return h, ok
}

func (l *fakeLeases) All() []holder.Held {
	l.mu.Lock()
	defer l.mu.Unlock()
	var out []holder.Held
	for _, h := range l.leases {
		out = append(out, h)
	}
	slices.SortFunc(out, func(x, y holder.Held) int { return x.Addr.Compare(y.Addr) })
	return out
}
