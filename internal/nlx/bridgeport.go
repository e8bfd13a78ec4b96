package nlx

import (
	"encoding/binary"
	"net"

	"golang.org/x/sys/unix"
)

// ndaProtocol is NDA_PROTOCOL of linux/neighbour.h.
const ndaProtocol = 12

// ntfSticky is NTF_STICKY of linux/neighbour.h: the entry stays at its port.
const ntfSticky = 0x40

// PortSettings are the settings of a port of a bridge.
type PortSettings struct {
	Learning bool // by source addresses
	Unknown  bool // unicast to addresses that the bridge does not know goes here, too
	Group    bool // so does multicast
	All      bool // so does broadcast
	// ProxyARP: requests that come in here are answered by the bridge if it knows the
	// answer, and nothing at all is flooded to here. ProxyARPFor: so are requests for
	// what is behind this port, wherever they come in.
	ProxyARP    bool
	ProxyARPFor bool
	// Forward says which frames to link-local groups (01:80:c2:00:00:0x, bit x) are
	// handled as all others.
	Forward uint16
}

// BridgePort adds settings of a bridge's port to a change of the link. It must be
// one already.
func (m *Message) BridgePort(p PortSettings) *Message {
	binary.NativeEndian.PutUint16(m.b[4:], unix.RTM_NEWLINK) // RTM_SETLINK would ignore them
	return m.Nest(unix.IFLA_LINKINFO, func() {
		m.Nest(unix.IFLA_INFO_SLAVE_DATA, func() {
			for attr, on := range p.flags() {
				v := uint8(0)
				if *on {
					v = 1
				}
				m.Uint8(attr, v)
			}
			m.Bytes(unix.IFLA_BRPORT_GROUP_FWD_MASK, binary.NativeEndian.AppendUint16(nil, p.Forward))
		})
	})
}

func (p *PortSettings) flags() map[uint16]*bool {
	return map[uint16]*bool{
		unix.IFLA_BRPORT_LEARNING: &p.Learning, unix.IFLA_BRPORT_UNICAST_FLOOD: &p.Unknown, unix.IFLA_BRPORT_MCAST_FLOOD: &p.Group,
		unix.IFLA_BRPORT_BCAST_FLOOD: &p.All, unix.IFLA_BRPORT_PROXYARP: &p.ProxyARP, unix.IFLA_BRPORT_PROXYARP_WIFI: &p.ProxyARPFor,
	}
}

// parse reads the settings from IFLA_INFO_SLAVE_DATA or IFLA_PROTINFO.
func (p *PortSettings) parse(b []byte) {
	flags := p.flags()
	attrs(b, func(typ uint16, v []byte) {
		switch on := flags[typ]; {
		case on != nil && len(v) == 1:
			*on = v[0] != 0
		case typ == unix.IFLA_BRPORT_GROUP_FWD_MASK && len(v) == 2:
			p.Forward = binary.NativeEndian.Uint16(v)
		}
	})
}

// NewBridgeEntry tells a bridge that a hardware address is behind one of its ports
// and stays there, whatever anybody sends.
func NewBridgeEntry(port int, mac net.HardwareAddr) *Message {
	b := ndmsg(port)
	b[0] = unix.AF_BRIDGE
	binary.NativeEndian.PutUint16(b[8:], unix.NUD_NOARP)
	b[10] = unix.NTF_MASTER | ntfSticky
	return NewMessage(unix.RTM_NEWNEIGH, unix.NLM_F_CREATE|unix.NLM_F_REPLACE).Raw(b).Bytes(unix.NDA_LLADDR, mac)
}

// DelBridgeEntry takes back what NewBridgeEntry said; an absent one is unix.ENOENT.
func DelBridgeEntry(port int, mac net.HardwareAddr) *Message {
	b := ndmsg(port)
	b[0], b[10] = unix.AF_BRIDGE, unix.NTF_MASTER
	return NewMessage(unix.RTM_DELNEIGH, 0).Raw(b).Bytes(unix.NDA_LLADDR, mac)
}

// MarkNeigh adds to NewNeigh who made the entry (Linux 5.0).
func (m *Message) MarkNeigh(protocol uint8) *Message { return m.Uint8(ndaProtocol, protocol) }
