package netsetup

import (
	"errors"
	"fmt"
	"net/netip"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"

	"stellar.io/stellar/internal/testx"
)

// somePairs is of how many containers each has to find another.
const somePairs = 300

// member is an endpoint in a namespace without a process.
type member struct {
	space *testx.NetNS
	spec  Spec
}

// TestFull: a bridge with as many endpoints as it takes. Each is reached from the
// host, and from another one that knows no address yet; one more is refused.
func TestFull(t *testing.T) {
	b := newBed(t).ensure()
	members := make([]member, MaxEndpoints+1)
	addr := netip.MustParseAddr("172.16.0.2")
	for i := range members {
		space := testx.NewNetNS(t)
		ns, err := b.n.OpenPath(space.Path)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { ns.Close() })
		members[i] = member{space, Spec{Owner: owner("c-" + addr.String()), Addr: addr, DefaultRoute: true, NS: ns}}
		addr = addr.Next()
	}
	last := members[MaxEndpoints]
	last.spec.Addr = netip.MustParseAddr("172.16.0.2") // the subnet has no other
	members = members[:MaxEndpoints]

	began := time.Now()
	each(t, members, func(_ int, m member) error {
		_, _, err := b.n.Attach(t.Context(), m.spec)
		return err
	})
	t.Logf("%d attached in %s", len(members), time.Since(began).Round(time.Millisecond))
	_, _, err := b.n.Attach(t.Context(), last.spec)
	if !errors.Is(err, ErrFull) || !strings.Contains(err.Error(), "1021") || !strings.Contains(err.Error(), "routed") {
		t.Errorf("one more: %v", err)
	}

	foreign := b.foreignPort("172.16.3.254")                                            // the address that is nobody's in this test
	if err := b.n.Detach(t.Context(), members[len(members)-1].spec.Owner); err != nil { // 172.16.3.254
		t.Fatal(err)
	}
	members = members[:len(members)-1]
	began = time.Now()
	each(t, members, func(_ int, m member) error { return pingFrom(b.host, m.spec.Addr) })
	t.Logf("%d reached from the host in %s", len(members), time.Since(began).Round(time.Millisecond))
	// Not all: what containers resolve counts in one table of the machine, which by
	// default has room for 1,024 (net.ipv4.neigh.default.gc_thresh3).
	began = time.Now()
	each(t, members[:somePairs], func(i int, m member) error { return pingFrom(m.space, members[len(members)-1-i*3].spec.Addr) })
	t.Logf("%d have reached another in %s", somePairs, time.Since(began).Round(time.Millisecond))
	// A port that is not ours finds them and is found.
	for _, m := range []member{members[0], members[500], members[len(members)-1]} {
		if err := errors.Join(pingFrom(foreign, m.spec.Addr), pingFrom(m.space, netip.MustParseAddr("172.16.3.254"))); err != nil {
			t.Error(err)
		}
	}
}

// each calls fn for all members, eight at a time.
func each(t *testing.T, members []member, fn func(int, member) error) {
	t.Helper()
	var g errgroup.Group
	g.SetLimit(8)
	for i, m := range members {
		g.Go(func() error {
			err := fn(i, m)
			if err != nil {
				t.Log(i, m.space.Name, err)
			}
			return err
		})
	}
	if err := g.Wait(); err != nil {
		t.Fatal(err)
	}
}

// pingFrom sends one echo request: the first packet must pass.
func pingFrom(from *testx.NetNS, to netip.Addr) error {
	if _, err := from.Output("ping", "-n", "-q", "-c", "1", "-W", "1", to.String()); err != nil {
		return fmt.Errorf("%s: %w", to, err)
	}
	return nil
}

// TestQuiet: what one container sends to all, to a group or to an address that
// nobody has is seen by no other, and neither is what the host sends so; ARP is
// answered by the bridge.
func TestQuiet(t *testing.T) {
	t.Parallel()
	b := newBed(t).ensure()
	one, two := b.attach("172.16.0.2"), b.attach("172.16.0.3")
	foreign := b.foreignPort("172.16.0.5")
	mustPing(t, one, "172.16.0.5")
	two.run("ip", "neigh", "flush", "dev", "eth0")
	seen, elsewhere := newCapture(t, int(two.ns.file.Fd()), "eth0"), newCapture(t, foreign.FD, "eth0")
	raw, fromHost := newPacketSocket(t, int(one.ns.file.Fd()), "eth0", 0), newPacketSocket(t, b.host.FD, DefaultBridge, 0)
	nobody := netip.MustParseAddr("172.16.0.99")
	group := []byte{1, 0, 0x5e, 0, 0, 0xfb}
	for name, frame := range map[string][]byte{
		"broadcast":       ethernet(broadcastMAC, one.ep.MAC, 0x0800, udp4(one.spec.Addr, netip.MustParseAddr("172.16.3.255"), 9, 9)),
		"multicast":       ethernet(group, one.ep.MAC, 0x0800, udp4(one.spec.Addr, netip.MustParseAddr("224.0.0.251"), 9, 9)),
		"unknown address": ethernet(foreignMAC, one.ep.MAC, 0x0800, udp4(one.spec.Addr, nobody, 9, 9)),
		"ARP request":     ethernet(broadcastMAC, one.ep.MAC, 0x0806, arp(1, one.ep.MAC, one.spec.Addr, make([]byte, 6), nobody)),
	} {
		raw.send(t, frame, 100)
		copy(frame[6:], bridgeMACFor(testNode))
		fromHost.send(t, frame, 100)
		time.Sleep(20 * time.Millisecond)
		if n := seen.seen.Swap(0); n > 0 {
			t.Errorf("%s: %d frames at another container", name, n)
		}
		if n := elsewhere.seen.Swap(0); n < 100 {
			t.Errorf("%s: %d frames at a port that is not ours: the test sees nothing", name, n)
		}
	}
	mustPing(t, two, "172.16.0.2", "172.16.0.1", "172.16.0.5")
	foreign.Run(t, "ping", "-n", "-c", "1", "-W", "1", "172.16.0.3")
}

// TestStolenAddress: a port that is not ours sends with a container's hardware
// address, and the bridge goes on to send that container's frames to it.
func TestStolenAddress(t *testing.T) {
	t.Parallel()
	b := newBed(t).ensure()
	one, two := b.attach("172.16.0.2"), b.attach("172.16.0.3")
	foreign := b.foreignPort("172.16.0.5")
	raw := newPacketSocket(t, foreign.FD, "eth0", 0)
	raw.send(t, ethernet(broadcastMAC, two.ep.MAC, 0x0806, arp(1, two.ep.MAC, two.spec.Addr, make([]byte, 6), one.spec.Addr)), 100)
	for range 20 {
		if err := one.ping("172.16.0.3"); err != nil {
			t.Fatal(err)
		}
	}
}

// TestEntriesRestored: what bridge and host know of an endpoint comes back, and
// what they know of one that is gone goes.
func TestEntriesRestored(t *testing.T) {
	t.Parallel()
	b := newBed(t, func(c *Config) { c.AuditEvery = 300 * time.Millisecond }).ensure()
	one, two, gone := b.attach("172.16.0.2"), b.attach("172.16.0.3"), b.attach("172.16.0.4")
	b.run()
	gone.ns.Close()
	gone.kill()
	port, mac := one.ep.HostIfname, one.ep.MAC.String()
	for _, args := range [][]string{
		{"bridge", "fdb", "delete", mac, "dev", port, "master"},
		{"ip", "neigh", "delete", "172.16.0.2", "dev", DefaultBridge},
		{"bridge", "link", "set", "dev", port, "flood", "on"},
		{"bridge", "link", "set", "dev", port, "learning", "on"},
		{"ip", "link", "set", "dev", port, "type", "bridge_slave", "proxy_arp", "off"},
	} {
		b.host.Run(t, args[0], args[1:]...)
	}
	var once sync.Once
	eventually(t, repairLimit, "entries", func() error {
		once.Do(func() { one.run("ip", "neigh", "flush", "dev", "eth0") })
		var errs []error
		for want, show := range map[string][]string{
			mac + " dev " + port + " sticky master " + DefaultBridge + " static": {"bridge", "fdb"},
			"172.16.0.2 dev " + DefaultBridge + " lladdr " + mac + " PERMANENT":  {"ip", "neigh"},
			"learning off flood off": {"bridge", "-d", "link", "show", "dev", port},
			"proxy_arp on":           {"ip", "-d", "link", "show", "dev", port},
		} {
			errs = append(errs, b.hostSays(want, show...))
		}
		if b.hostSays("172.16.0.4", "ip", "neigh") == nil {
			errs = append(errs, errors.New("a neighbour of nobody"))
		}
		return errors.Join(errs...)
	})
	mustPing(t, one, "172.16.0.3")
	mustPing(t, two, "172.16.0.2")
}

// TestCloseTwice closes no descriptor that is another's by then.
func TestCloseTwice(t *testing.T) {
	b := newBed(t).ensure()
	n := b.network()
	if err := n.Ensure(t.Context()); err != nil {
		t.Fatal(err)
	}
	_ = n.Close()
	var files []*os.File
	for range 64 {
		files = append(files, b.open("/proc/self/status"))
	}
	_ = n.Close()
	for _, f := range files {
		if _, err := f.Stat(); err != nil {
			t.Fatalf("a descriptor was closed by somebody else: %v", err)
		}
	}
}
