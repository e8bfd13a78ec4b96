package nlx

import (
	"encoding/binary"

	"golang.org/x/sys/unix"
)

// Message is one netlink request under construction: header, a fixed part, then
// attributes. It can be sent again after it was sent. The flags REQUEST and ACK
// are always set.
type Message struct {
	b []byte
}

// NewMessage starts a request of the given type (RTM_NEWLINK, …).
func NewMessage(typ, flags uint16) *Message {
	m := &Message{b: make([]byte, unix.SizeofNlMsghdr, 256)}
	binary.NativeEndian.PutUint16(m.b[4:], typ)
	binary.NativeEndian.PutUint16(m.b[6:], flags|unix.NLM_F_REQUEST|unix.NLM_F_ACK)
	return m
}

// Raw appends the fixed part that follows the header.
func (m *Message) Raw(p []byte) *Message {
	m.b = append(m.b, p...)
	m.align()
	return m
}

// Bytes appends an attribute.
func (m *Message) Bytes(attr uint16, v []byte) *Message {
	m.b = binary.NativeEndian.AppendUint16(m.b, uint16(unix.SizeofRtAttr+len(v)))
	m.b = binary.NativeEndian.AppendUint16(m.b, attr)
	m.b = append(m.b, v...)
	m.align()
	return m
}

// String appends an attribute with a terminating zero.
func (m *Message) String(attr uint16, s string) *Message {
	return m.Bytes(attr, append([]byte(s), 0))
}

// Uint32 appends a 32 bit attribute in host order.
func (m *Message) Uint32(attr uint16, v uint32) *Message {
	return m.Bytes(attr, binary.NativeEndian.AppendUint32(nil, v))
}

// Uint8 appends an 8 bit attribute.
func (m *Message) Uint8(attr uint16, v uint8) *Message { return m.Bytes(attr, []byte{v}) }

// Nest appends an attribute whose content fn appends.
func (m *Message) Nest(attr uint16, fn func()) *Message {
	start := len(m.b)
	m.Bytes(attr, nil)
	fn()
	binary.NativeEndian.PutUint16(m.b[start:], uint16(len(m.b)-start))
	return m
}

func (m *Message) align() {
	for len(m.b)%unix.NLMSG_ALIGNTO != 0 {
		m.b = append(m.b, 0)
	}
}

// appendTo finishes the header and appends the message to a datagram.
func (m *Message) appendTo(out []byte, seq uint32, extra uint16) []byte {
	start := len(out)
	out = append(out, m.b...)
	h := out[start:]
	binary.NativeEndian.PutUint32(h[0:], uint32(len(m.b)))
	binary.NativeEndian.PutUint16(h[6:], binary.NativeEndian.Uint16(h[6:])|extra)
	binary.NativeEndian.PutUint32(h[8:], seq)
	return out
}

// ifinfomsg is struct ifinfomsg of linux/rtnetlink.h.
func ifinfomsg(index int, flags, change uint32) []byte {
	b := make([]byte, unix.SizeofIfInfomsg)
	binary.NativeEndian.PutUint32(b[4:], uint32(index))
	binary.NativeEndian.PutUint32(b[8:], flags)
	binary.NativeEndian.PutUint32(b[12:], change)
	return b
}

// attrs calls fn for each attribute in b and stops at the first malformed one.
// Types are passed without the nested and byte order flags.
func attrs(b []byte, fn func(typ uint16, value []byte)) {
	for len(b) >= unix.SizeofRtAttr {
		n := int(binary.NativeEndian.Uint16(b))
		if n < unix.SizeofRtAttr || n > len(b) {
			return
		}
		fn(binary.NativeEndian.Uint16(b[2:])&0x3fff, b[unix.SizeofRtAttr:n])
		next := (n + unix.RTA_ALIGNTO - 1) &^ (unix.RTA_ALIGNTO - 1)
		b = b[min(next, len(b)):]
	}
}
