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
	// bridge has 0 to 2 × attachRound of them throughout.
	attachRound = 25
	cniDir      = "/usr/lib/cni"
)

// benchAttach measures one attach by raw netlink, by netsetup and by CNI, and one
// lease, in turns: whatever else the machine does hits all of them.
func benchAttach(b *testing.B, t *table) {
	bench := newAttachBench(b)
	lease := newLeaseBench(b)
	var floor, own, bind, propose, sync, both, cni samples
	total := scaled(attachPairs)
	p := newProgress("attach by raw netlink, by Stellar and by CNI, and leases", total)
	for done := 0; done < total; {
		round := bench.round(min(attachRound, total-done))
		for i, pair := range round {
			var took, leased time.Duration
			first := func() { floor.add(bench.floor(pair.floor)) }
			second := func() {
				took = bench.attach(pair)
				own.add(took)
			}
			if i%2 == 1 { // what comes second finds the caches warm
				first, second = second, first
			}
			first()
			second()
			leased = lease.bind()
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
	t.spread("raw netlink, six requests (floor)", "ms", floor, bar{})
	t.spread("netsetup.Attach (own part)", "ms", own, bar{})
	t.ratio("own part / floor", own, floor, bar{p50: 2, later: "≤ 1.5×"})
	t.spread("append and fsync 256 bytes (floor)", "ms", sync, bar{})
	t.spread("Propose on one node, fsync", "ms", propose, bar{})
	t.spread("lease: Bind, journal and Raft, fsync", "ms", bind, bar{})
	t.spread("own part + lease", "ms", both, bar{})
	t.spread("CNI bridge + host-local, ADD", "ms", cni, bar{})
	t.ratio("CNI / (own part + lease)", cni, both, bar{p50: 3, atLeast: true, later: "≥ 4×"})
}

// attachBench is a host with our bridge, used by us and by the raw requests, and
// a bridge of CNI's.
type attachBench struct {
	b       *testing.B
	host    *testx.NetNS
	own     *netsetup.Network
	raw     *netlink.Handle
	bridge  int // index
	cniConf string
	made    int
}

// attachPair is what one turn attaches: three fresh namespaces.
type attachPair struct {
	floor, own, cni *testx.NetNS
	spec            netsetup.Spec
}

func newAttachBench(b *testing.B) *attachBench {
	b.Helper()
	a := &attachBench{b: b, host: testx.NewLAN(b, 1).Hosts[0]}
	hostns, err := os.Open(a.host.Path)
	a.check(err)
	b.Cleanup(func() { hostns.Close() })
	a.own, err = netsetup.New(netsetup.Config{
		Node: benchNode, Mode: ipam.ModeBridge, Masquerade: true, HostNS: hostns,
		Network: netip.MustParsePrefix("172.16.0.0/12"), Subnet: netip.MustParsePrefix("172.16.0.0/22"),
	})
	a.check(err)
	b.Cleanup(func() { a.own.Close() })
	a.check(a.own.Ensure(b.Context()))
	a.raw, err = netlink.NewHandleAt(netns.NsHandle(a.host.FD), 0)
	a.check(err)
	b.Cleanup(a.raw.Close)
	link, err := a.raw.LinkByName(netsetup.DefaultBridge)
	a.check(err)
	a.bridge = link.Attrs().Index
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
		p := &attachPair{floor: testx.NewNetNS(a.b), own: testx.NewNetNS(a.b), cni: testx.NewNetNS(a.b)}
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

// address gives each attach another one, over and over in 172.16.0.0/22.
func (a *attachBench) address() netip.Addr {
	a.made++
	return netip.AddrFrom4([4]byte{172, 16, byte(1 + a.made/250%3), byte(1 + a.made%250)})
}

// floor is the least that any program does: six requests, one after the other,
// by the library that everybody uses.
func (a *attachBench) floor(ns *testx.NetNS) time.Duration {
	ip := a.address().As4()
	start := time.Now()
	h, err := netlink.NewHandleAt(netns.NsHandle(ns.FD), 0)
	a.check(err)
	attrs := netlink.NewLinkAttrs()
	attrs.Name, attrs.MasterIndex, attrs.Flags = fmt.Sprintf("raw%d", a.made), a.bridge, net.FlagUp
	a.check(a.raw.LinkAdd(&netlink.Veth{LinkAttrs: attrs, PeerName: "eth0", PeerNamespace: netlink.NsFd(ns.FD)}))
	peer, err := h.LinkByName("eth0")
	a.check(err)
	a.check(h.AddrAdd(peer, &netlink.Addr{IPNet: &net.IPNet{IP: ip[:], Mask: net.CIDRMask(22, 32)}}))
	a.check(h.LinkSetUp(peer))
	a.check(h.RouteAdd(&netlink.Route{LinkIndex: peer.Attrs().Index, Gw: net.IPv4(172, 16, 0, 1)}))
	took := time.Since(start)
	h.Close()
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
	cmd, start := a.host.Command(filepath.Join(cniDir, "bridge"))
	cmd.Env = append(os.Environ(), "CNI_COMMAND=ADD", "CNI_CONTAINERID="+ns.Name, "CNI_NETNS="+ns.Path, "CNI_IFNAME=eth0", "CNI_PATH="+cniDir)
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
		a.b.Fatalf("CNI ADD (Debian's package containernetworking-plugins in %s): %v\n%s", cniDir, err, &out)
	}
	return took
}

// clear ends a round: the links die with their namespaces.
func (a *attachBench) clear(round []*attachPair) {
	for _, p := range round {
		p.spec.NS.Close()
		for _, ns := range []*testx.NetNS{p.floor, p.own, p.cni} {
			a.check(ns.Close())
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
	for deadline := time.Now().Add(quiet); ; time.Sleep(10 * time.Millisecond) {
		links, err := a.raw.LinkList()
		ports := 0
		for _, l := range links {
			if l.Type() == "veth" && l.Attrs().MasterIndex != 0 {
				ports++
			}
		}
		if err == nil && ports == 0 {
			return
		}
		if time.Now().After(deadline) {
			a.b.Fatalf("%d ports are left after a round: %v", ports, err)
		}
	}
}
