package check

import (
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"stellar.io/stellar/api"
	"stellar.io/stellar/internal/firewall"
	"stellar.io/stellar/internal/nlx"
	"stellar.io/stellar/internal/testx/broken"
	"stellar.io/stellar/internal/testx/faults"
	"stellar.io/stellar/ipam"
	"stellar.io/stellar/netsetup"
	"stellar.io/stellar/routes"
)

const (
	macA   = "02:00:00:00:00:0a"
	macB   = "02:00:00:00:00:0b"
	macX   = "02:00:00:00:00:99"
	ofNode = "172.16.4.0/22"
)

func mac(s string) net.HardwareAddr {
	m, err := net.ParseMAC(s)
	if err != nil {
		panic(err)
	}
	return m
}

// healthy is a node a with one container and a peer b.
func healthy() Facts {
	peer := Peer{Name: "b", Address: netip.MustParseAddrPort("192.0.2.2:9640"), Subnet: netip.MustParsePrefix(ofNode), Asked: true, MACs: []string{macB}}
	addr := netip.MustParseAddr("172.16.0.2")
	route := routes.Route{Kind: routes.Via, Destination: peer.Subnet, Gateway: peer.Address.Addr(), Device: "eth0", Node: "b"}
	return Facts{
		Node: "a", Member: true, Status: []api.Check{{Name: api.CheckLeader, State: api.OK}},
		Bridge: "stellar0", Masquerade: true, Network: netip.MustParsePrefix("172.16.0.0/12"), Subnet: netip.MustParsePrefix("172.16.0.0/22"),
		Gateway: netip.MustParseAddr("172.16.0.1"), Address: netip.MustParseAddrPort("192.0.2.1:9640"), Peers: []Peer{peer},
		Uplinks: []string{"eth0"}, Arrivals: []string{"eth0"},
		Links: []nlx.Link{
			{Index: 2, Name: "eth0", MAC: mac(macA), MTU: 1500, Up: true, Running: true},
			{Index: 3, Name: "stellar0", Kind: "bridge", MTU: 1500, Up: true, Running: true},
			{Index: 4, Name: "vethx", Kind: "veth", MTU: 1500, Master: 3, Up: true, Running: true},
		},
		Addrs: []nlx.Addr{{Index: 2, Prefix: netip.MustParsePrefix("192.0.2.1/24")}, {Index: 3, Prefix: netip.MustParsePrefix("172.16.0.1/22")}},
		Endpoints: []netsetup.Endpoint{{
			Owner: ipam.Owner{Kind: ipam.OwnerContainer, Namespace: "default", ID: "a1", Interface: "eth0"}, Addr: addr, Ifname: "eth0", HostIfname: "vethx", HostIndex: 4, Up: true,
		}},
		Forwarding: map[string]bool{"eth0": true, "stellar0": true},
		Routes:     []routes.Status{{Route: route, State: routes.OK}},
		Tables: []nlx.TableRoute{
			{FIBRoute: nlx.FIBRoute{Dst: netip.MustParsePrefix("172.16.0.0/22"), Index: 3, Type: unix.RTN_UNICAST, Protocol: unix.RTPROT_KERNEL}, Table: unix.RT_TABLE_MAIN},
			{FIBRoute: nlx.FIBRoute{Dst: peer.Subnet, Index: 2, Type: unix.RTN_UNICAST, Protocol: routes.Protocol, Routed: true}, Table: unix.RT_TABLE_MAIN},
		},
		Rules: []nlx.PolicyRule{{Priority: 32766, Table: unix.RT_TABLE_MAIN, Lookup: true, Always: true}},
		Ways:  []Way{{Peer: peer, Answer: nlx.Lookup{FIBRoute: nlx.FIBRoute{Via: peer.Address.Addr(), Index: 2, Type: unix.RTN_UNICAST}}, Table: unix.RT_TABLE_MAIN}},
		Filters: ruleset(`table inet stellar {
	chain postrouting { # handle 1
		ip saddr 172.16.0.0/22 masquerade # handle 2
	}
}`, `{"nftables":[{"chain":{"family":"inet","table":"stellar","name":"postrouting","type":"nat","hook":"postrouting","prio":100,"policy":"accept"}},
{"rule":{"family":"inet","table":"stellar","chain":"postrouting","handle":2,"expr":[{"masquerade":null}]}}]}`),
		FiltersRead: true, BrNetfilter: true,
		Answers: map[netip.Addr][]string{peer.Address.Addr(): {macB}, netip.MustParseAddr("192.0.2.1"): nil},
		Machine: Machine{Release: "6.1.0-18-amd64", DataDir: "/var/lib/stellar", Free: 1 << 30, FreeKnown: true, NeighbourLimit: 1024, Containerd: Containerd{Address: "/run/containerd/containerd.sock", Version: "1.6.20~ds1"}},
	}
}

func ruleset(text, data string) firewall.Ruleset {
	r, err := firewall.ParseNFT([]byte(data), text, nil)
	if err != nil {
		panic(err)
	}
	return r
}

func iptablesRules(text string) func(*Facts) {
	return func(f *Facts) { f.Filters.Append(firewall.ParseIptables("iptables-nft", text)) }
}

// nft drops what comes to a port.
func nft(port int) func(*Facts) {
	return func(f *Facts) {
		f.Filters.Append(ruleset("", fmt.Sprintf(`{"nftables":[{"chain":{"family":"inet","table":"corp","name":"input","type":"filter","hook":"input","prio":0,"policy":"accept"}},
{"rule":{"family":"inet","table":"corp","chain":"input","handle":2,"expr":[{"match":{"op":"==","left":{"payload":{"protocol":"tcp","field":"dport"}},"right":%d}},{"drop":null}]}}]}`, port)))
	}
}

func link(f *Facts, name string) *nlx.Link {
	i := slices.IndexFunc(f.Links, func(l nlx.Link) bool { return l.Name == name })
	return &f.Links[i]
}

// TestJudge: each change of a healthy node leads to its cause, first, and what that
// leads to is not named.
func TestJudge(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name   string
		change func(*Facts)
		want   []string
	}{
		{"healthy", func(*Facts) {}, nil},
		{"no cluster yet", func(f *Facts) {
			*f = Facts{Node: "a", Bridge: "stellar0", Links: f.Links[:1], Addrs: f.Addrs[:1], Machine: f.Machine, AgentDown: "no socket"}
		}, nil},
		{"uplink down", func(f *Facts) {
			link(f, "eth0").Up = false
			f.Routes[0].State, f.Peers[0].Silent = routes.Missing, "no route to host"
			f.Status[0] = api.Check{Name: api.CheckLeader, State: api.Warn, Reason: "no leader answers"}
		}, []string{UplinkDown}},
		{"cable", func(f *Facts) { link(f, "eth0").Running = false }, []string{UplinkDown}},
		{"own address gone", func(f *Facts) { f.Addrs = f.Addrs[1:] }, []string{NodeAddress}},
		{"bridge gone", func(f *Facts) {
			f.Links, f.Tables = slices.Delete(f.Links, 1, 2), f.Tables[1:]
			link(f, "vethx").Master = 0
			delete(f.Forwarding, "stellar0")
		}, []string{BridgeMissing}},
		{"bridge down", func(f *Facts) { link(f, "stellar0").Up = false; link(f, "vethx").Running = false }, []string{BridgeDown}},
		{"gateway gone", func(f *Facts) { f.Addrs = f.Addrs[:1] }, []string{BridgeDown}},
		{"host end down", func(f *Facts) { link(f, "vethx").Up, link(f, "vethx").Running = false, false }, []string{HostLinkDown}},
		{"host end out", func(f *Facts) { link(f, "vethx").Master = 0 }, []string{HostLinkBridge}},
		{"container's end down", func(f *Facts) { link(f, "vethx").Running = false }, []string{ContainerLinkDown}},
		{"mtu", func(f *Facts) { link(f, "eth0").MTU = 1400 }, []string{PathMTU}},
		{"fdb", func(f *Facts) {
			f.FDB = []nlx.Neighbour{{Index: 2, MAC: netsetup.MACFor(f.Endpoints[0].Addr)}}
		}, []string{FDB}},
		{"forwarding", func(f *Facts) { f.Forwarding["stellar0"] = false; f.Ways[0].Answer.Err = unix.EHOSTUNREACH }, []string{Forwarding}},
		{"route missing", func(f *Facts) { f.Routes[0].State, f.Routes[0].Reason = routes.Missing, "not there" }, []string{RouteMissing}},
		{"route foreign", func(f *Facts) { f.Routes[0].State = routes.Conflict }, []string{RouteForeign}},
		{"not adjacent", func(f *Facts) {
			f.Routes[0].State, f.Routes[0].Device, f.Peers[0].Silent = routes.NotAdjacent, "", "timeout"
			f.Answers = nil
		}, []string{NotAdjacent}},
		{"rule", func(f *Facts) {
			f.Ways[0].Answer = nlx.Lookup{FIBRoute: nlx.FIBRoute{Index: 9, Type: unix.RTN_UNICAST}}
			f.Ways[0].Table = 51820
			f.Rules = append([]nlx.PolicyRule{{Priority: 90, Table: 51820, Lookup: true}}, f.Rules...)
		}, []string{RouteRule}},
		{"rule that refuses", func(f *Facts) { f.Ways[0].Answer, f.Ways[0].Table = nlx.Lookup{Err: unix.EINVAL}, 0 }, []string{RouteRule}},
		{"overlap with own", func(f *Facts) { f.Tables = append(f.Tables, connected("172.16.1.0/24", 254)) }, []string{RangeOverlap}},
		{"overlap with a peer's, told once", func(f *Facts) {
			f.Tables = append(f.Tables, connected("172.16.5.0/24", 254))
			f.Routes[0].State = routes.Conflict
		}, []string{RangeOverlap}},
		{"overlap in a table that nobody asks", func(f *Facts) { f.Tables = append(f.Tables, connected("172.16.1.0/24", 200)) }, nil},
		{"overlap in a table that a rule asks", func(f *Facts) {
			f.Tables = append(f.Tables, connected("172.16.1.0/24", 200))
			f.Rules = append([]nlx.PolicyRule{{Priority: 200, Table: 200, Lookup: true, Always: true}}, f.Rules...)
		}, []string{RangeOverlap}},
		{"overlap in a table asked for a mark", func(f *Facts) {
			f.Tables = append(f.Tables, connected("172.16.1.0/24", 200))
			f.Rules = append([]nlx.PolicyRule{{Priority: 200, Table: 200, Lookup: true}}, f.Rules...)
		}, nil},
		{"Docker's range in a subnet of nobody", func(f *Facts) { f.Tables = append(f.Tables, connected("172.17.0.0/16", 254)) }, nil},
		{"forward policy", iptablesRules("*filter\n:FORWARD DROP [0:0]\nCOMMIT\n"), []string{ForwardDrop}},
		{"forward policy with the exception", iptablesRules("*filter\n:FORWARD DROP [0:0]\n:STELLAR - [0:0]\n-A FORWARD -m comment --comment stellar -j STELLAR\n" +
			"-A STELLAR -i stellar0 -j ACCEPT\n-A STELLAR -o stellar0 -j ACCEPT\nCOMMIT\n"), nil},
		{"one port", iptablesRules("*filter\n:INPUT ACCEPT [0:0]\n-A INPUT -p tcp -m tcp --dport 9640 -j DROP\nCOMMIT\n"), []string{PortFiltered}},
		{"another port", iptablesRules("*filter\n:INPUT ACCEPT [0:0]\n-A INPUT -p tcp -m tcp --dport 22 -j DROP\n-A INPUT -p udp -m udp --dport 9640 -j DROP\nCOMMIT\n"), nil},
		{"all but some ports", iptablesRules("*filter\n:INPUT DROP [0:0]\n-A INPUT -p tcp -m multiport --dports 22,9000:9700 -j ACCEPT\nCOMMIT\n"), nil},
		{"all but other ports", iptablesRules("*filter\n:INPUT DROP [0:0]\n-A INPUT -p tcp -m multiport --dports 22,80 -j ACCEPT\nCOMMIT\n"), []string{PortFiltered}},
		{"xfrm", func(f *Facts) {
			f.Blocks = []nlx.BlockPolicy{{Src: netip.MustParsePrefix("0.0.0.0/0"), Dst: netip.MustParsePrefix(ofNode), Direction: "fwd"}}
		}, []string{XfrmDrop}},
		{"xfrm elsewhere", func(f *Facts) {
			f.Blocks = []nlx.BlockPolicy{{Src: netip.MustParsePrefix("0.0.0.0/0"), Dst: netip.MustParsePrefix("10.0.0.0/8"), Direction: "fwd"}}
		}, nil},
		{"tc", func(f *Facts) { f.Traffic = map[string][]nlx.TrafficFilter{"vethx": {{Kind: "bpf", Ingress: true}}} }, []string{TCDrop}},
		{"masquerade", func(f *Facts) { f.Filters = firewall.Ruleset{} }, []string{Masquerade}},
		{"masquerade is not wanted", func(f *Facts) { f.Filters, f.Masquerade = firewall.Ruleset{}, false }, nil},
		{"filters are not known", func(f *Facts) { f.Filters, f.FiltersRead = firewall.Ruleset{}, false }, nil},
		{"guard gone", func(f *Facts) { f.Guard.Missing = []string{"table bridge stellar"} }, []string{Guard}},
		{"not admitted", func(f *Facts) { f.Guard.Dropped = f.Endpoints }, []string{Guard}},
		{"nft flush ruleset while the agent is away", func(f *Facts) {
			f.Filters, f.AgentDown = firewall.Ruleset{}, "no socket"
			f.Guard.Missing = []string{"table ip stellar", "table arp stellar", "table bridge stellar"}
		}, []string{Masquerade, Guard, AgentDown}},
		{"what drops a container's packets and what it cannot send", func(f *Facts) {
			iptablesRules("*filter\n:FORWARD DROP [0:0]\nCOMMIT\n")(f)
			f.Guard.Dropped, link(f, "vethx").Master = f.Endpoints, 0
		}, []string{HostLinkBridge, ForwardDrop, Guard}},
		{"one port, by nftables", nft(9640), []string{PortFiltered}},
		{"another port, by nftables", nft(22), nil},
		{"rp_filter", func(f *Facts) {
			f.Conditions = []routes.Condition{{Name: "rp_filter", Subject: "eth0", Reason: "strict"}}
		}, []string{RPFilter}},
		{"peer's agent", func(f *Facts) { f.Peers[0].Silent = "connection refused" }, []string{AgentDown}},
		{"peer's host", func(f *Facts) {
			f.Peers[0].Silent = "no route to host"
			f.Answers[netip.MustParseAddr("192.0.2.2")] = nil
		}, []string{PeerUnreachable}},
		{"two answer", func(f *Facts) { f.Answers[netip.MustParseAddr("192.0.2.2")] = []string{macB, macX} }, []string{AddressDuplicate}},
		{"a peer with two interfaces", func(f *Facts) {
			f.Answers[netip.MustParseAddr("192.0.2.2")] = []string{macB, macX}
			f.Peers[0].MACs = append(f.Peers[0].MACs, macX)
		}, nil},
		{"two interfaces of one peer that is silent", func(f *Facts) {
			f.Peers[0].Silent, f.Peers[0].MACs = "timeout", nil
			f.Answers[f.Peers[0].Address.Addr()] = []string{macB, macX}
			f.Answers[f.Peers[0].gateway()] = []string{macB, macX}
		}, []string{AgentDown}},
		{"two machines, one of them a peer that is silent", func(f *Facts) {
			f.Peers[0].Silent, f.Peers[0].MACs = "timeout", nil
			f.Answers[f.Peers[0].Address.Addr()] = []string{macB, macX}
			f.Answers[f.Peers[0].gateway()] = []string{macB}
		}, []string{AddressDuplicate}},
		{"a copy of a peer, with its gateway", func(f *Facts) {
			f.Answers[f.Peers[0].Address.Addr()] = []string{macB, macX}
			f.Answers[f.Peers[0].gateway()] = []string{macB, macX}
		}, []string{AddressDuplicate}},
		{"another has our address", func(f *Facts) { f.Answers[netip.MustParseAddr("192.0.2.1")] = []string{macX} }, []string{AddressDuplicate}},
		{"pinned wrongly", func(f *Facts) {
			f.Neighbours = []nlx.Neighbour{{Index: 2, Addr: netip.MustParseAddr("192.0.2.2"), MAC: mac(macX), State: unix.NUD_PERMANENT}}
			f.Peers[0].Silent = "no route to host"
		}, []string{Neighbour}},
		{"pinned rightly", func(f *Facts) {
			f.Neighbours = []nlx.Neighbour{{Index: 2, Addr: netip.MustParseAddr("192.0.2.2"), MAC: mac(macB), State: unix.NUD_PERMANENT}}
		}, nil},
		{"clock", func(f *Facts) { f.Peers[0].Ahead, f.Peers[0].Within = -3*time.Minute, time.Millisecond }, []string{Clock}},
		{"a slow answer says nothing of the clock", func(f *Facts) { f.Peers[0].Ahead, f.Peers[0].Within = 6*time.Second, 2*time.Second }, nil},
		{"kernel", func(f *Facts) { f.Machine.Release = "4.19.0" }, []string{Kernel}},
		{"disk", func(f *Facts) { f.Machine.Free = 1 << 20 }, []string{DiskFull}},
		{"containerd", func(f *Facts) { f.Machine.Containerd.Down = "connection refused" }, []string{ContainerdDown}},
		{"old containerd", func(f *Facts) { f.Machine.Containerd.Version = "1.4.13~ds1" }, []string{ContainerdVersion}},
		{"a runtime", func(f *Facts) {
			f.Machine.Runtimes = []Runtime{{Name: "runc", Kind: "runc", Version: "1.1.5+ds1"}, {Name: "/opt/other"}, {Name: "/opt/crun", Kind: "crun", Version: "1.8.1"}}
		}, nil},
		{"no runtime", func(f *Facts) { f.Machine.Runtimes = []Runtime{{Name: "runc", Problem: "is not in containerd's PATH"}} }, []string{NoRuntime}},
		{"old runtime", func(f *Facts) { f.Machine.Runtimes = []Runtime{{Name: "crun", Kind: "crun", Version: "0.19"}} }, []string{NoRuntime}},
		{"no bridge family", func(f *Facts) { f.Machine.NoBridgeFamily = "operation not supported" }, []string{Kernel}},
		{"ptrace", func(f *Facts) { f.Machine.Ptrace = "ptrace is not permitted" }, []string{Ptrace}},
		{"nothing is held", func(f *Facts) { f.Machine.Ptrace, f.Machine.HoldOff = "ptrace is not permitted", true }, nil},
		{"agent and its port", func(f *Facts) {
			f.AgentDown = "no socket"
			f.Machine.Ports = []Port{{Address: netip.MustParseAddrPort("127.0.0.1:9642"), Use: "metrics"}}
		}, []string{PortTaken, AgentDown}},
		{"no leader", func(f *Facts) {
			f.Status[0] = api.Check{Name: api.CheckLeader, State: api.Warn, Reason: "no leader answers"}
			f.Peers[0].Silent = "connection refused"
		}, []string{NoLeader, AgentDown}},
		{"what the agent says itself", func(f *Facts) {
			f.Status = append(f.Status, api.Check{Name: "membership", State: api.Err, Reason: "removed"})
		}, []string{"membership"}},
		{"networkd", func(f *Facts) {
			f.Machine.Managers = []Manager{missing(Networkd, "a.network"), missing(Networkd, "b.conf")}
		}, []string{Networkd, Networkd}},
		{"neighbours", func(f *Facts) { f.Machine.NeighbourLimit = 2 }, []string{NeighbourTable}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			f := healthy()
			tt.change(&f)
			found := Judge(f)
			var got []string
			for _, c := range found {
				got = append(got, c.Code)
				if c.Message == "" || c.Mend == "" || c.Node != "a" || c.Subject == "" {
					t.Errorf("incomplete: %+v", c)
				}
			}
			if !slices.Equal(got, tt.want) {
				faults.Safety(t, "got %v, want %v\n%+v", got, tt.want, found)
			}
		})
	}
}

func connected(prefix string, table uint32) nlx.TableRoute {
	return nlx.TableRoute{FIBRoute: nlx.FIBRoute{Dst: netip.MustParsePrefix(prefix), Index: 9, Type: unix.RTN_UNICAST, Scope: unix.RT_SCOPE_LINK}, Table: table}
}

// TestLacks: a module that the kernel neither has nor can load is named; without the
// lists nothing is.
func TestLacks(t *testing.T) {
	t.Parallel()
	root := t.TempDir()
	if got := lacks(root, "6.1.0"); got != nil {
		t.Errorf("without lists %v", got)
	}
	write := func(path, text string) {
		t.Helper()
		if err := os.MkdirAll(filepath.Join(root, filepath.Dir(path)), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(root, path), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write("lib/modules/6.1.0/modules.builtin", "kernel/net/bridge/bridge.ko\nkernel/net/netfilter/nf_conntrack.ko\n")
	write("lib/modules/6.1.0/modules.dep", "kernel/net/netfilter/nf_tables.ko.xz: kernel/lib/libcrc32c.ko.xz\nkernel/net/netfilter/nft_chain_nat.ko.xz:\n")
	write("sys/module/veth/refcnt", "0")
	if got := lacks(root, "6.1.0"); !slices.Equal(got, []string{"nft_masq"}) {
		t.Errorf("got %v", got)
	}
}

// TestCodesAreExplained: what a finding may be called, and what the set-ups expect, is
// in their list.
func TestCodesAreExplained(t *testing.T) {
	t.Parallel()
	readme, err := os.ReadFile("../../testdata/broken/README.md")
	if err != nil {
		t.Fatal(err)
	}
	list, err := broken.Load("../../testdata/broken")
	if err != nil {
		t.Fatal(err)
	}
	if len(list.Broken) < 30 || len(list.Healthy) < 5 {
		t.Errorf("%d broken and %d healthy set-ups, at least 30 and 5 are promised", len(list.Broken), len(list.Healthy))
	}
	codes := slices.Clone(order)
	for _, s := range list.Broken {
		codes = append(codes, s.Code)
	}
	for _, code := range codes {
		if !strings.Contains(string(readme), "`"+code+"`") {
			t.Errorf("testdata/broken/README.md does not say what %s means", code)
		}
	}
}

// TestDocIsCurrent: docs/broken-setups.md is about the set-ups that there are.
func TestDocIsCurrent(t *testing.T) {
	t.Parallel()
	doc, err := os.ReadFile("../../docs/broken-setups.md")
	if err != nil {
		t.Fatal(err)
	}
	list, err := broken.Load("../../testdata/broken")
	if err != nil {
		t.Fatal(err)
	}
	rows := 0
	for line := range strings.Lines(string(doc)) {
		if strings.HasPrefix(line, "| `") {
			rows++
		}
	}
	if want := len(list.Broken) + len(list.Healthy); rows != want {
		t.Errorf("docs/broken-setups.md has %d set-ups, there are %d: STELLAR_UPDATE_DOCS=1 go test -run TestBroken ./integration", rows, want)
	}
	for _, s := range list.Broken {
		if head := "| `" + s.Name + "` | " + s.About + " | `" + s.Code + "` |"; !strings.Contains(string(doc), head) {
			t.Errorf("docs/broken-setups.md lacks %q", head)
		}
	}
}
