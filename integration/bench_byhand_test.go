package integration

import (
	"fmt"
	"testing"

	"stellar.io/stellar/internal/testx"
)

// hand is what the kernel gives without Stellar: hosts on a LAN of their own, and from one
// host's containers to another's three ways.
type hand struct {
	hosts []*testx.NetNS
	// bridged: behind a bridge, a route to the other host's. routed: without a bridge.
	// Both without a firewall, so without connection tracking.
	bridged, routed way
	// overlay: behind a bridge, a route through a VXLAN, and masqueraded where it
	// leaves the overlay, as flannel makes it.
	overlay way
}

func byHand(b *testing.B) hand {
	b.Helper()
	lan, tunnels := testx.NewLAN(b, 2), testx.NewLAN(b, 2)
	h := hand{hosts: append(lan.Hosts, tunnels.Hosts...)}
	for i, host := range lan.Hosts {
		host.Run(b, "sysctl", "-qw", "net.ipv4.ip_forward=1")
		host.Run(b, "ip", "route", "add", fmt.Sprintf("10.77.%d.0/24", 2-i), "via", fmt.Sprintf("192.0.2.%d", 2-i))
		ends := []struct {
			way *way
			ns  *testx.NetNS
			to  string
		}{
			{&h.bridged, handBridged(b, host, "bridged", fmt.Sprintf("10.77.%d", i+1), "/25", "1500"), fmt.Sprintf("10.77.%d.2", i+1)},
			{&h.routed, handRouted(b, host, fmt.Sprintf("10.77.%d.200", i+1)), fmt.Sprintf("10.77.%d.200", i+1)},
			{&h.overlay, handOverlay(b, tunnels.Hosts[i], i), fmt.Sprintf("10.78.%d.2", i+1)},
		}
		for _, e := range ends {
			if i == 0 {
				e.way.from = e.ns
				continue
			}
			e.way.to = e.to
			hears(b, e.ns)
		}
	}
	return h
}

// handBridged is a container behind a bridge of its own, in the prefix NET.0.
func handBridged(b *testing.B, host *testx.NetNS, name, net, bits, mtu string) *testx.NetNS {
	b.Helper()
	ns, bridge := handPod(b, host, name), name+"0"
	host.Run(b, "ip", "link", "add", bridge, "type", "bridge")
	host.Run(b, "ip", "link", "set", bridge, "mtu", mtu)
	host.Run(b, "ip", "address", "add", net+".1"+bits, "dev", bridge)
	host.Run(b, "ip", "link", "set", bridge, "up")
	host.Run(b, "ip", "link", "set", name, "mtu", mtu, "master", bridge, "up")
	ns.Run(b, "ip", "link", "set", "eth0", "mtu", mtu)
	ns.Run(b, "ip", "address", "add", net+".2"+bits, "dev", "eth0")
	ns.Run(b, "ip", "route", "add", "default", "via", net+".1")
	return ns
}

// handRouted is a container that is routed without a bridge.
func handRouted(b *testing.B, host *testx.NetNS, address string) *testx.NetNS {
	b.Helper()
	const gateway = "02:00:0a:4d:00:fe"
	ns := handPod(b, host, "routed")
	host.Run(b, "ip", "link", "set", "routed", "address", gateway, "up")
	host.Run(b, "ip", "route", "add", address+"/32", "dev", "routed")
	ns.Run(b, "ip", "address", "add", address+"/32", "dev", "eth0")
	ns.Run(b, "ip", "route", "add", "169.254.1.1", "dev", "eth0")
	ns.Run(b, "ip", "route", "add", "default", "via", "169.254.1.1")
	ns.Run(b, "ip", "neighbour", "add", "169.254.1.1", "lladdr", gateway, "dev", "eth0", "nud", "permanent")
	return ns
}

// handOverlay is a container behind a bridge whose packets take a VXLAN to the other
// host, and the host's end of it. The i-th host has the prefix 10.78.I+1.0/24.
func handOverlay(b *testing.B, host *testx.NetNS, i int) *testx.NetNS {
	b.Helper()
	own, other := i+1, 2-i
	mac := func(k int) string { return fmt.Sprintf("02:00:00:00:00:%02x", k) }
	gateway := fmt.Sprintf("10.78.%d.0", other)
	host.Run(b, "sysctl", "-qw", "net.ipv4.ip_forward=1")
	host.Run(b, "nft", fmt.Sprintf("add table ip way; add chain ip way out { type nat hook postrouting priority srcnat; };"+
		" add rule ip way out ip saddr 10.78.%d.0/24 ip daddr != 10.78.0.0/16 masquerade", own))
	host.Run(b, "ip", "link", "add", "vx0", "address", mac(own), "type", "vxlan", "id", "7",
		"remote", fmt.Sprintf("192.0.2.%d", other), "dstport", "4789", "dev", "eth0")
	host.Run(b, "ip", "address", "add", fmt.Sprintf("10.78.%d.0/32", own), "dev", "vx0")
	host.Run(b, "ip", "link", "set", "vx0", "up")
	host.Run(b, "ip", "route", "add", gateway+"/24", "via", gateway, "dev", "vx0", "onlink")
	host.Run(b, "ip", "neighbour", "add", gateway, "lladdr", mac(other), "dev", "vx0", "nud", "permanent")
	return handBridged(b, host, "overlay", fmt.Sprintf("10.78.%d", own), "/24", "1450")
}

// handPod is a namespace with eth0, whose other end is the host's link of that name.
func handPod(b *testing.B, host *testx.NetNS, link string) *testx.NetNS {
	b.Helper()
	ns := testx.NewNetNS(b)
	host.Run(b, "ip", "link", "add", link, "type", "veth", "peer", "name", "eth0", "netns", ns.Name)
	ns.Run(b, "ip", "link", "set", "eth0", "up")
	return ns
}

// hears starts a server in a namespace, for the length of the test.
func hears(b *testing.B, ns *testx.NetNS, prefix ...string) {
	b.Helper()
	args := append(prefix, "iperf3", "-s", "-p", iperfPort)
	cmd, start := ns.Command(args[0], args[1:]...)
	if err := start(); err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	})
}
