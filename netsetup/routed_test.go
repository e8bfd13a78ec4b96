package netsetup

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"stellar.io/stellar/ipam"
)

// TestRouted: what the host and a container have in routed mode.
func TestRouted(t *testing.T) {
	b := newBed(t, routedMode).ensure()
	one, two := b.attach("172.16.0.2"), b.attach("172.16.3.254")
	mustPing(t, one, "172.16.3.254", "169.254.1.1", "192.0.2.1", "192.0.2.254")
	mustPing(t, two, "172.16.0.2")
	for _, tt := range []struct {
		in   func(args ...string) string
		args []string
		want []string
	}{
		{one.run, []string{"ip", "route"}, []string{"default via 169.254.1.1 dev eth0 proto 147 onlink"}},
		{one.run, []string{"ip", "address", "show", "dev", "eth0"}, []string{"inet 172.16.0.2/32 scope global eth0"}},
		{one.run, []string{"ip", "neigh"}, []string{"169.254.1.1 dev eth0 lladdr " + hostMACFor(one.spec.Addr).String() + " PERMANENT"}},
		{b.hostRun, []string{"ip", "route"}, []string{
			"172.16.0.2 dev " + one.ep.HostIfname + " proto 147 scope link src 169.254.1.1",
			"172.16.3.254 dev " + two.ep.HostIfname + " proto 147 scope link src 169.254.1.1",
			"unreachable 172.16.0.0/22 proto 147 metric 4294967294"}},
		{b.hostRun, []string{"ip", "neigh"}, []string{"172.16.0.2 dev " + one.ep.HostIfname + " lladdr " + MACFor(one.spec.Addr).String() + " PERMANENT"}},
	} {
		out := tt.in(tt.args...)
		for _, want := range tt.want {
			if !strings.Contains(out, want) {
				t.Errorf("%v: no %q in\n%s", tt.args, want, out)
			}
		}
	}
}

func (b *bed) hostRun(args ...string) string {
	b.t.Helper()
	return b.host.Run(b.t, args[0], args[1:]...)
}

// TestRoutedRepair breaks one thing at a time while Run watches.
func TestRoutedRepair(t *testing.T) {
	t.Parallel()
	b := newBed(t, routedMode).ensure()
	b.run()
	one, two := b.attach("172.16.0.2"), b.attach("172.16.0.3")
	mustPing(t, one, "172.16.0.3", "169.254.1.1")
	port := one.ep.HostIfname
	b.host.Run(t, "ip", "link", "add", "side0", "type", "bridge")
	b.host.Run(t, "ip", "link", "set", "side0", "up")
	conf := func(key string) string { return "net.ipv4.conf." + port + "." + key }
	tests := []struct {
		name   string
		breaks []string
		what   string // of OnRepair
	}{
		{"port down", []string{"ip", "link", "set", port, "down"}, "port"},
		{"port in a bridge", []string{"ip", "link", "set", port, "master", "side0"}, "port"},
		{"port MAC", []string{"ip", "link", "set", port, "address", "02:00:00:00:00:09"}, "port"},
		{"port group", []string{"ip", "link", "set", port, "group", "7"}, "port"},
		{"port alias", []string{"ip", "link", "set", port, "alias", ""}, "port"},
		{"forwarding", []string{"sysctl", conf("forwarding") + "=0"}, "port"},
		{"reverse path filter", []string{"sysctl", conf("rp_filter") + "=0"}, "port"},
		{"route", []string{"ip", "route", "del", "172.16.0.2"}, "endpoint route"},
		{"routes of the link", []string{"ip", "route", "flush", "dev", port}, "endpoint route"},
		{"route of ours to elsewhere", []string{"ip", "route", "replace", "172.16.0.2", "dev", "side0", "proto", "147"}, "endpoint route"},
		{"route without source", []string{"ip", "route", "replace", "172.16.0.2", "dev", port, "proto", "147"}, "endpoint route"},
		{"neighbour", []string{"ip", "neigh", "del", "172.16.0.2", "dev", port}, "neighbour"},
		{"neighbours", []string{"ip", "neigh", "flush", "dev", port, "nud", "permanent"}, "neighbour"},
		{"neighbour MAC", []string{"ip", "neigh", "replace", "172.16.0.2", "lladdr", "02:00:00:00:00:09", "dev", port}, "neighbour"},
		{"neighbour not permanent", []string{"ip", "neigh", "replace", "172.16.0.2", "lladdr", MACFor(one.spec.Addr).String(), "nud", "stale", "dev", port}, "neighbour"},
		{"last resort", []string{"ip", "route", "del", "unreachable", "172.16.0.0/22"}, "unreachable route"},
		{"gateway", []string{"ip", "address", "del", "169.254.1.1/32", "dev", "lo"}, "gateway"},
		{"all routes of ours", []string{"ip", "route", "flush", "proto", "147"}, "unreachable route"},
		{"ruleset flushed", []string{"nft", "flush", "ruleset"}, "filter"},
		{"uplink forwarding", []string{"sysctl", "net.ipv4.conf.eth0.forwarding=0"}, "forwarding"},
	}
	right := func() error {
		return errors.Join(b.attached(one), b.attached(two),
			b.hostSays("unreachable 172.16.0.0/22 proto 147 metric 4294967294", "ip", "route"),
			b.hostSays("inet 169.254.1.1/32 scope link lo", "ip", "address", "show", "lo"),
			b.hostSays("masquerade", "nft", "list", "ruleset"),
			b.hostSays("master none", "sh", "-c", "ip -d link show "+port+" | grep -o 'master side0' || echo master none"),
			b.hostSays("group 147", "ip", "link", "show", port),
			b.hostSays(one.spec.Owner.ID, "ip", "link", "show", port),
			b.hostSays(hostMACFor(one.spec.Addr).String(), "ip", "link", "show", port),
			b.hostSays("= 1", "sysctl", conf("forwarding")), b.hostSays("= 1", "sysctl", conf("rp_filter")),
			b.hostSays("= 1", "sysctl", "net.ipv4.conf.eth0.forwarding"))
	}
	if err := right(); err != nil {
		t.Fatal(err)
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			b.mu.Lock()
			b.repairs = nil
			b.mu.Unlock()
			b.host.Run(t, tt.breaks[0], tt.breaks[1:]...)
			start := time.Now()
			eventually(t, repairLimit, tt.name, func() error {
				if !b.repaired(tt.what) {
					return fmt.Errorf("no report of %q", tt.what)
				}
				return right()
			})
			t.Logf("restored after %s", time.Since(start))
			mustPing(t, one, "169.254.1.1", "172.16.0.3", "192.0.2.254")
			mustPing(t, two, "172.16.0.2")
		})
	}
	if _, lost := b.reports(); len(lost) > 0 {
		t.Errorf("lost: %+v", lost)
	}
}

// TestRoutedSettings: what of a host's end nobody is told of is put right by the audit.
func TestRoutedSettings(t *testing.T) {
	t.Parallel()
	b := newBed(t, routedMode, func(c *Config) { c.AuditEvery = 300 * time.Millisecond }).ensure()
	b.run()
	c := b.attach("172.16.0.2")
	for _, tt := range []struct{ key, right, wrong string }{
		{"proxy_arp", "0", "1"}, {"accept_redirects", "0", "1"}, {"send_redirects", "0", "1"}, {"accept_source_route", "0", "1"}, {"route_localnet", "0", "1"},
	} {
		key := "net.ipv4.conf." + c.ep.HostIfname + "." + tt.key
		if got := b.sysctl(key); got != tt.right {
			t.Errorf("%s = %s", key, got)
		}
		b.host.Run(t, "sysctl", key+"="+tt.wrong)
		eventually(t, repairLimit, tt.key, func() error { return b.hostSays("= "+tt.right, "sysctl", key) })
	}
}

// TestRoutedForeignRoute: the host has a route of its own to an address.
func TestRoutedForeignRoute(t *testing.T) {
	t.Parallel()
	b := newBed(t, routedMode).ensure()
	b.run()
	b.host.Run(t, "ip", "route", "add", "172.16.0.9", "via", "192.0.2.254")
	c := b.container("172.16.0.9")
	before := state(t, b.host)
	if _, _, err := b.n.Attach(t.Context(), c.spec); !errors.Is(err, ErrHostRoute) {
		t.Fatalf("Attach = %v", err)
	}
	if diff := cmp.Diff(before, state(t, b.host)); diff != "" {
		t.Errorf("host changed: %s", diff)
	}
	// One that takes the place of ours is not touched, and ours comes back after it.
	c = b.attach("172.16.0.10")
	b.host.Run(t, "ip", "route", "replace", "172.16.0.10", "via", "192.0.2.254")
	time.Sleep(5 * settle)
	if err := b.hostSays("172.16.0.10 via 192.0.2.254", "ip", "route"); err != nil {
		t.Error(err)
	}
	b.host.Run(t, "ip", "route", "del", "172.16.0.10")
	eventually(t, repairLimit, "our route", func() error { return b.attached(c) })
}

// TestLastResort: packets for an address of the subnet that no endpoint has are
// refused, wherever they come from; a peer's node sends all of the subnet here.
func TestLastResort(t *testing.T) {
	t.Parallel()
	b := newBed(t, routedMode).ensure()
	c := b.attach("172.16.0.2")
	b.lan.Outside.Run(t, "ip", "route", "add", "172.16.0.0/22", "via", "192.0.2.1")
	b.lan.Outside.Run(t, "ping", "-n", "-c", "1", "-W", "2", "172.16.0.2")
	// Whatever comes back was led in a circle.
	b.lan.Outside.Run(t, "nft", "add table inet seen; add chain inet seen in { type filter hook prerouting priority 0; }; "+
		"add rule inet seen in ip daddr 172.16.0.0/22 counter")
	ping := []string{"ping", "-n", "-c", "1", "-W", "2", "172.16.0.77"}
	out, err := b.lan.Outside.Output(ping[0], ping[1:]...)
	if err == nil || !strings.Contains(out, "From 192.0.2.1 icmp_seq=1 Destination Host Unreachable") {
		t.Errorf("from outside: %v\n%s", err, out)
	}
	out, err = c.output(ping...)
	if err == nil || !strings.Contains(out, "From 169.254.1.1 icmp_seq=1 Destination Host Unreachable") {
		t.Errorf("from a container: %v\n%s", err, out)
	}
	if out, err = b.host.Output(ping[0], ping[1:]...); err == nil {
		t.Errorf("from the host: %s", out)
	}
	if out := b.lan.Outside.Run(t, "nft", "list", "table", "inet", "seen"); !strings.Contains(out, "packets 0 ") {
		t.Errorf("something left the node: %s", out)
	}
}

// TestChangeMode: without endpoints a node changes its mode, and nothing of the
// other mode stays; with endpoints it does not.
func TestChangeMode(t *testing.T) {
	t.Parallel()
	b := newBed(t).ensure()
	networks := map[ipam.Mode]*Network{ipam.ModeBridge: b.n}
	b.cfg.Mode = ipam.ModeRouted
	networks[ipam.ModeRouted] = b.network()
	traces := map[ipam.Mode][]string{ipam.ModeBridge: {DefaultBridge}, ipam.ModeRouted: {"169.254.1.1", "unreachable"}}
	for _, mode := range []ipam.Mode{ipam.ModeBridge, ipam.ModeRouted} {
		other := ipam.ModeBridge + ipam.ModeRouted - mode
		b.n = networks[mode]
		b.n.alone.Store(false) // as of a new process
		b.ensure()
		c := b.attach("172.16.0.2")
		mustPing(t, c, b.gateway(), "192.0.2.254")
		before := state(t, b.host)
		for _, trace := range traces[other] {
			if strings.Contains(before, trace) {
				t.Errorf("%s is left in %s mode:\n%s", trace, mode, before)
			}
		}
		n := networks[other]
		n.alone.Store(false)
		ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
		errAttach := func() error { _, _, err := n.Attach(t.Context(), b.container("172.16.0.3").spec); return err }()
		for what, err := range map[string]error{"Ensure": n.Ensure(t.Context()), "Attach": errAttach} {
			if !errors.Is(err, ErrOtherMode) {
				t.Errorf("%s in %s mode = %v", what, other, err)
			}
		}
		_ = n.Run(ctx)
		cancel()
		if diff := cmp.Diff(before, state(t, b.host)); diff != "" {
			t.Errorf("host changed: %s", diff)
		}
		if eps, err := n.List(t.Context()); err != nil || len(eps) != 1 {
			t.Errorf("List = %v, %v", eps, err)
		}
		if err := n.Detach(t.Context(), c.spec.Owner); err != nil {
			t.Error(err)
		}
	}
}

// TestOtherSubnet: a node that has been given another subnet leaves no route for the
// one before, and those of other programs alone.
func TestOtherSubnet(t *testing.T) {
	t.Parallel()
	b := newBed(t, routedMode).ensure()
	b.host.Run(t, "ip", "route", "add", "unreachable", "172.16.64.0/22", "metric", "4294967294")
	b.cfg.Subnet = netip.MustParsePrefix("172.16.8.0/22")
	b.n = b.network()
	b.ensure()
	out := b.host.Run(t, "ip", "route")
	if strings.Contains(out, "unreachable 172.16.0.0/22") {
		t.Errorf("left: %s", out)
	}
	for _, want := range []string{"unreachable 172.16.8.0/22 proto 147", "unreachable 172.16.64.0/22"} {
		if !strings.Contains(out, want) {
			t.Errorf("no %q in %s", want, out)
		}
	}
}

// TestRoutedCapacity: as many endpoints as the subnet has addresses.
func TestRoutedCapacity(t *testing.T) {
	t.Parallel()
	b := newBed(t, routedMode, func(c *Config) { c.Subnet = netip.MustParsePrefix("172.16.0.0/29") }).ensure()
	for i := range 6 {
		b.attach(fmt.Sprintf("172.16.0.%d", i+1))
	}
	if _, _, err := b.n.Attach(t.Context(), b.container("172.16.0.7").spec); !errors.Is(err, ErrFull) {
		t.Errorf("Attach = %v", err)
	}
}

// TestRoutedOwnMAC: an endpoint with a hardware address of its own is repaired by a
// process that has not attached it.
func TestRoutedOwnMAC(t *testing.T) {
	t.Parallel()
	b := newBed(t, routedMode).ensure()
	c := b.container("172.16.0.2")
	c.spec.MAC = net.HardwareAddr{2, 1, 2, 3, 4, 5}
	ep, _, err := b.n.Attach(t.Context(), c.spec)
	if err != nil {
		t.Fatal(err)
	}
	b.host.Run(t, "ip", "neigh", "del", "172.16.0.2", "dev", ep.HostIfname)
	b.n = b.network()
	b.run()
	for range 2 { // found broken, and broken while watched
		eventually(t, repairLimit, "neighbour", func() error {
			return b.hostSays("172.16.0.2 dev "+ep.HostIfname+" lladdr 02:01:02:03:04:05 PERMANENT", "ip", "neigh")
		})
		b.host.Run(t, "ip", "neigh", "del", "172.16.0.2", "dev", ep.HostIfname)
	}
	eventually(t, repairLimit, "neighbour", func() error {
		return b.hostSays("172.16.0.2 dev "+ep.HostIfname+" lladdr 02:01:02:03:04:05 PERMANENT", "ip", "neigh")
	})
	b.host.Run(t, "ping", "-n", "-c", "1", "-W", "2", "172.16.0.2")
}
