package nlx

import (
	"errors"
	"net/netip"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"stellar.io/stellar/internal/testx"
)

// TestMainRoutes: what ip(8) makes is read in full, and what is read can be deleted.
func TestMainRoutes(t *testing.T) {
	t.Parallel()
	host := testx.NewLAN(t, 1).Hosts[0]
	c := dial(t, host, unix.NETLINK_ROUTE)
	eth0, err := c.LinkByName("eth0")
	if err != nil {
		t.Fatal(err)
	}
	gateway := netip.MustParseAddr("192.0.2.9")
	routed := FIBRoute{Type: unix.RTN_UNICAST, Protocol: 147, Via: gateway, Routed: true, Index: eth0.Index}
	with := func(change func(*FIBRoute)) FIBRoute {
		r := routed
		change(&r)
		return r
	}
	tests := []struct {
		name, text string
		want       FIBRoute
	}{
		{"via", "172.16.4.0/22 via 192.0.2.9 proto 147", routed},
		{"metric and tos", "172.16.4.0/22 tos 0x10 via 192.0.2.9 proto 147 metric 7", with(func(r *FIBRoute) { r.Metric, r.TOS = 7, 16 })},
		{"on link", "172.16.4.0/22 dev eth0 proto 147", with(func(r *FIBRoute) { r.Via, r.Routed, r.Scope = netip.Addr{}, false, unix.RT_SCOPE_LINK })},
		{"unreachable", "unreachable 172.16.4.0/22 proto 147", FIBRoute{Type: unix.RTN_UNREACHABLE, Protocol: 147}},
		{"largest metric", "172.16.4.0/22 via 192.0.2.9 proto 147 metric 4294967295", with(func(r *FIBRoute) { r.Metric = 1<<32 - 1 })},
		{"mtu", "172.16.4.0/22 via 192.0.2.9 proto 147 mtu 1000", with(func(r *FIBRoute) { r.Odd = true })},
		{"source", "172.16.4.0/22 via 192.0.2.9 proto 147 src 192.0.2.1", with(func(r *FIBRoute) { r.Odd = true })},
		{"onlink", "172.16.4.0/22 via 192.0.2.9 dev eth0 onlink proto 147", with(func(r *FIBRoute) { r.Odd = true })},
		{"two hops", "172.16.4.0/22 proto 147 nexthop via 192.0.2.9 nexthop via 192.0.2.8", with(func(r *FIBRoute) { r.Odd = true })},
		{"IPv6 gateway", "172.16.4.0/22 via inet6 fe80::1 dev eth0 proto 147", with(func(r *FIBRoute) { r.Odd, r.Via = true, netip.Addr{} })},
	}
	for _, tt := range tests {
		host.Run(t, "sh", "-c", "ip route add "+tt.text)
		tt.want.Dst = netip.MustParsePrefix("172.16.4.0/22")
		got := ours(t, c)
		if len(got) != 1 || got[0] != tt.want {
			t.Fatalf("%s:\ngot  %+v\nwant %+v", tt.name, got, tt.want)
		}
		do(t, c, DelMainRoute(got[0]))
		if left := ours(t, c); len(left) != 0 {
			t.Fatalf("%s: left %+v", tt.name, left)
		}
		if tt.want.Odd {
			continue
		}
		do(t, c, NewMainRoute(tt.want, false))
		if got := ours(t, c); len(got) != 1 || got[0] != tt.want {
			t.Errorf("%s, made here: %+v", tt.name, got)
		}
		errs, err := c.ChangeRoutes([]*Message{NewMainRoute(tt.want, false), NewMainRoute(tt.want, true), DelMainRoute(tt.want), DelMainRoute(tt.want)})
		if err != nil || !errors.Is(errs[0], unix.EEXIST) || errs[1] != nil || errs[2] != nil || !errors.Is(errs[3], unix.ESRCH) {
			t.Errorf("%s: %v, %v", tt.name, errs, err)
		}
	}
}

func ours(t *testing.T, c *Conn) (out []FIBRoute) {
	t.Helper()
	rs, err := c.MainRoutes()
	if err != nil {
		t.Fatal(err)
	}
	for _, r := range rs {
		if r.Protocol == 147 {
			out = append(out, r)
		}
	}
	return out
}

// TestDelMainRouteSparesOthers: a route with the same key and another protocol
// is never hit.
func TestDelMainRouteSparesOthers(t *testing.T) {
	t.Parallel()
	host := testx.NewLAN(t, 1).Hosts[0]
	c := dial(t, host, unix.NETLINK_ROUTE)
	host.Run(t, "ip", "route", "add", "172.16.4.0/22", "via", "192.0.2.9", "proto", "static")
	host.Run(t, "ip", "route", "append", "172.16.4.0/22", "via", "192.0.2.9", "proto", "147")
	r := ours(t, c)[0]
	do(t, c, DelMainRoute(r))
	reply, err := c.Do(DelMainRoute(r))
	if err != nil || !errors.Is(reply[0].Err, unix.ESRCH) {
		t.Errorf("%v, %v", reply[0].Err, err)
	}
	if out := host.Run(t, "ip", "route", "show", "proto", "static"); out == "" {
		t.Error("the static route is gone")
	}
}

// TestRouteTo asks 1,000 questions at once, of every kind.
func TestRouteTo(t *testing.T) {
	t.Parallel()
	lan := testx.NewLAN(t, 1)
	host := lan.Hosts[0]
	c := dial(t, host, unix.NETLINK_ROUTE)
	host.Run(t, "ip", "route", "add", "unreachable", "198.18.0.0/15")
	host.Run(t, "ip", "route", "add", "203.0.113.0/24", "via", "inet6", "fe80::1", "dev", "eth0")
	eth0, err := c.LinkByName("eth0")
	if err != nil {
		t.Fatal(err)
	}
	router := netip.MustParseAddr("192.0.2.254")
	tests := []struct {
		addr string
		ok   func(Lookup) bool
	}{
		{"192.0.2.9", func(l Lookup) bool {
			return l.Err == nil && !l.Routed && l.Index == eth0.Index && l.Type == unix.RTN_UNICAST && !l.LinkDown
		}},
		{"198.51.100.1", func(l Lookup) bool { return l.Err == nil && l.Via == router && l.Routed && l.Dst.Bits() == 0 }},
		{"198.18.0.1", func(l Lookup) bool { return errors.Is(l.Err, unix.EHOSTUNREACH) }},
		{"203.0.113.1", func(l Lookup) bool { return l.Err == nil && l.Routed && !l.Via.IsValid() }},
		{"192.0.2.1", func(l Lookup) bool { return l.Err == nil && l.Type == unix.RTN_LOCAL && l.Index == eth0.Index }},
		{"192.0.2.255", func(l Lookup) bool { return l.Err == nil && l.Type == unix.RTN_BROADCAST }},
	}
	var addrs []netip.Addr
	for i := range 1000 {
		addrs = append(addrs, netip.MustParseAddr(tests[i%len(tests)].addr))
	}
	got, err := c.RouteTo(addrs)
	if err != nil || len(got) != len(addrs) {
		t.Fatal(len(got), err)
	}
	for i, l := range got {
		if tt := tests[i%len(tests)]; !tt.ok(l) {
			t.Errorf("%s: %+v", tt.addr, l)
		}
	}
	lan.Outside.Run(t, "ip", "link", "set", "port1", "down")
	// The kernel acts on a lost carrier a while later, on a work queue.
	for end := time.Now().Add(10 * time.Second); ; time.Sleep(10 * time.Millisecond) {
		got, err := c.RouteTo(addrs[:1])
		if err == nil && got[0].LinkDown {
			break
		}
		if err != nil || time.Now().After(end) {
			t.Fatalf("without carrier: %+v, %v", got, err)
		}
	}
	// A rule and another table have their say.
	host.Run(t, "ip", "rule", "add", "to", "192.0.2.9", "lookup", "77")
	host.Run(t, "ip", "route", "add", "192.0.2.9", "via", "192.0.2.254", "table", "77")
	if got, err := c.RouteTo(addrs[:1]); err != nil || got[0].Via != router {
		t.Errorf("by a rule: %+v, %v", got, err)
	}
}

func TestReversePathFilter(t *testing.T) {
	t.Parallel()
	host := testx.NewLAN(t, 1).Hosts[0]
	c := dial(t, host, unix.NETLINK_ROUTE)
	eth0, err := c.LinkByName("eth0")
	if err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		all, own string
		want     int
	}{{"0", "0", 0}, {"0", "1", 1}, {"1", "0", 1}, {"1", "2", 2}, {"2", "1", 2}} {
		host.Run(t, "sysctl", "-q", "net.ipv4.conf.all.rp_filter="+tt.all, "net.ipv4.conf.eth0.rp_filter="+tt.own)
		if got, err := c.ReversePathFilter(eth0.Index); err != nil || got != tt.want {
			t.Errorf("all %s, own %s: %d, %v; want %d", tt.all, tt.own, got, err, tt.want)
		}
	}
	if _, err := c.ReversePathFilter(99); err == nil {
		t.Error("no error for an interface that does not exist")
	}
}

// FuzzParseFIBRoute: whatever the bytes, no panic, and what is a route has a destination.
func FuzzParseFIBRoute(f *testing.F) {
	r := FIBRoute{Dst: netip.MustParsePrefix("172.16.4.0/22"), Type: unix.RTN_UNICAST, Protocol: 147, Via: netip.MustParseAddr("192.0.2.9"), Index: 2, Metric: 7}
	f.Add(NewMainRoute(r, false).b[unix.SizeofNlMsghdr:])
	f.Add([]byte{})
	f.Fuzz(func(t *testing.T, b []byte) {
		if r, ok := ParseFIBRoute(b); ok && !r.Dst.IsValid() {
			t.Errorf("%+v", r)
		}
		LinkState(b)
		NetconfIndex(b)
	})
}
