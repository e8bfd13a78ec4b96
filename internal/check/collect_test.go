package check

import (
	"fmt"
	"net"
	"net/netip"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"stellar.io/stellar/internal/nlx"
	"stellar.io/stellar/internal/testx"
	"stellar.io/stellar/internal/testx/faults"
	"stellar.io/stellar/routes"
)

// TestWhoHas: who answers on a link is heard, and the asker's own address is asked for
// as one that nobody has.
func TestWhoHas(t *testing.T) {
	lan := testx.NewLAN(t, 3)
	lan.Outside.Run(t, "ip", "address", "add", "192.0.2.2/32", "dev", "lan") // as host 2 has, too
	lan.Hosts[2].Run(t, "ip", "link", "set", "eth0", "down")
	carrier(t, lan.Hosts[0])
	carrier(t, lan.Hosts[1])
	own := netip.MustParseAddr("192.0.2.1")
	targets := []netip.Addr{own, netip.MustParseAddr("192.0.2.2"), netip.MustParseAddr("192.0.2.3"), netip.MustParseAddr("192.0.2.254")}
	var found map[netip.Addr][]string
	if err := lan.Hosts[0].Do(func() error {
		c, err := nlx.Dial(-1, unix.NETLINK_ROUTE)
		if err != nil {
			return err
		}
		defer c.Close()
		l, err := c.LinkByName("eth0")
		if err != nil {
			return err
		}
		found, err = whoHas(t.Context(), l, own, targets)
		return err
	}); err != nil {
		t.Fatal(err)
	}
	for i, want := range []int{0, 2, 0, 1} {
		if len(found[targets[i]]) != want {
			t.Errorf("%s is answered by %v, want %d", targets[i], found[targets[i]], want)
		}
	}
	if neighbours := lan.Hosts[1].Run(t, "ip", "neigh"); strings.Contains(neighbours, "0.0.0.0") {
		t.Errorf("the question for the own address was learned: %s", neighbours)
	}
}

// TestCollectOnAStrangeHost: a host without anything of ours, with no cluster, has no
// findings and nothing that could not be learned; afterwards it is as before.
func TestCollectOnAStrangeHost(t *testing.T) {
	lan := testx.NewLAN(t, 1)
	host := lan.Hosts[0]
	look := func() string {
		return host.Run(t, "sh", "-c", "ip -o address; ip route show table all; ip rule; nft list ruleset; cat /proc/sys/net/ipv4/conf/*/forwarding")
	}
	before := look()
	dir := t.TempDir()
	if err := os.Chmod(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	var f Facts
	if err := host.Do(func() (err error) {
		f, err = Collect(t.Context(), Given{Node: "a", AgentDown: "none", Bridge: "stellar0", Masquerade: true, DataDir: dir})
		return err
	}); err != nil {
		t.Fatal(err)
	}
	if found := Judge(f); len(found) > 0 || len(f.Doubts) > 0 {
		t.Errorf("found %+v, doubts %q", found, f.Doubts)
	}
	if after := look(); after != before {
		t.Errorf("before:\n%s\nafter:\n%s", before, after)
	}
}

// carrier waits until the kernel has acted on the carrier of a host's link.
func carrier(t *testing.T, host *testx.NetNS) {
	t.Helper()
	for range 500 {
		if strings.Contains(host.Run(t, "ip", "-o", "link", "show", "eth0"), "state UP") {
			return
		}
		time.Sleep(10 * time.Millisecond)
	}
	t.Fatal("no carrier")
}

// TestCollectAsAMember: what a node's kernel lacks is found by a look at it.
func TestCollectAsAMember(t *testing.T) {
	lan := testx.NewLAN(t, 2)
	carrier(t, lan.Hosts[0])
	peer := routes.Peer{Node: "b", Subnet: netip.MustParsePrefix("172.16.4.0/22"), Address: netip.MustParseAddr("192.0.2.2")}
	g := Given{
		Node: "a", Member: true, Bridge: "stellar0", Gateway: netip.MustParseAddr("172.16.0.1"), Address: netip.MustParseAddrPort("192.0.2.1:9640"),
		Wants: routes.Wants{Network: netip.MustParsePrefix("172.16.0.0/12"), Subnet: netip.MustParsePrefix("172.16.0.0/22"), Device: "stellar0", Node: "a",
			Address: netip.MustParseAddr("192.0.2.1"), Peers: []routes.Peer{peer}, Complete: true},
		Peers: []Peer{{Name: "b", Address: netip.MustParseAddrPort("192.0.2.2:9640"), Subnet: peer.Subnet}},
	}
	var codes []string
	if err := lan.Hosts[0].Do(func() error {
		f, err := Collect(t.Context(), g)
		for _, c := range Judge(f) {
			codes = append(codes, c.Code)
		}
		return err
	}); err != nil {
		t.Fatal(err)
	}
	if want := []string{BridgeMissing, RouteMissing, RouteMissing}; !slices.Equal(codes, want) {
		faults.Safety(t, "found %v, want %v", codes, want)
	}
}

// TestListener: a port that somebody has is told, with who it is.
func TestListener(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	at := netip.MustParseAddrPort(l.Addr().String())
	taken, by := listener(at)
	if want := fmt.Sprintf("(pid %d)", os.Getpid()); !taken || !strings.Contains(by, want) {
		t.Errorf("taken %t by %q, want %s", taken, by, want)
	}
	if taken, _ := listener(netip.AddrPortFrom(netip.MustParseAddr("127.0.0.2"), at.Port())); taken {
		t.Error("the same port of another address")
	}
	l.Close()
	if taken, _ := listener(at); taken {
		t.Error("taken after its end")
	}
}
