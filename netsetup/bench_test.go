package netsetup

import (
	"fmt"
	"net"
	"net/netip"
	"sync"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"

	"stellar.io/stellar/internal/testx"
	"stellar.io/stellar/ipam"
)

// benchPorts is how many containers a benchmark attaches before it starts over,
// so that both see the same number of ports.
const benchPorts = 32

// BenchmarkAttach is to be compared with BenchmarkRawFloor of the same run.
func BenchmarkAttach(b *testing.B) {
	bed := newBed(b).ensure()
	var sum Timing
	benchmark(b, bed, func(i int, ns *testx.NetNS) func() {
		target, err := bed.n.OpenPath(ns.Path)
		if err != nil {
			b.Fatal(err)
		}
		addr := netip.AddrFrom4([4]byte{172, 16, 1, byte(i)})
		spec := Spec{Owner: owner(addr.String()), Addr: addr, DefaultRoute: true, NS: target}
		return func() {
			_, t, err := bed.n.Attach(b.Context(), spec)
			if err != nil {
				b.Fatal(err)
			}
			sum.Open, sum.Link, sum.Host, sum.Guest = sum.Open+t.Open, sum.Link+t.Link, sum.Host+t.Host, sum.Guest+t.Guest
			b.Cleanup(func() { target.Close() })
		}
	}, func() {
		eps, err := bed.n.List(b.Context())
		if err != nil {
			b.Fatal(err)
		}
		var wait sync.WaitGroup
		for _, ep := range eps {
			wait.Go(func() {
				if err := bed.n.Detach(b.Context(), ep.Owner); err != nil {
					b.Error(err)
				}
			})
		}
		wait.Wait()
	})
	per := func(d time.Duration) float64 { return float64(d.Microseconds()) / float64(b.N) }
	b.ReportMetric(per(sum.Open), "open-µs")
	b.ReportMetric(per(sum.Link), "link-µs")
	b.ReportMetric(per(sum.Host), "host-µs")
	b.ReportMetric(per(sum.Guest), "guest-µs")
}

// BenchmarkRawFloor is the least that any program does for an attach: a handle
// in the namespace, the pair, find the peer, address, up, default route.
func BenchmarkRawFloor(b *testing.B) {
	bed := newBed(b).ensure()
	host, err := netlink.NewHandleAt(netns.NsHandle(bed.host.FD), 0)
	if err != nil {
		b.Fatal(err)
	}
	defer host.Close()
	check := func(err error) {
		if err != nil {
			b.Fatal(err)
		}
	}
	bridge, err := host.LinkByName(DefaultBridge)
	check(err)
	benchmark(b, bed, func(i int, ns *testx.NetNS) func() {
		return func() {
			h, err := netlink.NewHandleAt(netns.NsHandle(ns.FD), 0)
			check(err)
			defer h.Close()
			attrs := netlink.NewLinkAttrs()
			attrs.Name, attrs.MasterIndex, attrs.Flags = hostName(owner(ns.Name), 0), bridge.Attrs().Index, net.FlagUp
			check(host.LinkAdd(&netlink.Veth{LinkAttrs: attrs, PeerName: "eth0", PeerNamespace: netlink.NsFd(ns.FD)}))
			peer, err := h.LinkByName("eth0")
			check(err)
			addr := &netlink.Addr{IPNet: &net.IPNet{IP: net.IPv4(172, 16, 1, byte(i)), Mask: net.CIDRMask(22, 32)}}
			check(h.AddrAdd(peer, addr))
			check(h.LinkSetUp(peer))
			check(h.RouteAdd(&netlink.Route{LinkIndex: peer.Attrs().Index, Gw: net.IPv4(172, 16, 0, 1)}))
		}
	}, func() {
		links, err := host.LinkList()
		check(err)
		var indexes []int
		for _, l := range links {
			if l.Attrs().MasterIndex == bridge.Attrs().Index {
				indexes = append(indexes, l.Attrs().Index)
			}
		}
		for _, err := range bed.n.deleteLinks(indexes) {
			check(err)
		}
	})
}

// benchmark times attach in rounds of benchPorts fresh namespaces.
func benchmark(b *testing.B, bed *bed, prepare func(i int, ns *testx.NetNS) (attach func()), clear func()) {
	for done := 0; done < b.N; done += benchPorts {
		b.StopTimer()
		round := min(benchPorts, b.N-done)
		var spaces []*testx.NetNS
		var attach []func()
		for i := range round {
			ns := testx.NewNetNS(b)
			spaces = append(spaces, ns)
			attach = append(attach, prepare(i+1, ns))
		}
		b.StartTimer()
		for _, fn := range attach {
			fn()
		}
		b.StopTimer()
		clear()
		for _, ns := range spaces {
			ns.Close()
		}
		b.StartTimer()
	}
}

// BenchmarkBurst attaches a thousand at a time, while Run watches and while it does
// not. By hand the same is measured in integration.
func BenchmarkBurst(b *testing.B) {
	for _, mode := range []ipam.Mode{ipam.ModeBridge, ipam.ModeRouted} {
		for _, watched := range []bool{false, true} {
			b.Run(fmt.Sprintf("%s/watched=%v", mode, watched), func(b *testing.B) {
				var spent time.Duration
				for range b.N {
					b.StopTimer()
					bed := newBed(b, func(c *Config) { c.Mode = mode }).ensure()
					if watched {
						bed.run()
					}
					files, specs := manySpecs(b, bed, 1000)
					used := cpuTime()
					b.StartTimer()
					attachMany(b, bed, specs)
					b.StopTimer()
					if watched {
						time.Sleep(2 * settle)
					}
					spent += cpuTime() - used
					for i, f := range files {
						specs[i].NS.Close()
						f.Close()
					}
					b.StartTimer()
				}
				b.ReportMetric(float64(1000*b.N)/b.Elapsed().Seconds(), "endpoints/s")
				b.ReportMetric(float64(spent.Microseconds())/float64(1000*b.N), "cpu-µs/endpoint")
			})
		}
	}
}
