package nlx

import (
	"errors"
	"net/netip"
	"testing"

	"golang.org/x/sys/unix"

	"stellar.io/stellar/internal/testx"
)

// TestLookupRoute: the table that answers, and what the kernel does with a packet that
// comes in, are told.
func TestLookupRoute(t *testing.T) {
	t.Parallel()
	host := testx.NewLAN(t, 1).Hosts[0]
	c := dial(t, host, unix.NETLINK_ROUTE)
	for _, cmd := range []string{
		"ip link add br0 type bridge", "ip address add 172.16.0.1/22 dev br0", "ip link set br0 up",
		"ip route add 172.16.4.0/22 via 192.0.2.2 proto 147", "ip route add blackhole 172.16.8.0/22 table 100",
		"ip rule add to 172.16.8.0/22 lookup 100 pref 90", "ip route add 172.16.12.0/22 via 192.0.2.9 table 1000", "ip rule add from 172.16.0.0/22 to 172.16.12.0/22 lookup 1000 pref 91",
		"sysctl -qw net.ipv4.conf.br0.forwarding=1",
	} {
		host.Run(t, "sh", "-c", cmd)
	}
	br0, err := c.LinkByName("br0")
	if err != nil {
		t.Fatal(err)
	}
	from := netip.MustParseAddr("172.16.0.2")
	ask := func(dst string, src netip.Addr, in int) Answer {
		t.Helper()
		a, err := c.LookupRoute(Query{Dst: netip.MustParseAddr(dst), Src: src, In: in})
		if err != nil {
			t.Fatal(err)
		}
		return a
	}
	if a := ask("172.16.4.9", from, br0.Index); a.Err != nil || a.Table != unix.RT_TABLE_MAIN || a.Via != netip.MustParseAddr("192.0.2.2") || a.Protocol != 147 {
		t.Errorf("a peer's subnet: %+v", a)
	}
	if a := ask("172.16.12.9", from, br0.Index); a.Err != nil || a.Table != 1000 {
		t.Errorf("by a rule: %+v", a)
	}
	if a := ask("172.16.8.9", netip.Addr{}, 0); a.Err == nil {
		t.Errorf("a blackhole: %+v", a)
	}
	if a := ask("172.16.0.1", from, br0.Index); a.Err != nil || a.Type != unix.RTN_LOCAL || a.Table != unix.RT_TABLE_LOCAL {
		t.Errorf("the host itself: %+v", a)
	}
	host.Run(t, "sysctl", "-qw", "net.ipv4.conf.br0.forwarding=0")
	if a := ask("172.16.4.9", from, br0.Index); !errors.Is(a.Err, unix.EHOSTUNREACH) {
		t.Errorf("without forwarding: %+v", a)
	}
	rules, err := c.Rules()
	if err != nil {
		t.Fatal(err)
	}
	seen := map[uint32]uint32{}
	for _, r := range rules {
		seen[r.Priority] = r.Table
	}
	if seen[90] != 100 || seen[91] != 1000 || seen[32766] != unix.RT_TABLE_MAIN {
		t.Errorf("rules %+v", rules)
	}
}

// TestBridgeDetail: ports, the forwarding table and neighbours are as they were set.
func TestBridgeDetail(t *testing.T) {
	t.Parallel()
	host := testx.NewNetNS(t)
	c := dial(t, host, unix.NETLINK_ROUTE)
	for _, cmd := range []string{
		"ip link add br0 type bridge", "ip link set br0 up", "ip address add 172.16.0.1/22 dev br0",
		"ip link add v0 type veth peer name v1", "ip link set v0 master br0 up", "ip link set v1 up",
		"bridge link set dev v0 isolated on", "bridge fdb add 02:73:ac:10:00:02 dev v0 master static",
		"ip neigh add 172.16.0.2 lladdr 02:73:ac:10:00:02 dev br0 nud permanent",
	} {
		host.Run(t, "sh", "-c", cmd)
	}
	v0, err := c.LinkDetail("v0")
	if err != nil || v0.Port == nil || !v0.Port.Isolated || !v0.Port.Learning || !v0.Port.Flooding {
		t.Fatalf("%+v %+v, %v", v0, v0.Port, err)
	}
	if v1, err := c.LinkDetail("v1"); err != nil || v1.Port != nil {
		t.Errorf("%+v, %v", v1, err)
	}
	if _, err := c.LinkDetail("v9"); !errors.Is(err, unix.ENODEV) {
		t.Errorf("an absent one: %v", err)
	}
	fdb, err := c.ForwardingTable(v0.Master)
	if err != nil {
		t.Fatal(err)
	}
	port := 0
	for _, e := range fdb {
		if e.MAC.String() == "02:73:ac:10:00:02" {
			port = e.Index
		}
	}
	if port != v0.Index {
		t.Errorf("port %d, want %d: %+v", port, v0.Index, fdb)
	}
	neighs, err := c.Neighs(v0.Master)
	if err != nil {
		t.Fatal(err)
	}
	for _, n := range neighs {
		if n.Addr == netip.MustParseAddr("172.16.0.2") && n.State == unix.NUD_PERMANENT && n.MAC.String() == "02:73:ac:10:00:02" {
			return
		}
	}
	t.Errorf("the entry is not there: %+v", neighs)
}
