package netsetup

import (
	"fmt"
	"strings"
	"testing"
	"time"
)

// repairLimit is the promise: restored within two seconds.
const repairLimit = 2 * time.Second

// TestRepair breaks one thing at a time while Run watches.
func TestRepair(t *testing.T) {
	t.Parallel()
	b := newBed(t).ensure()
	b.run()
	one, two := b.attach("172.16.0.2"), b.attach("172.16.0.3")
	mustPing(t, one, "172.16.0.3", "172.16.0.1")
	port := one.ep.HostIfname
	bridgeMAC := bridgeMACFor(testNode).String()
	tests := []struct {
		name   string
		breaks []string
		what   string // of OnRepair
		want   string // in the output of
		show   []string
	}{
		{"port without bridge", []string{"ip", "link", "set", port, "nomaster"}, "port", "master stellar0", []string{"ip", "link", "show", port}},
		{"port down", []string{"ip", "link", "set", port, "down"}, "port", "state UP", []string{"ip", "link", "show", port}},
		{"port MAC", []string{"ip", "link", "set", port, "address", "02:00:00:00:00:09"}, "port", hostMACFor(one.spec.Addr).String(), []string{"ip", "link", "show", port}},
		{"port MTU", []string{"ip", "link", "set", port, "mtu", "900"}, "port", "mtu 1500", []string{"ip", "link", "show", port}},
		{"port alias", []string{"ip", "link", "set", port, "alias", ""}, "port", one.spec.Owner.ID, []string{"ip", "link", "show", port}},
		{"port group", []string{"ip", "link", "set", port, "group", "7"}, "port", "group 147", []string{"ip", "link", "show", port}},
		{"bridge down", []string{"ip", "link", "set", DefaultBridge, "down"}, "bridge", "state UP", []string{"ip", "link", "show", DefaultBridge}},
		{"bridge MAC", []string{"ip", "link", "set", DefaultBridge, "address", "02:00:00:00:00:08"}, "bridge", bridgeMAC, []string{"ip", "link", "show", DefaultBridge}},
		{"bridge MTU", []string{"ip", "link", "set", DefaultBridge, "mtu", "1300"}, "bridge", "mtu 1500", []string{"ip", "link", "show", DefaultBridge}},
		{"bridge address", []string{"ip", "address", "flush", "dev", DefaultBridge}, "bridge", "172.16.0.1/22", []string{"ip", "address", "show", DefaultBridge}},
		{"connected route", []string{"ip", "route", "flush", "dev", DefaultBridge}, "bridge", "172.16.0.0/22 dev stellar0 proto kernel scope link src 172.16.0.1", []string{"ip", "route"}},
		{"bridge deleted", []string{"ip", "link", "delete", DefaultBridge}, "bridge", "master stellar0", []string{"ip", "link", "show", port}},
		{"table deleted", []string{"nft", "delete", "table", "inet", "stellar"}, "filter", "masquerade", []string{"nft", "list", "ruleset"}},
		{"ruleset flushed", []string{"nft", "flush", "ruleset"}, "filter", "masquerade", []string{"nft", "list", "ruleset"}},
		{"chain flushed", []string{"nft", "flush", "chain", "inet", "stellar", "postrouting"}, "filter", "masquerade", []string{"nft", "list", "ruleset"}},
		{"guard deleted", []string{"nft", "delete", "table", "bridge", "stellar"}, "filter", port, []string{"nft", "list", "set", "bridge", "stellar", "endpoints"}},
		{"guard asleep", []string{"nft", "add table bridge stellar { flags dormant; }"}, "filter", "type ifname", []string{"sh", "-c", "nft list table bridge stellar | grep -v dormant && ! nft list table bridge stellar | grep dormant"}},
		{"guard without elements", []string{"nft", "flush", "set", "bridge", "stellar", "endpoints"}, "filter", port, []string{"nft", "list", "set", "bridge", "stellar", "endpoints"}},
		{"guard's last rule", []string{"nft", "flush", "chain", "bridge", "stellar", "endpoint"}, "filter", "everything else", []string{"nft", "list", "table", "bridge", "stellar"}},
		{"rule before the guard's", []string{"nft", "insert", "rule", "bridge", "stellar", "endpoint", "accept"}, "filter", "everything else", []string{"sh", "-c", "! nft list chain bridge stellar endpoint | grep -w '^[[:space:]]*accept' && nft list chain bridge stellar endpoint"}},
		{"guard of the host deleted", []string{"nft", "delete", "table", "ip", "stellar"}, "filter", "past the bridge", []string{"nft", "list", "table", "ip", "stellar"}},
		{"guard against ARP deleted", []string{"nft", "delete", "table", "arp", "stellar"}, "filter", "past the bridge", []string{"nft", "list", "table", "arp", "stellar"}},
		{"opened set emptied", []string{"nft", "flush", "set", "inet", "stellar", "opened"}, "filter", `elements = { "eth0" }`, []string{"nft", "list", "ruleset"}},
		{"bridge forwarding", []string{"sysctl", "net.ipv4.conf.stellar0.forwarding=0"}, "bridge", "= 1", []string{"sysctl", "net.ipv4.conf.stellar0.forwarding"}},
		{"uplink forwarding", []string{"sysctl", "net.ipv4.conf.eth0.forwarding=0"}, "forwarding", "= 1", []string{"sysctl", "net.ipv4.conf.eth0.forwarding"}},
		{"IPv6 on the bridge", []string{"sysctl", "net.ipv6.conf.stellar0.disable_ipv6=0"}, "bridge", "= 1", []string{"sysctl", "net.ipv6.conf.stellar0.disable_ipv6"}},
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
				return b.hostSays(tt.want, tt.show...)
			})
			t.Logf("restored after %s", time.Since(start))
			mustPing(t, one, "172.16.0.1", "172.16.0.3", "192.0.2.254")
			mustPing(t, two, "172.16.0.2")
		})
	}
	if _, lost := b.reports(); len(lost) > 0 {
		t.Errorf("lost: %+v", lost)
	}
}

// TestSteady: with nothing to repair, nothing is written.
func TestSteady(t *testing.T) {
	t.Parallel()
	inModes(t, testSteadyIn)
}

func testSteadyIn(t *testing.T, mode func(*Config)) {
	t.Parallel()
	b := newBed(t, mode, func(c *Config) { c.AuditEvery = 500 * time.Millisecond }).ensure()
	eventually(t, 5*time.Second, "address of eth0", func() error { // the kernel makes it in its own time
		out := b.host.Run(t, "ip", "-6", "address", "show", "dev", "eth0")
		if !strings.Contains(out, "fe80") || strings.Contains(out, "tentative") {
			return fmt.Errorf("%s", out)
		}
		return nil
	})
	b.run()
	for i := range 5 {
		b.attach(fmt.Sprintf("172.16.0.%d", i+2))
	}
	time.Sleep(1500 * time.Millisecond) // the new ports have been hardened by now
	events, start := b.host.Command("ip", "monitor", "link", "address", "route", "netconf")
	out := new(strings.Builder)
	events.Stdout = out
	if err := start(); err != nil {
		t.Fatal(err)
	}
	rules := b.host.Run(t, "nft", "-a", "-s", "list", "ruleset")
	time.Sleep(2500 * time.Millisecond)
	_ = events.Process.Kill()
	_ = events.Wait()
	if out.Len() > 0 {
		t.Errorf("something was written:\n%s", out)
	}
	if now := b.host.Run(t, "nft", "-a", "-s", "list", "ruleset"); now != rules {
		t.Errorf("rules were written:\n%s", now)
	}
	b.quiet()
}

// TestLost: a pair that disappears is reported, whoever deleted which end.
func TestLost(t *testing.T) {
	t.Parallel()
	inModes(t, testLostIn)
}

func testLostIn(t *testing.T, mode func(*Config)) {
	t.Parallel()
	tests := []struct {
		name   string
		delete func(b *bed, c *container)
	}{
		{"by the container", func(_ *bed, c *container) { c.run("ip", "link", "delete", "eth0") }},
		{"on the host", func(b *bed, c *container) { b.host.Run(b.t, "ip", "link", "delete", c.ep.HostIfname) }},
		{"with the container", func(_ *bed, c *container) { c.ns.Close(); c.kill() }},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			b := newBed(t, mode).ensure()
			b.run()
			c := b.attach("172.16.0.2")
			tt.delete(b, c)
			eventually(t, repairLimit, "report", func() error { return b.lostOnly(c.spec.Owner) })
			if _, err := c.output("true"); err != nil {
				return // the container is gone
			}
			if _, timing, err := b.n.Attach(t.Context(), c.spec); err != nil || timing.Adopted {
				t.Errorf("Attach again = %+v, %v", timing, err)
			}
			mustPing(t, c, b.gateway())
		})
	}
}

// TestLostWhileAway: what was attached by this process and disappeared unwatched
// is reported by the next audit.
func TestLostWhileAway(t *testing.T) {
	t.Parallel()
	inModes(t, testLostWhileAwayIn)
}

func testLostWhileAwayIn(t *testing.T, mode func(*Config)) {
	t.Parallel()
	b := newBed(t, mode).ensure()
	c := b.attach("172.16.0.2")
	c.run("ip", "link", "delete", "eth0")
	b.run()
	eventually(t, repairLimit, "report", func() error { return b.lostOnly(c.spec.Owner) })
}

// TestOverrun: so many notifications that some are lost.
func TestOverrun(t *testing.T) {
	t.Parallel()
	inModes(t, testOverrunIn)
}

func testOverrunIn(t *testing.T, mode func(*Config)) {
	t.Parallel()
	b := newBed(t, mode).ensure()
	b.run()
	c := b.attach("172.16.0.2")
	b.host.Run(t, "bash", "-c", `for i in $(seq 3000); do echo "link set lo alias x$i"; done | ip -batch -`)
	b.host.Run(t, "ip", "link", "set", c.ep.HostIfname, "nomaster", "down")
	eventually(t, repairLimit, "repair after a burst", func() error { return b.attached(c) })
}

// TestUplinkMoves: the default route gets another interface. It is opened and
// guarded, the one before stays so, and the bridge takes the new MTU.
func TestUplinkMoves(t *testing.T) {
	t.Parallel()
	inModes(t, testUplinkMovesIn)
}

func testUplinkMovesIn(t *testing.T, mode func(*Config)) {
	t.Parallel()
	b := newBed(t, mode).ensure()
	b.run()
	b.host.Run(t, "ip", "link", "add", "eth1", "type", "veth", "peer", "name", "eth1p")
	b.host.Run(t, "ip", "link", "set", "eth1", "mtu", "1400")
	b.host.Run(t, "ip", "address", "add", "198.51.100.1/24", "dev", "eth1")
	b.host.Run(t, "ip", "link", "set", "eth1p", "up")
	b.host.Run(t, "ip", "link", "set", "eth1", "up")
	b.host.Run(t, "ip", "route", "replace", "default", "via", "198.51.100.254")
	eventually(t, repairLimit, "new uplink", func() error {
		if got := b.sysctl("net.ipv4.conf.eth1.forwarding"); got != "1" {
			return fmt.Errorf("forwarding %s", got)
		}
		for _, opened := range []string{`"eth0"`, `"eth1"`} {
			if err := b.hostSays(opened, "nft", "list", "set", "inet", "stellar", "opened"); err != nil {
				return err
			}
		}
		if b.n.MTU() != 1400 {
			return fmt.Errorf("MTU %d", b.n.MTU())
		}
		return nil
	})
	shows := DefaultBridge
	if b.n.routed() {
		shows = b.attach("172.16.0.2").ep.HostIfname
	}
	if err := b.hostSays("mtu 1400", "ip", "link", "show", shows); err != nil {
		t.Error(err)
	}
}

// TestRouterComesAndGoes: once somebody makes the host a router it is left as it
// is, and guarded again when it is none.
func TestRouterComesAndGoes(t *testing.T) {
	t.Parallel()
	inModes(t, testRouterComesAndGoesIn)
}

func testRouterComesAndGoesIn(t *testing.T, mode func(*Config)) {
	t.Parallel()
	b := newBed(t, mode).ensure()
	b.run()
	c := b.attach("172.16.0.2")
	for range 2 {
		b.host.Run(t, "sysctl", "net.ipv4.ip_forward=1")
		eventually(t, repairLimit, "guard removed", func() error {
			if err := b.hostSays("drop", "nft", "list", "table", "inet", "stellar"); err == nil {
				return fmt.Errorf("still guarded")
			}
			return nil
		})
		mustPing(t, c, "192.0.2.254")
		b.host.Run(t, "sysctl", "net.ipv4.ip_forward=0")
		eventually(t, repairLimit, "forwarding and guard", func() error {
			inner := DefaultBridge
			if b.n.routed() {
				inner = c.ep.HostIfname
			}
			if got := b.sysctl("net.ipv4.conf.eth0.forwarding") + b.sysctl("net.ipv4.conf."+inner+".forwarding"); got != "11" {
				return fmt.Errorf("forwarding %s", got)
			}
			return b.hostSays("drop", "nft", "list", "table", "inet", "stellar")
		})
		mustPing(t, c, "192.0.2.254")
	}
}

// TestBridgeOfAnEarlierIdentity: running containers know the gateway by the bridge's
// hardware address, so a node that has got another identity keeps it.
func TestBridgeOfAnEarlierIdentity(t *testing.T) {
	t.Parallel()
	b := newBed(t).ensure()
	c := b.attach("172.16.0.2")
	mac := func() string {
		return strings.Fields(b.host.Run(t, "ip", "-br", "link", "show", DefaultBridge))[2]
	}
	before := mac()
	b.cfg.Node = "fedcba9876543210fedcba9876543210"
	later := b.network()
	if err := later.Ensure(t.Context()); err != nil {
		t.Fatal(err)
	}
	if after := mac(); after != before {
		t.Errorf("the bridge was %s, is %s", before, after)
	}
	mustPing(t, c, "172.16.0.1")
}
