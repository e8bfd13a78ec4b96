package netsetup

import (
	"crypto/sha256"
	"net"
	"net/netip"

	"stellar.io/stellar/ipam"
)

// Hardware addresses are locally administered (bit 1 of the first octet) and
// derived, never random: an address that is used again keeps its MAC, so no
// neighbour on any machine holds a wrong entry, and a bridge that is made anew
// keeps the MAC of the gateway. The second octet tells what it belongs to.
const (
	macLocal     = 0x02
	macContainer = 0x73
	macHost      = 0x74
	macBridge    = 0x75
)

// MACFor returns the hardware address of the container that has the IPv4 address a.
func MACFor(a netip.Addr) net.HardwareAddr { return macOf(macContainer, a.As4()) }

// hostMACFor returns the hardware address of the host's end of a's veth pair.
func hostMACFor(a netip.Addr) net.HardwareAddr { return macOf(macHost, a.As4()) }

// bridgeMACFor returns the hardware address of a node's bridge.
func bridgeMACFor(n ipam.NodeID) net.HardwareAddr {
	sum := sha256.Sum256([]byte(n))
	return macOf(macBridge, [4]byte(sum[:4]))
}

// isBridgeMAC reports whether some node's bridge may have the address.
func isBridgeMAC(mac net.HardwareAddr) bool {
	return len(mac) == 6 && mac[0] == macLocal && mac[1] == macBridge
}

func macOf(kind byte, b [4]byte) net.HardwareAddr {
	return net.HardwareAddr{macLocal, kind, b[0], b[1], b[2], b[3]}
}
