package ipam

import (
	"net/netip"
	"testing"
)

func TestClaimSubnetInOrder(t *testing.T) {
	t.Parallel()
	s := New()
	ok(t, s, initCmd())
	for i, want := range []string{"172.16.0.0/22", "172.16.4.0/22", "172.16.8.0/22"} {
		out := ok(t, s, registerCmd(i+1), ClaimSubnet{Node: nodeID(i + 1), Network: DefaultNetwork})
		equal(t, "answer", out.Results[1], Result{Subnet: mustPrefix(want), Epoch: Epoch{1, 1}})
		equal(t, "deltas", deltaKinds(out.Deltas), "node network subnet reservation reservation reservation")
	}
	got := unchanged(t, s, ClaimSubnet{Node: nodeID(2), Network: DefaultNetwork})
	equal(t, "the same again", got, Result{Subnet: mustPrefix("172.16.4.0/22"), Epoch: Epoch{1, 1}})
	sub, _ := s.Subnet(SubnetKey{DefaultNetwork, mustPrefix("172.16.4.0/22")})
	equal(t, "gateway", sub.Gateway(), mustAddr("172.16.4.1"))
	refused(t, s, ErrNetworkNotFound, ClaimSubnet{Node: nodeID(1), Network: "other"})
	refused(t, s, ErrNodeNotFound, ClaimSubnet{Node: nodeID(4), Network: DefaultNetwork})
}

// TestClaimSubnetReuse: never-held subnets come before any other, then the one
// that is free for longest; quarantined ones never.
func TestClaimSubnetReuse(t *testing.T) {
	t.Parallel()
	s := New()
	c := initCmd()
	c.Prefix, c.SubnetBits = mustPrefix("192.168.0.0/24"), 26
	ok(t, s, c)
	claim := func(n int) netip.Prefix {
		t.Helper()
		return ok(t, s, registerCmd(n), ClaimSubnet{Node: nodeID(n), Network: DefaultNetwork}).Results[1].Subnet
	}
	for n := 1; n <= 3; n++ {
		claim(n)
	}
	ok(t, s, RemoveNode{Node: nodeID(2)}, RemoveNode{Node: nodeID(3), Force: true})
	ok(t, s, RemoveNode{Node: nodeID(1)})
	equal(t, "never held", claim(4), mustPrefix("192.168.0.192/26"))
	equal(t, "longest free", claim(5), mustPrefix("192.168.0.64/26"))
	equal(t, "next", claim(6), mustPrefix("192.168.0.0/26"))
	ok(t, s, registerCmd(7))
	refused(t, s, ErrNoAvailableSubnets, ClaimSubnet{Node: nodeID(7), Network: DefaultNetwork})
	sub, _ := s.Subnet(SubnetKey{DefaultNetwork, mustPrefix("192.168.0.64/26")})
	equal(t, "epoch", sub.Epoch, Epoch{1, 2})

	ok(t, s, ReleaseSubnet{DefaultNetwork, mustPrefix("192.168.0.128/26")})
	equal(t, "released", claim(7), mustPrefix("192.168.0.128/26"))
}

func TestClaimSubnetPassesOverReserved(t *testing.T) {
	t.Parallel()
	s := New()
	ok(t, s, initCmd(),
		ReserveAddress{Network: DefaultNetwork, Prefix: mustPrefix("172.16.0.0/16"), Reason: "docker0 of a"},
		ReserveAddress{Network: DefaultNetwork, Prefix: mustPrefix("172.17.4.0/22")})
	for i, want := range []string{"172.17.0.0/22", "172.17.8.0/22"} {
		out := ok(t, s, registerCmd(i+1), ClaimSubnet{Node: nodeID(i + 1), Network: DefaultNetwork})
		equal(t, "subnet", out.Results[1].Subnet, mustPrefix(want))
	}
}

// TestClaimSubnetBelowMark: what was reserved when the mark passed and is not
// any more was still never held, so it comes before any free one.
func TestClaimSubnetBelowMark(t *testing.T) {
	t.Parallel()
	s := New()
	c := initCmd()
	c.Prefix, c.SubnetBits = mustPrefix("192.168.0.0/24"), 26
	first := mustPrefix("192.168.0.0/26")
	ok(t, s, c, ReserveAddress{Network: DefaultNetwork, Prefix: first})
	for n := 1; n <= 3; n++ {
		ok(t, s, registerCmd(n), ClaimSubnet{Node: nodeID(n), Network: DefaultNetwork})
	}
	ok(t, s, RemoveNode{Node: nodeID(1)}, UnreserveAddress{Network: DefaultNetwork, Prefix: first})
	out := ok(t, s, registerCmd(4), ClaimSubnet{Node: nodeID(4), Network: DefaultNetwork})
	equal(t, "subnet", out.Results[1].Subnet, first)
}

// TestClaimSubnetSizes hands out the whole of several plans.
func TestClaimSubnetSizes(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		prefix string
		bits   int
		first  string
		second string
	}{
		{"192.168.0.0/24", 24, "192.168.0.0/24", ""},
		{"192.168.0.0/24", 25, "192.168.0.0/25", "192.168.0.128/25"},
		{"10.0.0.0/8", 20, "10.0.0.0/20", "10.0.16.0/20"},
		{"10.0.0.0/8", 16, "10.0.0.0/16", "10.1.0.0/16"},
		{"10.0.0.0/8", 29, "10.0.0.0/29", "10.0.0.8/29"},
	} {
		s := New()
		c := initCmd()
		c.Prefix, c.SubnetBits = mustPrefix(tt.prefix), tt.bits
		ok(t, s, c)
		out := ok(t, s, registerCmd(1), ClaimSubnet{Node: nodeID(1), Network: DefaultNetwork})
		equal(t, "first", out.Results[1].Subnet, mustPrefix(tt.first))
		ok(t, s, registerCmd(2))
		if tt.second == "" {
			refused(t, s, ErrNoAvailableSubnets, ClaimSubnet{Node: nodeID(2), Network: DefaultNetwork})
			continue
		}
		out = ok(t, s, ClaimSubnet{Node: nodeID(2), Network: DefaultNetwork})
		equal(t, "second", out.Results[0].Subnet, mustPrefix(tt.second))
	}
}
