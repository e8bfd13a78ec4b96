package nlx

import (
	"encoding/binary"
	"fmt"
	"net"
	"net/netip"

	"golang.org/x/sys/unix"
)

// What is asked of the kernel only when somebody wants to know where packets go.
// Nothing here changes anything.

// Query is a packet whose way is asked for.
type Query struct {
	Dst netip.Addr
	Src netip.Addr // zero: the kernel's choice
	// In is the interface it comes in by; 0: this host sends it itself. For a
	// packet that comes in the kernel judges its source and forwarding, too.
	In int
}

// Answer is what the kernel does with the packet.
type Answer struct {
	Lookup
	Table uint32 // of the route; 254 is main, 255 local
}

// LookupRoute asks by which route the kernel sends a packet on, all rules and
// tables considered. A refusal is in the answer's Err; the error is about the
// exchange.
func (c *Conn) LookupRoute(q Query) (Answer, error) {
	b := make([]byte, unix.SizeofRtMsg)
	b[0], b[1] = unix.AF_INET, 32
	binary.NativeEndian.PutUint32(b[8:], unix.RTM_F_FIB_MATCH|unix.RTM_F_LOOKUP_TABLE)
	if q.Src.IsValid() {
		b[2] = 32
	}
	m := NewMessage(unix.RTM_GETROUTE, 0).Raw(b).Bytes(unix.RTA_DST, q.Dst.AsSlice())
	if q.Src.IsValid() {
		m.Bytes(unix.RTA_SRC, q.Src.AsSlice())
	}
	if q.In != 0 {
		m.Uint32(unix.RTA_IIF, uint32(q.In))
	}
	r, err := c.Do(m)
	if err != nil {
		return Answer{}, fmt.Errorf("look up route: %w", err)
	}
	a := Answer{Lookup: Lookup{Err: r[0].Err}}
	if a.Err != nil {
		return a, nil
	}
	if len(r[0].Data) != 1 || len(r[0].Data[0]) < unix.SizeofRtMsg || r[0].Data[0][0] != unix.AF_INET {
		return Answer{}, fmt.Errorf("look up route: %d answers", len(r[0].Data))
	}
	data := r[0].Data[0]
	a.FIBRoute, _ = parseFIBRoute(data)
	a.Table = uint32(data[4])
	attrs(data[unix.SizeofRtMsg:], func(typ uint16, v []byte) {
		if typ == unix.RTA_TABLE && len(v) == 4 {
			a.Table = binary.NativeEndian.Uint32(v)
		}
	})
	return a, nil
}

// Rule is an IPv4 policy rule.
type Rule struct {
	Priority uint32
	Table    uint32 // 0: it has another action than a lookup
	Action   uint8
}

// Attributes of linux/fib_rules.h.
const (
	fraPriority = 6
	fraTable    = 15
)

// Rules returns the IPv4 policy rules in the order of their priorities.
func (c *Conn) Rules() ([]Rule, error) {
	data, err := c.Dump(NewMessage(unix.RTM_GETRULE, 0).Raw(append([]byte{unix.AF_INET}, make([]byte, 11)...)))
	if err != nil {
		return nil, fmt.Errorf("list rules: %w", err)
	}
	var out []Rule
	for _, b := range data {
		if len(b) < 12 || b[0] != unix.AF_INET {
			continue
		}
		r := Rule{Table: uint32(b[4]), Action: b[7]}
		attrs(b[12:], func(typ uint16, v []byte) {
			if len(v) != 4 {
				return
			}
			switch n := binary.NativeEndian.Uint32(v); typ {
			case fraPriority:
				r.Priority = n
			case fraTable:
				r.Table = n
			}
		})
		out = append(out, r)
	}
	return out, nil
}

// Neigh is what the kernel knows of a neighbour's hardware address.
type Neigh struct {
	Index int
	Addr  netip.Addr // zero in a bridge's forwarding table
	MAC   net.HardwareAddr
	State uint16 // NUD_REACHABLE, …
	Flags uint8
	// Bridge is the bridge that an entry of a forwarding table belongs to.
	Bridge int
}

// Neighs returns the IPv4 neighbours on one interface.
func (c *Conn) Neighs(index int) ([]Neigh, error) {
	return c.neighs(unix.AF_INET, unix.NDA_IFINDEX, index, func(n Neigh) bool { return n.Index == index && n.Addr.IsValid() })
}

// ForwardingTable returns the hardware addresses that a bridge has seen, and
// behind which port (Index).
func (c *Conn) ForwardingTable(bridge int) ([]Neigh, error) {
	return c.neighs(unix.AF_BRIDGE, unix.NDA_MASTER, bridge, func(n Neigh) bool { return n.Bridge == bridge })
}

func (c *Conn) neighs(family byte, filter uint16, index int, keep func(Neigh) bool) ([]Neigh, error) {
	b := make([]byte, unix.SizeofNdMsg)
	b[0] = family
	data, err := c.Dump(NewMessage(unix.RTM_GETNEIGH, 0).Raw(b).Uint32(filter, uint32(index)))
	if err != nil {
		return nil, fmt.Errorf("list neighbours: %w", err)
	}
	var out []Neigh
	for _, b := range data {
		if len(b) < unix.SizeofNdMsg || b[0] != family {
			continue
		}
		n := Neigh{Index: int(int32(binary.NativeEndian.Uint32(b[4:]))), State: binary.NativeEndian.Uint16(b[8:]), Flags: b[10]}
		attrs(b[unix.SizeofNdMsg:], func(typ uint16, v []byte) {
			switch typ {
			case unix.NDA_DST:
				n.Addr, _ = addr4(v)
			case unix.NDA_LLADDR:
				n.MAC = append(net.HardwareAddr(nil), v...)
			case unix.NDA_MASTER:
				if len(v) == 4 {
					n.Bridge = int(binary.NativeEndian.Uint32(v))
				}
			}
		})
		if keep(n) {
			out = append(out, n)
		}
	}
	return out, nil
}

// Counters are what has passed an interface since it was made.
type Counters struct {
	RxPackets, TxPackets, RxDropped, TxDropped uint64
}

// Detail is a Link with what only a diagnosis needs.
type Detail struct {
	Link
	Counters Counters
	// Port says how a bridge treats the link; nil: it is no port.
	Port *BridgePort
	// Filtering: the bridge sorts frames by VLAN.
	Filtering bool
}

// BridgePort is how a bridge treats one of its ports.
type BridgePort struct {
	State    uint8 // BR_STATE_FORWARDING is 3
	Isolated bool
	// Learning and Flooding are on unless somebody switched them off.
	Learning, Flooding bool
}

// Indexes into struct rtnl_link_stats64.
const (
	counterRx         = 0
	counterTx         = 1
	counterRxDropped  = 6
	counterTxDropped  = 7
	counterWidth      = 8
	leastCounterBytes = 8 * counterWidth
)

// LinkDetail returns an interface by its name; an absent one is unix.ENODEV.
func (c *Conn) LinkDetail(name string) (Detail, error) {
	r, err := c.Do(NewMessage(unix.RTM_GETLINK, 0).Raw(ifinfomsg(0, 0, 0)).String(unix.IFLA_IFNAME, name))
	if err == nil {
		err = r[0].Err
	}
	if err != nil {
		return Detail{}, err
	}
	if len(r[0].Data) != 1 {
		return Detail{}, fmt.Errorf("get link: %d answers", len(r[0].Data))
	}
	return parseDetail(r[0].Data[0])
}

func parseDetail(b []byte) (d Detail, err error) {
	if d.Link, err = ParseLink(b); err != nil {
		return d, err
	}
	attrs(b[unix.SizeofIfInfomsg:], func(typ uint16, v []byte) {
		switch {
		case typ == unix.IFLA_STATS64 && len(v) >= leastCounterBytes:
			at := func(i int) uint64 { return binary.NativeEndian.Uint64(v[i*counterWidth:]) }
			d.Counters = Counters{at(counterRx), at(counterTx), at(counterRxDropped), at(counterTxDropped)}
		case typ == unix.IFLA_LINKINFO:
			d.parseInfo(v)
		}
	})
	return d, nil
}

func (d *Detail) parseInfo(b []byte) {
	slave := ""
	attrs(b, func(typ uint16, v []byte) {
		switch {
		case typ == unix.IFLA_INFO_SLAVE_KIND:
			slave = unix.ByteSliceToString(v)
		case typ == unix.IFLA_INFO_SLAVE_DATA && slave == "bridge":
			d.Port = &BridgePort{}
			attrs(v, func(typ uint16, v []byte) {
				if len(v) < 1 {
					return
				}
				switch typ {
				case unix.IFLA_BRPORT_STATE:
					d.Port.State = v[0]
				case unix.IFLA_BRPORT_ISOLATED:
					d.Port.Isolated = v[0] != 0
				case unix.IFLA_BRPORT_LEARNING:
					d.Port.Learning = v[0] != 0
				case unix.IFLA_BRPORT_UNICAST_FLOOD:
					d.Port.Flooding = v[0] != 0
				}
			})
		case typ == unix.IFLA_INFO_DATA && d.Kind == "bridge":
			attrs(v, func(typ uint16, v []byte) {
				if typ == unix.IFLA_BR_VLAN_FILTERING && len(v) == 1 {
					d.Filtering = v[0] != 0
				}
			})
		}
	})
}
