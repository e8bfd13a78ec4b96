package journal

import (
	"cmp"
	"maps"
	"net/netip"
	"slices"

	"stellar.io/stellar/ipam"
)

// state is what the records of a journal amount to.
type state struct {
	leases       map[netip.Addr]Record // the last bind or release of each address
	reservations map[netip.Prefix]Record
	seq          uint64
}

func newState() *state {
	return &state{leases: make(map[netip.Addr]Record), reservations: make(map[netip.Prefix]Record)}
}

// apply is idempotent and cares only for the last record of each address.
func (s *state) apply(r Record) {
	switch r.Op {
	case OpBind, OpRelease:
		s.leases[r.Addr] = r
	case OpFree:
		delete(s.leases, r.Addr)
	case OpSeq:
		s.seq = max(s.seq, r.Request.Seq)
	case OpReserve:
		s.reservations[r.Prefix] = r
	case OpUnreserve:
		delete(s.reservations, r.Prefix)
	}
}

// all returns the fewest records that amount to the state, in a fixed order.
func (s *state) all() []Record {
	var out []Record
	if s.seq != 0 {
		out = append(out, Record{Op: OpSeq, Request: ipam.RequestID{Seq: s.seq}})
	}
	out = slices.AppendSeq(out, maps.Values(s.reservations))
	out = slices.AppendSeq(out, maps.Values(s.leases))
	slices.SortFunc(out, func(a, b Record) int {
		return cmp.Or(-cmp.Compare(a.Op, b.Op), a.Addr.Compare(b.Addr),
			a.Prefix.Addr().Compare(b.Prefix.Addr()), cmp.Compare(a.Prefix.Bits(), b.Prefix.Bits()))
	})
	return out
}
