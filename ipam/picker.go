package ipam

import (
	"fmt"
	"net/netip"
	"time"
)

// Picker says which address of one subnet is handed out next: the least recently
// used one, and none within the cool-down after its release. Every operation
// takes O(1) time. It is not safe for concurrent use, and it is pure: now is
// monotonic time in nanoseconds and must not go back.
//
// A new Picker has every address of the subnet free; the holder tells it what is
// reserved (Reserve) and what is held or cools (Take, Release).
type Picker struct {
	prefix   netip.Prefix
	base     uint32
	coolDown int64
	slots    []pickSlot // one for each address, then the two list heads
	counts   PickCounts
}

// PickCounts counts the addresses of a Picker by what they are.
type PickCounts struct {
	Total    int
	Taken    int
	Cooling  int // released, some of them perhaps ready since the last Pick
	Reserved int
	Free     int
}

type pickState uint8

const (
	pickFree pickState = iota
	pickCooling
	pickTaken
	pickReserved
)

// pickSlot is an address. Free and cooling ones are linked in the order of their
// last use, each kind in a ring that starts and ends at the list's head.
type pickSlot struct {
	prev, next int32
	state      pickState
	ready      int64 // cooling: when it may be picked
}

// NewPicker returns a Picker for an IPv4 subnet between /16 and /32.
func NewPicker(prefix netip.Prefix, coolDown time.Duration) *Picker {
	prefix = prefix.Masked()
	n := 1 << (32 - prefix.Bits())
	p := &Picker{
		prefix: prefix, base: addrToUint(prefix.Addr()), coolDown: int64(coolDown),
		slots: make([]pickSlot, n+2), counts: PickCounts{Total: n, Free: n},
	}
	for _, head := range [...]int32{p.head(pickFree), p.head(pickCooling)} {
		p.slots[head].prev, p.slots[head].next = head, head
	}
	for i := range int32(n) {
		p.append(i, pickFree)
	}
	return p
}

// Counts returns how many addresses are what.
func (p *Picker) Counts() PickCounts { return p.counts }

// Pick takes the address that was not used for longest. When none is free and
// cool, the error wraps ErrNoAvailableIP and says what the addresses are.
func (p *Picker) Pick(now int64) (netip.Addr, error) {
	cooling := p.head(pickCooling)
	// Two steps suffice: addresses become ready one by one, and a pick takes one.
	for range 2 {
		i := p.slots[cooling].next
		if i == cooling || p.slots[i].ready > now {
			break
		}
		p.move(i, pickFree)
	}
	i := p.slots[p.head(pickFree)].next
	if i == p.head(pickFree) {
		return netip.Addr{}, p.exhausted(now)
	}
	p.move(i, pickTaken)
	return uintToAddr(p.base + uint32(i)), nil
}

func (p *Picker) exhausted(now int64) error {
	c := p.counts
	wait := ""
	if i := p.slots[p.head(pickCooling)].next; i != p.head(pickCooling) {
		wait = fmt.Sprintf(", the next is ready in %s", time.Duration(p.slots[i].ready-now).Round(time.Second))
	}
	return fmt.Errorf("%w in %s: %d in use, %d reserved, %d cooling%s",
		ErrNoAvailableIP, p.prefix, c.Taken, c.Reserved, c.Cooling, wait)
}

// Take takes this very address, cooling or not: for a static request, or for what
// is held already. It wraps ErrAddressTaken, ErrAddressReserved or ErrOutOfSubnet.
func (p *Picker) Take(a netip.Addr) error {
	i, err := p.slot(a)
	if err != nil {
		return err
	}
	switch p.slots[i].state {
	case pickTaken:
		return fmt.Errorf("%s: %w", a, ErrAddressTaken)
	case pickReserved:
		return fmt.Errorf("%s: %w", a, ErrAddressReserved)
	}
	p.move(i, pickTaken)
	return nil
}

// Release starts the cool-down of an address, be it taken, free or cooling
// already. A reserved or foreign address is left alone.
func (p *Picker) Release(a netip.Addr, now int64) {
	i, err := p.slot(a)
	if err != nil || p.slots[i].state == pickReserved {
		return
	}
	p.slots[i].ready = now + p.coolDown
	p.move(i, pickCooling)
}

// Free ends the hold or the cool-down of an address at once: it becomes the last
// to be picked of those that are free now. A reserved, foreign or free address is
// left alone.
func (p *Picker) Free(a netip.Addr) {
	i, err := p.slot(a)
	if err != nil || p.slots[i].state == pickReserved || p.slots[i].state == pickFree {
		return
	}
	p.move(i, pickFree)
}

// Reserve keeps an address from being picked, free or cooling. It does nothing
// for a reserved one, and wraps ErrAddressTaken or ErrOutOfSubnet.
func (p *Picker) Reserve(a netip.Addr) error {
	i, err := p.slot(a)
	if err != nil {
		return err
	}
	if p.slots[i].state == pickTaken {
		return fmt.Errorf("%s: %w", a, ErrAddressTaken)
	}
	p.move(i, pickReserved)
	return nil
}

// Unreserve makes a reserved address free. Any other is left alone. Reservations
// may overlap: first look whether another one covers the address.
func (p *Picker) Unreserve(a netip.Addr) {
	if i, err := p.slot(a); err == nil && p.slots[i].state == pickReserved {
		p.move(i, pickFree)
	}
}

// StartAfter turns the order of the free addresses so that picking goes on after
// a. A holder that has restarted has lost the order of use; going on after the
// address that was bound last keeps those released before the restart for last.
// It takes O(n) time.
func (p *Picker) StartAfter(a netip.Addr) {
	at, err := p.slot(a)
	if err != nil {
		return
	}
	for i := range at + 1 {
		if p.slots[i].state == pickFree {
			p.move(i, pickFree)
		}
	}
}

func (p *Picker) slot(a netip.Addr) (int32, error) {
	if !p.prefix.Contains(a) {
		return 0, fmt.Errorf("%s is not in %s: %w", a, p.prefix, ErrOutOfSubnet)
	}
	return int32(addrToUint(a) - p.base), nil
}

// head returns the slot that stands for the list of free or cooling addresses.
func (p *Picker) head(s pickState) int32 { return int32(p.counts.Total) + int32(s) }

// move puts slot i into another state, at the end of the list if that has one.
func (p *Picker) move(i int32, to pickState) {
	s := &p.slots[i]
	if s.state == pickFree || s.state == pickCooling {
		p.slots[s.prev].next, p.slots[s.next].prev = s.next, s.prev
	}
	*p.count(s.state)--
	*p.count(to)++
	p.append(i, to)
}

func (p *Picker) append(i int32, to pickState) {
	p.slots[i].state = to
	if to != pickFree && to != pickCooling {
		return
	}
	head := p.head(to)
	last := p.slots[head].prev
	p.slots[i].prev, p.slots[i].next = last, head
	p.slots[last].next, p.slots[head].prev = i, i
}

func (p *Picker) count(s pickState) *int {
	switch s {
	case pickCooling:
		return &p.counts.Cooling
	case pickTaken:
		return &p.counts.Taken
	case pickReserved:
		return &p.counts.Reserved
	}
	return &p.counts.Free
}
