package ipam

import (
	"encoding/binary"
	"errors"
	"net/netip"
)

// errMalformed is what a decoder reports; its callers wrap it.
var errMalformed = errors.New("malformed record")

// encoder appends the canonical form of values to buf: unsigned numbers as
// varints, texts and addresses with their length before them.
type encoder struct{ buf []byte }

func (e *encoder) byte(v byte)           { e.buf = append(e.buf, v) }
func (e *encoder) uint(v uint64)         { e.buf = binary.AppendUvarint(e.buf, v) }
func (e *encoder) int(v int64)           { e.buf = binary.AppendVarint(e.buf, v) }
func (e *encoder) text(s string)         { e.uint(uint64(len(s))); e.buf = append(e.buf, s...) }
func (e *encoder) epoch(v Epoch)         { e.uint(v.Generation); e.uint(v.Counter) }
func (e *encoder) subnetKey(k SubnetKey) { e.text(k.Network); e.prefix(k.Prefix) }

func (e *encoder) hash(h [32]byte) { e.buf = append(e.buf, h[:]...) }

func (e *encoder) bool(v bool) {
	if v {
		e.byte(1)
	} else {
		e.byte(0)
	}
}

func (e *encoder) addr(a netip.Addr) {
	b := a.AsSlice()
	e.byte(byte(len(b)))
	e.buf = append(e.buf, b...)
}

func (e *encoder) prefix(p netip.Prefix) {
	e.addr(p.Addr())
	e.byte(byte(p.Bits()))
}

func (e *encoder) result(r Result) {
	e.uint(uint64(ErrorCode(r.Err)))
	e.addr(r.Addr)
	e.prefix(r.Subnet)
	e.epoch(r.Epoch)
}

// decoder takes values off the front of buf. The first failure stays in err, and
// everything after it is zero.
type decoder struct {
	buf     []byte
	version uint32 // of the snapshot that a record is from
	err     error
}

func (d *decoder) fail() {
	d.err, d.buf = errMalformed, nil
}

func (d *decoder) take(n int) []byte {
	if n < 0 || n > len(d.buf) {
		d.fail()
		return nil
	}
	b := d.buf[:n]
	d.buf = d.buf[n:]
	return b
}

func (d *decoder) byte() byte {
	if b := d.take(1); b != nil {
		return b[0]
	}
	return 0
}

func (d *decoder) uint() uint64 {
	v, n := binary.Uvarint(d.buf)
	if n <= 0 {
		d.fail()
		return 0
	}
	d.buf = d.buf[n:]
	return v
}

func (d *decoder) int() int64 {
	v, n := binary.Varint(d.buf)
	if n <= 0 {
		d.fail()
		return 0
	}
	d.buf = d.buf[n:]
	return v
}

func (d *decoder) uint32() uint32 {
	v := d.uint()
	if v > 1<<32-1 {
		d.fail()
	}
	return uint32(v)
}

func (d *decoder) text() string {
	n := d.uint()
	if n > uint64(len(d.buf)) {
		d.fail()
		return ""
	}
	return string(d.take(int(n)))
}

func (d *decoder) bool() bool {
	v := d.byte()
	if v > 1 {
		d.fail()
	}
	return v == 1
}

func (d *decoder) hash() (h [32]byte) {
	copy(h[:], d.take(len(h)))
	return h
}

func (d *decoder) epoch() Epoch {
	return Epoch{Generation: d.uint(), Counter: d.uint()}
}

func (d *decoder) addr() netip.Addr {
	n := int(d.byte())
	if n == 0 {
		return netip.Addr{}
	}
	a, ok := netip.AddrFromSlice(d.take(n))
	if !ok {
		d.fail()
	}
	return a
}

func (d *decoder) prefix() netip.Prefix {
	a, bits := d.addr(), d.byte()
	if !a.IsValid() {
		return netip.Prefix{}
	}
	if int(bits) > a.BitLen() {
		d.fail()
		return netip.Prefix{}
	}
	return netip.PrefixFrom(a, int(bits))
}

func (d *decoder) subnetKey() SubnetKey {
	return SubnetKey{Network: d.text(), Prefix: d.prefix()}
}

func (d *decoder) result() Result {
	return Result{
		Err:    ErrorFromCode(d.uint32(), ""),
		Addr:   d.addr(),
		Subnet: d.prefix(),
		Epoch:  d.epoch(),
	}
}
