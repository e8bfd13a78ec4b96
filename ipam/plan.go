package ipam

import (
	"fmt"
	"net/netip"
)

// Bounds of a network plan, as prefix lengths.
const (
	minNetworkBits = 8  // 10.0.0.0/8
	maxNetworkBits = 24 // 192.168.0.0/24
	minSubnetBits  = 16 // 65,536 addresses on one node
	maxSubnetBits  = 29 // 8 addresses: 5 containers in bridge mode

	// bridgeSubnetBits is the largest subnet that one bridge can serve: it has at most
	// 1,023 ports.
	bridgeSubnetBits = 22
)

// ImpliedMode returns the mode of a node that is not configured for one, in a network
// whose subnets have the prefix length bits.
func ImpliedMode(bits int) Mode {
	if ModeBridge.Carries(bits) {
		return ModeBridge
	}
	return ModeRouted
}

// Carries reports whether a node in mode m can use all addresses of a subnet with the
// prefix length bits.
func (m Mode) Carries(bits int) bool { return m == ModeRouted || bits >= bridgeSubnetBits }

// unusable are the blocks in which no network can work.
var unusable = [...]struct {
	prefix netip.Prefix
	what   string
}{
	{netip.MustParsePrefix("0.0.0.0/8"), "\"this network\""},
	{netip.MustParsePrefix("127.0.0.0/8"), "loopback"},
	{netip.MustParsePrefix("169.254.0.0/16"), "link-local"},
	{netip.MustParsePrefix("224.0.0.0/4"), "multicast"},
	{netip.MustParsePrefix("240.0.0.0/4"), "reserved"},
}

// ValidatePlan tells whether a network can be divided into subnets with the
// prefix length bits. Its errors wrap ErrInvalid and are fit for an operator.
func ValidatePlan(network netip.Prefix, bits int) error {
	refuse := func(format string, args ...any) error {
		return fmt.Errorf("%w: network %s: %s", ErrInvalid, network, fmt.Sprintf(format, args...))
	}
	switch {
	case !network.IsValid():
		return fmt.Errorf("%w: network is missing or malformed", ErrInvalid)
	case !network.Addr().Is4():
		return refuse("only IPv4 networks are served")
	case network != network.Masked():
		return refuse("has host bits set, did you mean %s?", network.Masked())
	case network.Bits() < minNetworkBits:
		return refuse("larger than /%d", minNetworkBits)
	case network.Bits() > maxNetworkBits:
		return refuse("smaller than /%d", maxNetworkBits)
	case bits < network.Bits():
		return refuse("a subnet of /%d does not fit into it", bits)
	case bits < minSubnetBits:
		return refuse("subnets of /%d are larger than /%d", bits, minSubnetBits)
	case bits > maxSubnetBits:
		return refuse("subnets of /%d are smaller than /%d", bits, maxSubnetBits)
	}
	for _, u := range unusable {
		if u.prefix.Overlaps(network) {
			return refuse("overlaps %s, which is %s", u.prefix, u.what)
		}
	}
	return nil
}

// validNetworkName reports whether s matches [a-z][a-z0-9-]{0,31}.
func validNetworkName(s string) bool {
	if len(s) == 0 || len(s) > 32 || s[0] < 'a' || s[0] > 'z' {
		return false
	}
	for i := range len(s) {
		c := s[i]
		if (c < 'a' || c > 'z') && (c < '0' || c > '9') && c != '-' {
			return false
		}
	}
	return true
}
