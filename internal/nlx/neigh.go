package nlx

import (
	"encoding/binary"
	"fmt"
	"net"
	"net/netip"

	"golang.org/x/sys/unix"
)

// NewNeigh makes the permanent neighbour entry of an address, in the place of one
// that the kernel has learnt or that somebody else has made.
func NewNeigh(index int, a netip.Addr, mac net.HardwareAddr) *Message {
	b := ndmsg(index)
	binary.NativeEndian.PutUint16(b[8:], unix.NUD_PERMANENT)
	m := NewMessage(unix.RTM_NEWNEIGH, unix.NLM_F_CREATE|unix.NLM_F_REPLACE).Raw(b)
	return m.Bytes(unix.NDA_DST, a.AsSlice()).Bytes(unix.NDA_LLADDR, mac)
}

// GetNeigh asks for the neighbour entry of one address; an absent one is
// unix.ENOENT. The answer is for ParseNeigh.
func GetNeigh(index int, a netip.Addr) *Message {
	return NewMessage(unix.RTM_GETNEIGH, 0).Raw(ndmsg(index)).Bytes(unix.NDA_DST, a.AsSlice())
}

// DelNeigh deletes the neighbour entry of an address; an absent one is unix.ENOENT.
func DelNeigh(index int, a netip.Addr) *Message {
	return NewMessage(unix.RTM_DELNEIGH, 0).Raw(ndmsg(index)).Bytes(unix.NDA_DST, a.AsSlice())
}

func ndmsg(index int) []byte {
	b := make([]byte, unix.SizeofNdMsg)
	b[0] = unix.AF_INET
	binary.NativeEndian.PutUint32(b[4:], uint32(index))
	return b
}

// Neighbour is a hardware address that the kernel knows, or that a bridge has behind
// one of its ports.
type Neighbour struct {
	Index  int
	Addr   netip.Addr // zero in a bridge's table
	MAC    net.HardwareAddr
	State  uint16 // NUD_PERMANENT, …
	Bridge int    // of a bridge's table
	Mark   uint8  // who made it, as in MarkNeigh; 0: not known
	Sticky bool   // of a bridge's table: it stays at its port
}

// Neighbours returns the IPv4 neighbours of all interfaces.
func (c *Conn) Neighbours() ([]Neighbour, error) { return c.neighbours(unix.AF_INET) }

// BridgeEntries returns the tables of all bridges.
func (c *Conn) BridgeEntries() ([]Neighbour, error) { return c.neighbours(unix.AF_BRIDGE) }

func (c *Conn) neighbours(family byte) ([]Neighbour, error) {
	b := make([]byte, unix.SizeofNdMsg)
	b[0] = family
	data, err := c.Dump(NewMessage(unix.RTM_GETNEIGH, 0).Raw(b))
	if err != nil {
		return nil, fmt.Errorf("list neighbours: %w", err)
	}
	var out []Neighbour
	for _, b := range data {
		if n, ok := parseNeigh(b, family); ok {
			out = append(out, n)
		}
	}
	return out, nil
}

// ParseNeigh decodes the payload of an RTM_NEWNEIGH or RTM_DELNEIGH message; ok is
// false for one that is no IPv4 neighbour.
func ParseNeigh(b []byte) (n Neighbour, ok bool) { return parseNeigh(b, unix.AF_INET) }

// ParseBridgeEntry is ParseNeigh for a bridge's table.
func ParseBridgeEntry(b []byte) (n Neighbour, ok bool) { return parseNeigh(b, unix.AF_BRIDGE) }

func parseNeigh(b []byte, family byte) (n Neighbour, ok bool) {
	if len(b) < unix.SizeofNdMsg || b[0] != family {
		return Neighbour{}, false
	}
	n.Index, n.State = int(int32(binary.NativeEndian.Uint32(b[4:]))), binary.NativeEndian.Uint16(b[8:])
	n.Sticky = b[10]&ntfSticky != 0
	attrs(b[unix.SizeofNdMsg:], func(typ uint16, v []byte) {
		switch typ {
		case unix.NDA_DST:
			n.Addr, _ = addr4(v)
		case unix.NDA_LLADDR:
			n.MAC = append(net.HardwareAddr(nil), v...)
		case ndaProtocol:
			if len(v) == 1 {
				n.Mark = v[0]
			}
		case unix.NDA_MASTER:
			if len(v) == 4 {
				n.Bridge = int(binary.NativeEndian.Uint32(v))
			}
		}
	})
	return n, true
}
