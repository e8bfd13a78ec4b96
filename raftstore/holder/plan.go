package holder

import (
	"maps"
	"net/netip"
	"slices"

	"stellar.io/stellar/ipam"
)

// desired is what the journal says of one address.
type desired struct {
	addr     netip.Addr
	owner    ipam.Owner
	static   bool
	hostname string
	held     bool // else released
	attached bool // held: what the replica shall be told, if mark
	mark     bool // held: attached has lasted long enough to be told
	cooled   bool // released: the cool-down is over
	yields   bool // held: a reservation of the address has to end
	locked   bool // something is under way: left alone this time
}

// change is what one address needs, in this order.
type change struct {
	addr     netip.Addr
	owner    ipam.Owner   // whose lease it is, and
	held     bool         // whether it is held; else the change is void
	others   []netip.Addr // whose leases the commands change too
	commands []ipam.Command
	yields   bool // they end a reservation
}

// plan is the difference between the journal and the replica.
type plan struct {
	binds  []change     // see apart
	rest   []change     // releases, marks and frees, proposed together
	shown  []netip.Addr // held leases that the replica has
	gone   []netip.Addr // released ones that neither needs to know of any longer
	strays []ipam.Lease // what only the replica has
	waits  bool         // something is left out until another address is no longer locked
}

// makePlan compares all that the journal says with all leases that the replica has
// of the subnet. It is pure.
func makePlan(f ipam.Fence, want map[netip.Addr]desired, have map[netip.Addr]ipam.Lease) plan {
	var p plan
	active := make(map[ipam.Owner]netip.Addr, len(have))
	for a, l := range have {
		if l.State != ipam.Cooling {
			active[l.Owner] = a
		}
	}
	for _, a := range slices.SortedFunc(maps.Keys(want), netip.Addr.Compare) {
		d, l := want[a], have[a]
		switch {
		case d.locked: // whoever has locked it wakes Run at the end, if that leaves anything to do
		case d.held:
			p.planHeld(f, d, l, active, want)
		default:
			p.planReleased(f, d, l)
		}
	}
	for _, a := range slices.SortedFunc(maps.Keys(have), netip.Addr.Compare) {
		if _, ok := want[a]; !ok {
			p.strays = append(p.strays, have[a])
		}
	}
	return p
}

// planHeld lets the replica have a lease. l is what it has of the address.
func (p *plan) planHeld(f ipam.Fence, d desired, l ipam.Lease, active map[ipam.Owner]netip.Addr, want map[netip.Addr]desired) {
	if l.Owner == d.owner && l.State != ipam.Cooling && l.State != 0 {
		p.shown = append(p.shown, d.addr)
		state := ipam.Bound
		if d.attached {
			state = ipam.Attached
		}
		if d.mark && l.State != state {
			p.rest = append(p.rest, change{addr: d.addr, owner: d.owner, held: d.held, commands: []ipam.Command{
				ipam.MarkLease{Fence: f, Addr: d.addr, Owner: d.owner, State: state},
			}})
		}
		return
	}
	c := change{addr: d.addr, owner: d.owner, held: true}
	if l.State != 0 && l.State != ipam.Cooling {
		c.commands = append(c.commands, ipam.ReleaseLease{Fence: f, Addr: d.addr, Owner: l.Owner})
	}
	if other, ok := active[d.owner]; ok && other != d.addr {
		if want[other].locked {
			p.waits = true
			return
		}
		c.others = append(c.others, other)
		c.commands = append(c.commands, ipam.ReleaseLease{Fence: f, Addr: other, Owner: d.owner})
	}
	// An interface carried a reserved address, or a Reserve of unknown outcome, which
	// was forgotten over a restart, was committed after the address had been given
	// away. What is in use is in use.
	if d.yields {
		c.yields = true
		c.commands = append(c.commands, ipam.UnreserveAddress{
			Network: f.Subnet.Network, Prefix: netip.PrefixFrom(d.addr, d.addr.BitLen()), Node: f.Node, Epoch: f.Epoch,
		})
	}
	c.commands = append(c.commands, ipam.BindLease{
		Fence: f, Addr: d.addr, Owner: d.owner, Static: d.static, Hostname: d.hostname,
	})
	p.binds = append(p.binds, c)
}

// planReleased lets the replica follow a release, and later its end.
func (p *plan) planReleased(f ipam.Fence, d desired, l ipam.Lease) {
	theirs := l.State != 0 && l.Owner == d.owner
	switch {
	case theirs && l.State != ipam.Cooling:
		p.rest = append(p.rest, change{addr: d.addr, owner: d.owner, held: d.held, commands: []ipam.Command{
			ipam.ReleaseLease{Fence: f, Addr: d.addr, Owner: d.owner},
		}})
	case theirs && d.cooled:
		p.rest = append(p.rest, change{addr: d.addr, owner: d.owner, held: d.held, commands: []ipam.Command{
			ipam.FreeLease{Fence: f, Addr: d.addr, Owner: d.owner},
		}})
	case !theirs && d.cooled:
		p.gone = append(p.gone, d.addr)
	}
}
