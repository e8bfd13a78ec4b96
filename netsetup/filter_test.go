package netsetup

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"stellar.io/stellar/internal/testx"
)

// seenFrom returns the source address under which a container's packets reach
// the outside.
func (b *bed) seenFrom(c *container, send ...string) string {
	b.t.Helper()
	rule := "add rule inet seen in icmp type echo-request"
	b.lan.Outside.Run(b.t, "nft", "add table inet seen; add set inet seen from { type ipv4_addr; flags dynamic; }; "+
		"add chain inet seen in { type filter hook input priority 0; }; flush chain inet seen in; flush set inet seen from; "+rule+" add @from { ip saddr }")
	c.run(send...)
	return b.lan.Outside.Run(b.t, "nft", "list", "set", "inet", "seen", "from")
}

// TestMasquerade: outside the network the host's address is seen, and replies
// come back; inside it the container's own.
func TestMasquerade(t *testing.T) {
	t.Parallel()
	inModes(t, testMasqueradeIn)
}

func testMasqueradeIn(t *testing.T, mode func(*Config)) {
	t.Parallel()
	for _, forward := range []string{"0", "1"} {
		t.Run("ip_forward="+forward, func(t *testing.T) {
			b := newBed(t, mode)
			b.host.Run(t, "sysctl", "net.ipv4.ip_forward="+forward)
			b.ensure()
			c := b.attach("172.16.0.2")
			mustPing(t, c, "192.0.2.254")
			if out := b.seenFrom(c, "ping", "-n", "-c", "1", "-W", "1", "192.0.2.254"); !strings.Contains(out, "192.0.2.1") || strings.Contains(out, "172.16") {
				t.Errorf("seen outside: %s", out)
			}
			// An address of the network that is not on this node: no masquerade.
			b.lan.Outside.Run(t, "ip", "address", "add", "172.16.8.9/32", "dev", "lan")
			b.lan.Outside.Run(t, "ip", "route", "add", "172.16.0.0/22", "via", "192.0.2.1")
			b.host.Run(t, "ip", "route", "add", "172.16.8.0/22", "via", "192.0.2.254")
			mustPing(t, c, "172.16.8.9")
			if out := b.seenFrom(c, "ping", "-n", "-c", "1", "-W", "1", "172.16.8.9"); !strings.Contains(out, "172.16.0.2") {
				t.Errorf("seen at a peer: %s", out)
			}
		})
	}
}

func TestNoMasquerade(t *testing.T) {
	t.Parallel()
	inModes(t, testNoMasqueradeIn)
}

func testNoMasqueradeIn(t *testing.T, mode func(*Config)) {
	t.Parallel()
	b := newBed(t, mode, func(c *Config) { c.Masquerade = false }).ensure()
	b.lan.Outside.Run(t, "ip", "route", "add", "172.16.0.0/22", "via", "192.0.2.1")
	c := b.attach("172.16.0.2")
	mustPing(t, c, "192.0.2.254")
	if out := b.seenFrom(c, "ping", "-n", "-c", "1", "-W", "1", "192.0.2.254"); !strings.Contains(out, "172.16.0.2") {
		t.Errorf("seen outside: %s", out)
	}
}

// TestGuard: a host that was no router does not become one, except for us.
func TestGuard(t *testing.T) {
	t.Parallel()
	inModes(t, testGuardIn)
}

func testGuardIn(t *testing.T, mode func(*Config)) {
	t.Parallel()
	b := newBed(t, mode).ensure()
	c := b.attach("172.16.0.2")
	// Another network of the host, which somebody outside tries to reach.
	side := testx.NewNetNS(t)
	b.host.Run(t, "ip", "link", "add", "side0", "type", "veth", "peer", "name", "side0", "netns", side.Name)
	b.host.Run(t, "ip", "address", "add", "198.51.100.1/24", "dev", "side0")
	b.host.Run(t, "ip", "link", "set", "side0", "up")
	side.Run(t, "ip", "address", "add", "198.51.100.2/24", "dev", "side0")
	side.Run(t, "ip", "link", "set", "side0", "up")
	side.Run(t, "ip", "route", "add", "default", "via", "198.51.100.1")
	b.lan.Outside.Run(t, "ip", "route", "add", "198.51.100.0/24", "via", "192.0.2.1")
	b.lan.Outside.Run(t, "ip", "route", "add", "172.16.0.0/22", "via", "192.0.2.1")
	b.lan.Outside.Run(t, "ping", "-n", "-c", "1", "-W", "1", "172.16.0.2")
	if out, err := b.lan.Outside.Output("ping", "-n", "-c", "1", "-W", "1", "198.51.100.2"); err == nil {
		t.Errorf("the host routes for others: %s", out)
	}
	if got := b.sysctl("net.ipv4.conf.side0.forwarding") + b.sysctl("net.ipv4.ip_forward"); got != "00" {
		t.Errorf("forwarding of others: %s", got)
	}
	// A later process reads from the table that eth0 is by our doing.
	b.cfg.Uplinks = []string{"side0"}
	later := b.network()
	if err := later.Ensure(t.Context()); err != nil {
		t.Fatal(err)
	}
	mustPing(t, c, "198.51.100.2") // behind an uplink now
	if out, err := b.lan.Outside.Output("ping", "-n", "-c", "1", "-W", "1", "198.51.100.2"); err == nil {
		t.Errorf("the host routes for others after a restart: %s", out)
	}
}

// TestUserOpenedUplink: forwarding that the user switched on is not guarded and
// not switched off.
func TestUserOpenedUplink(t *testing.T) {
	t.Parallel()
	inModes(t, testUserOpenedUplinkIn)
}

func testUserOpenedUplinkIn(t *testing.T, mode func(*Config)) {
	t.Parallel()
	b := newBed(t, mode)
	b.host.Run(t, "sysctl", "net.ipv4.conf.eth0.forwarding=1")
	b.ensure()
	if out := b.host.Run(t, "nft", "list", "table", "inet", "stellar"); strings.Contains(out, "drop") {
		t.Errorf("guarded: %s", out)
	}
	if err := b.n.Cleanup(t.Context()); err != nil {
		t.Fatal(err)
	}
	if got := b.sysctl("net.ipv4.conf.eth0.forwarding"); got != "1" {
		t.Errorf("forwarding of the user's interface: %s", got)
	}
}

// TestForward: an iptables FORWARD chain that drops, of either kind, with and
// without Docker's chain, with bridged packets passing iptables or not.
func TestForward(t *testing.T) {
	t.Parallel()
	inModes(t, testForwardIn)
}

func testForwardIn(t *testing.T, mode func(*Config)) {
	t.Parallel()
	for _, backend := range []string{"nft", "legacy"} {
		for _, docker := range []bool{false, true} {
			for _, bridged := range []string{"0", "1"} {
				t.Run(fmt.Sprintf("%s docker=%v bridge-nf=%s", backend, docker, bridged), func(t *testing.T) {
					t.Parallel()
					testForward(t, mode, "iptables-"+backend, docker, bridged)
				})
			}
		}
	}
}

func testForward(t *testing.T, mode func(*Config), iptables string, docker bool, bridged string) {
	b := newBed(t, mode)
	b.host.Run(t, "sysctl", "net.bridge.bridge-nf-call-iptables="+bridged)
	b.host.Run(t, iptables, "-P", "FORWARD", "DROP")
	chain := "FORWARD"
	if docker {
		chain = "DOCKER-USER"
		b.host.Run(t, iptables, "-N", "DOCKER-USER")
		b.host.Run(t, iptables, "-A", "FORWARD", "-j", "DOCKER-USER")
		b.host.Run(t, iptables, "-A", "DOCKER-USER", "-j", "RETURN")
	}
	// What the user wants dropped stays dropped.
	b.host.Run(t, iptables, "-I", chain, "-s", "172.16.0.9", "-j", "DROP")
	b.ensure()
	one, two, banned := b.attach("172.16.0.2"), b.attach("172.16.0.3"), b.attach("172.16.0.9")
	connected := func() {
		t.Helper()
		mustPing(t, one, b.gateway(), "172.16.0.3", "192.0.2.254")
		mustPing(t, two, "172.16.0.2")
		if _, err := banned.output("ping", "-n", "-c", "1", "-W", "0.3", "192.0.2.254"); err == nil {
			t.Error("the user's own rule is passed over")
		}
	}
	connected()
	rules := b.host.Run(t, iptables, "-S")
	if strings.Count(rules, "--comment stellar") != 1 || !strings.Contains(rules, "-A "+chain+" "+jump) {
		t.Errorf("rules:\n%s", rules)
	}
	b.ensure()
	if again := b.host.Run(t, iptables, "-S"); again != rules {
		t.Errorf("a second Ensure changed the rules:\n%s", again)
	}

	b.run()
	b.host.Run(t, iptables, "-D", chain, "-m", "comment", "--comment", "stellar", "-j", "STELLAR")
	eventually(t, repairLimit, "rule restored", func() error {
		if !b.repaired("forward rule " + iptables) {
			return fmt.Errorf("no report")
		}
		return b.hostSays(jump, iptables, "-S", chain)
	})
	connected()
	b.host.Run(t, iptables, "-F", "STELLAR")
	eventually(t, repairLimit, "chain restored", func() error { return b.hostSays(b.n.layout.accepting()[0], iptables, "-S", "STELLAR") })
	connected()
}

// TestForwardLater: Docker starts after us, and goes away again.
func TestForwardLater(t *testing.T) {
	t.Parallel()
	inModes(t, testForwardLaterIn)
}

func testForwardLaterIn(t *testing.T, mode func(*Config)) {
	t.Parallel()
	for _, iptables := range []string{"iptables-nft", "iptables-legacy"} {
		t.Run(iptables, func(t *testing.T) {
			t.Parallel()
			b := newBed(t, mode).ensure()
			b.run()
			if out := b.host.Run(t, "cat", "/proc/thread-self/net/ip_tables_names"); strings.Contains(out, "filter") {
				t.Error("looking at legacy iptables has created its table")
			}
			c := b.attach("172.16.0.2")
			b.host.Run(t, iptables, "-P", "FORWARD", "DROP")
			eventually(t, repairLimit, "rule in FORWARD", func() error { return b.hostSays(jump, iptables, "-S", "FORWARD") })
			mustPing(t, c, "192.0.2.254")
			b.host.Run(t, iptables, "-N", "DOCKER-USER")
			b.host.Run(t, iptables, "-I", "FORWARD", "-j", "DOCKER-USER")
			eventually(t, repairLimit, "rule in DOCKER-USER", func() error { return b.hostSays(jump, iptables, "-S", "DOCKER-USER") })
			if out := b.host.Run(t, iptables, "-S", "FORWARD"); strings.Contains(out, jump) {
				t.Errorf("rule left in FORWARD: %s", out)
			}
			mustPing(t, c, "192.0.2.254")
			b.host.Run(t, iptables, "-P", "FORWARD", "ACCEPT")
			eventually(t, repairLimit, "rule removed", func() error {
				if out := b.host.Run(t, iptables, "-S"); strings.Contains(strings.ToLower(out), "stellar") {
					return fmt.Errorf("%s", out)
				}
				return nil
			})
		})
	}
}

// TestForwardCleanup: Cleanup leaves both kinds of iptables as they were.
func TestForwardCleanup(t *testing.T) {
	t.Parallel()
	inModes(t, testForwardCleanupIn)
}

func testForwardCleanupIn(t *testing.T, mode func(*Config)) {
	t.Parallel()
	b := newBed(t, mode)
	before := map[string]string{}
	for _, iptables := range []string{"iptables-nft", "iptables-legacy"} {
		b.host.Run(t, iptables, "-P", "FORWARD", "DROP")
		before[iptables] = b.host.Run(t, iptables, "-S")
	}
	b.ensure()
	later, err := New(Config{HostNS: b.cfg.HostNS}) // knows of no subnet
	if err != nil {
		t.Fatal(err)
	}
	defer later.Close()
	if err := later.Cleanup(t.Context()); err != nil {
		t.Fatal(err)
	}
	for iptables, want := range before {
		// iptables-nft begins with a note that the other kind exists, too.
		got := b.host.Run(t, iptables, "-S")
		if got = got[strings.Index(got, "-P"):]; got != want {
			t.Errorf("%s before:\n%s\nafter:\n%s", iptables, want, got)
		}
	}
}

// TestForwardWithoutPrograms: no iptables installed is fine.
func TestForwardWithoutPrograms(t *testing.T) {
	t.Parallel()
	b := newBed(t)
	b.n.backends = []*backend{{name: "absent", version: "(absent)"}}
	b.ensure()
}

// TestNoRouterAdvertisement: a container cannot give the host an IPv6 route.
func TestNoRouterAdvertisement(t *testing.T) {
	t.Parallel()
	b := newBed(t).ensure()
	if got := b.sysctl("net.ipv6.conf.stellar0.disable_ipv6"); got != "1" {
		t.Errorf("disable_ipv6 = %s", got)
	}
	if got := b.sysctl("net.ipv6.conf.stellar0.accept_ra"); got != "0" {
		t.Errorf("accept_ra = %s", got)
	}
	c := b.attach("172.16.0.2")
	b.ensure()
	if got := b.sysctl("net.ipv6.conf." + c.ep.HostIfname + ".disable_ipv6"); got != "1" {
		t.Errorf("IPv6 on the port: disable_ipv6 = %s", got)
	}
}

// TestAddressReused: the address goes to another container; nobody's neighbour
// table is in the way.
func TestAddressReused(t *testing.T) {
	t.Parallel()
	inModes(t, testAddressReusedIn)
}

func testAddressReusedIn(t *testing.T, mode func(*Config)) {
	t.Parallel()
	b := newBed(t, mode).ensure()
	other := b.attach("172.16.0.9")
	for range 5 {
		c := b.container("172.16.0.2")
		c.spec.Owner.ID = fmt.Sprint("c", c.pid)
		if _, _, err := b.n.Attach(t.Context(), c.spec); err != nil {
			t.Fatal(err)
		}
		eventually(t, time.Second, "reach the new owner", func() error { return other.ping("172.16.0.2") })
		if _, err := b.host.Output("ping", "-n", "-c", "1", "-W", "1", "172.16.0.2"); err != nil {
			t.Error(err)
		}
		if err := b.n.Detach(t.Context(), c.spec.Owner); err != nil {
			t.Fatal(err)
		}
	}
}
