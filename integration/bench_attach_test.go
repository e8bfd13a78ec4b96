package integration

import (
	"bytes"
	"context"
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"

	"stellar.io/stellar/internal/testx"
	"stellar.io/stellar/ipam"
	"stellar.io/stellar/netsetup"
)

const (
	attachPairs = 200 // measured, each side
	// attachRound is how many pairs are made before all ports go, so that the
	// bridge has 0 to 4 × attachRound of them throughout.
	attachRound = 25
)

// benchAttachSection measures what an attach costs beside raw netlink and CNI, one by
// one and in bursts, in both modes.
func benchAttachSection(b *testing.B, t *table) {
	lease := newLeaseBench(b)
	for _, mode := range []ipam.Mode{ipam.ModeBridge, ipam.ModeRouted} {
		benchAttach(t, newAttachBench(b, mode), lease)
		benchBurst(b, t, mode)
	}
}

// benchAttach measures one attach by raw netlink, by netsetup and by CNI, and one
// lease, in turns: whatever else the machine does hits all of them.
func benchAttach(t *table, bench *attachBench, lease *leaseBench) {
	var library, hand, waits, own, bind, propose, sync, both, cni samples
	total := scaled(attachPairs)
	p := newProgress(fmt.Sprintf("mode %s: attach by raw netlink, by Stellar and by CNI, and leases", bench.mode), total)
	for done := 0; done < total; {
		round := bench.round(min(attachRound, total-done))
		for i, pair := range round {
			var took time.Duration
			turns := []func(){
				func() { library.add(bench.library(pair.library)) },
				func() { hand.add(bench.hand(pair.hand, false)) },
				func() { waits.add(bench.hand(pair.waits, true)) },
				func() {
					took = bench.attach(pair)
					own.add(took)
				},
			}
			for k := range turns { // what comes later finds the caches warm
				turns[(i+k)%len(turns)]()
			}
			leased := lease.bind()
			bind.add(leased)
			both.add(took + leased)
			propose.add(lease.propose())
			sync.add(lease.sync())
			if i%2 == 0 {
				cni.add(bench.cni(pair.cni))
			}
			done++
			p.done(done)
		}
		bench.clear(round)
	}
	in := fmt.Sprintf(", mode %s", bench.mode)
	t.spread("raw netlink, a library's requests one by one"+in, "ms", library, bar{})
	t.spread("raw netlink, by hand: plain sockets, batched"+in, "ms", hand, bar{})
	t.spread("raw netlink, by hand, and waits for the carrier"+in, "ms", waits, bar{})
	t.spread("netsetup.Attach, filters on (own part)"+in, "ms", own, bar{})
	t.ratio("own part / by hand and waits"+in, own, waits, bar{p50: 1.5})
	t.ratio("own part / a library's requests"+in, own, library, bar{p50: 1.5})
	t.spread("append and fsync 256 bytes (floor)"+in, "ms", sync, bar{})
	t.spread("Propose on one node, fsync"+in, "ms", propose, bar{})
	t.spread("lease: Bind, journal and Raft, fsync"+in, "ms", bind, bar{})
	t.spread("own part + lease"+in, "ms", both, bar{})
	t.spread("CNI bridge + host-local v1.9.1, ADD (exec)"+in, "ms", cni, bar{})
	t.ratio("CNI / (own part + lease)"+in, cni, both, bar{p50: 4, atLeast: true})
}

// attachBench is a host with our network, used by us and by the raw requests, and
// a bridge of CNI's.
type attachBench struct {
	b       *testing.B
	mode    ipam.Mode
	host    *testx.NetNS
	own     *netsetup.Network
	raw     *netlink.Handle
	worker  *rawWorker
	bridge  int // index; 0 in routed mode
	tools   string
	cniConf string
	made    int
}

// attachPair is what one turn attaches: fresh namespaces.
type attachPair struct {
	library, hand, waits, own, cni *testx.NetNS
	spec                           netsetup.Spec
}

func newAttachBench(b *testing.B, mode ipam.Mode) *attachBench {
	b.Helper()
	a := &attachBench{b: b, mode: mode, host: testx.NewLAN(b, 1).Hosts[0]}
	hostns, err := os.Open(a.host.Path)
	a.check(err)
	b.Cleanup(func() { hostns.Close() })
	a.own, err = netsetup.New(netsetup.Config{
		Node: benchNode, Mode: mode, Masquerade: true, HostNS: hostns,
		Network: netip.MustParsePrefix("172.16.0.0/12"), Subnet: netip.MustParsePrefix("172.16.0.0/22"),
	})
	a.check(err)
	b.Cleanup(func() { a.own.Close() })
	a.check(a.own.Ensure(b.Context()))
	a.raw, err = netlink.NewHandleAt(netns.NsHandle(a.host.FD), 0)
	a.check(err)
	b.Cleanup(a.raw.Close)
	if mode == ipam.ModeBridge {
		link, err := a.raw.LinkByName(netsetup.DefaultBridge)
		a.check(err)
		a.bridge = link.Attrs().Index
	}
	a.worker = newRawWorker(b, a.host.FD, a.bridge)
	a.tools, err = testx.CNITools()
	a.check(err)
	a.cniConf = fmt.Sprintf(`{"cniVersion": "1.0.0", "name": "bench", "type": "bridge", "bridge": "cni0", "isGateway": true,
		"ipam": {"type": "host-local", "dataDir": %q, "ranges": [[{"subnet": "10.88.0.0/16"}]], "routes": [{"dst": "0.0.0.0/0"}]}}`,
		filepath.Join(scratch(b), "ipam"))
	return a
}

func (a *attachBench) check(err error) {
	a.b.Helper()
	if err != nil {
		a.b.Fatal(err)
	}
}

// round prepares n turns; none of this is measured.
func (a *attachBench) round(n int) []*attachPair {
	pairs := make([]*attachPair, n)
	for i := range pairs {
		p := &attachPair{}
		for _, ns := range p.spaces() {
			*ns = testx.NewNetNS(a.b)
		}
		target, err := a.own.OpenPath(p.own.Path)
		a.check(err)
		p.spec = netsetup.Spec{
			Owner: ipam.Owner{Kind: ipam.OwnerContainer, Namespace: "default", ID: p.own.Name, Created: 1, Interface: "eth0"},
			Addr:  a.address(), DefaultRoute: true, NS: target,
		}
		pairs[i] = p
	}
	return pairs
}

func (p *attachPair) spaces() []**testx.NetNS {
	return []**testx.NetNS{&p.library, &p.hand, &p.waits, &p.own, &p.cni}
}

// address gives each attach another one, over and over in 172.16.0.0/22.
func (a *attachBench) address() netip.Addr {
	a.made++
	return netip.AddrFrom4([4]byte{172, 16, byte(1 + a.made/250%3), byte(1 + a.made%250)})
}

// library is what most programs do: requests one after the other, each answered
// before the next, by the library that everybody uses. Nothing waits for the carrier.
func (a *attachBench) library(ns *testx.NetNS) time.Duration {
	ip := a.address().As4()
	bits, flags, gateway := 22, 0, net.IPv4(172, 16, 0, 1)
	if a.mode == ipam.ModeRouted {
		bits, flags, gateway = 32, int(netlink.FLAG_ONLINK), net.IP(rawGateway.AsSlice())
	}
	start := time.Now()
	h, err := netlink.NewHandleAt(netns.NsHandle(ns.FD), 0)
	a.check(err)
	attrs := netlink.NewLinkAttrs()
	attrs.Name, attrs.MasterIndex, attrs.Flags = fmt.Sprintf("raw%d", a.made), a.bridge, net.FlagUp
	a.check(a.raw.LinkAdd(&netlink.Veth{LinkAttrs: attrs, PeerName: "eth0", PeerNamespace: netlink.NsFd(ns.FD)}))
	peer, err := h.LinkByName("eth0")
	a.check(err)
	index := peer.Attrs().Index
	a.check(h.AddrAdd(peer, &netlink.Addr{IPNet: &net.IPNet{IP: ip[:], Mask: net.CIDRMask(bits, 32)}}))
	a.check(h.LinkSetUp(peer))
	a.check(h.RouteAdd(&netlink.Route{LinkIndex: index, Gw: gateway, Flags: flags}))
	if a.mode == ipam.ModeRouted {
		host, err := a.raw.LinkByName(attrs.Name)
		a.check(err)
		a.check(h.NeighSet(&netlink.Neigh{LinkIndex: index, State: netlink.NUD_PERMANENT, IP: gateway, HardwareAddr: host.Attrs().HardwareAddr}))
		a.check(a.raw.NeighSet(&netlink.Neigh{LinkIndex: host.Attrs().Index, State: netlink.NUD_PERMANENT, IP: ip[:], HardwareAddr: peer.Attrs().HardwareAddr}))
		a.check(a.raw.RouteAdd(&netlink.Route{LinkIndex: host.Attrs().Index, Scope: netlink.SCOPE_LINK, Dst: &net.IPNet{IP: ip[:], Mask: net.CIDRMask(32, 32)}, Src: gateway}))
	}
	took := time.Since(start)
	h.Close()
	return took
}

// hand is the floor; see rawWorker.
func (a *attachBench) hand(ns *testx.NetNS, wait bool) time.Duration {
	job := rawJob{mode: a.mode, ns: ns.FD, addr: a.address(), name: fmt.Sprintf("raw%d", a.made), wait: wait}
	var took time.Duration
	a.worker.do(func(attach func(rawJob)) {
		start := time.Now()
		attach(job)
		took = time.Since(start)
	})
	return took
}

// attach is our part: addresses and namespace are given.
func (a *attachBench) attach(p *attachPair) time.Duration {
	start := time.Now()
	_, _, err := a.own.Attach(a.b.Context(), p.spec)
	took := time.Since(start)
	a.check(err)
	return took
}

// cni is what a CNI runtime does: run the plugin, in the host's namespace.
func (a *attachBench) cni(ns *testx.NetNS) time.Duration {
	cmd, start := a.host.Command(filepath.Join(a.tools, "bridge"))
	cmd.Env = append(os.Environ(), "CNI_COMMAND=ADD", "CNI_CONTAINERID="+ns.Name, "CNI_NETNS="+ns.Path, "CNI_IFNAME=eth0", "CNI_PATH="+a.tools)
	cmd.Stdin = strings.NewReader(a.cniConf)
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	begin := time.Now()
	err := start()
	if err == nil {
		err = cmd.Wait()
	}
	took := time.Since(begin)
	if err != nil {
		a.b.Fatalf("CNI ADD: %v\n%s", err, &out)
	}
	return took
}

// clear ends a round: the links die with their namespaces.
func (a *attachBench) clear(round []*attachPair) {
	for _, p := range round {
		p.spec.NS.Close()
		for _, ns := range p.spaces() {
			a.check((*ns).Close())
		}
	}
	ctx, cancel := context.WithTimeout(a.b.Context(), quiet)
	defer cancel()
	var wait sync.WaitGroup
	for _, p := range round {
		wait.Go(func() {
			if err := a.own.Detach(ctx, p.spec.Owner); err != nil {
				a.b.Error(err)
			}
		})
	}
	wait.Wait()
	a.empty()
}

// empty waits until no pair is left on the host.
func (a *attachBench) empty() {
	for deadline := time.Now().Add(quiet); ; time.Sleep(10 * time.Millisecond) {
		links, err := a.raw.LinkList()
		left := 0
		for _, l := range links {
			if name := l.Attrs().Name; strings.HasPrefix(name, "raw") || strings.HasPrefix(name, "veth") {
				left++
			}
		}
		if err == nil && left == 0 {
			return
		}
		if time.Now().After(deadline) {
			a.b.Fatalf("%d pairs are left after a round: %v", left, err)
		}
	}
}
