package nlx

import (
	"encoding/binary"
	"net/netip"

	"golang.org/x/sys/unix"
)

// NewAddr adds an IPv4 address with its subnet's length and broadcast address.
// An address that is already there is unix.EEXIST.
func NewAddr(index int, p netip.Prefix) *Message {
	b := make([]byte, unix.SizeofIfAddrmsg)
	b[0], b[1] = unix.AF_INET, byte(p.Bits())
	binary.NativeEndian.PutUint32(b[4:], uint32(index))
	m := NewMessage(unix.RTM_NEWADDR, unix.NLM_F_CREATE|unix.NLM_F_EXCL).Raw(b)
	m.Bytes(unix.IFA_LOCAL, p.Addr().AsSlice())
	m.Bytes(unix.IFA_ADDRESS, p.Addr().AsSlice())
	if p.Bits() < 31 {
		m.Bytes(unix.IFA_BROADCAST, lastAddr(p).AsSlice())
	}
	return m
}

func lastAddr(p netip.Prefix) netip.Addr {
	a := p.Masked().Addr().As4()
	n := binary.BigEndian.Uint32(a[:]) | (1<<(32-p.Bits()) - 1)
	binary.BigEndian.PutUint32(a[:], n)
	return netip.AddrFrom4(a)
}

// NewRoute adds an IPv4 route to the main table; dst 0.0.0.0/0 is the default
// route. A route with the same destination and metric is unix.EEXIST.
func NewRoute(index int, dst netip.Prefix, via netip.Addr, protocol uint8) *Message {
	b := make([]byte, unix.SizeofRtMsg)
	b[0], b[1] = unix.AF_INET, byte(dst.Bits())
	b[4], b[5], b[6], b[7] = unix.RT_TABLE_MAIN, protocol, unix.RT_SCOPE_UNIVERSE, unix.RTN_UNICAST
	m := NewMessage(unix.RTM_NEWROUTE, unix.NLM_F_CREATE|unix.NLM_F_EXCL).Raw(b)
	if dst.Bits() > 0 {
		m.Bytes(unix.RTA_DST, dst.Addr().AsSlice())
	}
	m.Bytes(unix.RTA_GATEWAY, via.AsSlice())
	return m.Uint32(unix.RTA_OIF, uint32(index))
}
