package ipam

import (
	"cmp"
	"net/netip"
)

// Cluster is the identity of a cluster and what belongs to all of it.
type Cluster struct {
	ID         string // 32 hexadecimal digits, made at cluster init
	Generation uint64 // grows with each restore or recovery; starts at 1
	// Life tells two generations of one number apart, which two survivors make that
	// are recovered separately: it is random, and 0 before the first restore.
	Life uint32
	// Reclaim: since a restore or recovery the nodes claim what they hold
	// (ClaimHeld), and no subnet is handed out until the operator ends it.
	Reclaim  bool
	Time     int64 // cluster time in nanoseconds since the cluster's init
	Networks []Network
}

// Network is an address space that is divided into subnets of one size. The
// networks of a cluster never overlap.
type Network struct {
	Name       string
	ID         uint32 // small number that stands for the name in keys
	Prefix     netip.Prefix
	SubnetBits int // prefix length of every subnet
	// NextSubnet is the hand-out mark: the subnets from this number on
	// (Network.Subnet) were never held by anybody.
	NextSubnet uint32
}

// SubnetCount returns how many subnets the network has.
func (n Network) SubnetCount() uint32 { return 1 << (n.SubnetBits - n.Prefix.Bits()) }

// Subnet returns the i-th subnet in the order of their addresses.
func (n Network) Subnet(i uint32) SubnetKey {
	base := addrToUint(n.Prefix.Addr()) + i<<(32-n.SubnetBits)
	return SubnetKey{Network: n.Name, Prefix: netip.PrefixFrom(uintToAddr(base), n.SubnetBits)}
}

// SubnetOf returns the subnet that a lies in; false when a is outside the network.
func (n Network) SubnetOf(a netip.Addr) (SubnetKey, bool) {
	if !n.Prefix.Contains(a) {
		return SubnetKey{}, false
	}
	p, err := a.Prefix(n.SubnetBits)
	return SubnetKey{Network: n.Name, Prefix: p}, err == nil
}

// subnetIndex is the inverse of Subnet for a prefix at or inside a subnet.
func (n Network) subnetIndex(a netip.Addr) uint32 {
	return (addrToUint(a) - addrToUint(n.Prefix.Addr())) >> (32 - n.SubnetBits)
}

// hasSubnet reports whether p is one of the network's subnets.
func (n Network) hasSubnet(p netip.Prefix) bool {
	return p.Bits() == n.SubnetBits && p == p.Masked() && n.Prefix.Contains(p.Addr())
}

func compareString[T ~string](a, b T) int { return cmp.Compare(a, b) }

// addrToUint returns an IPv4 address as a number.
func addrToUint(a netip.Addr) uint32 {
	b := a.As4()
	return uint32(b[0])<<24 | uint32(b[1])<<16 | uint32(b[2])<<8 | uint32(b[3])
}

func uintToAddr(v uint32) netip.Addr {
	return netip.AddrFrom4([4]byte{byte(v >> 24), byte(v >> 16), byte(v >> 8), byte(v)})
}

// addrPrefix returns the block that holds a alone.
func addrPrefix(a netip.Addr) netip.Prefix { return netip.PrefixFrom(a, a.BitLen()) }

// lastAddr returns the highest address of an IPv4 prefix.
func lastAddr(p netip.Prefix) netip.Addr {
	return uintToAddr(addrToUint(p.Masked().Addr()) + uint32(1<<(32-p.Bits())-1))
}
