package netsetup

import (
	"encoding/binary"
	"net"
	"net/netip"
	"slices"

	"golang.org/x/sys/unix"
)

// forgery is one kind of frame that no container may send.
type forgery struct {
	name  string
	frame []byte
}

// parties are who appears in forged frames.
type parties struct {
	mac, victimMAC, gatewayMAC    net.HardwareAddr
	addr, victim, gateway, beyond netip.Addr
}

var (
	broadcastMAC = net.HardwareAddr{0xff, 0xff, 0xff, 0xff, 0xff, 0xff}
	foreignMAC   = net.HardwareAddr{2, 0, 0, 0, 0, 0x66}
	// marker is at the end of each frame, by which captures tell it.
	marker = []byte("stellar-forgery!")
)

// forgeries are all kinds; ports are the agent's.
func forgeries(p parties, ports ...netip.AddrPort) []forgery {
	list := slices.Concat(forgedIP(p), forgedARP(p), forgedOther(p))
	for _, port := range ports {
		syn := tcpSYN(p.addr, port)
		list = append(list, forgery{"TCP to " + port.String(), ethernet(p.gatewayMAC, p.mac, unix.ETH_P_IP, syn)})
	}
	return list
}

func forgedIP(p parties) []forgery {
	legal := udp4(p.addr, p.victim, 1000, 1000)
	all := netip.AddrFrom4([4]byte{255, 255, 255, 255})
	return []forgery{
		{"the neighbour's MAC", ethernet(p.gatewayMAC, p.victimMAC, unix.ETH_P_IP, udp4(p.addr, p.gateway, 1000, 1000))},
		{"an unknown MAC", ethernet(p.victimMAC, foreignMAC, unix.ETH_P_IP, legal)},
		{"the gateway's MAC", ethernet(p.victimMAC, p.gatewayMAC, unix.ETH_P_IP, legal)},
		{"the neighbour's address", ethernet(p.gatewayMAC, p.mac, unix.ETH_P_IP, udp4(p.victim, p.gateway, 1000, 1000))},
		{"the gateway's address", ethernet(p.victimMAC, p.mac, unix.ETH_P_IP, udp4(p.gateway, p.victim, 1000, 1000))},
		{"an outside address", ethernet(p.victimMAC, p.mac, unix.ETH_P_IP, udp4(p.beyond, p.victim, 1000, 1000))},
		{"the neighbour's MAC and address", ethernet(p.gatewayMAC, p.victimMAC, unix.ETH_P_IP, udp4(p.victim, p.gateway, 1000, 1000))},
		{"no address", ethernet(broadcastMAC, p.mac, unix.ETH_P_IP, udp4(netip.IPv4Unspecified(), all, 68, 67))},
		{"DHCP offer", ethernet(p.victimMAC, p.mac, unix.ETH_P_IP, udp4(p.addr, p.victim, dhcpServerPort, 68))},
		{"DHCP offer to all", ethernet(broadcastMAC, p.mac, unix.ETH_P_IP, udp4(p.addr, all, dhcpServerPort, 68))},
		{"VLAN", ethernet(p.victimMAC, p.mac, 0x8100, vlan(5, unix.ETH_P_IP, legal))},
		{"VLAN, forged", ethernet(p.victimMAC, p.mac, 0x8100, vlan(5, unix.ETH_P_IP, udp4(p.gateway, p.victim, 1, 1)))},
		{"VLAN 0, forged", ethernet(p.victimMAC, p.mac, 0x8100, vlan(0, unix.ETH_P_IP, udp4(p.gateway, p.victim, 1, 1)))},
		{"802.1ad", ethernet(p.victimMAC, p.mac, 0x88a8, vlan(5, unix.ETH_P_IP, legal))},
		{"802.1ad, forged", ethernet(p.victimMAC, p.mac, 0x88a8, vlan(5, unix.ETH_P_IP, udp4(p.gateway, p.victim, 1, 1)))},
		{"two VLANs", ethernet(p.victimMAC, p.mac, 0x88a8, vlan(5, 0x8100, vlan(6, unix.ETH_P_IP, legal)))},
		{"VLAN with ARP", ethernet(p.victimMAC, p.mac, 0x8100, vlan(5, unix.ETH_P_ARP, arp(2, p.mac, p.gateway, p.victimMAC, p.victim)))},
	}
}

func forgedARP(p parties) []forgery {
	none := make(net.HardwareAddr, 6)
	return []forgery{
		{"ARP reply for the neighbour", ethernet(p.gatewayMAC, p.mac, unix.ETH_P_ARP, arp(2, p.mac, p.victim, p.gatewayMAC, p.gateway))},
		{"ARP reply for the gateway", ethernet(p.victimMAC, p.mac, unix.ETH_P_ARP, arp(2, p.mac, p.gateway, p.victimMAC, p.victim))},
		{"ARP request as the neighbour", ethernet(broadcastMAC, p.mac, unix.ETH_P_ARP, arp(1, p.mac, p.victim, none, p.gateway))},
		{"ARP request as the gateway", ethernet(p.victimMAC, p.mac, unix.ETH_P_ARP, arp(1, p.mac, p.gateway, none, p.victim))},
		{"gratuitous ARP for the gateway", ethernet(broadcastMAC, p.mac, unix.ETH_P_ARP, arp(1, p.mac, p.gateway, none, p.gateway))},
		{"gratuitous ARP for the neighbour", ethernet(broadcastMAC, p.mac, unix.ETH_P_ARP, arp(2, p.mac, p.victim, broadcastMAC, p.victim))},
		{"own ARP with a foreign MAC", ethernet(p.gatewayMAC, p.mac, unix.ETH_P_ARP, arp(2, foreignMAC, p.addr, p.gatewayMAC, p.gateway))},
		{"own ARP from a foreign MAC", ethernet(p.gatewayMAC, foreignMAC, unix.ETH_P_ARP, arp(2, p.mac, p.addr, p.gatewayMAC, p.gateway))},
		{"ARP probe", ethernet(broadcastMAC, p.mac, unix.ETH_P_ARP, arp(1, p.mac, netip.IPv4Unspecified(), none, p.victim))},
		{"ARP of other lengths", ethernet(p.gatewayMAC, p.mac, unix.ETH_P_ARP, append([]byte{0, 1, 8, 0, 8, 4}, arp(2, p.mac, p.addr, p.gatewayMAC, p.gateway)[6:]...))},
		{"RARP", ethernet(broadcastMAC, p.mac, 0x8035, arp(3, p.mac, p.addr, p.mac, p.addr))},
	}
}

func forgedOther(p parties) []forgery {
	allNodes := net.HardwareAddr{0x33, 0x33, 0, 0, 0, 1}
	group := func(last byte) net.HardwareAddr { return net.HardwareAddr{1, 0x80, 0xc2, 0, 0, last} }
	bpdu := append([]byte{0, 38, 0x42, 0x42, 3}, make([]byte, 35)...)
	return []forgery{
		{"router advertisement", ethernet(allNodes, p.mac, unix.ETH_P_IPV6, ipv6(58, 134))},
		{"IPv6", ethernet(p.victimMAC, p.mac, unix.ETH_P_IPV6, ipv6(17, 0))},
		{"BPDU", slices.Concat(group(0), p.mac, bpdu, marker)},
		{"LLDP", ethernet(group(0x0e), p.mac, 0x88cc, make([]byte, 40))},
		{"IPv4 to LLDP's group", ethernet(group(0x0e), p.mac, unix.ETH_P_IP, udp4(p.victim, p.gateway, 1000, 1000))},
		{"slow protocols", ethernet(group(2), p.mac, 0x8809, make([]byte, 40))},
		{"GARP's group", ethernet(group(0x0d), p.mac, 0x88f5, make([]byte, 40))},
		{"LLDP to all", ethernet(broadcastMAC, p.mac, 0x88cc, make([]byte, 40))},
		{"802.1X", ethernet(p.victimMAC, p.mac, 0x888e, make([]byte, 40))},
		{"PPPoE", ethernet(p.victimMAC, p.mac, 0x8863, make([]byte, 40))},
		{"MPLS", ethernet(p.victimMAC, p.mac, 0x8847, make([]byte, 40))},
		{"unknown type", ethernet(p.victimMAC, p.mac, 0x88b5, make([]byte, 40))},
		{"802.3 length", ethernet(p.victimMAC, p.mac, 40, make([]byte, 40))},
	}
}

func ethernet(dst, src net.HardwareAddr, typ uint16, payload []byte) []byte {
	return slices.Concat(dst, src, binary.BigEndian.AppendUint16(nil, typ), payload, marker)
}

func vlan(id, typ uint16, payload []byte) []byte {
	return append(binary.BigEndian.AppendUint16(binary.BigEndian.AppendUint16(nil, id), typ), payload...)
}

func arp(op uint16, sha net.HardwareAddr, spa netip.Addr, tha net.HardwareAddr, tpa netip.Addr) []byte {
	return slices.Concat([]byte{0, 1, 8, 0, 6, 4, 0, byte(op)}, sha, spa.AsSlice(), tha, tpa.AsSlice())
}

func ipv4(protocol byte, src, dst netip.Addr, payload []byte) []byte {
	h := make([]byte, 20)
	h[0], h[8], h[9] = 0x45, 64, protocol
	binary.BigEndian.PutUint16(h[2:], uint16(20+len(payload)))
	copy(h[12:], src.AsSlice())
	copy(h[16:], dst.AsSlice())
	binary.BigEndian.PutUint16(h[10:], ^sum(h))
	return append(h, payload...)
}

func udp4(src, dst netip.Addr, sport, dport uint16) []byte {
	u := make([]byte, 8+len(marker)) // without a checksum, which UDP permits
	binary.BigEndian.PutUint16(u[0:], sport)
	binary.BigEndian.PutUint16(u[2:], dport)
	binary.BigEndian.PutUint16(u[4:], uint16(len(u)))
	copy(u[8:], marker)
	return ipv4(unix.IPPROTO_UDP, src, dst, u)
}

func tcpSYN(src netip.Addr, dst netip.AddrPort) []byte {
	h := make([]byte, 20)
	binary.BigEndian.PutUint16(h[0:], 40000)
	binary.BigEndian.PutUint16(h[2:], dst.Port())
	h[12], h[13] = 5<<4, 2
	binary.BigEndian.PutUint16(h[14:], 1000)
	pseudo := slices.Concat(src.AsSlice(), dst.Addr().AsSlice(), []byte{0, unix.IPPROTO_TCP, 0, byte(len(h))}, h)
	binary.BigEndian.PutUint16(h[16:], ^sum(pseudo))
	return ipv4(unix.IPPROTO_TCP, src, dst.Addr(), h)
}

func ipv6(next, icmp byte) []byte {
	h := make([]byte, 40+32) // the marker is in it: what is longer than its header says is cut
	copy(h[56:], marker)
	h[0], h[5], h[6], h[7] = 0x60, 32, next, 255
	h[8], h[9], h[23] = 0xfe, 0x80, 1
	h[24], h[25], h[39] = 0xff, 2, 1
	h[40] = icmp
	return h
}

func sum(b []byte) uint16 {
	var s uint32
	for i := 0; i+1 < len(b); i += 2 {
		s += uint32(binary.BigEndian.Uint16(b[i:]))
	}
	for s>>16 != 0 {
		s = s&0xffff + s>>16
	}
	return uint16(s)
}
