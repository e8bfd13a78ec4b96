package holder

import (
	"bytes"
	"context"
	"errors"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"stellar.io/stellar/ipam"
	"stellar.io/stellar/raftstore"
	"stellar.io/stellar/raftstore/journal"
)

func TestBindReleaseCycle(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNode(t, newFakeStore(t, 24))
		x := n.mustBind("x", "")
		if x.Addr != addr("172.16.0.2") || x.Provisional || x.Attached || x.Static {
			t.Errorf("first lease: %+v", x)
		}
		if again := n.mustBind("x", ""); again != x {
			t.Errorf("bind is not idempotent: %+v, %+v", x, again)
		}
		if l := n.store.leases()[x.Addr]; l.Owner != x.Owner || l.State != ipam.Bound {
			t.Errorf("replica has %+v", l)
		}
		other := owner("x")
		other.Created = 2 // a container that reuses the id
		y, err := n.Bind(t.Context(), BindRequest{Owner: other})
		if err != nil || y.Addr != addr("172.16.0.3") {
			t.Errorf("re-created container: %+v %v", y, err)
		}
		n.Attached(x.Owner, true)
		time.Sleep(2 * time.Second)
		if l := n.store.leases()[x.Addr]; l.State != ipam.Attached {
			t.Errorf("replica has %+v", l)
		}
		if c := n.Counts(); c != (Counts{Total: 256, Bound: 1, Attached: 1, Reserved: 3, Free: 251}) {
			t.Errorf("counts: %+v", c)
		}
		n.mustRelease("x")
		n.mustRelease("x")
		n.mustRelease("never")
		if _, ok := n.Lookup(x.Owner); ok {
			t.Error("still held")
		}
		time.Sleep(time.Second)
		if l := n.store.leases()[x.Addr]; l.State != ipam.Cooling {
			t.Errorf("replica has %+v", l)
		}
		if c := n.Counts(); c.Cooling != 1 || c.Free != 251 {
			t.Errorf("counts: %+v", c)
		}
		time.Sleep(61 * time.Second)
		if l, ok := n.store.leases()[x.Addr]; ok {
			t.Errorf("replica still has %+v", l)
		}
		if c := n.Counts(); c.Cooling != 0 || c.Free != 252 {
			t.Errorf("counts: %+v", c)
		}
		before := n.store.proposals()
		time.Sleep(time.Hour)
		if got := n.store.proposals(); got != before {
			t.Errorf("%d proposals in an idle hour", got-before)
		}
	})
}

func TestStaticAddress(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNode(t, newFakeStore(t, 24))
		x := n.mustBind("x", "172.16.0.9")
		if !x.Static || x.Addr != addr("172.16.0.9") {
			t.Errorf("%+v", x)
		}
		for _, tc := range []struct {
			id, want string
			err      error
		}{
			{"y", "172.16.0.9", ipam.ErrAddressTaken},
			{"y", "172.16.1.9", ipam.ErrOutOfSubnet},
			{"y", "172.16.0.0", ipam.ErrAddressReserved},
			{"y", "172.16.0.1", ipam.ErrAddressReserved},
			{"y", "172.16.0.255", ipam.ErrAddressReserved},
			{"x", "172.16.0.10", ipam.ErrOwnerHasAddress},
		} {
			if err := n.bindErr(tc.id, tc.want); !errors.Is(err, tc.err) {
				t.Errorf("%s wants %s: %v", tc.id, tc.want, err)
			}
		}
		n.mustRelease("x")
		if y := n.mustBind("y", "172.16.0.9"); y.Provisional { // no cool-down for a static one
			t.Errorf("%+v", y)
		}
		if l := n.store.leases()[addr("172.16.0.9")]; l.Owner != owner("y") {
			t.Errorf("replica has %+v", l)
		}
		if err := n.bindErr("z\x00", ""); !errors.Is(err, ipam.ErrInvalid) {
			t.Errorf("malformed owner: %v", err)
		}
		_, err := n.Bind(t.Context(), BindRequest{Owner: owner("z"), Hostname: strings.Repeat("h", 1000)})
		if !errors.Is(err, ipam.ErrInvalid) {
			t.Errorf("long hostname: %v", err)
		}
	})
}

func TestFullSubnet(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNode(t, newFakeStore(t, 29))
		for i := range 5 {
			n.mustBind(strconv.Itoa(i), "")
		}
		if err := n.bindErr("6", ""); !errors.Is(err, ipam.ErrNoAvailableIP) {
			t.Errorf("full: %v", err)
		}
		n.mustRelease("3")
		if err := n.bindErr("6", ""); !errors.Is(err, ipam.ErrNoAvailableIP) {
			t.Errorf("cooling: %v", err)
		}
		if h := n.mustBind("3", ""); h.Addr != addr("172.16.0.5") { // its own address comes back at once
			t.Errorf("%+v", h)
		}
		n.mustRelease("3")
		time.Sleep(61 * time.Second)
		if h := n.mustBind("6", ""); h.Addr != addr("172.16.0.5") {
			t.Errorf("%+v", h)
		}
	})
}

func TestNothingBeforeAdopt(t *testing.T) {
	store := newFakeStore(t, 24)
	h, err := Open(Config{Node: testNode, Subnet: store.subnet(), JournalPath: filepath.Join(t.TempDir(), "j"), Store: store})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := h.Bind(t.Context(), BindRequest{Owner: owner("x")}); !errors.Is(err, ErrNotAdopted) {
		t.Errorf("bind: %v", err)
	}
	if err := h.Release(t.Context(), owner("x")); !errors.Is(err, ErrNotAdopted) {
		t.Errorf("release: %v", err)
	}
	if err := h.Reserve(t.Context(), addr("172.16.0.7"), "test"); !errors.Is(err, ErrNotAdopted) {
		t.Errorf("reserve: %v", err)
	}
	store.setFault(always(noLeader))
	if err := h.Adopt(t.Context(), nil); !errors.Is(err, raftstore.ErrNoLeader) {
		t.Errorf("adopt with a new journal and no leader: %v", err)
	}
	store.setFault(always(none))
	if err := h.Adopt(t.Context(), nil); err != nil {
		t.Error(err)
	}
	if err := h.Adopt(t.Context(), nil); !errors.Is(err, ErrAdopted) {
		t.Errorf("second adopt: %v", err)
	}
	if err := errors.Join(h.Close(), h.Close()); err != nil {
		t.Error(err)
	}
	if _, err := h.Bind(t.Context(), BindRequest{Owner: owner("x")}); !errors.Is(err, ErrClosed) {
		t.Errorf("after close: %v", err)
	}
}

// Without a leader the first lease waits CommitWait, the next ones do not wait.
func TestProvisional(t *testing.T) {
	for _, f := range []fault{noLeader, lost, replyLost, late, verySlow} {
		synctest.Test(t, func(t *testing.T) {
			n := newNode(t, newFakeStore(t, 24))
			n.mustBind("before", "")
			n.store.setFault(always(f))
			begin := time.Now()
			x := n.mustBind("x", "")
			if took := time.Since(begin); !x.Provisional || took > 600*time.Millisecond {
				t.Errorf("fault %d: %+v after %s", f, x, took)
			}
			begin = time.Now()
			for i := range 20 {
				if h := n.mustBind(strconv.Itoa(i), ""); !h.Provisional {
					t.Errorf("fault %d: %+v", f, h)
				}
			}
			if took := time.Since(begin); took > time.Millisecond {
				t.Errorf("fault %d: 20 more took %s", f, took)
			}
			if c := n.Counts(); c.Provisional != 21 {
				t.Errorf("fault %d: %+v", f, c)
			}
			n.restart(n.lives("x", "3")...) // a restart loses none of it
			time.Sleep(time.Minute)
			if h, ok := n.Lookup(owner("x")); !ok || h.Addr != x.Addr || !h.Attached {
				t.Errorf("fault %d: after a restart %+v", f, h)
			}
			n.store.setFault(always(none))
			n.store.deliver(rand.New(rand.NewPCG(1, 1)))
			time.Sleep(10 * time.Second)
			if c := n.Counts(); c.Provisional != 0 || c.Bound != 20 || c.Attached != 2 {
				t.Errorf("fault %d: %+v", f, c)
			}
			for _, h := range n.All() {
				if l := n.store.leases()[h.Addr]; l.Owner != h.Owner || (l.State == ipam.Attached) != h.Attached {
					t.Errorf("fault %d: replica has %+v for %+v", f, l, h)
				}
			}
			if h := n.mustBind("after", ""); h.Provisional {
				t.Errorf("fault %d: %+v", f, h)
			}
		})
	}
}

// The same address is proposed again under the same request id.
func TestSameRequestID(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNode(t, newFakeStore(t, 24))
		n.store.setFault(always(lost))
		n.mustBind("x", "")
		all := n.store.sent()
		first, from := all[len(all)-1], len(all)
		time.Sleep(3 * time.Second)
		n.kill()
		if err := n.start(); err != nil {
			t.Fatal(err)
		}
		time.Sleep(3 * time.Second)
		n.store.setFault(always(none))
		time.Sleep(10 * time.Second)
		for _, id := range n.store.sent()[from:] {
			if id != first {
				t.Errorf("proposed as %v, first was %v", id, first)
			}
		}
		if c := n.Counts(); c.Bound != 1 || c.Provisional != 0 {
			t.Errorf("%+v", c)
		}
		seen := map[ipam.RequestID]bool{}
		for i := range 3000 { // ids are never used twice, over several blocks and restarts
			id, err := n.seq.next()
			if err != nil || seen[id] || id == first {
				t.Fatalf("%v, %v", id, err)
			}
			seen[id] = true
			if i%700 == 0 {
				n.kill()
				if err := n.start(); err != nil {
					t.Fatal(err)
				}
			}
		}
	})
}

// An address whose bind is unresolved is nobody else's, even after its release.
func TestReleaseQueuesBehindUnresolved(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNode(t, newFakeStore(t, 29))
		n.store.setFault(always(late))
		x := n.mustBind("x", "172.16.0.4")
		n.mustRelease("x")
		for range 2 {
			time.Sleep(5 * time.Minute) // long cooled, were it resolved
			if err := n.bindErr("y", "172.16.0.4"); !errors.Is(err, ErrUnresolved) || !errors.Is(err, ipam.ErrAddressTaken) {
				t.Errorf("static over an unresolved address: %v", err)
			}
			if err := n.Reserve(t.Context(), x.Addr, "test"); !errors.Is(err, ErrUnresolved) {
				t.Errorf("reserve: %v", err)
			}
			for i := range 4 {
				n.mustBind("p"+strconv.Itoa(i), "")
			}
			if err := n.bindErr("y", ""); !errors.Is(err, ipam.ErrNoAvailableIP) {
				t.Errorf("picked an unresolved address: %v", err)
			}
			n.kill()
			if err := n.start(); err != nil { // the restarted holder knows it too
				t.Fatal(err)
			}
		}
		n.store.setFault(always(none))
		n.store.deliver(rand.New(rand.NewPCG(1, 1)))
		time.Sleep(10 * time.Second)
		if l := n.store.leases()[x.Addr]; l.State != ipam.Cooling {
			t.Errorf("replica has %+v", l)
		}
		time.Sleep(70 * time.Second)
		if h := n.mustBind("y", ""); h.Addr != x.Addr {
			t.Errorf("%+v", h)
		}
	})
}

func TestQuickRestartWritesNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNode(t, newFakeStore(t, 24))
		var ids []string
		for i := range 50 {
			ids = append(ids, strconv.Itoa(i))
			n.mustBind(ids[i], "")
			n.Attached(owner(ids[i]), true)
		}
		time.Sleep(2 * time.Second)
		before := n.store.proposals()
		n.Attached(owner("3"), false) // and back within the delay
		time.Sleep(300 * time.Millisecond)
		n.Attached(owner("3"), true)
		time.Sleep(2 * time.Second)
		n.restart(n.lives(ids...)...)
		time.Sleep(10 * time.Second)
		if got := n.store.proposals() - before; got != 0 {
			t.Errorf("%d proposals", got)
		}
		n.restart() // all interfaces are gone: one envelope says so
		time.Sleep(10 * time.Second)
		if got := n.store.proposals() - before; got != 1 {
			t.Errorf("%d proposals for 50 marks", got)
		}
		if c := n.Counts(); c.Bound != 50 {
			t.Errorf("%+v", c)
		}
	})
}

func TestReservations(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNode(t, newFakeStore(t, 29))
		n.mustBind("x", "172.16.0.3")
		if err := n.Reserve(t.Context(), addr("172.16.0.3"), "r"); !errors.Is(err, ipam.ErrAddressTaken) {
			t.Errorf("held: %v", err)
		}
		if err := n.Reserve(t.Context(), addr("172.16.0.2"), "r"); err != nil {
			t.Error(err)
		}
		if err := n.Reserve(t.Context(), addr("172.16.0.2"), "again"); err != nil {
			t.Error(err)
		}
		if err := n.Reserve(t.Context(), addr("172.16.0.1"), "r"); !errors.Is(err, ipam.ErrAddressReserved) {
			t.Errorf("gateway: %v", err)
		}
		if err := n.bindErr("y", "172.16.0.2"); !errors.Is(err, ipam.ErrAddressReserved) {
			t.Errorf("static: %v", err)
		}
		n.restart()
		n.store.setFault(always(noLeader))
		if err := n.Reserve(t.Context(), addr("172.16.0.6"), "r"); !errors.Is(err, raftstore.ErrNoLeader) {
			t.Errorf("no leader: %v", err)
		}
		n.store.setFault(always(none))
		time.Sleep(time.Second)
		for i := range 3 { // .4 .5 .6: the refused reservation of .6 left no trace
			n.mustBind(strconv.Itoa(i), "")
		}
		if err := n.bindErr("z", ""); !errors.Is(err, ipam.ErrNoAvailableIP) {
			t.Errorf("reserved address was picked: %v", err)
		}
		if err := n.Unreserve(t.Context(), addr("172.16.0.2")); err != nil {
			t.Error(err)
		}
		if err := n.Unreserve(t.Context(), addr("172.16.0.2")); !errors.Is(err, ipam.ErrReservationNotFound) {
			t.Errorf("not reserved: %v", err)
		}
		time.Sleep(time.Second)
		if h := n.mustBind("z", ""); h.Addr != addr("172.16.0.2") {
			t.Errorf("%+v", h)
		}
		if c := n.Counts(); c != (Counts{Total: 8, Bound: 5, Reserved: 3}) {
			t.Errorf("%+v", c)
		}
	})
}

// A reservation of unknown outcome is kept until the outcome is known; one made
// behind the holder's back is learned from the refusal.
func TestReservationUnknown(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNode(t, newFakeStore(t, 29))
		n.store.setFault(always(late))
		if err := n.Reserve(t.Context(), addr("172.16.0.2"), "r"); !errors.Is(err, raftstore.ErrUnknownOutcome) {
			t.Errorf("%v", err)
		}
		time.Sleep(time.Minute)
		if err := n.bindErr("x", "172.16.0.2"); !errors.Is(err, ipam.ErrAddressReserved) {
			t.Errorf("%v", err)
		}
		n.store.setFault(always(none))
		time.Sleep(time.Minute)
		if err := n.bindErr("x", "172.16.0.2"); !errors.Is(err, ipam.ErrAddressReserved) {
			t.Errorf("%v", err)
		}
		sub := n.store.subnet()
		for _, r := range n.store.must(ipam.ReserveAddress{
			Network: sub.Network, Prefix: netipPrefix("172.16.0.3/32"), Reason: "elsewhere", Node: sub.Node, Epoch: sub.Epoch,
		}) {
			if r.Err != nil {
				t.Fatal(r.Err)
			}
		}
		if h := n.mustBind("x", ""); h.Addr != addr("172.16.0.4") {
			t.Errorf("%+v", h)
		}
	})
}

// TestReservedMeanwhile: an owner that comes back does not get what it had while that may
// have become a reservation, also with its release unresolved.
func TestReservedMeanwhile(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNode(t, newFakeStore(t, 29))
		had := n.mustBind("x", "").Addr
		n.store.setFault(always(noLeader))
		n.mustRelease("x")
		synctest.Wait()
		n.store.setFault(always(late))
		if err := n.Reserve(t.Context(), had, "r"); !errors.Is(err, raftstore.ErrUnknownOutcome) {
			t.Errorf("%v", err)
		}
		time.Sleep(5 * time.Second)
		n.mu.Lock()
		if l := n.leases[had]; l == nil || l.flight == nil || !n.kept[had] {
			t.Errorf("the release is not unresolved, or %s not kept back: %+v", had, l)
		}
		n.mu.Unlock()
		if h := n.mustBind("x", ""); h.Addr == had {
			t.Errorf("got %s, which may be reserved", had)
		}
		if c := n.Counts(); c.Bound+c.Attached+c.Cooling+c.Reserved+c.Free > c.Total {
			t.Errorf("counted twice: %+v", c)
		}
	})
}

func TestFenced(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNode(t, newFakeStore(t, 24))
		n.mustBind("x", "")
		for _, r := range n.store.must(ipam.RemoveNode{Node: testNode, Force: true}) {
			if r.Err != nil {
				t.Fatal(r.Err)
			}
		}
		if err := n.bindErr("y", ""); !errors.Is(err, ErrFenced) || !errors.Is(err, ipam.ErrNodeRemoved) {
			t.Errorf("%v", err)
		}
		if err := n.bindErr("z", ""); !errors.Is(err, ErrFenced) {
			t.Errorf("%v", err)
		}
		if _, err := n.Status(); !errors.Is(err, ErrFenced) {
			t.Errorf("%v", err)
		}
		n.store.setFault(always(noLeader)) // it does not go on alone, as it would without a leader
		if err := n.bindErr("alone", ""); !errors.Is(err, ErrFenced) {
			t.Errorf("without a leader: %v", err)
		}
		n.mustBind("x", "") // what it has it keeps
		n.mustRelease("x")
		if len(n.All()) != 0 {
			t.Errorf("%+v", n.All())
		}
	})
	// It also learns of it while it replicates something.
	synctest.Test(t, func(t *testing.T) {
		n := newNode(t, newFakeStore(t, 24))
		n.mustBind("x", "")
		n.store.must(ipam.RemoveNode{Node: testNode, Force: true})
		n.Attached(owner("x"), true)
		time.Sleep(10 * time.Second)
		n.store.setFault(always(noLeader))
		if err := n.bindErr("alone", ""); !errors.Is(err, ErrFenced) {
			t.Errorf("after a mark was refused: %v", err)
		}
	})
}

// No durable write, no lease; and nothing is lost or doubled when the disk is back.
func TestDiskFull(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNode(t, newFakeStore(t, 29))
		n.mustBind("x", "")
		n.disk.broken.Store(true)
		for range 10 {
			if err := n.bindErr("y", ""); !errors.Is(err, journal.ErrFailed) {
				t.Errorf("bind: %v", err)
			}
			time.Sleep(time.Second)
		}
		if err := n.Release(t.Context(), owner("x")); !errors.Is(err, journal.ErrFailed) {
			t.Errorf("release: %v", err)
		}
		if _, ok := n.Lookup(owner("x")); !ok {
			t.Error("a failed release has released")
		}
		if _, err := n.Status(); !errors.Is(err, journal.ErrFailed) {
			t.Errorf("%v", err)
		}
		n.disk.broken.Store(false)
		time.Sleep(2 * time.Minute)
		for i := range 4 {
			n.mustBind(strconv.Itoa(i), "")
		}
		if err := n.bindErr("z", ""); !errors.Is(err, ipam.ErrNoAvailableIP) {
			t.Errorf("%v", err)
		}
		n.restart()
		if c := n.Counts(); c.Bound != 5 {
			t.Errorf("%+v", c)
		}
	})
}

// A lost journal costs nothing that the replica or the kernel knows.
func TestJournalLost(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNode(t, newFakeStore(t, 24))
		x, y := n.mustBind("x", ""), n.mustBind("y", "")
		n.mustBind("gone", "")
		n.mustRelease("gone")
		time.Sleep(time.Second)
		n.stop()
		if err := os.Remove(filepath.Join(n.dir, "journal")); err != nil {
			t.Fatal(err)
		}
		k := Live{addr("172.16.0.77"), owner("k")}
		if err := n.start(Live{x.Addr, x.Owner}, k); err != nil {
			t.Fatal(err)
		}
		if h, ok := n.Lookup(x.Owner); !ok || h.Addr != x.Addr || !h.Attached || h.Provisional {
			t.Errorf("%+v", h)
		}
		if h, ok := n.Lookup(y.Owner); !ok || h.Addr != y.Addr || h.Attached {
			t.Errorf("%+v", h)
		}
		if h, ok := n.LookupAddr(k.Addr); !ok || h.Owner != k.Owner {
			t.Errorf("%+v", h)
		}
		if c := n.Counts(); c.Cooling != 1 {
			t.Errorf("%+v", c)
		}
		z := n.mustBind("z", "") // request ids go on above the lost ones
		if z.Provisional {
			t.Errorf("%+v", z)
		}
		time.Sleep(time.Minute)
		if l := n.store.leases()[k.Addr]; l.Owner != k.Owner || l.State != ipam.Attached {
			t.Errorf("replica has %+v", l)
		}
	})
}

// A replica that was replaced by an older one, as a restore does, has all leases again
// after a few proposals, each address with its owner, whoever had it in the backup.
func TestReplicaReplaced(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNode(t, newFakeStore(t, 22))
		const leases = 300
		for i := range leases {
			n.mustBind(strconv.Itoa(i), "")
		}
		time.Sleep(time.Minute)
		held := n.All()
		backup := newFakeStore(t, 22)
		f := backup.subnet().Fence()
		for i := range 3 { // in the backup a few of these addresses have other owners
			backup.must(ipam.BindLease{Fence: f, Addr: held[i].Addr, Owner: owner("then")})
		}
		for _, kind := range []fault{none, replyLost, late} {
			n.store.mu.Lock()
			n.store.state, n.store.index = restored(t, backup.state), backup.index
			n.store.mu.Unlock()
			n.store.setFault(once(kind))
			before := n.store.proposals()
			n.Audit()
			time.Sleep(10 * time.Second)
			n.store.deliver(rand.New(rand.NewPCG(1, 1)))
			time.Sleep(time.Minute)
			if got := n.store.proposals() - before; got > 10 {
				t.Errorf("fault %d: %d proposals for %d leases", kind, got, leases)
			}
			have := n.store.leases()
			for _, h := range held {
				if l := have[h.Addr]; l.Owner != h.Owner || l.State != ipam.Bound {
					t.Errorf("fault %d: the replica has %+v for %s of %s", kind, l, h.Addr, h.Owner)
				}
			}
			if c := n.Counts(); c.Bound != leases || c.Provisional != 0 || len(have) != leases {
				t.Errorf("fault %d: %+v, %d in the replica", kind, c, len(have))
			}
		}
	})
}

// restored is a state as a restore makes it from a snapshot of another.
func restored(t *testing.T, from *ipam.State) *ipam.State {
	t.Helper()
	var b bytes.Buffer
	if _, err := from.Snapshot().WriteTo(&b); err != nil {
		t.Fatal(err)
	}
	s, err := ipam.Restore(&b)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// once is kind at the first proposal and none at the others.
func once(kind fault) func() fault {
	first := true
	return func() fault {
		if !first {
			return none
		}
		first = false
		return kind
	}
}

// An old journal that is put back has request numbers that the state remembers.
func TestOldRequestNumbers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNode(t, newFakeStore(t, 22))
		for i := range 300 {
			n.mustBind(strconv.Itoa(i), "")
		}
		n.seq.mu.Lock()
		n.seq.last -= 290
		n.seq.mu.Unlock()
		for i := range 10 {
			if h := n.mustBind("x"+strconv.Itoa(i), ""); h.Provisional {
				t.Errorf("%+v", h)
			}
		}
	})
}

func TestBindContext(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNode(t, newFakeStore(t, 24))
		n.store.setFault(always(slow))
		ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
		defer cancel()
		if _, err := n.Bind(ctx, BindRequest{Owner: owner("x")}); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("%v", err)
		}
		if _, ok := n.Lookup(owner("x")); ok {
			t.Error("held before the commit")
		}
		begin := time.Now()
		h := n.mustBind("x", "") // joins the one under way
		if took := time.Since(begin); took != 200*time.Millisecond || h.Provisional {
			t.Errorf("%+v after %s", h, took)
		}
	})
}

// Many containers at once, on the real clock.
func TestConcurrentBinds(t *testing.T) {
	n := newNode(t, newFakeStore(t, 22))
	var wg sync.WaitGroup
	for g := range 64 {
		wg.Go(func() {
			for i := range 20 {
				id := strconv.Itoa(g%32*100 + i) // two goroutines for each owner
				h, err := n.Bind(context.Background(), BindRequest{Owner: owner(id)})
				if err != nil {
					t.Error(err)
					return
				}
				n.Attached(h.Owner, true)
				if i%3 == 0 {
					if err := n.Release(context.Background(), h.Owner); err != nil {
						t.Error(err)
					}
				}
			}
		})
	}
	wg.Wait()
	seen := map[string]ipam.Owner{}
	for _, h := range n.All() {
		if o, ok := seen[h.Addr.String()]; ok {
			t.Errorf("%s is held by %s and %s", h.Addr, o, h.Owner)
		}
		seen[h.Addr.String()] = h.Owner
	}
}

// What is in use is in use: an interface that carries a reserved address keeps it.
func TestReservedButInUse(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNode(t, newFakeStore(t, 28))
		if err := n.Reserve(t.Context(), addr("172.16.0.5"), "r"); err != nil {
			t.Fatal(err)
		}
		n.restart(Live{addr("172.16.0.5"), owner("k")})
		if err := n.bindErr("x", "172.16.0.5"); !errors.Is(err, ipam.ErrAddressTaken) {
			t.Errorf("%v", err)
		}
		time.Sleep(time.Minute)
		if l := n.store.leases()[addr("172.16.0.5")]; l.Owner != owner("k") || l.State != ipam.Attached {
			t.Errorf("replica has %+v", l)
		}
		if h, ok := n.Lookup(owner("k")); !ok || h.Provisional {
			t.Errorf("%+v", h)
		}
		n.store.View(func(s *ipam.State) {
			if r, ok := s.ReservedBy(addr("172.16.0.5")); ok {
				t.Errorf("still %+v", r)
			}
		})
	})
}
