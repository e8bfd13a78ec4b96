package holder

import (
	"net/netip"
	"time"

	"stellar.io/stellar/ipam"
	"stellar.io/stellar/raftstore/journal"
)

// Held is a lease that an owner holds, bound or attached.
type Held struct {
	Addr     netip.Addr
	Owner    ipam.Owner
	Attached bool   // an interface carries the address
	Static   bool   // the owner asked for this very address
	Hostname string // as given to Bind
	// Provisional: the lease is in the journal, but no leader has confirmed it yet.
	Provisional bool
	Since       time.Time // wall clock of the Bind, for people
}

// BindRequest asks for an address.
type BindRequest struct {
	Owner    ipam.Owner
	Want     netip.Addr // this very address; zero: the holder picks one
	Hostname string
}

// Live is an address that an interface in the kernel carries.
type Live struct {
	Addr  netip.Addr
	Owner ipam.Owner
}

// Counts counts the addresses of the subnet: Total = Bound + Attached + Cooling +
// Reserved + Free.
type Counts struct {
	Total    int
	Bound    int
	Attached int
	Cooling  int // released, not yet free; also those with an unresolved command
	Reserved int
	Free     int
	// Provisional counts the bound and attached ones that no leader has confirmed.
	Provisional int
}

// lease is what the holder knows of one address that is not free, or that the
// replica does not know to be free. Holder.mu guards it.
type lease struct {
	addr     netip.Addr
	owner    ipam.Owner
	static   bool
	hostname string
	since    time.Time

	held       bool  // the owner has it; else it was released
	attached   bool  // an interface carries it
	attachedAt int64 // Holder.now of the last change of attached
	confirmed  bool  // a leader has said that the owner has it
	released   int64 // Holder.now at which cooling began, if cooling
	cooling    bool  // the picker knows that it was released

	// doubtful: it is held, but the release that the journal failed to write may be
	// found by the next start, unless the journal has recovered before.
	doubtful bool
	// unwritten: it was released, but the journal may still say bind.
	unwritten bool

	// request is the id of the BindLease, as the journal has it; spent when a reply
	// to it has come, so that it answers no further proposal.
	request ipam.RequestID
	spent   bool

	op      chan struct{} // of the Bind or Release that is working on it; closed at its end
	binding bool          // that is a Bind: the owner does not have it yet
	before  *lease        // while binding: the released lease of the address that it replaces
	flight  *flight       // the proposal about it whose outcome is not known yet
}

func (l *lease) view() Held {
	return Held{
		Addr: l.addr, Owner: l.owner, Attached: l.attached, Static: l.static,
		Hostname: l.hostname, Provisional: !l.confirmed, Since: l.since,
	}
}

// record returns the lease as the journal keeps it.
func (l *lease) record(op journal.Op, f ipam.Fence) journal.Record {
	r := journal.Record{
		Op: op, Addr: l.addr, Owner: l.owner, Static: l.static, Hostname: l.hostname,
		Subnet: f.Subnet, Epoch: f.Epoch, Since: l.since.UnixNano(), Request: l.request,
	}
	if op == journal.OpRelease && l.confirmed {
		r.Request = ipam.RequestID{} // nothing left to resolve
	}
	return r
}

// fromRecord is the inverse of record.
func fromRecord(r journal.Record) *lease {
	return &lease{
		addr: r.Addr, owner: r.Owner, static: r.Static, hostname: r.Hostname,
		since: time.Unix(0, r.Since), held: r.Op == journal.OpBind, request: r.Request,
	}
}

func (l *lease) bindCommand(f ipam.Fence) ipam.Command {
	return ipam.BindLease{Fence: f, Addr: l.addr, Owner: l.owner, Static: l.static, Hostname: l.hostname}
}

// flight is an envelope that was proposed and has not been answered. The same
// envelope, with its id, is proposed again until there is an answer.
type flight struct {
	env      ipam.Envelope
	leases   []*lease   // whose addresses it is about; lease.flight is this flight
	binds    []binding  // those that it binds
	reserves netip.Addr // the address that it reserves, or zero
}

// binding is a lease that an envelope binds, and with which of its commands. Those
// before it make room, if they can: that they were refused says nothing.
type binding struct {
	lease *lease
	at    int
}
