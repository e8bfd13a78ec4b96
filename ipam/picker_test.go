package ipam

import (
	"errors"
	"maps"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"
)

const second = int64(time.Second)

func pick(t fatalizer, p *Picker, now int64) netip.Addr {
	t.Helper()
	a, err := p.Pick(now)
	if err != nil {
		t.Fatal(err)
	}
	return a
}

func TestPickerOrder(t *testing.T) {
	t.Parallel()
	p := NewPicker(mustPrefix("10.1.2.0/29"), time.Minute)
	for _, a := range []string{"10.1.2.0", "10.1.2.1", "10.1.2.7"} {
		if err := p.Reserve(mustAddr(a)); err != nil {
			t.Fatal(err)
		}
	}
	equal(t, "first", pick(t, p, 0), mustAddr("10.1.2.2"))
	equal(t, "second", pick(t, p, 0), mustAddr("10.1.2.3"))
	p.Release(mustAddr("10.1.2.3"), 1*second)
	p.Release(mustAddr("10.1.2.2"), 2*second)
	for _, want := range []string{"10.1.2.4", "10.1.2.5", "10.1.2.6"} {
		equal(t, "never used ones", pick(t, p, 3*second), mustAddr(want))
	}
	equal(t, "counts", p.Counts(), PickCounts{Total: 8, Taken: 3, Cooling: 2, Reserved: 3})

	_, err := p.Pick(60 * second)
	if !errors.Is(err, ErrNoAvailableIP) ||
		!strings.HasSuffix(err.Error(), "in 10.1.2.0/29: 3 in use, 3 reserved, 2 cooling, the next is ready in 1s") {
		t.Errorf("only cooling ones are left: %v", err)
	}
	equal(t, "after the cool-down", pick(t, p, 61*second), mustAddr("10.1.2.3"))
	if _, err := p.Pick(61 * second); !errors.Is(err, ErrNoAvailableIP) {
		t.Errorf("the second still cools: %v", err)
	}
	equal(t, "later", pick(t, p, 62*second), mustAddr("10.1.2.2"))
	if _, err := p.Pick(62 * second); err == nil || !strings.HasSuffix(err.Error(), "5 in use, 3 reserved, 0 cooling") {
		t.Errorf("full: %v", err)
	}
}

func TestPickerTake(t *testing.T) {
	t.Parallel()
	p := NewPicker(mustPrefix("10.1.2.0/29"), time.Minute)
	a := mustAddr("10.1.2.5")
	take := func(a netip.Addr, want error) {
		t.Helper()
		if err := p.Take(a); !errors.Is(err, want) {
			t.Fatalf("take %s: got %v, want %v", a, err, want)
		}
	}
	take(a, nil)
	take(a, ErrAddressTaken)
	if err := p.Reserve(a); !errors.Is(err, ErrAddressTaken) {
		t.Errorf("reserve a taken one: %v", err)
	}
	p.Release(a, 0)
	take(a, nil) // a static request does not wait
	p.Release(a, 0)
	if err := p.Reserve(a); err != nil {
		t.Errorf("reserve a cooling one: %v", err)
	}
	take(a, ErrAddressReserved)
	p.Release(a, 0)
	p.Free(a)
	take(a, ErrAddressReserved)
	p.Unreserve(a)
	p.Unreserve(a)
	take(a, nil)
	p.Free(a)
	take(a, nil)
	take(mustAddr("10.1.2.8"), ErrOutOfSubnet)
	take(mustAddr("::1"), ErrOutOfSubnet)
	take(netip.Addr{}, ErrOutOfSubnet)
	if err := p.Reserve(netip.Addr{}); !errors.Is(err, ErrOutOfSubnet) {
		t.Errorf("reserve nothing: %v", err)
	}
}

func TestPickerStartAfter(t *testing.T) {
	t.Parallel()
	p := NewPicker(mustPrefix("10.1.2.0/29"), time.Minute)
	if err := p.Reserve(mustAddr("10.1.2.0")); err != nil {
		t.Fatal(err)
	}
	if err := p.Take(mustAddr("10.1.2.4")); err != nil {
		t.Fatal(err)
	}
	p.StartAfter(mustAddr("10.1.2.5"))
	p.StartAfter(mustAddr("10.9.9.9"))
	var got []string
	for range 6 {
		got = append(got, pick(t, p, 0).String())
	}
	equal(t, "order", got, []string{"10.1.2.6", "10.1.2.7", "10.1.2.1", "10.1.2.2", "10.1.2.3", "10.1.2.5"})
}

// TestPickerReuseDistance: in a /22 an address comes back only after nearly all
// the others were used.
func TestPickerReuseDistance(t *testing.T) {
	t.Parallel()
	p := NewPicker(mustPrefix("172.16.0.0/22"), time.Minute)
	for _, a := range []string{"172.16.0.0", "172.16.0.1", "172.16.3.255"} {
		if err := p.Reserve(mustAddr(a)); err != nil {
			t.Fatal(err)
		}
	}
	last := map[netip.Addr]int{}
	for i := range 10_000 {
		now := int64(i) * second
		a := pick(t, p, now)
		if before, used := last[a]; used && i-before < 900 {
			t.Fatalf("%s came back after %d picks", a, i-before)
		}
		last[a] = i
		p.Release(a, now)
	}
}

// TestPickerAgainstModel compares random operations with a plain account of who
// was used when. The order is exact as long as nobody ends a cool-down early or
// changes the reservations meanwhile.
func TestPickerAgainstModel(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		prefix := netip.PrefixFrom(mustAddr("10.1.2.0"), rapid.IntRange(25, 30).Draw(t, "bits")).Masked()
		total := 1 << (32 - prefix.Bits())
		p := NewPicker(prefix, 60)
		type slot struct {
			state pickState
			ready int64
			used  int // order of the last use
		}
		model := make([]slot, total)
		for i := range model {
			model[i].used = i
		}
		use, now := total, int64(0)
		operations := rapid.SampledFrom([]int{5, 7}).Draw(t, "kinds of operations")
		addr := func(i int) netip.Addr { return uintToAddr(addrToUint(prefix.Addr()) + uint32(i)) }
		for range rapid.IntRange(1, 300).Draw(t, "steps") {
			now += int64(rapid.IntRange(0, 20).Draw(t, "passes"))
			i := rapid.IntRange(0, total-1).Draw(t, "address")
			m := &model[i]
			use++
			switch rapid.IntRange(0, operations).Draw(t, "operation") {
			case 0, 1, 2:
				a, err := p.Pick(now)
				best := -1
				for j, m := range model {
					if (m.state == pickFree || m.state == pickCooling && m.ready <= now) && (best < 0 || m.used < model[best].used) {
						best = j
					}
				}
				if best < 0 {
					if !errors.Is(err, ErrNoAvailableIP) {
						t.Fatalf("pick: %v, %v", a, err)
					}
					continue
				}
				if err != nil {
					t.Fatalf("pick: %v, want %s", err, addr(best))
				}
				got := &model[addrToUint(a)-addrToUint(prefix.Addr())]
				if got.state != pickFree && (got.state != pickCooling || got.ready > now) {
					t.Fatalf("pick: %s is %d, ready at %d of %d", a, got.state, got.ready, now)
				}
				if operations == 5 && got != &model[best] {
					t.Fatalf("pick: %s, want %s", a, addr(best))
				}
				got.state = pickTaken
			case 3:
				free := m.state == pickFree || m.state == pickCooling
				if err := p.Take(addr(i)); (err == nil) != free {
					t.Fatalf("take %s: %v", addr(i), err)
				}
				if free {
					m.state = pickTaken
				}
			case 4, 5:
				p.Release(addr(i), now)
				if m.state != pickReserved {
					*m = slot{pickCooling, now + 60, use}
				}
			case 6:
				p.Free(addr(i))
				if m.state == pickTaken || m.state == pickCooling {
					*m = slot{pickFree, 0, use}
				}
			case 7:
				if m.state == pickReserved {
					p.Unreserve(addr(i))
					*m = slot{pickFree, 0, use}
				} else if err := p.Reserve(addr(i)); err == nil {
					m.state = pickReserved
				} else if m.state != pickTaken {
					t.Fatalf("reserve %s: %v", addr(i), err)
				}
			}
			var counts [4]int
			for _, m := range model {
				counts[m.state]++
			}
			c := p.Counts()
			if c.Total != total || c.Taken != counts[pickTaken] || c.Reserved != counts[pickReserved] ||
				c.Free+c.Cooling != counts[pickFree]+counts[pickCooling] {
				t.Fatalf("counts %+v, want %v", c, counts)
			}
		}
		checkRings(t, p)
	})
}

// checkRings tells whether the two lists hold just the slots of their state.
func checkRings(t *rapid.T, p *Picker) {
	seen := map[int32]bool{}
	for _, state := range []pickState{pickFree, pickCooling} {
		head := p.head(state)
		for i := p.slots[head].next; i != head; i = p.slots[i].next {
			if p.slots[i].state != state || seen[i] || p.slots[p.slots[i].next].prev != i {
				t.Fatalf("slot %d is in the wrong list", i)
			}
			seen[i] = true
		}
	}
	if len(seen) != p.counts.Free+p.counts.Cooling {
		t.Fatalf("lists hold %d slots: %v", len(seen), slices.Sorted(maps.Keys(seen)))
	}
}
