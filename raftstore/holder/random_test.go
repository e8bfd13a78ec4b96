package holder

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"stellar.io/stellar/ipam"
	"stellar.io/stellar/raftstore/journal"
)

var (
	seeds = flag.Int("seeds", 150, "random histories to run")
	seed  = flag.Uint64("seed", 0, "run this history alone")
)

// Random histories with faults of the log, of the disk, and kills. At no time do two
// owners have one address; what was reported is never lost; and when all is well
// again, the replica says what the holder says.
func TestRandomHistories(t *testing.T) {
	first, n := uint64(1), *seeds
	if *seed != 0 {
		first, n = *seed, 1
	}
	for s := first; s < first+uint64(n); s++ {
		ok := t.Run("", func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				h := newHistory(t, s)
				h.run(120)
				h.settle()
			})
		})
		if !ok {
			t.Fatalf("failed with -seed=%d", s)
		}
	}
}

// history is a run and what the world outside the holder knows.
type history struct {
	*node
	rand *rand.Rand

	mu       sync.Mutex
	held     map[ipam.Owner]Held         // reported, and not yet released
	kernel   map[ipam.Owner]netip.Addr   // interfaces
	maybe    map[ipam.Owner]bool         // an error left it open whether it is held
	released map[netip.Addr]releasedNote // the last release
	next     int                         // names new owners
}

type releasedNote struct {
	by ipam.Owner
	at time.Time
}

func newHistory(t *testing.T, seed uint64) *history {
	h := &history{
		rand: rand.New(rand.NewPCG(seed, 7)), held: map[ipam.Owner]Held{}, kernel: map[ipam.Owner]netip.Addr{},
		maybe: map[ipam.Owner]bool{}, released: map[netip.Addr]releasedNote{},
	}
	h.node = newNode(t, newFakeStore(t, 28))
	h.store.mu.Lock()
	h.store.traced = h.trace
	h.store.mu.Unlock()
	h.groups, h.gather = 1+int(seed%3), 1+int(seed%2) // binds of one moment go together, or not
	h.restart()
	return h
}

func (h *history) run(steps int) {
	for range steps {
		switch p := h.rand.IntN(100); {
		case p < 60:
			h.together(1 + h.rand.IntN(4))
		case p < 72:
			time.Sleep(time.Duration(h.rand.IntN(90_000)) * time.Millisecond)
		case p < 82:
			h.weather()
		case p < 86:
			h.store.deliver(h.rand)
		case p < 92:
			h.reserve()
		case p < 94:
			h.disk.broken.Store(true)
			h.together(2)
			h.disk.broken.Store(false)
		default:
			h.reboot()
		}
		h.check()
	}
}

// weather changes what becomes of proposals.
func (h *history) weather() {
	kind := fault(h.rand.IntN(int(faultKinds)))
	share := []int{0, 20, 60, 100}[h.rand.IntN(4)]
	rnd := rand.New(rand.NewPCG(h.rand.Uint64(), 1))
	h.trace("%d%% of the proposals: %s", share, kind)
	h.store.setFault(func() fault {
		if rnd.IntN(100) < share {
			return kind
		}
		return none
	})
}

// trace is shown when the history fails, and is then the only record of it: a seed fixes
// what is asked for, not who of those that ask together comes first, or whose proposal
// meets a fault.
func (h *history) trace(format string, args ...any) {
	h.t.Logf(time.Now().Format("04:05.000 ")+format, args...)
}

// together lets n different owners do something at the same time.
func (h *history) together(n int) {
	var wg sync.WaitGroup
	busy := map[ipam.Owner]bool{}
	for range n {
		o := h.someOwner()
		if busy[o] {
			continue
		}
		busy[o] = true
		p, want := h.rand.IntN(10), netip.Addr{}
		if h.rand.IntN(4) == 0 {
			want = netip.AddrFrom4([4]byte{172, 16, 0, byte(h.rand.IntN(18))})
		}
		wg.Go(func() {
			switch _, has := h.lease(o); {
			case !has || p < 2:
				h.bind(o, want)
			case p < 6:
				h.toggle(o)
			default:
				h.release(o)
			}
		})
	}
	wg.Wait()
}

func (h *history) someOwner() ipam.Owner {
	if h.rand.IntN(3) == 0 {
		h.next++
	}
	o := owner(fmt.Sprint(h.rand.IntN(8)))
	o.Created = int64(1 + h.next/8)
	h.mu.Lock()
	defer h.mu.Unlock()
	for old := range h.held { // one of those that hold something, as a rule
		if old.ID == o.ID {
			return old
		}
	}
	return o
}

func (h *history) lease(o ipam.Owner) (Held, bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	l, ok := h.held[o]
	return l, ok
}

func (h *history) bind(o ipam.Owner, want netip.Addr) {
	begin := time.Now()
	got, err := h.Bind(context.Background(), BindRequest{Owner: o, Want: want})
	took := time.Since(begin)
	h.trace("bind %s.%d want %s: %v %v", o, o.Created, want, got.Addr, err)
	h.mu.Lock()
	defer h.mu.Unlock()
	old, had := h.held[o]
	if err != nil {
		if had && !errors.Is(err, ipam.ErrOwnerHasAddress) && !errors.Is(err, ErrClosed) && !errors.Is(err, journal.ErrFailed) {
			h.t.Errorf("%s has %s and got %v", o, old.Addr, err)
		}
		h.maybe[o] = true
		return
	}
	if took > 2*time.Second {
		h.t.Errorf("bind took %s", took)
	}
	if had && old.Addr != got.Addr {
		h.t.Errorf("%s had %s and got %s", o, old.Addr, got.Addr)
	}
	for other, l := range h.held {
		if other != o && l.Addr == got.Addr {
			h.t.Errorf("%s was given to %s and %s", got.Addr, other, o)
		}
	}
	for other, a := range h.kernel {
		if other != o && a == got.Addr {
			h.t.Errorf("%s was given to %s while an interface of %s carries it", got.Addr, o, other)
		}
	}
	if r, ok := h.released[got.Addr]; ok && !had && !h.maybe[o] && r.by != o && !got.Static && time.Since(r.at) < time.Minute {
		h.t.Errorf("%s was picked for %s %s after its release by %s", got.Addr, o, time.Since(r.at), r.by)
	}
	h.held[o] = got
	delete(h.maybe, o)
}

// toggle adds or removes the interface.
func (h *history) toggle(o ipam.Owner) {
	h.mu.Lock()
	_, up := h.kernel[o]
	if up {
		delete(h.kernel, o)
	} else {
		h.kernel[o] = h.held[o].Addr
	}
	h.mu.Unlock()
	h.Attached(o, !up)
	h.trace("interface of %s.%d: %v", o, o.Created, !up)
}

func (h *history) release(o ipam.Owner) {
	h.mu.Lock()
	_, up := h.kernel[o]
	addr := h.held[o].Addr
	delete(h.kernel, o)
	h.mu.Unlock()
	if up {
		h.Attached(o, false)
	}
	err := h.Release(context.Background(), o)
	h.trace("release %s.%d %s: %v", o, o.Created, addr, err)
	h.mu.Lock()
	defer h.mu.Unlock()
	delete(h.held, o)
	if err != nil {
		h.maybe[o] = true
		return
	}
	h.released[addr] = releasedNote{o, time.Now()}
}

func (h *history) reserve() {
	a := netip.AddrFrom4([4]byte{172, 16, 0, byte(2 + h.rand.IntN(12))})
	if h.rand.IntN(2) == 0 {
		err := h.Unreserve(context.Background(), a)
		h.trace("unreserve %s: %v", a, err)
		return
	}
	h.mu.Lock()
	taken := false
	for _, l := range h.held {
		taken = taken || l.Addr == a
	}
	h.mu.Unlock()
	err := h.Reserve(context.Background(), a, "test")
	h.trace("reserve %s: %v", a, err)
	if err == nil && taken {
		h.t.Errorf("%s was reserved although it is held", a)
	}
}

// reboot kills or stops the holder in the middle of something, and starts it again.
func (h *history) reboot() {
	kill, early := h.rand.IntN(2) == 0, h.rand.IntN(2) == 0
	pause, machine := time.Duration(h.rand.IntN(700))*time.Millisecond, h.rand.IntN(4) == 0
	var wg sync.WaitGroup
	wg.Go(func() { h.together(3) })
	if early {
		time.Sleep(pause)
	} else {
		wg.Wait()
	}
	if kill {
		h.kill()
	} else {
		h.stop()
	}
	wg.Wait()
	if machine { // the machine too: no interface survives
		clear(h.kernel)
	}
	var live []Live
	for o, a := range h.kernel {
		live = append(live, Live{a, o})
	}
	h.checkJournal()
	h.trace("reboot kill %v live %v", kill, live)
	for try := 0; ; try++ {
		if err := h.start(live...); err == nil {
			break
		} else if try > 50 {
			h.t.Fatal(err)
		}
		h.stop() // a kill during the first start, without a leader
		h.store.setFault(always(none))
	}
	// A bind of long ago that was committed late is adopted from the replica: it
	// takes an address out of use until its owner is released again.
	for _, l := range h.All() {
		if _, ok := h.held[l.Owner]; !ok {
			h.maybe[l.Owner] = true
		}
	}
}

// checkJournal proves that a release that was reported is not forgotten.
func (h *history) checkJournal() {
	j, rec, err := journal.Open(h.config().JournalPath, journal.Options{Header: journal.Header{Node: testNode, Cluster: cluster}})
	if err != nil {
		h.t.Fatal(err)
	}
	defer j.Close()
	for _, r := range rec.Records {
		if _, ok := h.held[r.Owner]; r.Op == journal.OpBind && !ok && !h.maybe[r.Owner] {
			h.t.Errorf("journal still has %s of %s", r.Addr, r.Owner)
		}
	}
}

// check compares what was reported with what the holder says.
func (h *history) check() {
	h.t.Helper()
	all := h.All()
	for i, a := range all {
		if i > 0 && all[i-1].Addr == a.Addr {
			h.t.Errorf("two leases of %s", a.Addr)
		}
		if _, ok := h.held[a.Owner]; !ok && !h.maybe[a.Owner] {
			h.t.Errorf("%s holds %s and nobody was told", a.Owner, a.Addr)
		}
	}
	for o, l := range h.held {
		if got, ok := h.Lookup(o); !ok || got.Addr != l.Addr {
			h.t.Errorf("%s was told %s, the holder says %+v %v", o, l.Addr, got, ok)
		}
	}
	c := h.Counts()
	if sum := c.Bound + c.Attached + c.Cooling + c.Reserved + c.Free; sum != c.Total || c.Bound+c.Attached != len(all) {
		h.t.Errorf("%d leases, counts %+v", len(all), c)
	}
	if h.t.Failed() {
		h.dump()
		h.t.FailNow()
	}
}

// dump shows what the holder believes.
func (h *history) dump() {
	h.Holder.mu.Lock()
	defer h.Holder.mu.Unlock()
	for _, l := range h.Holder.leases {
		h.t.Logf("%s %s held %v attached %v confirmed %v cooling %v spent %v request %d op %v flight %+v",
			l.addr, l.owner, l.held, l.attached, l.confirmed, l.cooling, l.spent, l.request.Seq, l.op != nil, l.flight)
	}
	h.t.Logf("alone %v halted %v journal %v flights %d reserved %v reserving %v kept %v",
		h.alone, h.halted, h.journal.Failed(), len(h.flights), h.reserved, h.reserving, h.kept)
}

// settle lets the weather clear up and compares holder, journal and replica.
func (h *history) settle() {
	h.store.setFault(always(none))
	h.store.deliver(h.rand)
	time.Sleep(time.Minute)
	h.store.deliver(h.rand)
	time.Sleep(5 * time.Minute)
	h.check()
	want := map[netip.Addr]ipam.LeaseState{}
	for _, l := range h.All() {
		if l.Provisional {
			h.t.Errorf("still provisional: %+v", l)
		}
		want[l.Addr] = ipam.Bound
		if l.Attached {
			want[l.Addr] = ipam.Attached
		}
		if r := h.store.leases()[l.Addr]; r.Owner != l.Owner {
			h.t.Errorf("replica has %+v for %+v", r, l)
		}
	}
	for a, r := range h.store.leases() {
		if want[a] != r.State {
			h.t.Errorf("replica has %s %s of %s, want state %d", a, r.State, r.Owner, want[a])
		}
	}
	if c := h.Counts(); c.Cooling != 0 {
		h.t.Errorf("%+v", c)
	}
	if h.t.Failed() {
		h.dump()
	}
	h.stop()
	j, rec, err := journal.Open(h.config().JournalPath, journal.Options{Header: journal.Header{Node: testNode, Cluster: cluster}})
	if err != nil {
		h.t.Fatal(err)
	}
	defer j.Close()
	binds := 0
	for _, r := range rec.Records {
		switch r.Op {
		case journal.OpBind:
			binds++
		case journal.OpRelease:
			h.t.Errorf("journal still has %+v", r)
		}
	}
	if binds != len(want) {
		h.t.Errorf("journal has %d binds, want %d", binds, len(want))
	}
	var reserved []string
	key := h.store.subnet().SubnetKey
	h.store.View(func(s *ipam.State) {
		for r := range s.Reservations(key) {
			reserved = append(reserved, r.Prefix.String())
		}
	})
	for _, r := range rec.Records {
		if r.Op == journal.OpReserve && !slices.Contains(reserved, r.Prefix.String()) {
			h.t.Errorf("journal reserves %s, the replica does not", r.Prefix)
		}
	}
}
