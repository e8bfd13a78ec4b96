package integration

import (
	"strings"
	"testing"

	"stellar.io/stellar/internal/testx"
)

// TestNetworkPlans: networks from a /24 to a /8, chosen at `cluster init`.
func TestNetworkPlans(t *testing.T) {
	for _, tt := range []struct{ network, prefix, subnet, first string }{
		{"192.168.0.0/24", "26", "192.168.0.0/26", "192.168.0.2"},
		{"10.0.0.0/8", "22", "10.0.0.0/22", "10.0.0.2"},
	} {
		t.Run(strings.ReplaceAll(tt.network, "/", "-"), func(t *testing.T) {
			n := startNode(t, nodeOptions{noAgent: true})
			n.startAgent()
			if _, err := n.run("status", "--wait", "--timeout", "100ms"); err == nil {
				t.Error("ready without a cluster")
			}
			if _, err := n.run("cluster", "init", "--network", "192.168.0.0/33"); err == nil {
				t.Error("an impossible network was taken")
			}
			if out := n.cli("cluster", "init", "--network", tt.network, "--subnet-prefix", tt.prefix); !strings.Contains(out, tt.subnet) {
				t.Errorf("cluster init:\n%s", out)
			}
			if _, err := n.run("cluster", "init"); err == nil || !strings.Contains(err.Error(), "already") {
				t.Errorf("second cluster init: %v", err)
			}
			n.cli("status", "--wait", "--timeout", "30s")
			if a := n.start("a"); a.Address != tt.first {
				t.Errorf("address %s, want %s", a.Address, tt.first)
			}
			n.reaches("a", "192.0.2.254")
		})
	}
}

// TestHostRangesAreReserved: subnets that the host itself uses, as Docker's, are
// passed over.
func TestHostRangesAreReserved(t *testing.T) {
	n := startNode(t, nodeOptions{noAgent: true})
	n.host.Run(t, "ip", "route", "add", "172.16.0.0/15", "via", "192.0.2.254")
	n.startAgent("--init")
	n.cli("status", "--wait", "--timeout", "30s")
	if a := n.start("a"); a.Address != "172.18.0.2" {
		t.Errorf("address %s, want the first outside of the host's range", a.Address)
	}
}

// TestSubnetFull: the next container is rejected, none is displaced, and an
// address that becomes free is given.
func TestSubnetFull(t *testing.T) {
	n := startNode(t, nodeOptions{noAgent: true, flags: []string{"--config", writeConfig(t, `cool-down = "1s"`)}})
	n.startAgent()
	n.cli("cluster", "init", "--network", "192.168.0.0/24", "--subnet-prefix", "29")
	n.cli("status", "--wait", "--timeout", "30s")
	ids := []string{"a", "b", "c", "d", "e"} // 8 less network, gateway and broadcast
	for _, id := range ids {
		n.start(id)
	}
	n.runContainer(testx.Run{ID: "f", Labels: networked()})
	if e := n.await("f", "rejected"); !strings.Contains(e.Reason, "subnet full") {
		t.Errorf("reason %q", e.Reason)
	}
	for _, id := range ids {
		n.await(id, "attached")
	}
	if err := n.containerd.Remove("default", "c"); err != nil {
		t.Fatal(err)
	}
	n.awaitLong("f", "attached")
	n.reaches("f", "192.168.0.1")
}
