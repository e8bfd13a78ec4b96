package integration

import (
	"fmt"
	"testing"

	"stellar.io/stellar/internal/testx"
)

// byHand makes what the kernel gives without Stellar: two hosts on a LAN of their own,
// no agent, no firewall, no connection tracking, and on each a namespace behind a bridge
// and one that is routed without a bridge. It returns the ways from the first host's
// to the second's.
func byHand(b *testing.B) (bridged, routed way) {
	b.Helper()
	lan := testx.NewLAN(b, 2)
	ways := [2]way{}
	for i, host := range lan.Hosts {
		own, other := fmt.Sprintf("10.77.%d", i+1), fmt.Sprintf("10.77.%d", 2-i)
		host.Run(b, "sysctl", "-qw", "net.ipv4.ip_forward=1")
		host.Run(b, "ip", "route", "add", other+".0/24", "via", fmt.Sprintf("192.0.2.%d", 2-i))

		behind := handPod(b, host, "bridged")
		host.Run(b, "ip", "link", "add", "hand0", "type", "bridge")
		host.Run(b, "ip", "address", "add", own+".1/25", "dev", "hand0")
		host.Run(b, "ip", "link", "set", "hand0", "up")
		host.Run(b, "ip", "link", "set", "bridged", "master", "hand0", "up")
		behind.Run(b, "ip", "address", "add", own+".2/25", "dev", "eth0")
		behind.Run(b, "ip", "route", "add", "default", "via", own+".1")

		without := handPod(b, host, "routed")
		const gateway = "02:00:0a:4d:00:fe"
		host.Run(b, "ip", "link", "set", "routed", "address", gateway, "up")
		host.Run(b, "ip", "route", "add", own+".200/32", "dev", "routed")
		without.Run(b, "ip", "address", "add", own+".200/32", "dev", "eth0")
		without.Run(b, "ip", "route", "add", "169.254.1.1", "dev", "eth0")
		without.Run(b, "ip", "route", "add", "default", "via", "169.254.1.1")
		without.Run(b, "ip", "neighbour", "add", "169.254.1.1", "lladdr", gateway, "dev", "eth0", "nud", "permanent")

		for k, ns := range []*testx.NetNS{behind, without} {
			if i == 0 {
				ways[k].from = ns
				continue
			}
			ways[k].to = own + []string{".2", ".200"}[k]
			hears(b, ns)
		}
	}
	return ways[0], ways[1]
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
