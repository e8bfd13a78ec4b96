package nlx

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net"

	"golang.org/x/sys/unix"
)

// NoNSID is a Link's NSID when its other end is in the same namespace or has no id.
const NoNSID = -1

// vethInfoPeer is VETH_INFO_PEER of linux/veth.h.
const vethInfoPeer = 1

// linkBatch bounds how many interfaces are asked for in one system call: the answers,
// some 4 KiB of kernel memory each, wait in the socket's receive buffer.
const linkBatch = 24

// addrGenModeNone is IN6_ADDR_GEN_MODE_NONE of linux/if_link.h.
const addrGenModeNone = 1

// Link is what netsetup needs to know of an interface.
type Link struct {
	Index  int
	Name   string
	Kind   string // "veth", "bridge", …; empty for plain devices
	Alias  string
	MAC    net.HardwareAddr
	MTU    int
	Master int    // index of the bridge, 0: none
	Group  uint32 // 0 is the kernel's default
	Up     bool
	// Running: up, with a carrier, and the kernel has acted on both: packets pass.
	Running  bool
	Peer     int          // a veth's other end: its index in its own namespace
	Settings PortSettings // where it has a Master
	NSID     int          // namespace of the other end, numbered by this namespace; NoNSID
	IPv4     IPv4Conf
}

// ParseLink decodes the payload of an RTM_NEWLINK or RTM_DELLINK message.
func ParseLink(b []byte) (Link, error) {
	if len(b) < unix.SizeofIfInfomsg {
		return Link{}, fmt.Errorf("link message of %d bytes", len(b))
	}
	flags := binary.NativeEndian.Uint32(b[8:])
	l := Link{
		Index:   int(int32(binary.NativeEndian.Uint32(b[4:]))),
		Up:      flags&unix.IFF_UP != 0,
		Running: flags&unix.IFF_RUNNING != 0,
		NSID:    NoNSID,
	}
	attrs(b[unix.SizeofIfInfomsg:], func(typ uint16, v []byte) {
		switch typ {
		case unix.IFLA_IFNAME:
			l.Name = unix.ByteSliceToString(v)
		case unix.IFLA_IFALIAS:
			l.Alias = unix.ByteSliceToString(v)
		case unix.IFLA_ADDRESS:
			l.MAC = append(net.HardwareAddr(nil), v...)
		case unix.IFLA_LINKINFO:
			attrs(v, func(typ uint16, v []byte) {
				switch typ {
				case unix.IFLA_INFO_KIND:
					l.Kind = unix.ByteSliceToString(v)
				case unix.IFLA_INFO_SLAVE_DATA:
					l.Settings.parse(v)
				}
			})
		case unix.IFLA_PROTINFO:
			if b[0] == unix.AF_BRIDGE {
				l.Settings.parse(v)
			}
		case unix.IFLA_AF_SPEC:
			l.IPv4.parse(v)
		}
		if len(v) < 4 {
			return
		}
		switch n := binary.NativeEndian.Uint32(v); typ {
		case unix.IFLA_MTU:
			l.MTU = int(n)
		case unix.IFLA_MASTER:
			l.Master = int(n)
		case unix.IFLA_GROUP:
			l.Group = n
		case unix.IFLA_LINK:
			l.Peer = int(n)
		case unix.IFLA_LINK_NETNSID:
			l.NSID = int(int32(n))
		}
	})
	return l, nil
}

// LinkByIndex returns the interface; an absent one is unix.ENODEV. Since Linux
// 6.8 the kernel first acts on a change of carrier that it has put off.
func (c *Conn) LinkByIndex(index int) (Link, error) {
	return c.getLink(GetLink(index))
}

// GetLink is the request of LinkByIndex; the answer is for ParseLink.
func GetLink(index int) *Message { return NewMessage(unix.RTM_GETLINK, 0).Raw(ifinfomsg(index, 0, 0)) }

// LinksByIndex returns those of the interfaces that exist.
func (c *Conn) LinksByIndex(indexes []int) ([]Link, error) {
	msgs := make([]*Message, len(indexes))
	for i, index := range indexes {
		msgs[i] = GetLink(index)
	}
	replies, err := c.doAll(msgs, linkBatch)
	if err != nil {
		return nil, fmt.Errorf("get links: %w", err)
	}
	links := make([]Link, 0, len(indexes))
	for _, r := range replies {
		l, err := r.Link()
		if errors.Is(err, unix.ENODEV) {
			continue
		}
		if err != nil {
			return nil, err
		}
		links = append(links, l)
	}
	return links, nil
}

// LinkByName returns the interface; an absent one is unix.ENODEV.
func (c *Conn) LinkByName(name string) (Link, error) {
	return c.getLink(NewMessage(unix.RTM_GETLINK, 0).Raw(ifinfomsg(0, 0, 0)).String(unix.IFLA_IFNAME, name))
}

// LinkIn returns an interface of the namespace that the socket's namespace knows
// as nsid.
func (c *Conn) LinkIn(nsid, index int) (Link, error) {
	return c.getLink(NewMessage(unix.RTM_GETLINK, 0).Raw(ifinfomsg(index, 0, 0)).Uint32(unix.IFLA_TARGET_NETNSID, uint32(nsid)))
}

func (c *Conn) getLink(m *Message) (Link, error) {
	r, err := c.Do(m)
	if err != nil {
		return Link{}, err
	}
	return r[0].Link()
}

// Link decodes the answer to a request for one interface.
func (r Reply) Link() (Link, error) {
	if r.Err != nil {
		return Link{}, r.Err
	}
	if len(r.Data) != 1 {
		return Link{}, fmt.Errorf("get link: %d answers", len(r.Data))
	}
	return ParseLink(r.Data[0])
}

// Links returns all interfaces.
func (c *Conn) Links() ([]Link, error) {
	data, err := c.Dump(NewMessage(unix.RTM_GETLINK, 0).Raw(ifinfomsg(0, 0, 0)))
	if err != nil {
		return nil, fmt.Errorf("list links: %w", err)
	}
	links := make([]Link, 0, len(data))
	for _, b := range data {
		l, err := ParseLink(b)
		if err != nil {
			return nil, err
		}
		links = append(links, l)
	}
	return links, nil
}

// VethEnd describes one end of a veth pair.
type VethEnd struct {
	Name string
	MAC  net.HardwareAddr
}

// NewVeth describes a pair of which Host is born in the socket's namespace, as a
// down port of Master, and Peer, down too, in the namespace PeerNS.
type NewVeth struct {
	Host, Peer VethEnd
	PeerNS     int // open descriptor
	MTU        int
	Master     int
	Group      uint32
}

// Message returns the one request that makes the pair. The kernel makes both
// ends with all of their properties or nothing. An answer to NLM_F_ECHO (Linux
// 6.2) carries the host end's index and, as its link, the peer's.
func (v NewVeth) Message() *Message {
	m := NewMessage(unix.RTM_NEWLINK, unix.NLM_F_CREATE|unix.NLM_F_EXCL|unix.NLM_F_ECHO)
	m.Raw(ifinfomsg(0, 0, 0))
	v.end(m, v.Host)
	m.Uint32(unix.IFLA_GROUP, v.Group)
	if v.Master != 0 {
		m.Uint32(unix.IFLA_MASTER, uint32(v.Master))
	}
	return m.Nest(unix.IFLA_LINKINFO, func() {
		m.Bytes(unix.IFLA_INFO_KIND, []byte("veth"))
		m.Nest(unix.IFLA_INFO_DATA, func() {
			m.Nest(vethInfoPeer, func() {
				m.Raw(ifinfomsg(0, 0, 0))
				v.end(m, v.Peer)
				m.Uint32(unix.IFLA_NET_NS_FD, uint32(v.PeerNS))
			})
		})
	})
}

func (v NewVeth) end(m *Message, e VethEnd) {
	m.String(unix.IFLA_IFNAME, e.Name)
	m.Bytes(unix.IFLA_ADDRESS, e.MAC)
	m.Uint32(unix.IFLA_MTU, uint32(v.MTU))
	// The kernel would make one queue per CPU; a veth that carries no XDP uses one.
	m.Uint32(unix.IFLA_NUM_TX_QUEUES, 1)
	m.Uint32(unix.IFLA_NUM_RX_QUEUES, 1)
}

// SetLink starts a change of one interface; add attributes to it. An attribute
// takes effect after flags of the same message, so what must precede "up" goes
// into a message before it.
func SetLink(index int) *Message {
	return NewMessage(unix.RTM_SETLINK, 0).Raw(ifinfomsg(index, 0, 0))
}

// SetLinkUp brings an interface up; it is idempotent.
func SetLinkUp(index int) *Message {
	return NewMessage(unix.RTM_SETLINK, 0).Raw(ifinfomsg(index, unix.IFF_UP, unix.IFF_UP))
}

// NoIPv6Address adds to a change that the interface makes no IPv6 link-local
// address when it comes up. It is refused where the kernel has no IPv6.
func (m *Message) NoIPv6Address() *Message {
	return m.Nest(unix.IFLA_AF_SPEC, m.noIPv6Address)
}

func (m *Message) noIPv6Address() {
	m.Nest(unix.AF_INET6, func() { m.Uint8(unix.IFLA_INET6_ADDR_GEN_MODE, addrGenModeNone) })
}

// DelLink deletes an interface by its index.
func DelLink(index int) *Message {
	return NewMessage(unix.RTM_DELLINK, 0).Raw(ifinfomsg(index, 0, 0))
}

// DelLinkGroup deletes all interfaces of a group; the kernel waits once for all.
func DelLinkGroup(group uint32) *Message {
	return NewMessage(unix.RTM_DELLINK, 0).Raw(ifinfomsg(0, 0, 0)).Uint32(unix.IFLA_GROUP, group)
}

// NewBridge describes a bridge: down, without spanning tree (its default) and
// without multicast snooping, which nobody here would query for.
type NewBridge struct {
	Name  string
	MAC   net.HardwareAddr
	Group uint32
}

// Message returns the request that makes the bridge; an interface of that name
// is unix.EEXIST.
func (v NewBridge) Message() *Message {
	m := NewMessage(unix.RTM_NEWLINK, unix.NLM_F_CREATE|unix.NLM_F_EXCL)
	m.Raw(ifinfomsg(0, 0, 0))
	m.String(unix.IFLA_IFNAME, v.Name)
	m.Bytes(unix.IFLA_ADDRESS, v.MAC)
	m.Uint32(unix.IFLA_GROUP, v.Group)
	return m.Nest(unix.IFLA_LINKINFO, func() {
		m.Bytes(unix.IFLA_INFO_KIND, []byte("bridge"))
		m.Nest(unix.IFLA_INFO_DATA, func() { m.Uint8(unix.IFLA_BR_MCAST_SNOOPING, 0) })
	})
}
