package routes

import (
	"net/netip"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"stellar.io/stellar/internal/nlx"
	"stellar.io/stellar/internal/testx"
)

// desk is where a test changes what a manager is to want.
type desk struct {
	mu sync.Mutex // guards w
	w  Wants
}

func (d *desk) wants() Wants {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.w
}

func (d *desk) set(change func(*Wants)) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.w.Peers = slices.Clone(d.w.Peers)
	change(&d.w)
}

// startAt starts a manager with the peers b and c.
func startAt(t *testing.T, host *testx.NetNS) (*managed, *desk) {
	t.Helper()
	d := &desk{w: abc()}
	return start(t, host, d.wants), d
}

func (m *managed) state(node string) (State, string) {
	for _, s := range m.Status() {
		if s.Node == node && s.Kind == Via {
			return s.State, s.Reason
		}
	}
	return "", ""
}

// expect waits until a peer's route has a state and ip(8) shows it, or not.
func (m *managed) expect(t *testing.T, host *testx.NetNS, node string, want State, route string, there bool) {
	t.Helper()
	eventually(t, 2*time.Second, node+" is "+string(want)+"; "+route, func() bool {
		state, _ := m.state(node)
		return state == want && strings.Contains(host.Run(t, "ip", "route"), route) == there
	})
}

const (
	ipB = "172.16.4.0/22 via 192.0.2.2 dev eth0 proto 147"
	ipC = "172.16.8.0/22 via 192.0.2.3 dev eth0 proto 147"
)

// TestPing: packets reach a peer's subnet; when it is quarantined they are
// answered at once, and those of the other peer go on.
func TestPing(t *testing.T) {
	t.Parallel()
	lan := testx.NewLAN(t, 3)
	for i, gateway := range []string{"172.16.0.1/22", "172.16.4.1/22", "172.16.8.1/22"} {
		lan.Hosts[i].Run(t, "ip", "link", "add", "stellar0", "type", "bridge")
		lan.Hosts[i].Run(t, "ip", "address", "add", gateway, "dev", "stellar0")
		lan.Hosts[i].Run(t, "ip", "link", "set", "stellar0", "up")
	}
	a := lan.Hosts[0]
	m, d := startAt(t, a)
	m.expect(t, a, "b", OK, ipB, true)
	lan.Hosts[1].Run(t, "ip", "route", "add", "172.16.0.0/22", "via", "192.0.2.1")
	a.Run(t, "ping", "-c1", "-W2", "-I", "172.16.0.1", "172.16.4.1")
	a.Run(t, "ping", "-c1", "-W2", "172.16.8.1")
	d.set(func(w *Wants) { w.Peers[1].Quarantined = true })
	m.Changed()
	m.expect(t, a, "b", "", ipB, false)
	a.Run(t, "ping", "-c1", "-W2", "172.16.8.1")
	refused(t, a, "172.16.4.1")
}

// refused: the kernel says at once that there is no way.
func refused(t *testing.T, ns *testx.NetNS, addr string) {
	t.Helper()
	began := time.Now()
	out, err := ns.Output("ping", "-c1", "-W5", addr)
	if took := time.Since(began); err == nil || took > 2*time.Second || !strings.Contains(strings.ToLower(out), "no route to host") {
		t.Errorf("ping %s after %s: %s", addr, took, out)
	}
}

// TestPeerBehindRouter: it is not adjacent, and becomes so, and not again, with
// the host's addresses. Packets get an answer, from this host and from a
// container, whenever there is no way.
func TestPeerBehindRouter(t *testing.T) {
	t.Parallel()
	lan := testx.NewLAN(t, 1)
	host, inside := lan.Hosts[0], testx.NewNetNS(t)
	host.Run(t, "ip", "link", "add", "stellar0", "type", "veth", "peer", "name", "eth0", "netns", inside.Name)
	host.Run(t, "ip", "address", "add", "172.16.0.1/22", "dev", "stellar0")
	host.Run(t, "ip", "link", "set", "stellar0", "up")
	host.Run(t, "sysctl", "-q", "net.ipv4.ip_forward=1")
	inside.Run(t, "ip", "address", "add", "172.16.0.2/22", "dev", "eth0")
	inside.Run(t, "ip", "link", "set", "eth0", "up")
	inside.Run(t, "ip", "route", "add", "default", "via", "172.16.0.1")
	m, d := startAt(t, host)
	d.set(func(w *Wants) { w.Peers[1].Address = netip.MustParseAddr("198.51.100.2") })
	m.Changed()
	m.expect(t, host, "b", NotAdjacent, "172.16.4.0/22", false)
	m.expect(t, host, "c", OK, ipC, true)
	refused(t, host, "172.16.4.1")
	began := time.Now()
	if out, err := inside.Output("ping", "-c1", "-W5", "172.16.4.1"); err == nil || time.Since(began) > 2*time.Second || !strings.Contains(out, "Destination Host Unreachable") {
		t.Errorf("from a container after %s: %s", time.Since(began), out)
	}
	for range 2 {
		host.Run(t, "ip", "address", "add", "198.51.100.9/24", "dev", "eth0")
		m.expect(t, host, "b", OK, "172.16.4.0/22 via 198.51.100.2 dev eth0 proto 147", true)
		host.Run(t, "ip", "address", "del", "198.51.100.9/24", "dev", "eth0")
		m.expect(t, host, "b", NotAdjacent, "172.16.4.0/22", false)
		refused(t, host, "172.16.4.1")
	}
	if m.repairs() != 0 {
		t.Errorf("%d repairs told", m.repairs())
	}
}

func TestUplinkFlaps(t *testing.T) {
	t.Parallel()
	lan := testx.NewLAN(t, 1)
	host := lan.Hosts[0]
	m, _ := startAt(t, host)
	m.expect(t, host, "b", OK, ipB, true)
	for _, down := range []time.Duration{0, 300 * time.Millisecond} {
		host.Run(t, "ip", "link", "set", "eth0", "down")
		time.Sleep(down)
		if down > 0 {
			m.expect(t, host, "b", NotAdjacent, ipB, false)
			refused(t, host, "172.16.4.1")
		}
		host.Run(t, "ip", "link", "set", "eth0", "up")
		began := time.Now()
		m.expect(t, host, "c", OK, ipC, true)
		m.expect(t, host, "b", OK, ipB, true)
		t.Logf("down for %s: routes are back after %s", down, time.Since(began))
	}
	carrier := func() bool {
		c := m.Conditions()
		return len(c) == 1 && c[0] == Condition{"carrier", "eth0", "eth0 has no carrier; it leads to b, c"}
	}
	lan.Outside.Run(t, "ip", "link", "set", "port1", "down")
	eventually(t, 2*time.Second, "carrier is missed", carrier)
	lan.Outside.Run(t, "ip", "link", "set", "port1", "up")
	eventually(t, 2*time.Second, "carrier is back", func() bool { return len(m.Conditions()) == 0 })
	m.expect(t, host, "b", OK, ipB, true)
}

// TestAddressesMove: this host's, and a peer's.
func TestAddressesMove(t *testing.T) {
	t.Parallel()
	host := testx.NewLAN(t, 1).Hosts[0]
	m, d := startAt(t, host)
	m.expect(t, host, "b", OK, ipB, true)
	host.Run(t, "ip", "address", "del", "192.0.2.1/24", "dev", "eth0")
	m.expect(t, host, "b", NotAdjacent, ipB, false)
	host.Run(t, "ip", "address", "add", "192.0.2.77/24", "dev", "eth0")
	m.expect(t, host, "b", OK, ipB, true)
	d.set(func(w *Wants) { w.Peers[1].Address = netip.MustParseAddr("192.0.2.22") })
	m.Changed()
	m.expect(t, host, "b", OK, "172.16.4.0/22 via 192.0.2.22 dev eth0 proto 147", true)
	if n := m.repairs(); n != 0 {
		t.Errorf("%d repairs told", n)
	}
}

// TestForeignRouteComesAndGoes: also one that took the place of ours.
func TestForeignRouteComesAndGoes(t *testing.T) {
	t.Parallel()
	host := testx.NewLAN(t, 1).Hosts[0]
	const theirs = "172.16.4.0/22 via 192.0.2.254 dev eth0 proto static"
	host.Run(t, "ip", "route", "add", "172.16.4.0/22", "via", "192.0.2.254", "proto", "static")
	m, _ := startAt(t, host)
	m.expect(t, host, "b", Conflict, theirs, true)
	m.expect(t, host, "c", OK, ipC, true)
	if _, reason := m.state("b"); reason != "its place has "+theirs {
		t.Errorf("reason %q", reason)
	}
	host.Run(t, "ip", "route", "del", "172.16.4.0/22", "proto", "static")
	m.expect(t, host, "b", OK, ipB, true)
	host.Run(t, "ip", "route", "replace", "172.16.4.0/22", "via", "192.0.2.254", "proto", "static")
	m.expect(t, host, "b", Conflict, theirs, true)
	m.expect(t, host, "b", Conflict, ipB, false)
	host.Run(t, "ip", "route", "add", "172.16.9.0/24", "via", "192.0.2.254", "proto", "static")
	m.expect(t, host, "c", Conflict, "172.16.9.0/24 via 192.0.2.254", true)
	m.expect(t, host, "c", Conflict, ipC, true)
}

func TestNothingIsPrunedBeforeComplete(t *testing.T) {
	t.Parallel()
	host := testx.NewLAN(t, 1).Hosts[0]
	host.Run(t, "ip", "route", "add", "172.16.4.0/22", "via", "192.0.2.9", "proto", "147")
	host.Run(t, "ip", "route", "add", "172.16.12.0/22", "via", "192.0.2.4", "proto", "147")
	d := &desk{w: abc()}
	d.set(func(w *Wants) { w.Complete = false })
	m := start(t, host, d.wants)
	m.expect(t, host, "c", OK, ipC, true)
	out := host.Run(t, "ip", "route")
	for _, kept := range []string{"172.16.4.0/22 via 192.0.2.9", "172.16.12.0/22 via 192.0.2.4"} {
		if !strings.Contains(out, kept) {
			t.Errorf("%s is gone:\n%s", kept, out)
		}
	}
	d.set(func(w *Wants) { w.Complete = true })
	m.Changed()
	m.expect(t, host, "b", OK, ipB, true)
	m.expect(t, host, "c", OK, "172.16.12.0/22", false)
}

func TestReversePathFilter(t *testing.T) {
	t.Parallel()
	host := testx.NewLAN(t, 1).Hosts[0]
	host.Run(t, "ip", "link", "add", "eth1", "type", "veth", "peer", "name", "far")
	host.Run(t, "ip", "link", "set", "far", "up")
	host.Run(t, "ip", "link", "set", "eth1", "up")
	host.Run(t, "ip", "address", "add", "198.51.100.1/24", "dev", "eth1")
	host.Run(t, "sysctl", "-q", "net.ipv4.conf.all.rp_filter=0", "net.ipv4.conf.eth0.rp_filter=1")
	m, d := startAt(t, host)
	m.expect(t, host, "c", OK, ipC, true)
	if c := m.Conditions(); len(c) != 0 {
		t.Errorf("one uplink: %v", c)
	}
	d.set(func(w *Wants) { w.Peers[0].Address = netip.MustParseAddr("198.51.100.3") })
	m.Changed()
	told := func(n int) func() bool { return func() bool { return len(m.Conditions()) == n } }
	eventually(t, 2*time.Second, "strict filter is told of", told(1))
	// The kernel uses the larger of the two; each change is noticed.
	for _, s := range []struct {
		setting string
		n       int
	}{{"all.rp_filter=2", 0}, {"all.rp_filter=1", 1}, {"eth0.rp_filter=2", 0}} {
		host.Run(t, "sysctl", "-q", "net.ipv4.conf."+s.setting)
		eventually(t, 2*time.Second, s.setting, told(s.n))
	}
}

// TestSync: a dry run says what a real one does, and changes nothing.
func TestSync(t *testing.T) {
	t.Parallel()
	host := testx.NewLAN(t, 1).Hosts[0]
	m, d := startAt(t, host)
	m.expect(t, host, "b", OK, ipB, true)
	d.set(func(w *Wants) {
		w.Peers[0].Quarantined = true
		w.Peers[1].Address = netip.MustParseAddr("192.0.2.22")
		w.Peers = append(w.Peers, Peer{Node: "d", Subnet: netip.MustParsePrefix("172.16.12.0/22"), Address: netip.MustParseAddr("192.0.2.4")})
	})
	before := host.Run(t, "ip", "route")
	dry, err := m.Sync(t.Context(), true)
	if err != nil {
		t.Fatal(err)
	}
	if after := host.Run(t, "ip", "route"); after != before {
		t.Errorf("the dry run changed\n%s to\n%s", before, after)
	}
	var drift []string
	for _, s := range m.Drift() {
		drift = append(drift, s.Destination.String()+" "+string(s.State))
	}
	if want := []string{"172.16.4.0/22 missing", "172.16.8.0/22 stray", "172.16.12.0/22 missing"}; !slices.Equal(drift, want) {
		t.Errorf("drift %v", drift)
	}
	var got []string
	for _, c := range dry {
		got = append(got, string(c.Op)+" "+c.Destination.String()+" via "+c.Gateway.String()+" dev "+c.Device+" node "+c.Node)
	}
	want := []string{
		"replace 172.16.4.0/22 via 192.0.2.22 dev eth0 node b",
		"add 172.16.12.0/22 via 192.0.2.4 dev eth0 node d",
		"delete 172.16.8.0/22 via 192.0.2.3 dev eth0 node ",
	}
	if !slices.Equal(got, want) {
		t.Errorf("changes\n%s", strings.Join(got, "\n"))
	}
	made, err := m.Sync(t.Context(), false)
	if err != nil || !slices.Equal(made, dry) {
		t.Errorf("made %v, %v", made, err)
	}
	if left, err := m.Sync(t.Context(), true); err != nil || len(left) > 0 || len(m.Drift()) > 0 {
		t.Errorf("left %v, %v, drift %v", left, err, m.Drift())
	}
}

// TestFlips: a next hop changes 1,000 times. At every moment there is exactly
// one route, and each lookup in between finds one of the two next hops.
func TestFlips(t *testing.T) {
	t.Parallel()
	host := testx.NewLAN(t, 1).Hosts[0]
	m, d := startAt(t, host)
	m.expect(t, host, "b", OK, ipB, true)
	hops := []netip.Addr{netip.MustParseAddr("192.0.2.2"), netip.MustParseAddr("192.0.2.22")}
	stop := make(chan struct{})
	var wg sync.WaitGroup
	observe := func(look func(*nlx.Conn) bool) *int {
		c, err := nlx.Dial(host.FD, unix.NETLINK_ROUTE)
		if err != nil {
			t.Fatal(err)
		}
		n := new(int)
		wg.Go(func() {
			defer c.Close()
			for look(c) {
				*n++
				select {
				case <-stop:
					return
				default:
				}
			}
		})
		return n
	}
	target := []netip.Addr{netip.MustParseAddr("172.16.4.1")}
	lookups := observe(func(c *nlx.Conn) bool {
		l, err := c.RouteTo(target)
		if err != nil || l[0].Err != nil || !slices.Contains(hops, l[0].Via) {
			t.Errorf("lookup: %+v, %v", l, err)
			return false
		}
		return true
	})
	dumps := observe(func(c *nlx.Conn) bool {
		rs, err := c.MainRoutes()
		n := 0
		for _, r := range rs {
			if r.Dst == routeB.Dst {
				n++
			}
		}
		if err != nil || n != 1 {
			t.Errorf("%d routes, %v", n, err)
			return false
		}
		return true
	})
	c, err := nlx.Dial(host.FD, unix.NETLINK_ROUTE)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	for i := 1; i <= 1000; i++ {
		d.set(func(w *Wants) { w.Peers[1].Address = hops[i%2] })
		m.Changed()
		eventually(t, 2*time.Second, "flip", func() bool {
			l, err := c.RouteTo(target)
			return err == nil && l[0].Via == hops[i%2]
		})
	}
	close(stop)
	wg.Wait()
	t.Logf("%d lookups and %d dumps in between", *lookups, *dumps)
	if n := m.repairs(); n != 0 {
		t.Errorf("%d repairs told", n)
	}
}
