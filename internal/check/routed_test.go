package check

import (
	"net/netip"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"stellar.io/stellar/internal/nlx"
	"stellar.io/stellar/internal/testx/faults"
	"stellar.io/stellar/ipam"
	"stellar.io/stellar/netsetup"
	"stellar.io/stellar/routes"
)

// healthyRouted is healthy without a bridge, and with a second container.
func healthyRouted() Facts {
	f := healthy()
	f.Routed, f.Gateway = true, netip.Addr{}
	f.Links = slices.DeleteFunc(f.Links, func(l nlx.Link) bool { return l.Kind == "bridge" })
	link(&f, "vethx").Master = 0
	f.Links = append(f.Links, nlx.Link{Index: 5, Name: "vethy", Kind: "veth", MTU: 1500, Up: true, Running: true})
	f.Addrs = append(f.Addrs[:1], nlx.Addr{Index: 1, Prefix: netip.PrefixFrom(netsetup.RoutedGateway, 32)})
	f.Endpoints = append(f.Endpoints, netsetup.Endpoint{
		Owner: ipam.Owner{Kind: ipam.OwnerContainer, Namespace: "default", ID: "a2", Interface: "eth0"},
		Addr:  netip.MustParseAddr("172.16.0.1"), Ifname: "eth0", HostIfname: "vethy", HostIndex: 5, Up: true,
	})
	f.Forwarding = map[string]bool{"eth0": true, "vethx": true, "vethy": true}
	f.Tables, f.MACs = f.Tables[1:], map[netip.Addr]string{}
	for _, e := range f.Endpoints {
		f.MACs[e.Addr] = netsetup.MACFor(e.Addr).String()
		f.Tables = append(f.Tables, nlx.TableRoute{FIBRoute: nlx.FIBRoute{
			Dst: netip.PrefixFrom(e.Addr, 32), Index: e.HostIndex, Type: unix.RTN_UNICAST, Protocol: routes.Protocol,
		}, Table: unix.RT_TABLE_MAIN})
		f.Neighbours = append(f.Neighbours, nlx.Neighbour{Index: e.HostIndex, Addr: e.Addr, MAC: netsetup.MACFor(e.Addr), State: unix.NUD_PERMANENT})
	}
	return f
}

// TestJudgeRouted: what a node without a bridge has of its containers.
func TestJudgeRouted(t *testing.T) {
	t.Parallel()
	const of1, of2 = 1, 2 // the containers' routes
	for _, tt := range []struct {
		name   string
		change func(*Facts)
		want   string // the codes, in their order
		says   string
	}{
		{"healthy", func(*Facts) {}, "", ""},
		{"no bridge family, which nobody needs", func(f *Facts) { f.Machine.NoBridgeFamily = "operation not supported" }, "", ""},
		{"no container", func(f *Facts) { f.Endpoints = nil }, "", ""},
		{"the gateway's address on the host", func(f *Facts) {
			f.Addrs = append(f.Addrs, nlx.Addr{Index: 2, Prefix: netip.MustParsePrefix("169.254.1.1/16")})
		}, "", ""},
		{"route gone", func(f *Facts) { f.Tables = slices.Delete(f.Tables, of1, of1+1) }, HostRoute, "no route to 172.16.0.2"},
		{"route elsewhere", func(f *Facts) { f.Tables[of2].Index = 2 }, HostRoute, "leads elsewhere than to vethy"},
		{"a better route elsewhere", func(f *Facts) {
			f.Tables[of1].Metric = 100
			other := f.Tables[of1]
			other.Index, other.Metric = 5, 0
			f.Tables = append(f.Tables, other)
		}, HostRoute, "leads elsewhere"},
		{"a worse route elsewhere", func(f *Facts) {
			other := f.Tables[of1]
			other.Index, other.Metric = 5, 100
			f.Tables = append(f.Tables, other)
		}, "", ""},
		{"blackhole", func(f *Facts) { f.Tables[of1].Type = unix.RTN_BLACKHOLE }, HostRoute, "leads elsewhere"},
		{"gateway gone, and the routes with it", func(f *Facts) { f.Addrs, f.Tables = f.Addrs[:1], f.Tables[:1] }, GatewayMissing, "169.254.1.1"},
		{"host end down", func(f *Facts) {
			*link(f, "vethx") = nlx.Link{Index: 4, Name: "vethx", Kind: "veth", MTU: 1500}
			f.Tables = slices.Delete(f.Tables, of1, of1+1) // the kernel takes it away with the link
		}, HostLinkDown, ""},
		{"host end on a bridge", func(f *Facts) { link(f, "vethx").Master = 2 }, HostLinkBridge, "is a port of eth0"},
		{"container's end down", func(f *Facts) { link(f, "vethx").Running = false }, ContainerLinkDown, ""},
		{"neighbour by hand", func(f *Facts) { f.Neighbours[1].MAC = mac(macB) }, Neighbour, "172.16.0.1"},
		{"neighbour by hand, the container's not known", func(f *Facts) { f.Neighbours[1].MAC, f.MACs = mac(macB), nil }, "", ""},
		{"a container with a hardware address of its own", func(f *Facts) {
			f.Neighbours[1].MAC, f.MACs[netip.MustParseAddr("172.16.0.1")] = mac(macB), macB
		}, "", ""},
		{"neighbour learned", func(f *Facts) { f.Neighbours[1].State, f.Neighbours[1].MAC = unix.NUD_STALE, mac(macB) }, "", ""},
		{"forwarding", func(f *Facts) { f.Forwarding["vethy"] = false }, Forwarding, "vethy"},
		{"forward policy", iptablesRules("*filter\n:FORWARD DROP [0:0]\nCOMMIT\n"), ForwardDrop, ""},
		{"a rule between containers", iptablesRules("*filter\n:FORWARD ACCEPT [0:0]\n-A FORWARD -i vethx -o vethy -j DROP\nCOMMIT\n"), ForwardDrop, "172.16.0.2 to 172.16.0.1"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			f := healthyRouted()
			tt.change(&f)
			var codes []string
			said := ""
			for _, found := range Judge(f) {
				codes = append(codes, found.Code)
				said += found.Message + "\n"
			}
			if got := strings.Join(codes, " "); got != tt.want || !strings.Contains(said, tt.says) {
				faults.Safety(t, "codes %q, want %q with %q:\n%s", got, tt.want, tt.says, said)
			}
		})
	}
}
