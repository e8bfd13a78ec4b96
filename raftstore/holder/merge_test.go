package holder

import (
	"errors"
	"net/netip"
	"slices"
	"strconv"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"stellar.io/stellar/ipam"
	"stellar.io/stellar/raftstore/journal"
)

var mergeSubnet = ipam.Subnet{
	SubnetKey: ipam.SubnetKey{Network: "default", Prefix: netip.MustParsePrefix("172.16.0.0/28")},
	State:     ipam.Held, Node: testNode, Epoch: ipam.Epoch{Generation: 1, Counter: 1}, Mode: ipam.ModeBridge,
}

func host(i int) netip.Addr { return netip.AddrFrom4([4]byte{172, 16, 0, byte(i)}) }

func rec(op journal.Op, i int, id string, seq uint64) journal.Record {
	return journal.Record{Op: op, Addr: host(i), Owner: owner(id), Request: ipam.RequestID{Node: testNode, Seq: seq}}
}

func replicaOf(state ipam.LeaseState, i int, id string) map[netip.Addr]ipam.Lease {
	return map[netip.Addr]ipam.Lease{host(i): {Addr: host(i), Owner: owner(id), State: state}}
}

// summary is a merged lease for comparison: "2 x held attached confirmed".
func summary(m merged) (out []string) {
	for _, l := range m.leases {
		s := strconv.Itoa(int(l.addr.As4()[3])) + " " + l.owner.ID
		for _, f := range []struct {
			on   bool
			name string
		}{{l.held, "held"}, {!l.held, "released"}, {l.attached, "attached"}, {l.confirmed, "confirmed"}} {
			if f.on {
				s += " " + f.name
			}
		}
		out = append(out, s)
	}
	return out
}

func TestMerge(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct {
		name    string
		journal []journal.Record
		live    []Live
		replica map[netip.Addr]ipam.Lease
		want    []string
		changes int
		err     error
		blocked int
	}{
		{name: "nothing"},
		{
			name: "all agree", journal: []journal.Record{rec(journal.OpBind, 2, "x", 1)},
			live: []Live{{host(2), owner("x")}}, replica: replicaOf(ipam.Attached, 2, "x"),
			want: []string{"2 x held attached confirmed"},
		},
		{
			name: "not replicated", journal: []journal.Record{rec(journal.OpBind, 2, "x", 1)},
			want: []string{"2 x held"},
		},
		{
			name: "kernel alone", live: []Live{{host(2), owner("x")}},
			want: []string{"2 x held attached"}, changes: 1,
		},
		{
			name: "replica alone", replica: replicaOf(ipam.Bound, 2, "x"),
			want: []string{"2 x held confirmed"}, changes: 1,
		},
		{
			name: "replica alone, cooling", replica: replicaOf(ipam.Cooling, 2, "x"),
			want: []string{"2 x released"}, changes: 1,
		},
		{
			name: "kernel beats journal", journal: []journal.Record{rec(journal.OpBind, 2, "x", 1)},
			live: []Live{{host(2), owner("y")}},
			want: []string{"2 y held attached"}, changes: 1,
		},
		{
			name: "kernel beats journal: another address of the owner", journal: []journal.Record{rec(journal.OpBind, 2, "x", 1)},
			live: []Live{{host(3), owner("x")}},
			want: []string{"2 x released", "3 x held attached"}, changes: 2,
		},
		{
			name: "kernel beats a release", journal: []journal.Record{rec(journal.OpRelease, 2, "x", 1)},
			live: []Live{{host(2), owner("x")}},
			want: []string{"2 x held attached"}, changes: 1,
		},
		{
			name: "journal beats replica", journal: []journal.Record{rec(journal.OpBind, 2, "x", 1)},
			replica: replicaOf(ipam.Bound, 2, "y"), want: []string{"2 x held"},
		},
		{
			name: "release not replicated", journal: []journal.Record{rec(journal.OpRelease, 2, "x", 1)},
			replica: replicaOf(ipam.Bound, 2, "x"), want: []string{"2 x released confirmed"},
		},
		{
			name: "replica has an old address of the owner", journal: []journal.Record{rec(journal.OpBind, 2, "x", 1)},
			replica: replicaOf(ipam.Bound, 3, "x"), want: []string{"2 x held", "3 x released confirmed"}, changes: 1,
		},
		{
			name:    "two binds of one owner: the later counts",
			journal: []journal.Record{rec(journal.OpBind, 2, "x", 1), rec(journal.OpBind, 3, "x", 2)},
			want:    []string{"2 x released", "3 x held"}, changes: 1,
		},
		{
			name: "another subnet", journal: []journal.Record{rec(journal.OpBind, 77, "x", 1)}, changes: 1,
		},
		{
			name: "interface outside", live: []Live{{host(77), owner("x")}, {host(2), owner("y")}},
			want: []string{"2 y held attached"}, changes: 1, err: ipam.ErrOutOfSubnet,
		},
		{
			name: "two interfaces with one address: the journal decides", journal: []journal.Record{rec(journal.OpBind, 2, "y", 1)},
			live: []Live{{host(2), owner("x")}, {host(2), owner("y")}},
			want: []string{"2 y held attached"}, err: ErrConflict,
		},
		{
			name: "two addresses on one owner", journal: []journal.Record{rec(journal.OpBind, 3, "x", 1)},
			live: []Live{{host(2), owner("x")}, {host(3), owner("x")}},
			want: []string{"3 x held attached"}, err: ErrConflict, blocked: 1,
		},
		{
			name: "told twice", live: []Live{{host(2), owner("x")}, {host(2), owner("x")}},
			want: []string{"2 x held attached"}, changes: 1,
		},
	} {
		m := merge(mergeSubnet, tc.journal, tc.live, tc.replica, time.Unix(1, 0))
		if d := cmp.Diff(tc.want, summary(m)); d != "" {
			t.Errorf("%s: %s", tc.name, d)
		}
		if len(m.changes) != tc.changes || len(m.blocked) != tc.blocked || !errors.Is(m.err, tc.err) {
			t.Errorf("%s: %d changes, %d blocked, %v", tc.name, len(m.changes), len(m.blocked), m.err)
		}
	}
}

// Whatever the three say: an address has one lease, an owner holds at most one, what
// the kernel carries is never free, and the journal then says the same.
func TestMergeProperties(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		hosts, ids := rapid.IntRange(1, 8), rapid.SampledFrom([]string{"u", "v", "w", "x", "y"})
		var records []journal.Record
		seen := map[int]bool{}
		for seq := range rapid.IntRange(0, 6).Draw(t, "records") {
			i := hosts.Draw(t, "host")
			if !seen[i] {
				seen[i] = true
				op := rapid.SampledFrom([]journal.Op{journal.OpBind, journal.OpRelease}).Draw(t, "op")
				records = append(records, rec(op, i, ids.Draw(t, "owner"), uint64(seq+1)))
			}
		}
		var live []Live
		for range rapid.IntRange(0, 5).Draw(t, "live") {
			live = append(live, Live{host(hosts.Draw(t, "host")), owner(ids.Draw(t, "owner"))})
		}
		have := map[netip.Addr]ipam.Lease{}
		for range rapid.IntRange(0, 5).Draw(t, "replica") {
			state := rapid.SampledFrom([]ipam.LeaseState{ipam.Bound, ipam.Attached, ipam.Cooling}).Draw(t, "state")
			a := host(hosts.Draw(t, "host"))
			have[a] = ipam.Lease{Addr: a, Owner: owner(ids.Draw(t, "owner")), State: state}
		}
		m := merge(mergeSubnet, records, live, have, time.Unix(1, 0))
		byAddr, held := map[netip.Addr]*lease{}, map[ipam.Owner]netip.Addr{}
		for _, l := range m.leases {
			if byAddr[l.addr] != nil {
				t.Fatalf("two leases of %s", l.addr)
			}
			byAddr[l.addr] = l
			if old, ok := held[l.owner]; ok && l.held {
				t.Fatalf("%s holds %s and %s", l.owner, old, l.addr)
			}
			if l.held {
				held[l.owner] = l.addr
			}
		}
		for _, v := range live {
			if l := byAddr[v.Addr]; (l == nil || !l.held) && !slices.Contains(m.blocked, v.Addr) {
				t.Fatalf("%s is carried by %s and free", v.Addr, v.Owner)
			}
		}
		says := map[netip.Addr]journal.Record{}
		for _, r := range append(records, m.changes...) {
			says[r.Addr] = r
		}
		for a, l := range byAddr {
			if r := says[a]; r.Owner != l.owner || (r.Op == journal.OpBind) != l.held {
				t.Fatalf("journal says %+v of %+v", r, l)
			}
		}
		if len(says) != len(byAddr) {
			t.Fatalf("journal knows %d addresses, the holder %d", len(says), len(byAddr))
		}
	})
}

// Applied again and again, the plan makes the replica say what the journal says.
func TestPlanConverges(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		store := newFakeStore(t, 28)
		fence := store.subnet().Fence()
		hosts, ids := rapid.IntRange(2, 9), rapid.SampledFrom([]string{"u", "v", "w", "x", "y"})
		var cmds []ipam.Command
		for range rapid.IntRange(0, 8).Draw(t, "before") {
			a, o := host(hosts.Draw(t, "host")), owner(ids.Draw(t, "owner"))
			cmds = append(cmds, ipam.BindLease{Fence: fence, Addr: a, Owner: o})
			if rapid.Bool().Draw(t, "release") {
				cmds = append(cmds, ipam.ReleaseLease{Fence: fence, Addr: a, Owner: o})
			}
		}
		if len(cmds) > 0 {
			store.must(cmds...)
		}
		want, owners := map[netip.Addr]desired{}, map[ipam.Owner]bool{}
		for range rapid.IntRange(0, 8).Draw(t, "journal") {
			d := desired{
				addr: host(hosts.Draw(t, "host")), owner: owner(ids.Draw(t, "owner")), mark: true,
				held: rapid.Bool().Draw(t, "held"), attached: rapid.Bool().Draw(t, "attached"), cooled: true,
			}
			if _, ok := want[d.addr]; !ok && !(d.held && owners[d.owner]) {
				want[d.addr] = d
				owners[d.owner] = owners[d.owner] || d.held
			}
		}
		for round := 0; ; round++ {
			p := makePlan(fence, want, store.leases())
			var cmds []ipam.Command
			for _, c := range append(p.binds, p.rest...) {
				cmds = append(cmds, c.commands...)
			}
			for _, s := range p.strays {
				want[s.Addr] = desired{addr: s.Addr, owner: s.Owner, cooled: true}
			}
			for _, a := range p.gone {
				delete(want, a)
			}
			if len(cmds)+len(p.strays)+len(p.gone) == 0 {
				break
			}
			if round > 6 {
				t.Fatalf("no end: %+v", p)
			}
			if len(cmds) > 0 {
				store.must(cmds...)
			}
		}
		have := store.leases()
		for a, d := range want {
			state := ipam.Bound
			if d.attached {
				state = ipam.Attached
			}
			if l := have[a]; !d.held || l.Owner != d.owner || l.State != state {
				t.Fatalf("want %+v, replica has %+v", d, l)
			}
		}
		if len(have) != len(want) {
			t.Fatalf("replica has %d leases, want %d", len(have), len(want))
		}
	})
}

func TestPlanLeavesLockedAlone(t *testing.T) {
	t.Parallel()
	want := map[netip.Addr]desired{
		host(2): {addr: host(2), owner: owner("x"), held: true, locked: true},
		host(3): {addr: host(3), owner: owner("y"), locked: true, cooled: true},
		host(4): {addr: host(4), owner: owner("z"), held: true},
		host(5): {addr: host(5), owner: owner("z"), locked: true},
	}
	p := makePlan(mergeSubnet.Fence(), want, replicaOf(ipam.Bound, 5, "z"))
	if len(p.binds)+len(p.rest)+len(p.gone)+len(p.strays)+len(p.shown) != 0 {
		t.Errorf("%+v", p)
	}
}

// TestMergeEveryConflict: one address, whatever the three witnesses say of it. What
// the kernel runs beats what is bound, which beats what cools; the journal, which was
// written first, beats the replica, which may be of before two changes of owner.
func TestMergeEveryConflict(t *testing.T) {
	t.Parallel()
	type word struct {
		owner string // "": says nothing
		held  bool
	}
	journals := []word{{}, {"x", true}, {"y", true}, {"x", false}, {"y", false}}
	kernels := []string{"", "x", "y"}
	cases := 0
	for _, j := range journals {
		for _, k := range kernels {
			for _, r := range []string{"", "x", "y"} {
				for _, state := range []ipam.LeaseState{ipam.Bound, ipam.Attached, ipam.Cooling} {
					var records []journal.Record
					if j.owner != "" {
						records = []journal.Record{rec(map[bool]journal.Op{true: journal.OpBind, false: journal.OpRelease}[j.held], 2, j.owner, 1)}
					}
					var live []Live
					if k != "" {
						live = []Live{{host(2), owner(k)}}
					}
					have := map[netip.Addr]ipam.Lease{}
					if r != "" {
						have = replicaOf(state, 2, r)
					}
					want := word{}
					switch {
					case k != "":
						want = word{k, true}
					case j.owner != "":
						want = j
					case r != "":
						want = word{r, state != ipam.Cooling}
					}
					cases++
					m := merge(mergeSubnet, records, live, have, time.Unix(1, 0))
					var got word
					if len(m.leases) == 1 {
						got = word{m.leases[0].owner.ID, m.leases[0].held}
					}
					if got != want || len(m.leases) > 1 || m.err != nil || len(m.leases) == 1 && m.leases[0].attached != (k != "") {
						t.Errorf("journal %v, kernel %q, replica %q %s: %v, want %v (%v)", j, k, r, state, summary(m), want, m.err)
					}
				}
			}
		}
	}
	if cases != 135 {
		t.Errorf("%d cases", cases)
	}
}
