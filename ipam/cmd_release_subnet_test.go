package ipam

import "testing"

func TestReleaseSubnet(t *testing.T) {
	t.Parallel()
	s := cluster(t, 2)
	c := bind(t, s, 1, "172.16.0.2", "a")
	refused(t, s, ErrSubnetInUse, ReleaseSubnet{DefaultNetwork, c.Subnet.Prefix})
	refused(t, s, ErrSubnetNotFound, ReleaseSubnet{DefaultNetwork, mustPrefix("172.16.8.0/22")})
	refused(t, s, ErrSubnetNotFound, ReleaseSubnet{DefaultNetwork, mustPrefix("172.16.0.0/23")})
	refused(t, s, ErrNetworkNotFound, ReleaseSubnet{"other", c.Subnet.Prefix})
	ok(t, s, RemoveNode{Node: nodeID(1), Force: true})
	out := ok(t, s, ReleaseSubnet{DefaultNetwork, c.Subnet.Prefix})
	equal(t, "deltas", deltaKinds(out.Deltas), "-lease -reservation -reservation -reservation subnet")
	unchanged(t, s, ReleaseSubnet{DefaultNetwork, c.Subnet.Prefix})
}
