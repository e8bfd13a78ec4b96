package netsetup

import (
	"net/netip"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	"stellar.io/stellar/internal/testx/faults"
)

// deaf are the kinds that the kernel of a host without a bridge itself hands on to
// nobody, guard or not: with tags that it has no link for, of types that nobody listens
// to, ARP whose lengths are not Ethernet's. Every other kind must be seen without the
// guard.
var deaf = []string{
	"VLAN", "VLAN, forged", "802.1ad", "802.1ad, forged", "two VLANs", "VLAN with ARP", "ARP of other lengths", "RARP",
	"BPDU", "LLDP", "slow protocols", "GARP's group", "LLDP to all", "802.1X", "PPPoE", "MPLS", "unknown type", "802.3 length",
}

// TestForgedRouted: without a bridge, nothing that is forged reaches the host's
// routing or its neighbours; without the guard it would.
func TestForgedRouted(t *testing.T) {
	t.Parallel()
	b := newBed(t, routedMode, func(c *Config) { c.AgentPorts = agentPorts }).ensure()
	attacker, victim := b.attach("172.16.0.2"), b.attach("172.16.0.3")
	if err := b.n.GuardNodes([]netip.AddrPort{netip.MustParseAddrPort("192.0.2.2:9640")}); err != nil {
		t.Fatal(err)
	}
	mustPing(t, attacker, "172.16.0.3", b.gateway())
	host := hostMACFor(attacker.spec.Addr)
	p := parties{
		mac: attacker.ep.MAC, victimMAC: host, gatewayMAC: host, // all that a container's frames can be for
		addr: attacker.spec.Addr, victim: victim.spec.Addr, gateway: netip.MustParseAddr(b.gateway()), beyond: netip.MustParseAddr("192.0.2.254"),
	}
	kinds := slices.DeleteFunc(forgeries(p, netip.MustParseAddrPort("192.0.2.1:9640"), netip.MustParseAddrPort("169.254.1.1:9642"), netip.MustParseAddrPort("192.0.2.2:9640")),
		func(f forgery) bool {
			return strings.Contains(f.name, "MAC and") || f.name == "the neighbour's MAC" || f.name == "the gateway's MAC"
		})
	kinds = append(kinds, forgery{"the neighbour's MAC", ethernet(host, victim.ep.MAC, 0x0800, udp4(p.addr, p.gateway, 1, 1))})
	b.host.Run(t, "nft", `table inet witness {
		chain prerouting { type filter hook prerouting priority -250; iifname "`+attacker.ep.HostIfname+`" tcp dport != 1 accept; iifname "`+attacker.ep.HostIfname+`" counter; }
		chain input { type filter hook input priority 1000; tcp dport { 9640, 9642 } counter; }
		chain forward { type filter hook forward priority 1000; tcp dport { 9640, 9642 } counter; }
	}
	table arp witness {
		chain input { type filter hook input priority 1000; iifname "`+attacker.ep.HostIfname+`" counter; }
	}`)
	seen := func() (n int) {
		for _, family := range []string{"inet", "arp"} {
			out := b.host.Run(t, "nft", "list", "table", family, "witness")
			for _, m := range regexp.MustCompile(`counter packets (\d+)`).FindAllStringSubmatch(out, -1) {
				k, _ := strconv.Atoi(m[1])
				n += k
			}
		}
		return n
	}
	raw := newPacketSocket(t, int(attacker.ns.file.Fd()), "eth0", 0)
	for _, agent := range []string{"running", "dead"} {
		if agent == "dead" {
			if err := b.n.Close(); err != nil {
				t.Fatal(err)
			}
			b.n = b.network() // touches nothing
		}
		for _, k := range kinds {
			before := seen()
			raw.send(t, k.frame, forgedFrames)
			if n := seen() - before; n > 0 {
				faults.Safety(t, "agent %s: %s: %d of %d passed", agent, k.name, n, forgedFrames)
			}
		}
	}
	mustPing(t, attacker, "172.16.0.3", b.gateway())
	if err := b.n.guard.remove(); err != nil {
		t.Fatal(err)
	}
	control := 0
	for _, k := range kinds {
		before := seen()
		raw.send(t, k.frame, 50)
		switch passed := seen() > before; {
		case passed:
			control++
		case !slices.Contains(deaf, k.name):
			t.Errorf("%s is seen nowhere without the guard, so its absence proves nothing", k.name)
		}
	}
	t.Logf("%d kinds, %d of them seen without the guard", len(kinds), control)
}
