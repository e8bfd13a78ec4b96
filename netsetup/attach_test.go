package netsetup

import (
	"errors"
	"fmt"
	"net/netip"
	"regexp"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"stellar.io/stellar/internal/testx"
)

func TestAttach(t *testing.T) {
	b := newBed(t).ensure()
	one, two := b.attach("172.16.0.2"), b.attach("172.16.0.3")
	mustPing(t, one, "172.16.0.3", "172.16.0.1")
	mustPing(t, two, "172.16.0.2")

	for _, want := range []string{"default via 172.16.0.1 dev eth0 proto 147", "172.16.0.0/22 dev eth0 proto kernel scope link src 172.16.0.2"} {
		if out := one.run("ip", "route"); !strings.Contains(out, want) {
			t.Errorf("no %q in the container's routes:\n%s", want, out)
		}
	}
	// No IPv6 address but lo's on either end, nor on the bridge.
	if out := one.run("ip", "-6", "address", "show", "dev", "eth0"); out != "" {
		t.Errorf("IPv6 in the container: %s", out)
	}
	for _, link := range []string{DefaultBridge, one.ep.HostIfname} {
		if out := b.host.Run(t, "ip", "-6", "address", "show", "dev", link); out != "" {
			t.Errorf("IPv6 on %s: %s", link, out)
		}
	}
	want := Endpoint{
		Owner: one.spec.Owner, Node: testNode.Short(), Addr: one.spec.Addr, MAC: MACFor(one.spec.Addr), Ifname: "eth0",
		HostIfname: hostName(one.spec.Owner, 0), HostIndex: one.ep.HostIndex, NSID: one.ns.ID(), Up: true,
	}
	if diff := cmp.Diff(want, one.ep, cmpAddr); diff != "" {
		t.Errorf("endpoint: %s", diff)
	}
	eps, err := b.n.List(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]Endpoint{one.ep, two.ep}, eps, cmpAddr); diff != "" {
		t.Errorf("List: %s", diff)
	}
}

// TestFirstPacket: what a container sends first is not lost. A lost address
// resolution would cost it a second.
func TestFirstPacket(t *testing.T) {
	inModes(t, testFirstPacketIn)
}

func testFirstPacketIn(t *testing.T, mode func(*Config)) {
	b := newBed(t, mode).ensure()
	other := b.attach("172.16.1.1")
	mustPing(t, other, b.gateway())
	for i := range 40 {
		c := b.attach(fmt.Sprintf("172.16.0.%d", i+2))
		if out, err := c.output("ping", "-n", "-c", "1", "-W", "0.9", "172.16.1.1"); err != nil {
			t.Errorf("container %d: %s", i, out)
		}
	}
}

var cmpAddr = cmp.Comparer(func(a, b netip.Addr) bool { return a == b })

// state is all of a namespace's network as text, without what moves by itself.
func state(t *testing.T, ns *testx.NetNS) string {
	t.Helper()
	var out strings.Builder
	for _, args := range [][]string{{"link"}, {"address"}, {"route", "show", "table", "all"}} {
		out.WriteString(ns.Run(t, "ip", args...))
	}
	out.WriteString(ns.Run(t, "nft", "-s", "list", "ruleset")) // -s: without counters
	return carrier.ReplaceAllString(out.String(), "")
}

// carrier is what ip says of links' carriers, on which the kernel acts in its own time,
// of IPv6 addresses, and of a link whose other end's namespace is dying.
var carrier = regexp.MustCompile(`(?m:^.*fe80::.*\n(\s+valid_lft.*\n)?)|Error: Peer netns reference is invalid.\n|NO-CARRIER,|,LOWER_UP| state [A-Z]+| linkdown| tentative`)

func TestAttachAgainChangesNothing(t *testing.T) {
	inModes(t, testAttachAgainChangesNothingIn)
}

func testAttachAgainChangesNothingIn(t *testing.T, mode func(*Config)) {
	b := newBed(t, mode).ensure()
	c := b.attach("172.16.0.2")
	mustPing(t, c, b.gateway())
	b.ensure() // turns IPv6 off on the new port
	before, inside := state(t, b.host), c.run("ip", "address")
	for range 3 {
		ep, timing, err := b.n.Attach(t.Context(), c.spec)
		if err != nil || ep.HostIndex != c.ep.HostIndex || !timing.Adopted {
			t.Fatalf("Attach = %+v, %+v, %v", ep, timing, err)
		}
		if err := b.n.Ensure(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	if diff := cmp.Diff(before, state(t, b.host)); diff != "" {
		t.Errorf("host changed: %s", diff)
	}
	if diff := cmp.Diff(inside, c.run("ip", "address")); diff != "" {
		t.Errorf("container changed: %s", diff)
	}
	b.quiet()
}

// TestAdopt: a later process finds what an earlier one attached, keeps its links,
// and repairs what has suffered meanwhile.
func TestAdopt(t *testing.T) {
	inModes(t, testAdoptIn)
}

func testAdoptIn(t *testing.T, mode func(*Config)) {
	b := newBed(t, mode).ensure()
	c := b.attach("172.16.0.2")
	b.host.Run(t, "ip", "link", "set", c.ep.HostIfname, "nomaster")
	b.host.Run(t, "ip", "link", "set", c.ep.HostIfname, "down")
	c.run("ip", "link", "set", "eth0", "address", "02:00:00:00:00:01")
	c.run("ip", "address", "flush", "dev", "eth0")

	later := b.network()
	eps, err := later.List(t.Context())
	if err != nil || len(eps) != 1 || eps[0].Owner != c.spec.Owner || eps[0].Addr != c.spec.Addr || eps[0].HostIndex != c.ep.HostIndex {
		t.Fatalf("List = %+v, %v", eps, err)
	}
	ep, timing, err := later.Attach(t.Context(), c.spec)
	if err != nil || ep.HostIndex != c.ep.HostIndex || !timing.Adopted {
		t.Fatalf("Attach = %+v, %+v, %v", ep, timing, err)
	}
	mustPing(t, c, b.gateway())
	if err := b.attached(c); err != nil {
		t.Error(err)
	}
	if out := c.run("ip", "link"); !strings.Contains(out, MACFor(c.spec.Addr).String()) {
		t.Errorf("hardware address not restored: %s", out)
	}
}

func TestAttachWithOtherAddress(t *testing.T) {
	inModes(t, testAttachWithOtherAddressIn)
}

func testAttachWithOtherAddressIn(t *testing.T, mode func(*Config)) {
	b := newBed(t, mode).ensure()
	c := b.attach("172.16.0.2")
	c.spec.Addr = netip.MustParseAddr("172.16.0.9")
	ep, timing, err := b.n.Attach(t.Context(), c.spec)
	if err != nil || timing.Adopted || ep.Addr != c.spec.Addr {
		t.Fatalf("Attach = %+v, %+v, %v", ep, timing, err)
	}
	mustPing(t, c, b.gateway())
	if out := c.run("ip", "address"); strings.Contains(out, "172.16.0.2/") {
		t.Errorf("old address left: %s", out)
	}
	if eps, err := b.n.List(t.Context()); err != nil || len(eps) != 1 {
		t.Errorf("List = %+v, %v", eps, err)
	}
}

// TestAttachTaskRestarted: the same owner comes back in a new namespace while the
// old one, pinned by someone, still holds the old link.
func TestAttachTaskRestarted(t *testing.T) {
	inModes(t, testAttachTaskRestartedIn)
}

func testAttachTaskRestartedIn(t *testing.T, mode func(*Config)) {
	b := newBed(t, mode).ensure()
	old := b.attach("172.16.0.2")
	next := b.container("172.16.0.2")
	ep, timing, err := b.n.Attach(t.Context(), next.spec)
	if err != nil || timing.Adopted || ep.NSID != next.ns.ID() {
		t.Fatalf("Attach = %+v, %+v, %v", ep, timing, err)
	}
	mustPing(t, next, b.gateway())
	if out := old.run("ip", "link"); strings.Contains(out, "eth0") {
		t.Errorf("the old namespace kept its interface: %s", out)
	}
}

func TestAttachForeignName(t *testing.T) {
	inModes(t, testAttachForeignNameIn)
}

func testAttachForeignNameIn(t *testing.T, mode func(*Config)) {
	b := newBed(t, mode).ensure()
	c := b.container("172.16.0.2")
	taken := hostName(c.spec.Owner, 0)
	b.host.Run(t, "ip", "link", "add", taken, "type", "bridge")
	ep, _, err := b.n.Attach(t.Context(), c.spec)
	if err != nil || ep.HostIfname != hostName(c.spec.Owner, 1) {
		t.Fatalf("Attach = %+v, %v", ep, err)
	}
	mustPing(t, c, b.gateway())
	if err := b.n.Detach(t.Context(), c.spec.Owner); err != nil {
		t.Fatal(err)
	}
	b.host.Run(t, "ip", "link", "show", taken) // fails the test if it is gone
}

// TestAttachHalfMade: a process that died between the two requests to the host
// leaves a link in our group without an alias.
func TestAttachHalfMade(t *testing.T) {
	inModes(t, testAttachHalfMadeIn)
}

func testAttachHalfMadeIn(t *testing.T, mode func(*Config)) {
	b := newBed(t, mode).ensure()
	c := b.container("172.16.0.2")
	b.host.Run(t, "ip", "link", "add", hostName(c.spec.Owner, 0), "group", "147", "type", "veth", "peer", "name", "half0")
	b.host.Run(t, "ip", "link", "add", "vethother", "group", "147", "type", "veth", "peer", "name", "other0")
	later := b.network()
	if ep, _, err := later.Attach(t.Context(), c.spec); err != nil || ep.HostIfname != hostName(c.spec.Owner, 0) {
		t.Fatalf("Attach = %+v, %v", ep, err)
	}
	mustPing(t, c, b.gateway())
	if out, err := b.host.Output("ip", "link", "show", "vethother"); err == nil {
		t.Errorf("half-made link left: %s", out)
	}
}

func TestAttachRefused(t *testing.T) {
	inModes(t, testAttachRefusedIn)
}

func testAttachRefusedIn(t *testing.T, mode func(*Config)) {
	b := newBed(t, mode).ensure()
	tests := []struct {
		name    string
		prepare []string // a command in the container
		change  func(*Spec)
		want    error
	}{
		{"interface exists", []string{"ip", "link", "add", "eth0", "type", "bridge"}, func(*Spec) {}, ErrInterfaceExists},
		{"default route", []string{"sh", "-c", "ip link add br0 type bridge; ip address add 10.9.0.2/24 dev br0; ip link set br0 up; ip route add default via 10.9.0.1 metric 100"},
			func(*Spec) {}, ErrDefaultRouteExists},
		{"route to the network", []string{"sh", "-c", "ip link add br0 type bridge; ip link set br0 up; ip route add 172.16.0.0/12 dev br0"},
			func(s *Spec) { s.DefaultRoute = false }, ErrRouteExists},
		{"address outside", nil, func(s *Spec) { s.Addr = netip.MustParseAddr("172.16.4.2") }, ErrInvalid},
		{"gateway's address", nil, func(s *Spec) { s.Addr = netip.MustParseAddr(b.gateway()) }, ErrInvalid},
		{"subnet's own address", nil, func(s *Spec) { s.Addr = netip.MustParseAddr("172.16.0.0") }, ErrInvalid},
		{"interface name", nil, func(s *Spec) { s.Owner.Interface = "a b" }, ErrInvalid},
		{"multicast MAC", nil, func(s *Spec) { s.MAC = []byte{1, 0, 0, 0, 0, 1} }, ErrInvalid},
		{"no namespace", nil, func(s *Spec) { s.NS = nil }, ErrInvalid},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			c := b.container("172.16.0.2")
			if tt.prepare != nil {
				c.run(tt.prepare...)
			}
			tt.change(&c.spec)
			before, inside := state(t, b.host), c.run("ip", "address")
			if _, _, err := b.n.Attach(t.Context(), c.spec); !errors.Is(err, tt.want) {
				t.Fatalf("Attach = %v, want %v", err, tt.want)
			}
			if diff := cmp.Diff(before, state(t, b.host)); diff != "" {
				t.Errorf("host changed: %s", diff)
			}
			if diff := cmp.Diff(inside, c.run("ip", "address")); diff != "" {
				t.Errorf("container changed: %s", diff)
			}
		})
	}
}

// TestAttachBesideAnother: a container that has a network of its own gets ours
// without a default route, but with a way to the whole network.
func TestAttachBesideAnother(t *testing.T) {
	inModes(t, testAttachBesideAnotherIn)
}

func testAttachBesideAnotherIn(t *testing.T, mode func(*Config)) {
	b := newBed(t, mode).ensure()
	c := b.container("172.16.0.2")
	c.run("sh", "-c", "ip link add eth0 type bridge; ip address add 10.9.0.2/24 dev eth0; ip link set eth0 up; ip route add default via 10.9.0.1")
	info, err := b.n.Inspect(t.Context(), c.ns)
	if err != nil || !info.Has("eth0") || info.Has("stellar0") || !info.DefaultRoute || info.DefaultRouteOurs || info.DefaultVia != "eth0" {
		t.Fatalf("Inspect = %+v, %v", info, err)
	}
	c.spec.DefaultRoute, c.spec.Owner.Interface = false, "stellar0"
	if _, _, err := b.n.Attach(t.Context(), c.spec); err != nil {
		t.Fatal(err)
	}
	mustPing(t, c, b.gateway())
	out := c.run("ip", "route")
	for _, want := range []string{"172.16.0.0/12 via " + b.gateway() + " dev stellar0", "default via 10.9.0.1 dev eth0"} {
		if !strings.Contains(out, want) {
			t.Errorf("no %q in %s", want, out)
		}
	}
	if strings.Count(out, "default") != 1 {
		t.Errorf("default routes: %s", out)
	}
	// Its other network would be the way to any other address of the host.
	b.host.Run(t, "ping", "-n", "-c", "1", "-W", "2", "172.16.0.2")
}

func TestAttachMTU(t *testing.T) {
	inModes(t, testAttachMTUIn)
}

func testAttachMTUIn(t *testing.T, mode func(*Config)) {
	b := newBed(t, mode)
	b.host.Run(t, "ip", "link", "set", "eth0", "mtu", "1400")
	b.ensure()
	c := b.attach("172.16.0.2")
	odd := b.container("172.16.0.3")
	odd.spec.MTU = 1000
	if _, _, err := b.n.Attach(t.Context(), odd.spec); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{DefaultBridge, c.ep.HostIfname} {
		if want == DefaultBridge && b.n.routed() {
			continue
		}
		if err := b.hostSays("mtu 1400", "ip", "link", "show", want); err != nil {
			t.Error(err) // one odd port must not lower the bridge
		}
	}
	if out := odd.run("ip", "link", "show", "eth0"); !strings.Contains(out, "mtu 1000") {
		t.Error(out)
	}
}

// TestAttachWithoutBridge: somebody deletes the bridge and nobody watches.
func TestAttachWithoutBridge(t *testing.T) {
	b := newBed(t).ensure()
	b.host.Run(t, "ip", "link", "delete", DefaultBridge)
	c := b.attach("172.16.0.2")
	mustPing(t, c, "172.16.0.1")
}

func TestForeignBridge(t *testing.T) {
	b := newBed(t)
	b.host.Run(t, "ip", "link", "add", DefaultBridge, "type", "bridge")
	before := state(t, b.host)
	if err := b.n.Ensure(t.Context()); !errors.Is(err, ErrForeignBridge) {
		t.Errorf("Ensure = %v", err)
	}
	c := b.container("172.16.0.2")
	if _, _, err := b.n.Attach(t.Context(), c.spec); !errors.Is(err, ErrForeignBridge) {
		t.Errorf("Attach = %v", err)
	}
	if diff := cmp.Diff(strings.Split(before, "table inet")[0], strings.Split(state(t, b.host), "table inet")[0]); diff != "" {
		t.Errorf("foreign bridge changed: %s", diff)
	}
}

func TestNoSubnet(t *testing.T) {
	inModes(t, testNoSubnetIn)
}

func testNoSubnetIn(t *testing.T, mode func(*Config)) {
	b := newBed(t, mode, func(c *Config) { c.Subnet = netip.Prefix{} })
	c := b.container("172.16.0.2")
	_, _, err := b.n.Attach(t.Context(), c.spec)
	for what, err := range map[string]error{"Attach": err, "Ensure": b.n.Ensure(t.Context()), "Run": b.n.Run(t.Context())} {
		if !errors.Is(err, ErrNoSubnet) {
			t.Errorf("%s = %v", what, err)
		}
	}
	if err := b.n.Detach(t.Context(), c.spec.Owner); err != nil {
		t.Errorf("Detach = %v", err)
	}
	if err := b.n.Cleanup(t.Context()); err != nil {
		t.Errorf("Cleanup = %v", err)
	}
}
