package nlx

import (
	"net/netip"
	"slices"
	"testing"

	"golang.org/x/sys/unix"

	"stellar.io/stellar/internal/testx"
)

// TestPolicy: what ip(8) and tc(8) have set up is read back.
func TestPolicy(t *testing.T) {
	ns := testx.NewNetNS(t)
	c := dial(t, ns, unix.NETLINK_ROUTE)
	ns.Run(t, "sh", "-ec", `
ip link add v0 type veth peer name v1
ip link add br0 type bridge
ip link set v0 up
ip link set v1 up
ip link set v1 master br0
ip address add 192.0.2.1/24 dev v0
ip route add 172.16.4.0/24 dev v0 table 200
ip route add default via 192.0.2.9 table 51820
ip rule add lookup 200 pref 200
ip rule add fwmark 0x4d lookup 77 pref 77
ip rule add from 10.0.0.0/8 lookup 78 pref 78
ip rule add not fwmark 0xca6c lookup 51820 pref 79
ip rule add lookup main suppress_prefixlength 0 pref 80
ip neigh add 192.0.2.2 lladdr 02:00:00:00:00:02 dev v0 nud permanent
bridge fdb add 02:00:00:00:00:03 dev v1 master static
tc qdisc add dev v0 clsact
tc filter add dev v0 ingress bpf da bytecode '1,6 0 0 2'
ip xfrm policy add src 0.0.0.0/0 dst 172.16.4.0/22 dir fwd action block
ip xfrm policy add src 0.0.0.0/0 dst 172.16.8.0/22 dir out action allow
`)
	rules, err := c.PolicyRules()
	if err != nil {
		t.Fatal(err)
	}
	got := map[uint32]PolicyRule{}
	for _, r := range rules {
		got[r.Priority] = r
	}
	for _, want := range []PolicyRule{
		{Priority: 200, Table: 200, Lookup: true, Always: true}, {Priority: 77, Table: 77, Lookup: true}, {Priority: 78, Table: 78, Lookup: true},
		{Priority: 79, Table: 51820, Lookup: true}, {Priority: 80, Table: unix.RT_TABLE_MAIN, Lookup: true, Always: true, MinBits: 1},
		{Priority: 32766, Table: unix.RT_TABLE_MAIN, Lookup: true, Always: true},
	} {
		if got[want.Priority] != want {
			t.Errorf("rule %+v, want %+v", got[want.Priority], want)
		}
	}
	routes, err := c.AllRoutes()
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []struct {
		table uint32
		dst   string
	}{{200, "172.16.4.0/24"}, {51820, "0.0.0.0/0"}, {unix.RT_TABLE_MAIN, "192.0.2.0/24"}} {
		if !slices.ContainsFunc(routes, func(r TableRoute) bool { return r.Table == want.table && r.Dst == netip.MustParsePrefix(want.dst) }) {
			t.Errorf("no %+v in %+v", want, routes)
		}
	}
	v0, err := c.LinkByName("v0")
	if err != nil {
		t.Fatal(err)
	}
	if found, err := c.TrafficFilters(v0.Index); err != nil || !slices.Equal(found, []TrafficFilter{{Kind: "bpf", Ingress: true}}) {
		t.Errorf("filters %+v, %v", found, err)
	}
	if found, err := c.TrafficFilters(v0.Peer); err != nil || len(found) > 0 {
		t.Errorf("filters of the other end %+v, %v", found, err)
	}
	neighbours, err := c.Neighbours()
	if err != nil || !slices.ContainsFunc(neighbours, func(n Neighbour) bool {
		return n.Addr == netip.MustParseAddr("192.0.2.2") && n.MAC.String() == "02:00:00:00:00:02" && n.State == unix.NUD_PERMANENT
	}) {
		t.Errorf("neighbours %+v, %v", neighbours, err)
	}
	br, err := c.LinkByName("br0")
	if err != nil {
		t.Fatal(err)
	}
	entries, err := c.BridgeEntries()
	if err != nil || !slices.ContainsFunc(entries, func(n Neighbour) bool {
		return n.Bridge == br.Index && n.Index == v0.Peer && n.MAC.String() == "02:00:00:00:00:03" && n.State&unix.NUD_NOARP != 0
	}) {
		t.Errorf("bridge's table %+v, %v", entries, err)
	}
	blocks, err := dial(t, ns, unix.NETLINK_XFRM).BlockPolicies()
	want := []BlockPolicy{{Src: netip.MustParsePrefix("0.0.0.0/0"), Dst: netip.MustParsePrefix("172.16.4.0/22"), Direction: "fwd"}}
	if err != nil || !slices.Equal(blocks, want) {
		t.Errorf("policies %+v, %v", blocks, err)
	}
}
