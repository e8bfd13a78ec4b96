package integration

import (
	"context"
	"fmt"
	"net/netip"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"

	"stellar.io/stellar/internal/nlx"
	"stellar.io/stellar/internal/testx"
	"stellar.io/stellar/routes"
)

const (
	routesTimes = 5
	routesRest  = 21 * time.Second // two audits
)

// benchRoutes measures the routes to many peers, from nothing, and counts what is
// written once they are there.
func benchRoutes(b *testing.B, t *table) {
	for _, s := range []struct {
		peers int
		bar   float64
	}{{1023, 150}, {4095, 600}} {
		host, wants := manyPeers(b, s.peers)
		var took samples
		for range routesTimes {
			if err := routes.Cleanup(host.FD); err != nil {
				b.Fatal(err)
			}
			took.add(fromNothing(b, host, wants))
		}
		t.spread(fmt.Sprintf("%d peer routes from nothing", s.peers), "ms", took, bar{p50: s.bar})
	}
	t.value(fmt.Sprintf("  route messages of the kernel in a steady state, %s", routesRest), "", 1, float64(steady(b)), bar{none: true})
}

// manyPeers is a host that has so many peers on its link.
func manyPeers(b *testing.B, n int) (*testx.NetNS, routes.Wants) {
	b.Helper()
	host := testx.NewLAN(b, 1).Hosts[0]
	host.Run(b, "ip", "address", "add", "198.18.0.1/15", "dev", "eth0")
	w := routes.Wants{
		Network: netip.MustParsePrefix("10.0.0.0/8"), Subnet: netip.MustParsePrefix("10.0.0.0/20"),
		Device: "stellar0", Node: "node0", Address: netip.MustParseAddr("198.18.0.1"), Complete: true,
	}
	for i := 1; i <= n; i++ {
		w.Peers = append(w.Peers, routes.Peer{
			Node: fmt.Sprintf("node%d", i), Subnet: netip.PrefixFrom(netip.AddrFrom4([4]byte{10, byte(i >> 4), byte(i << 4), 0}), 20),
			Address: netip.AddrFrom4([4]byte{198, 18, byte((i + 1) >> 8), byte(i + 1)}),
		})
	}
	return host, w
}

// manage runs a manager until stop is called.
func manage(b *testing.B, host *testx.NetNS, w routes.Wants) (m *routes.Manager, stop func()) {
	m = routes.New(routes.Config{Namespace: host.FD, Wants: func() routes.Wants { return w }})
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- m.Run(ctx) }()
	return m, func() {
		cancel()
		if err := <-ended; err != nil {
			b.Error(err)
		}
	}
}

// fromNothing starts a manager and returns when all is as wanted; the kernel's table
// is counted afterwards.
func fromNothing(b *testing.B, host *testx.NetNS, w routes.Wants) time.Duration {
	b.Helper()
	start := time.Now()
	m, stop := manage(b, host, w)
	defer stop()
	for len(m.Status()) != len(w.Peers)+2 || len(m.Drift()) > 0 { // this node's own, and the network's
		if time.Since(start) > quiet {
			b.Fatal("the routes do not come")
		}
		time.Sleep(time.Millisecond)
	}
	took := time.Since(start)
	h, err := netlink.NewHandleAt(netns.NsHandle(host.FD))
	if err != nil {
		b.Fatal(err)
	}
	defer h.Close()
	list, err := h.RouteListFiltered(netlink.FAMILY_V4, &netlink.Route{Protocol: 147}, netlink.RT_FILTER_PROTOCOL)
	if err != nil || len(list) != len(w.Peers)+1 {
		b.Fatalf("%d routes, %v", len(list), err)
	}
	return took
}

// steady counts the kernel's messages about routes while nothing is to be done.
func steady(b *testing.B) (changes int) {
	b.Helper()
	host, w := manyPeers(b, 1023)
	fromNothing(b, host, w)
	sub, err := nlx.Subscribe(host.FD, unix.NETLINK_ROUTE, unix.RTNLGRP_IPV4_ROUTE)
	if err != nil {
		b.Fatal(err)
	}
	defer sub.Close()
	ctx, cancel := context.WithTimeout(b.Context(), routesRest)
	defer cancel()
	m, stop := manage(b, host, w) // a restart counts as well
	defer stop()
	go func() { // ends with ctx
		for ctx.Err() == nil {
			m.Changed()
			time.Sleep(100 * time.Millisecond)
		}
	}()
	for sub.Receive(ctx, func(typ uint16, _ []byte) {
		if typ == unix.RTM_NEWROUTE || typ == unix.RTM_DELROUTE {
			changes++
		}
	}) == nil {
	}
	return changes
}
