package ipam

import "testing"

func TestReserveAddress(t *testing.T) {
	t.Parallel()
	s := cluster(t, 1)
	key := fence(t, s, 1).Subnet
	c := ReserveAddress{Network: DefaultNetwork, Prefix: mustPrefix("172.16.0.9/32"), Reason: "printer", Node: nodeID(1), Epoch: Epoch{1, 1}}
	out := ok(t, s, c)
	equal(t, "deltas", deltaKinds(out.Deltas), "reservation")
	equal(t, "usage", s.Usage(key), Usage{Total: 1024, Reserved: 4, Free: 1020})
	r, found := s.ReservedBy(mustAddr("172.16.0.9"))
	equal(t, "found", found, true)
	equal(t, "reservation", r, Reservation{DefaultNetwork, c.Prefix, ReservedOperator, "printer", s.Index()})
	unchanged(t, s, c)
	c.Reason = "plotter"
	ok(t, s, c)

	// Blocks may overlap; an address counts once.
	block := c
	block.Prefix = mustPrefix("172.16.0.0/28")
	ok(t, s, block)
	equal(t, "usage", s.Usage(key), Usage{Total: 1024, Reserved: 17, Free: 1007})
	var got []string
	for r := range s.Reservations(key) {
		got = append(got, r.Kind.String()+" "+r.Prefix.String())
	}
	equal(t, "reservations", got, []string{
		"operator 172.16.0.0/28", "network 172.16.0.0/32", "gateway 172.16.0.1/32",
		"operator 172.16.0.9/32", "broadcast 172.16.3.255/32",
	})
}

func TestReserveAddressOverLeases(t *testing.T) {
	t.Parallel()
	s := cluster(t, 1)
	lease := bind(t, s, 1, "172.16.0.9", "a")
	c := ReserveAddress{Network: DefaultNetwork, Prefix: mustPrefix("172.16.0.8/30"), Node: nodeID(1), Epoch: Epoch{1, 1}}
	refused(t, s, ErrAddressTaken, c)
	ok(t, s, ReleaseLease{lease.Fence, lease.Addr, lease.Owner})
	out := ok(t, s, c)
	equal(t, "deltas", deltaKinds(out.Deltas), "-lease reservation")
	equal(t, "usage", s.Usage(lease.Subnet), Usage{Total: 1024, Reserved: 7, Free: 1017})
}

func TestReserveAddressRefused(t *testing.T) {
	t.Parallel()
	s := cluster(t, 2)
	ok(t, s, RemoveNode{Node: nodeID(2), Force: true})
	for _, tt := range []struct {
		name   string
		prefix string
		change func(*ReserveAddress)
		want   error
	}{
		{"own address", "172.16.0.1/32", nil, ErrAddressReserved},
		{"host bits", "172.16.0.9/28", nil, ErrInvalid},
		{"outside", "10.0.0.0/32", nil, ErrOutOfSubnet},
		{"larger than the network", "172.0.0.0/8", nil, ErrOutOfSubnet},
		{"IPv6", "fd00::/64", nil, ErrInvalid},
		{"held subnet", "172.16.0.0/22", nil, ErrSubnetInUse},
		{"quarantined subnet", "172.16.4.0/22", nil, ErrSubnetInUse},
		{"around subnets", "172.16.0.0/16", nil, ErrSubnetInUse},
		{"fence without a subnet", "172.17.0.0/16", nil, ErrInvalid},
		{"unheld subnet", "172.17.0.9/32", nil, ErrSubnetNotFound},
		{"no fence", "172.16.0.9/32", func(c *ReserveAddress) { c.Node = "" }, ErrNodeNotFound},
		{"stale", "172.16.0.9/32", func(c *ReserveAddress) { c.Epoch.Counter = 9 }, ErrStaleEpoch},
		{"reason", "172.16.0.9/32", func(c *ReserveAddress) { c.Reason = "a\nb" }, ErrInvalid},
		{"network", "172.16.0.9/32", func(c *ReserveAddress) { c.Network = "other" }, ErrNetworkNotFound},
	} {
		t.Run(tt.name, func(t *testing.T) {
			c := ReserveAddress{Network: DefaultNetwork, Prefix: mustPrefix(tt.prefix), Node: nodeID(1), Epoch: Epoch{1, 1}}
			if tt.change != nil {
				tt.change(&c)
			}
			refused(t, s, tt.want, c)
		})
	}
}

// TestReserveAddressAhead: what is reserved before anybody holds the subnet
// counts when somebody does, and outlives the holder.
func TestReserveAddressAhead(t *testing.T) {
	t.Parallel()
	s := New()
	ok(t, s, initCmd(), ReserveAddress{Network: DefaultNetwork, Prefix: mustPrefix("172.16.0.0/30")})
	ok(t, s, registerCmd(1), ClaimSubnet{Node: nodeID(1), Network: DefaultNetwork})
	f := fence(t, s, 1)
	equal(t, "usage", s.Usage(f.Subnet), Usage{Total: 1024, Reserved: 5, Free: 1019})
	refused(t, s, ErrAddressReserved, BindLease{Fence: f, Addr: mustAddr("172.16.0.2"), Owner: owner("a")})
	ok(t, s, RemoveNode{Node: nodeID(1)})
	_, still := s.ReservedBy(mustAddr("172.16.0.3"))
	equal(t, "still reserved", still, true)
	_, still = s.ReservedBy(mustAddr("172.16.3.255"))
	equal(t, "broadcast still reserved", still, false)
}
