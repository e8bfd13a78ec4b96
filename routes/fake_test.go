package routes

import (
	"errors"
	"net/netip"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"
	"pgregory.net/rapid"

	"stellar.io/stellar/internal/nlx"
)

var errFake = errors.New("made to fail")

// fakeFIB does with routes what the kernel does. Routes are kept in its order.
type fakeFIB struct {
	rs      []nlx.FIBRoute
	offLink map[netip.Addr]bool
	writes  int // accepted changes
	calls   int
	failAt  int // this call fails, 0: none. A failing change is half done.
	refuse  func(action) error
}

func (f *fakeFIB) fails() bool {
	f.calls++
	return f.calls == f.failAt
}

func (f *fakeFIB) routes() ([]nlx.FIBRoute, error) {
	if f.fails() {
		return nil, errFake
	}
	return slices.Clone(f.rs), nil
}

func (f *fakeFIB) lookup(addrs []netip.Addr) ([]nlx.Lookup, error) {
	if f.fails() {
		return nil, errFake
	}
	out := make([]nlx.Lookup, len(addrs))
	for i, a := range addrs {
		out[i].FIBRoute = nlx.FIBRoute{Type: unix.RTN_UNICAST, Index: eth0}
		if f.offLink[a] {
			out[i] = nlx.Lookup{Err: unix.ENETUNREACH}
		}
	}
	return out, nil
}

func (f *fakeFIB) change(actions []action) ([]error, error) {
	fail := f.fails()
	if fail {
		actions = actions[:len(actions)/2]
	}
	errs := make([]error, len(actions))
	for i, a := range actions {
		if f.refuse != nil {
			errs[i] = f.refuse(a)
		}
		if errs[i] == nil {
			errs[i] = f.apply(a)
		}
	}
	if fail {
		return nil, errFake
	}
	return errs, nil
}

func (f *fakeFIB) apply(a action) error {
	f.writes++
	i := slices.IndexFunc(f.rs, func(r nlx.FIBRoute) bool { return keyOf(r) == keyOf(a.fib) })
	switch {
	case a.op == Add && i >= 0:
		return ErrRouteExists
	case a.op == Add:
		f.rs = append(f.rs, a.fib)
	case a.op == Replace:
		f.rs[i] = a.fib // whoever made it
	default:
		if i = slices.Index(f.rs, a.fib); i >= 0 {
			f.rs = slices.Delete(f.rs, i, i+1)
		}
	}
	return nil
}

func (f *fakeFIB) name(index int) string         { return ethName(index) }
func (f *fakeFIB) rpFilter(int) (int, error)     { return 1, nil }
func (f *fakeFIB) forget()                       {}
func (f *fakeFIB) foreign() (out []nlx.FIBRoute) { return filter(f.rs, false) }
func (f *fakeFIB) ours() (out []nlx.FIBRoute)    { return filter(f.rs, true) }

func filter(rs []nlx.FIBRoute, our bool) (out []nlx.FIBRoute) {
	for _, r := range rs {
		if ours(r) == our {
			out = append(out, r)
		}
	}
	return out
}

// TestConverges: from any table, through any one failure, with peers that come,
// go and move, the next undisturbed round makes the table right; foreign routes
// are as they were, and before the state is complete so are all of ours.
func TestConverges(t *testing.T) {
	t.Parallel()
	subnets := []netip.Prefix{
		netip.MustParsePrefix("172.16.4.0/22"), netip.MustParsePrefix("172.16.8.0/22"), netip.MustParsePrefix("172.16.12.0/22"),
		netip.MustParsePrefix("172.16.0.0/22"), // this node's own
		netip.MustParsePrefix("172.16.5.0/24"),
	}
	hops := []netip.Addr{netip.MustParseAddr("192.0.2.2"), netip.MustParseAddr("192.0.2.3"), netip.MustParseAddr("192.0.2.4")}
	rapid.Check(t, func(t *rapid.T) {
		anyRoute := rapid.Custom(func(t *rapid.T) nlx.FIBRoute {
			r := via(rapid.SampledFrom(subnets).Draw(t, "dst").String(), rapid.SampledFrom(hops).Draw(t, "hop").String(), eth0)
			r.Metric = rapid.SampledFrom([]uint32{0, 0, 0, 7}).Draw(t, "metric")
			r.Odd = rapid.Bool().Draw(t, "odd")
			r.Protocol = rapid.SampledFrom([]uint8{Protocol, unix.RTPROT_STATIC}).Draw(t, "protocol")
			return r
		})
		anyPeer := rapid.Custom(func(t *rapid.T) Peer {
			return Peer{
				Node: rapid.SampledFrom([]string{"b", "c", "d"}).Draw(t, "node"), Subnet: rapid.SampledFrom(subnets[:3]).Draw(t, "subnet"),
				Address: rapid.SampledFrom(hops).Draw(t, "address"), Quarantined: rapid.Bool().Draw(t, "quarantined"),
			}
		})
		w := abc()
		f := &fakeFIB{rs: rapid.SliceOfN(anyRoute, 0, 8).Draw(t, "table"), offLink: map[netip.Addr]bool{}}
		r := newRound(New(Config{Wants: func() Wants { return w }}), f)
		for range 4 {
			w.Peers = rapid.SliceOfN(anyPeer, 0, 4).Draw(t, "peers")
			w.Complete = rapid.Bool().Draw(t, "complete")
			f.offLink[rapid.SampledFrom(hops).Draw(t, "hop")] = rapid.Bool().Draw(t, "off link")
			foreign, own := f.foreign(), f.ours()
			r.forget()
			f.calls, f.failAt = 0, rapid.IntRange(0, 3).Draw(t, "fail at")
			if _, err := r.run(false); (err != nil) != (f.failAt > 0) {
				t.Fatalf("call %d fails: %v", f.failAt, err)
			}
			f.failAt = 0
			if _, err := r.run(false); err != nil {
				t.Fatal(err)
			}
			if d := cmp.Diff(foreign, f.foreign(), equate); d != "" {
				t.Fatalf("foreign routes (-before +after):\n%s", d)
			}
			if !w.Complete {
				for _, o := range own {
					if !slices.Contains(f.ours(), o) {
						t.Fatalf("%+v is gone before the state is complete", o)
					}
				}
			} else {
				checkRight(t, w, f)
			}
			writes := f.writes
			if changes, err := r.run(false); err != nil || f.writes != writes || len(changes) > 0 {
				t.Fatalf("another round: %v, %v", changes, err)
			}
		}
	})
}

// checkRight: ours are what is desired, except where somebody else has the place.
func checkRight(t *rapid.T, w Wants, f *fakeFIB) {
	goals := desired(w)
	answers := map[netip.Addr]nlx.Lookup{}
	for _, a := range nextHops(goals) {
		l, _ := f.lookup([]netip.Addr{a})
		answers[a] = l[0]
	}
	locate(goals, answers, ethName)
	want := map[key]nlx.FIBRoute{}
	for _, g := range goals {
		if g.state == "" {
			want[keyOf(g.fib())] = g.fib()
		}
	}
	for _, o := range f.ours() {
		if w, ok := want[keyOf(o)]; !ok || o != w {
			t.Fatalf("%+v is not desired", o)
		}
	}
	for k, g := range want {
		n := 0
		for _, o := range f.rs {
			if keyOf(o) == k {
				n++
			}
		}
		if n == 0 || n == 1 && !slices.Contains(f.rs, g) && len(f.foreign()) == 0 {
			t.Fatalf("%+v is missing", g)
		}
	}
}

// TestRefusals: the kernel refuses one route; the others are placed, the state
// has the kernel's words, and Sync returns them.
func TestRefusals(t *testing.T) {
	t.Parallel()
	f := &fakeFIB{refuse: func(a action) error {
		if a.fib.Dst == routeB.Dst {
			return unix.ENETDOWN
		}
		return nil
	}}
	m := New(Config{Wants: abc})
	r := newRound(m, f)
	changes, err := r.run(false)
	if !errors.Is(err, unix.ENETDOWN) || len(changes) != 3 {
		t.Errorf("%v, %v", changes, err)
	}
	drift := m.Drift()
	if len(drift) != 1 || drift[0].State != Missing || drift[0].Reason != unix.ENETDOWN.Error() || drift[0].Node != "b" {
		t.Errorf("drift %+v", drift)
	}
	if r.answers[routeB.Via] != (nlx.Lookup{}) {
		t.Error("the next hop is not asked again")
	}
	f.refuse = nil
	if _, err := r.run(false); err != nil || len(m.Drift()) != 0 {
		t.Errorf("%v, drift %+v", err, m.Drift())
	}
}
