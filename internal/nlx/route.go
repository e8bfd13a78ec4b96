package nlx

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"

	"golang.org/x/sys/unix"
)

// ifaProto is IFA_PROTO of linux/if_addr.h.
const ifaProto = 11

// Addr is an IPv4 address of an interface.
type Addr struct {
	Index  int
	Prefix netip.Prefix // the address with its subnet's length
	Mark   uint8        // who made it (IFA_PROTO); 0 unknown
}

// Route is an IPv4 route of the main table.
type Route struct {
	Dst      netip.Prefix // 0.0.0.0/0 is the default route
	Via      netip.Addr   // zero: on link
	Index    int          // outgoing interface; of several next hops the first
	Others   []int        // interfaces of further next hops
	Src      netip.Addr   // preferred source; zero: the kernel's choice
	Protocol uint8
	Metric   uint32
	Unicast  bool // not unreachable, blackhole, …
}

// Default reports whether r leads everywhere.
func (r Route) Default() bool { return r.Dst.Bits() == 0 && r.Unicast }

// NewAddr adds an IPv4 address with its subnet's length and broadcast address.
// An address that is already there is unix.EEXIST.
func NewAddr(index int, p netip.Prefix) *Message {
	m := NewMessage(unix.RTM_NEWADDR, unix.NLM_F_CREATE|unix.NLM_F_EXCL).Raw(ifaddrmsg(index, p.Bits()))
	m.Bytes(unix.IFA_LOCAL, p.Addr().AsSlice())
	m.Bytes(unix.IFA_ADDRESS, p.Addr().AsSlice())
	if p.Bits() < 31 {
		m.Bytes(unix.IFA_BROADCAST, lastAddr(p).AsSlice())
	}
	return m
}

// NewLinkAddr adds an IPv4 address of one machine with the scope of a link: it is
// chosen as a source only by who asks for it. An address that is already there is
// unix.EEXIST. The mark (Linux 5.18) tells whose it is.
func NewLinkAddr(index int, a netip.Addr, mark uint8) *Message {
	return linkAddr(unix.RTM_NEWADDR, unix.NLM_F_CREATE|unix.NLM_F_EXCL, index, a).Uint8(ifaProto, mark)
}

// DelLinkAddr deletes what NewLinkAddr adds; an absent one is unix.EADDRNOTAVAIL.
func DelLinkAddr(index int, a netip.Addr) *Message { return linkAddr(unix.RTM_DELADDR, 0, index, a) }

func linkAddr(typ, flags uint16, index int, a netip.Addr) *Message {
	b := ifaddrmsg(index, a.BitLen())
	b[3] = unix.RT_SCOPE_LINK
	return NewMessage(typ, flags).Raw(b).Bytes(unix.IFA_LOCAL, a.AsSlice()).Bytes(unix.IFA_ADDRESS, a.AsSlice())
}

func ifaddrmsg(index, bits int) []byte {
	b := make([]byte, unix.SizeofIfAddrmsg)
	b[0], b[1] = unix.AF_INET, byte(bits)
	binary.NativeEndian.PutUint32(b[4:], uint32(index))
	return b
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
	m := newRoute(dst, protocol, unix.RT_SCOPE_UNIVERSE)
	m.Bytes(unix.RTA_GATEWAY, via.AsSlice())
	return m.Uint32(unix.RTA_OIF, uint32(index))
}

// NewOnLinkRoute is NewRoute whose gateway need not be an address that the
// interface has a route to.
func NewOnLinkRoute(index int, dst netip.Prefix, via netip.Addr, protocol uint8) *Message {
	m := NewRoute(index, dst, via, protocol)
	binary.NativeEndian.PutUint32(m.b[unix.SizeofNlMsghdr+8:], unix.RTNH_F_ONLINK)
	return m
}

// NewHostRoute adds the route to one address that an interface leads to. src is the
// address that the host itself uses towards it; zero: the kernel's choice.
func NewHostRoute(index int, a, src netip.Addr, protocol uint8) *Message {
	m := newRoute(netip.PrefixFrom(a, a.BitLen()), protocol, unix.RT_SCOPE_LINK)
	if src.IsValid() {
		m.Bytes(unix.RTA_PREFSRC, src.AsSlice())
	}
	return m.Uint32(unix.RTA_OIF, uint32(index))
}

// GetRoute asks for the route by which the kernel sends packets of this host to an
// address. The answer is for ParseRoute; no route, or one that forbids, is an error.
func GetRoute(a netip.Addr) *Message {
	b := make([]byte, unix.SizeofRtMsg)
	b[0], b[1] = unix.AF_INET, 32
	binary.NativeEndian.PutUint32(b[8:], unix.RTM_F_FIB_MATCH)
	return NewMessage(unix.RTM_GETROUTE, 0).Raw(b).Bytes(unix.RTA_DST, a.AsSlice())
}

// DelRoute deletes the first route of the main table with r's destination, metric,
// protocol and interface; none is unix.ESRCH.
func DelRoute(r Route) *Message {
	b := make([]byte, unix.SizeofRtMsg)
	b[0], b[1] = unix.AF_INET, byte(r.Dst.Bits())
	b[4], b[5], b[6] = unix.RT_TABLE_MAIN, r.Protocol, unix.RT_SCOPE_NOWHERE
	m := NewMessage(unix.RTM_DELROUTE, 0).Raw(b).Bytes(unix.RTA_DST, r.Dst.Addr().AsSlice())
	if r.Index != 0 {
		m.Uint32(unix.RTA_OIF, uint32(r.Index))
	}
	return m.Uint32(unix.RTA_PRIORITY, r.Metric)
}

// NewConnectedRoute adds the route that the kernel makes by itself for an
// address: the address's subnet, on link, from that address.
func NewConnectedRoute(index int, p netip.Prefix) *Message {
	m := newRoute(p.Masked(), unix.RTPROT_KERNEL, unix.RT_SCOPE_LINK)
	m.Bytes(unix.RTA_PREFSRC, p.Addr().AsSlice())
	return m.Uint32(unix.RTA_OIF, uint32(index))
}

func newRoute(dst netip.Prefix, protocol, scope uint8) *Message {
	b := make([]byte, unix.SizeofRtMsg)
	b[0], b[1] = unix.AF_INET, byte(dst.Bits())
	b[4], b[5], b[6], b[7] = unix.RT_TABLE_MAIN, protocol, scope, unix.RTN_UNICAST
	m := NewMessage(unix.RTM_NEWROUTE, unix.NLM_F_CREATE|unix.NLM_F_EXCL).Raw(b)
	if dst.Bits() > 0 {
		m.Bytes(unix.RTA_DST, dst.Addr().AsSlice())
	}
	return m
}

// NSID returns the number that the socket's namespace has given to the namespace
// with the open descriptor fd, or NoNSID.
func (c *Conn) NSID(fd int) (int, error) {
	r, err := c.Do(NewMessage(unix.RTM_GETNSID, 0).Raw(make([]byte, 4)).Uint32(unix.NETNSA_FD, uint32(fd)))
	if err == nil {
		err = r[0].Err
	}
	if err != nil {
		return NoNSID, fmt.Errorf("namespace id: %w", err)
	}
	id := NoNSID
	for _, b := range r[0].Data {
		attrs(b[min(4, len(b)):], func(typ uint16, v []byte) {
			if typ == unix.NETNSA_NSID && len(v) == 4 {
				id = int(int32(binary.NativeEndian.Uint32(v)))
			}
		})
	}
	return id, nil
}

// Addrs returns the IPv4 addresses of one interface, of all for index 0.
func (c *Conn) Addrs(index int) ([]Addr, error) {
	data, err := c.Dump(NewMessage(unix.RTM_GETADDR, 0).Raw(ifaddrmsg(index, 0)))
	if err != nil {
		return nil, fmt.Errorf("list addresses: %w", err)
	}
	var addrs []Addr
	for _, b := range data {
		if a, ok := ParseAddr(b); ok && (index == 0 || a.Index == index) {
			addrs = append(addrs, a)
		}
	}
	return addrs, nil
}

// ParseAddr decodes the payload of an RTM_NEWADDR or RTM_DELADDR message; ok is
// false for one that is no IPv4 address.
func ParseAddr(b []byte) (a Addr, ok bool) {
	if len(b) < unix.SizeofIfAddrmsg || b[0] != unix.AF_INET {
		return Addr{}, false
	}
	a.Index = int(binary.NativeEndian.Uint32(b[4:]))
	attrs(b[unix.SizeofIfAddrmsg:], func(typ uint16, v []byte) {
		if ip, is4 := addr4(v); is4 && typ == unix.IFA_LOCAL {
			a.Prefix, ok = netip.PrefixFrom(ip, int(b[1])), true
		}
		if typ == ifaProto && len(v) == 1 {
			a.Mark = v[0]
		}
	})
	return a, ok
}

// Routes returns the IPv4 routes of the main table, those through one interface
// unless index is 0.
func (c *Conn) Routes(index int) ([]Route, error) {
	b := make([]byte, unix.SizeofRtMsg)
	b[0], b[4] = unix.AF_INET, unix.RT_TABLE_MAIN
	m := NewMessage(unix.RTM_GETROUTE, 0).Raw(b)
	if index != 0 {
		m.Uint32(unix.RTA_OIF, uint32(index))
	}
	data, err := c.Dump(m)
	if errors.Is(err, unix.ENOENT) {
		return nil, nil // the kernel makes the table with its first route
	}
	if err != nil {
		return nil, fmt.Errorf("list routes: %w", err)
	}
	var routes []Route
	for _, b := range data {
		if r, ok := ParseRoute(b); ok && (index == 0 || r.Index == index) {
			routes = append(routes, r)
		}
	}
	return routes, nil
}

// ParseRoute decodes the payload of an RTM_NEWROUTE or RTM_DELROUTE message; ok
// is false for one outside the IPv4 main table.
func ParseRoute(b []byte) (r Route, ok bool) {
	if len(b) < unix.SizeofRtMsg || b[0] != unix.AF_INET || b[4] != unix.RT_TABLE_MAIN {
		return Route{}, false
	}
	r.Protocol, r.Unicast = b[5], b[7] == unix.RTN_UNICAST
	dst := netip.IPv4Unspecified()
	attrs(b[unix.SizeofRtMsg:], func(typ uint16, v []byte) {
		ip, is4 := addr4(v)
		switch {
		case typ == unix.RTA_MULTIPATH:
			r.hops(v)
		case !is4:
		case typ == unix.RTA_DST:
			dst = ip
		case typ == unix.RTA_GATEWAY:
			r.Via = ip
		case typ == unix.RTA_PREFSRC:
			r.Src = ip
		case typ == unix.RTA_OIF:
			r.Index = int(binary.NativeEndian.Uint32(v))
		case typ == unix.RTA_PRIORITY:
			r.Metric = binary.NativeEndian.Uint32(v)
		}
	})
	r.Dst = netip.PrefixFrom(dst, int(b[1]))
	return r, r.Dst.IsValid()
}

// hops reads the interfaces of a route with several next hops.
func (r *Route) hops(b []byte) {
	for len(b) >= unix.SizeofRtNexthop {
		n := int(binary.NativeEndian.Uint16(b))
		if n < unix.SizeofRtNexthop || n > len(b) {
			return
		}
		index := int(binary.NativeEndian.Uint32(b[4:]))
		if r.Index == 0 {
			r.Index = index
		} else {
			r.Others = append(r.Others, index)
		}
		b = b[min((n+3)&^3, len(b)):]
	}
}

func addr4(b []byte) (netip.Addr, bool) {
	if len(b) != 4 {
		return netip.Addr{}, false
	}
	return netip.AddrFrom4([4]byte(b)), true
}
