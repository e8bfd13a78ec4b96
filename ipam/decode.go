package ipam

import (
	"math"
	"net/netip"
	"unicode/utf8"

	"google.golang.org/protobuf/encoding/protowire"

	"stellar.io/stellar/ipam/ipampb"
)

// Nearly all entries are about leases, many to an entry, and each node decodes each of
// them. decodeLeases does that without an object for each message: about eight times as
// fast as the general way. It knows one form, that which Encode writes: the fields in
// order, each at most once, none with its zero value left standing, and commands about
// leases alone. Whatever else it meets it leaves to the general way, which decides what
// it means; what it takes it understands as that does (FuzzDecode).

// quick reads the fields of one message, in their order.
type quick struct {
	s    string // what is left; the texts that are taken share its memory
	fail bool   // it is not in the form
}

// decodeLeases returns false for an entry that is left to the general way. data is the
// entry without its first byte.
func decodeLeases(data []byte) (e Envelope, ok bool) {
	q := quick{s: string(data)}
	if id := q.message(1); id != "" {
		r := quick{s: id}
		e.Request = RequestID{Node: NodeID(r.text(1)), Seq: r.number(2, math.MaxUint64)}
		q.fail = q.fail || !r.ended()
	}
	e.Commands = make([]Command, 0, len(q.s)/128)
	var last string // the fence of the command before, as it is written
	var fence Fence
	for q.s != "" && !q.fail {
		c := quick{s: q.message(2)}
		kind, body := c.any()
		m := quick{s: body}
		if f := m.message(1); f != last {
			last, fence = f, Fence{}
			m.fail = m.fail || !fence.read(f)
		}
		addr := m.addr(2)
		owner := m.owner(3)
		switch kind {
		case 7:
			e.Commands = append(e.Commands, BindLease{Fence: fence, Addr: addr, Owner: owner, Static: m.number(4, 1) == 1, Hostname: m.text(5)})
		case 8:
			e.Commands = append(e.Commands, MarkLease{Fence: fence, Addr: addr, Owner: owner, State: LeaseState(m.number(4, uint64(ipampb.LeaseState_LEASE_STATE_COOLING)))})
		case 9:
			e.Commands = append(e.Commands, ReleaseLease{Fence: fence, Addr: addr, Owner: owner})
		case 10:
			e.Commands = append(e.Commands, FreeLease{Fence: fence, Addr: addr, Owner: owner})
		default:
			return Envelope{}, false
		}
		if !m.ended() || !c.ended() {
			return Envelope{}, false
		}
	}
	return e, !q.fail
}

// read reads a fence; false: it is not in the form.
func (f *Fence) read(s string) bool {
	q := quick{s: s}
	f.Subnet.Network = q.text(1)
	if p := q.message(2); p != "" {
		r := quick{s: p}
		a, bits := r.addr(1), r.number(2, 128)
		if !r.ended() || !a.IsValid() || bits > uint64(a.BitLen()) {
			return false
		}
		f.Subnet.Prefix = netip.PrefixFrom(a, int(bits))
	}
	f.Node = NodeID(q.text(3))
	if e := q.message(4); e != "" {
		r := quick{s: e}
		f.Epoch = Epoch{Generation: r.number(1, math.MaxUint64), Counter: r.number(2, math.MaxUint64)}
		q.fail = q.fail || !r.ended()
	}
	return q.ended()
}

func (q *quick) owner(field byte) (o Owner) {
	r := quick{s: q.message(field)}
	o.Kind = OwnerKind(r.number(1, uint64(OwnerManual)))
	o.Namespace = r.text(2)
	o.ID = r.text(3)
	o.Created = int64(r.number(4, math.MaxUint64))
	o.Interface = r.text(5)
	q.fail = q.fail || !r.ended()
	return o
}

// ended reports whether the message was in the form, and is read.
func (q *quick) ended() bool { return !q.fail && q.s == "" }

// next reports whether the next field is the given one, of at most 15. All tags here
// have one byte.
func (q *quick) next(field byte, t protowire.Type) bool {
	if q.s == "" || q.s[0] != field<<3|byte(t) {
		return false
	}
	q.s = q.s[1:]
	return true
}

// varint takes a number off the front. A longer form of a number than is needed is not
// in the form.
func (q *quick) varint() (v uint64) {
	for i := 0; i < len(q.s) && i < 10; i++ {
		b := q.s[i]
		if i == 9 && b > 1 {
			break
		}
		if v |= uint64(b&0x7f) << (7 * i); b < 0x80 {
			q.fail = q.fail || b == 0 && i > 0
			q.s = q.s[i+1:]
			return v
		}
	}
	q.fail, q.s = true, ""
	return 0
}

// number takes a field that is a number of at most limit, 0 if it is not there.
func (q *quick) number(field byte, limit uint64) uint64 {
	if !q.next(field, protowire.VarintType) {
		return 0
	}
	v := q.varint()
	q.fail = q.fail || v == 0 || v > limit
	return v
}

// take takes what has its length before it.
func (q *quick) take() string {
	n := q.varint()
	if n == 0 || n > uint64(len(q.s)) {
		q.fail = true
		return ""
	}
	v := q.s[:n]
	q.s = q.s[n:]
	return v
}

// message takes a field that is a message, or bytes: empty if it is not there. An empty
// message, which Encode writes where there is one, is left to the general way.
func (q *quick) message(field byte) string {
	if !q.next(field, protowire.BytesType) {
		return ""
	}
	return q.take()
}

// any takes a field of any number that is a message.
func (q *quick) any() (field byte, body string) {
	if q.s == "" || q.s[0]&7 != byte(protowire.BytesType) || q.s[0] >= 0x80 {
		q.fail = true
		return 0, ""
	}
	field, q.s = q.s[0]>>3, q.s[1:]
	return field, q.take()
}

// text takes a field that is a text, empty if it is not there.
func (q *quick) text(field byte) string {
	s := q.message(field)
	q.fail = q.fail || !utf8.ValidString(s)
	return s
}

func (q *quick) addr(field byte) netip.Addr {
	s := q.message(field)
	if s == "" {
		return netip.Addr{}
	}
	var b [16]byte
	a, ok := netip.AddrFromSlice(b[:copy(b[:], s)])
	q.fail = q.fail || !ok || len(s) > len(b)
	return a
}
