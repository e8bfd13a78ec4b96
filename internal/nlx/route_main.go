package nlx

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"

	"golang.org/x/sys/unix"
)

const (
	// changeBatch and askBatch bound how many requests go out in one system
	// call. The acknowledgements wait in the socket's receive buffer (208 KiB
	// unless the machine was told otherwise, about 900 bytes each; an answer to
	// a question takes two), and what does not fit is lost.
	changeBatch = 128
	askBatch    = 64
	// rpFilter is NETCONFA_RP_FILTER of linux/netconf.h, netconfIndex is
	// NETCONFA_IFINDEX, and netconfAll is the index that stands for conf/all.
	netconfIndex = 1
	rpFilter     = 3
	netconfAll   = -1
	// nhID is RTA_NH_ID of linux/rtnetlink.h.
	nhID = 30
)

// FIBRoute is an IPv4 route of the main table with all that the kernel tells
// routes apart by.
type FIBRoute struct {
	Dst      netip.Prefix
	TOS      uint8
	Metric   uint32
	Type     uint8 // RTN_UNICAST, RTN_UNREACHABLE, …
	Scope    uint8
	Protocol uint8
	Via      netip.Addr // zero: on link
	Index    int        // outgoing interface, 0: none; of several next hops the first
	// Odd: it has what no route has that NewMainRoute makes: several next hops,
	// a preferred source, metrics such as an MTU, a gateway of another family …
	Odd bool
	// Routed: packets go to a router first, of whatever address family, on at
	// least one of the next hops.
	Routed bool
	// LinkDown: the interface has no carrier.
	LinkDown bool
}

// NewMainRoute adds r to the main table. A route with the same destination, TOS
// and metric is unix.EEXIST, or, with replace, the first such route gives its
// place to r in one step, whoever made it.
func NewMainRoute(r FIBRoute, replace bool) *Message {
	flags := uint16(unix.NLM_F_CREATE | unix.NLM_F_EXCL)
	if replace {
		flags = unix.NLM_F_CREATE | unix.NLM_F_REPLACE
	}
	return r.message(unix.RTM_NEWROUTE, flags)
}

// DelMainRoute deletes the first route of the main table that agrees with r,
// its protocol included; none is unix.ESRCH. Of an odd route the next hops are
// not compared.
func DelMainRoute(r FIBRoute) *Message {
	if r.Odd {
		r.Via, r.Index = netip.Addr{}, 0
	}
	return r.message(unix.RTM_DELROUTE, 0)
}

func (r FIBRoute) message(typ, flags uint16) *Message {
	b := make([]byte, unix.SizeofRtMsg)
	b[0], b[1], b[3] = unix.AF_INET, byte(r.Dst.Bits()), r.TOS
	b[4], b[5], b[6], b[7] = unix.RT_TABLE_MAIN, r.Protocol, r.Scope, r.Type
	m := NewMessage(typ, flags).Raw(b)
	if r.Dst.Bits() > 0 {
		m.Bytes(unix.RTA_DST, r.Dst.Addr().AsSlice())
	}
	if r.Via.IsValid() {
		m.Bytes(unix.RTA_GATEWAY, r.Via.AsSlice())
	}
	if r.Index != 0 {
		m.Uint32(unix.RTA_OIF, uint32(r.Index))
	}
	if r.Metric != 0 {
		m.Uint32(unix.RTA_PRIORITY, r.Metric)
	}
	return m
}

// MainRoutes returns the IPv4 routes of the main table in the kernel's order:
// of several with one destination, TOS and metric the first is the one in use.
func (c *Conn) MainRoutes() ([]FIBRoute, error) {
	b := make([]byte, unix.SizeofRtMsg)
	b[0], b[4] = unix.AF_INET, unix.RT_TABLE_MAIN
	data, err := c.Dump(NewMessage(unix.RTM_GETROUTE, 0).Raw(b))
	if errors.Is(err, unix.ENOENT) {
		return nil, nil // the kernel makes the table with its first route
	}
	if err != nil {
		return nil, fmt.Errorf("list routes: %w", err)
	}
	routes := make([]FIBRoute, 0, len(data))
	for _, b := range data {
		if r, ok := ParseFIBRoute(b); ok {
			routes = append(routes, r)
		}
	}
	return routes, nil
}

// ParseFIBRoute decodes the payload of an RTM_NEWROUTE or RTM_DELROUTE message;
// ok is false for one outside the IPv4 main table, and for an entry of the
// route cache.
func ParseFIBRoute(b []byte) (r FIBRoute, ok bool) {
	if len(b) < unix.SizeofRtMsg || b[0] != unix.AF_INET || b[4] != unix.RT_TABLE_MAIN {
		return FIBRoute{}, false
	}
	if binary.NativeEndian.Uint32(b[8:])&unix.RTM_F_CLONED != 0 {
		return FIBRoute{}, false
	}
	return parseFIBRoute(b)
}

func parseFIBRoute(b []byte) (r FIBRoute, ok bool) {
	r.TOS, r.Protocol, r.Scope, r.Type = b[3], b[5], b[6], b[7]
	flags := binary.NativeEndian.Uint32(b[8:])
	r.LinkDown = flags&unix.RTNH_F_LINKDOWN != 0
	r.Odd = flags&unix.RTNH_F_ONLINK != 0
	dst := netip.IPv4Unspecified()
	attrs(b[unix.SizeofRtMsg:], func(typ uint16, v []byte) {
		ip, is4 := addr4(v)
		switch typ {
		case unix.RTA_MULTIPATH:
			r.Odd = true
			r.hops(v)
		case unix.RTA_VIA:
			r.Odd, r.Routed = true, true
		case unix.RTA_METRICS, unix.RTA_PREFSRC, unix.RTA_FLOW, unix.RTA_ENCAP, nhID:
			r.Odd = true
		}
		switch {
		case !is4:
		case typ == unix.RTA_DST:
			dst = ip
		case typ == unix.RTA_GATEWAY:
			r.Via, r.Routed = ip, true
		case typ == unix.RTA_OIF:
			r.Index = int(binary.NativeEndian.Uint32(v))
		case typ == unix.RTA_PRIORITY:
			r.Metric = binary.NativeEndian.Uint32(v)
		}
	})
	r.Dst = netip.PrefixFrom(dst, int(b[1]))
	return r, r.Dst.IsValid()
}

// hops reads several next hops: interface and gateway of the first, and
// whether any has a gateway.
func (r *FIBRoute) hops(b []byte) {
	for len(b) >= unix.SizeofRtNexthop {
		n := int(binary.NativeEndian.Uint16(b))
		if n < unix.SizeofRtNexthop || n > len(b) {
			return
		}
		first := r.Index == 0
		if first {
			r.Index = int(binary.NativeEndian.Uint32(b[4:]))
		}
		attrs(b[unix.SizeofRtNexthop:n], func(typ uint16, v []byte) {
			r.Routed = r.Routed || typ == unix.RTA_GATEWAY || typ == unix.RTA_VIA
			if ip, is4 := addr4(v); is4 && first && typ == unix.RTA_GATEWAY {
				r.Via = ip
			}
		})
		b = b[min((n+3)&^3, len(b)):]
	}
}

// Lookup is what the kernel does with packets to an address.
type Lookup struct {
	// FIBRoute is the route that is in use, of whatever table.
	FIBRoute
	// Err is the kernel's refusal: there is no route, or one that forbids.
	Err error
}

// RouteTo asks for each address by which route the kernel sends a packet of
// this host to it, rules and all tables considered. It answers in order.
func (c *Conn) RouteTo(addrs []netip.Addr) ([]Lookup, error) {
	msgs := make([]*Message, len(addrs))
	for i, a := range addrs {
		msgs[i] = GetRoute(a)
	}
	replies, err := c.doAll(msgs, askBatch)
	if err != nil {
		return nil, fmt.Errorf("look up routes: %w", err)
	}
	out := make([]Lookup, len(addrs))
	for i, r := range replies {
		out[i].Err = r.Err
		if r.Err != nil {
			continue
		}
		out[i].Err = fmt.Errorf("look up route: %d answers", len(r.Data))
		if len(r.Data) == 1 && len(r.Data[0]) >= unix.SizeofRtMsg && r.Data[0][0] == unix.AF_INET {
			out[i].FIBRoute, _ = parseFIBRoute(r.Data[0])
			out[i].Err = nil
		}
	}
	return out, nil
}

// ChangeRoutes sends many messages of NewMainRoute and DelMainRoute in few
// system calls. The errors are the kernel's answers, in order; the last result
// is about the exchange, and then all is unknown.
func (c *Conn) ChangeRoutes(msgs []*Message) ([]error, error) {
	replies, err := c.doAll(msgs, changeBatch)
	if err != nil {
		return nil, err
	}
	errs := make([]error, len(replies))
	for i, r := range replies {
		errs[i] = r.Err
	}
	return errs, nil
}

// Ask is Do for any number of questions with small answers.
func (c *Conn) Ask(msgs []*Message) ([]Reply, error) { return c.doAll(msgs, askBatch) }

// doAll is Do for any number of messages.
func (c *Conn) doAll(msgs []*Message, batch int) ([]Reply, error) {
	replies := make([]Reply, 0, len(msgs))
	for len(msgs) > 0 {
		n := min(batch, len(msgs))
		r, err := c.Do(msgs[:n]...)
		if err != nil {
			return nil, err
		}
		replies, msgs = append(replies, r...), msgs[n:]
	}
	return replies, nil
}

// ReversePathFilter returns the setting net.ipv4.conf.*.rp_filter that is in
// force on an interface (0 off, 1 strict, 2 loose): the larger of its own and
// that of all.
func (c *Conn) ReversePathFilter(index int) (int, error) {
	r, err := c.Do(getNetconf(netconfAll), getNetconf(index))
	if err != nil {
		return 0, fmt.Errorf("read rp_filter: %w", err)
	}
	value := 0
	for i := range r {
		if r[i].Err != nil {
			return 0, fmt.Errorf("read rp_filter: %w", r[i].Err)
		}
		for _, b := range r[i].Data {
			value = max(value, netconf(b, rpFilter))
		}
	}
	return value, nil
}

func getNetconf(index int) *Message {
	return NewMessage(unix.RTM_GETNETCONF, 0).Raw([]byte{unix.AF_INET, 0, 0, 0}).Uint32(netconfIndex, uint32(int32(index)))
}

// NetconfIndex returns the interface that an RTM_NEWNETCONF message is about;
// all is true for conf/all.
func NetconfIndex(b []byte) (index int, all bool) {
	index = netconf(b, netconfIndex)
	return index, index == netconfAll
}

func netconf(b []byte, attr uint16) int {
	value := 0
	attrs(b[min(4, len(b)):], func(typ uint16, v []byte) {
		if typ == attr && len(v) == 4 {
			value = int(int32(binary.NativeEndian.Uint32(v)))
		}
	})
	return value
}

// LinkState decodes from an RTM_NEWLINK or RTM_DELLINK message only which
// interface it is, and whether packets pass: a host with a thousand containers
// sees many of these.
func LinkState(b []byte) (index int, running bool) {
	if len(b) < unix.SizeofIfInfomsg {
		return 0, false
	}
	const passes = unix.IFF_UP | unix.IFF_RUNNING
	return int(int32(binary.NativeEndian.Uint32(b[4:]))), binary.NativeEndian.Uint32(b[8:])&passes == passes
}
