package ipam

import (
	"strings"
	"testing"
	"time"
)

func TestBindLease(t *testing.T) {
	t.Parallel()
	s := cluster(t, 2)
	ok(t, s, Tick{5 * time.Second})
	c := BindLease{Fence: fence(t, s, 2), Addr: mustAddr("172.16.4.2"), Owner: owner("a"), Static: true, Hostname: "web"}
	out := ok(t, s, c)
	equal(t, "deltas", deltaKinds(out.Deltas), "lease")
	equal(t, "answer", out.Results[0], Result{Addr: c.Addr})
	want := Lease{
		Addr: c.Addr, Owner: c.Owner, State: Bound, Subnet: c.Subnet, Node: nodeID(2),
		Static: true, Hostname: "web", Since: s.Index(), SinceTime: int64(5 * time.Second),
	}
	got, _ := s.Lease(c.Addr)
	equal(t, "by address", got, want)
	got, _ = s.LeaseByOwner(c.Owner)
	equal(t, "by owner", got, want)
	for got := range s.Leases(c.Subnet) {
		equal(t, "by subnet", got, want)
	}
	equal(t, "delta", out.Deltas[0].(LeasePut).Lease, want)
	equal(t, "usage", s.Usage(c.Subnet), Usage{Total: 1024, Used: 1, Reserved: 3, Free: 1020})
	unchanged(t, s, c)

	ok(t, s, MarkLease{c.Fence, c.Addr, c.Owner, Attached})
	unchanged(t, s, c)
	c.Hostname = "db"
	ok(t, s, c)
	got, _ = s.Lease(c.Addr)
	equal(t, "host name", got.Hostname, "db")
	equal(t, "still attached", got.State, Attached)
}

func TestBindLeaseRefused(t *testing.T) {
	t.Parallel()
	s := cluster(t, 3)
	bind(t, s, 1, "172.16.0.2", "a")
	ok(t, s, ReserveAddress{Network: DefaultNetwork, Prefix: mustPrefix("172.16.0.64/28"), Node: nodeID(1), Epoch: Epoch{1, 1}})
	ok(t, s, RemoveNode{Node: nodeID(3)})
	for _, tt := range []struct {
		name   string
		change func(*BindLease)
		want   error
	}{
		{"taken", func(c *BindLease) { c.Addr = mustAddr("172.16.0.2") }, ErrAddressTaken},
		{"network address", func(c *BindLease) { c.Addr = mustAddr("172.16.0.0") }, ErrAddressReserved},
		{"gateway", func(c *BindLease) { c.Addr = mustAddr("172.16.0.1") }, ErrAddressReserved},
		{"broadcast", func(c *BindLease) { c.Addr = mustAddr("172.16.3.255") }, ErrAddressReserved},
		{"reserved block", func(c *BindLease) { c.Addr = mustAddr("172.16.0.79") }, ErrAddressReserved},
		{"another subnet", func(c *BindLease) { c.Addr = mustAddr("172.16.4.2") }, ErrOutOfSubnet},
		{"mapped address", func(c *BindLease) { c.Addr = mustAddr("::ffff:172.16.0.3") }, ErrOutOfSubnet},
		{"no address", func(c *BindLease) { c.Addr = mustAddr("::") }, ErrOutOfSubnet},
		{"two addresses", func(c *BindLease) { c.Owner = owner("a") }, ErrOwnerHasAddress},
		{"older epoch", func(c *BindLease) { c.Epoch.Counter = 0 }, ErrStaleEpoch},
		{"newer epoch", func(c *BindLease) { c.Epoch.Generation = 2 }, ErrStaleEpoch},
		{"another node", func(c *BindLease) { c.Node = nodeID(2) }, ErrWrongNode},
		{"removed node", func(c *BindLease) { c.Node = nodeID(3) }, ErrNodeRemoved},
		{"unknown node", func(c *BindLease) { c.Node = nodeID(9) }, ErrNodeNotFound},
		{"unknown network", func(c *BindLease) { c.Subnet.Network = "other" }, ErrNetworkNotFound},
		{"unheld subnet", func(c *BindLease) { c.Subnet.Prefix = mustPrefix("172.16.12.0/22") }, ErrSubnetNotFound},
		{"no subnet", func(c *BindLease) { c.Subnet.Prefix = mustPrefix("172.16.0.0/23") }, ErrSubnetNotFound},
		{"no owner", func(c *BindLease) { c.Owner = Owner{} }, ErrInvalid},
		{"long id", func(c *BindLease) { c.Owner.ID = strings.Repeat("a", 129) }, ErrInvalid},
		{"long interface", func(c *BindLease) { c.Owner.Interface = strings.Repeat("a", 16) }, ErrInvalid},
		{"no interface", func(c *BindLease) { c.Owner.Interface = "" }, ErrInvalid},
		{"control character", func(c *BindLease) { c.Owner.Namespace = "a\n" }, ErrInvalid},
		{"host name", func(c *BindLease) { c.Hostname = "a b" }, ErrInvalid},
	} {
		t.Run(tt.name, func(t *testing.T) {
			c := BindLease{Fence: fence(t, s, 1), Addr: mustAddr("172.16.0.3"), Owner: owner("b")}
			tt.change(&c)
			r := refused(t, s, tt.want, c)
			if tt.want == ErrOwnerHasAddress {
				equal(t, "the one held", r.Addr, mustAddr("172.16.0.2"))
			}
		})
	}
}

// TestBindLeaseOwners: owners that differ in one field are different owners.
func TestBindLeaseOwners(t *testing.T) {
	t.Parallel()
	s := cluster(t, 1)
	addr := mustAddr("172.16.0.2")
	for _, o := range []Owner{
		owner("a"), owner("b"),
		{Kind: OwnerCNI, ID: "a", Interface: "eth0"},
		{Kind: OwnerContainer, Namespace: "default", ID: "a", Created: 1, Interface: "eth0"},
		{Kind: OwnerContainer, Namespace: "other", ID: "a", Created: 1, Interface: "eth0"},
		{Kind: OwnerContainer, Namespace: "other", ID: "a", Created: 1, Interface: "eth1"},
		{Kind: OwnerManual, Namespace: "other", ID: "a", Created: -1, Interface: "eth1"},
	} {
		ok(t, s, BindLease{Fence: fence(t, s, 1), Addr: addr, Owner: o})
		l, _ := s.LeaseByOwner(o)
		equal(t, "address", l.Addr, addr)
		equal(t, "owner", l.Owner, o)
		addr = addr.Next()
	}
}

func TestBindLeaseOverCooling(t *testing.T) {
	t.Parallel()
	s := cluster(t, 1)
	c := bind(t, s, 1, "172.16.0.2", "a")
	ok(t, s, ReleaseLease{c.Fence, c.Addr, c.Owner})
	other := bind(t, s, 1, "172.16.0.2", "b")
	ok(t, s, ReleaseLease{other.Fence, other.Addr, other.Owner})
	// The same owner again, and an owner whose old address still cools.
	ok(t, s, other)
	ok(t, s, BindLease{Fence: c.Fence, Addr: mustAddr("172.16.0.3"), Owner: c.Owner})
	equal(t, "usage", s.Usage(c.Subnet), Usage{Total: 1024, Used: 2, Reserved: 3, Free: 1019})
}
