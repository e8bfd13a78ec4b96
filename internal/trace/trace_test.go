package trace

import (
	"flag"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"text/tabwriter"

	"github.com/google/go-cmp/cmp"

	"stellar.io/stellar/api"
	"stellar.io/stellar/internal/firewall"
)

var update = flag.Bool("update", false, "write the golden files anew")

func addr(s string) netip.Addr    { return netip.MustParseAddr(s) }
func block(s string) netip.Prefix { return netip.MustParsePrefix(s) }
func blocks(s string) []prefix    { return []prefix{block(s)} }
func up(name, mac string) Link {
	return Link{Name: name, Exists: true, Up: true, Carrier: true, MTU: 1500, MAC: mac}
}
func local(dst, dev string) Route {
	return Route{Dst: block(dst), Dev: dev, Type: typeLocal, Table: tableLocal}
}
func onLink(dst, dev string) Route {
	return Route{Dst: block(dst), Dev: dev, Type: typeAway, Table: tableMain, Connected: true}
}
func refused(text string) Route { return Route{Err: text} }

func via(dst, gateway, dev string) Route {
	return Route{Dst: block(dst), Via: addr(gateway), Routed: true, Dev: dev, Type: typeAway, Table: tableMain}
}

func ours(r Route) Route {
	r.Ours, r.Protocol = true, ourProto
	return r
}

func container(node, name, a string) api.TraceEnd {
	return api.TraceEnd{Kind: api.TraceContainer, Node: node, Namespace: "default", Container: name, Address: addr(a)}
}

func host(node, a string) api.TraceEnd {
	return api.TraceEnd{Kind: api.TraceHost, Node: node, Address: addr(a)}
}

// healthy are the facts of node a, or b, of a way between a container of each.
func healthy(node string) *Facts {
	a, b, own, peer := "172.16.0", "172.16.4", "192.0.2.1", "192.0.2.2"
	f := &Facts{Node: node, Local: container("a", "a1", "172.16.0.2"), Remote: container("b", "b1", "172.16.4.2")}
	if node == "b" {
		a, b, own, peer = b, a, peer, own
		f.Local, f.Remote, f.Answering = f.Remote, f.Local, true
	}
	f.NextHop, f.HostIP, f.PeerSubnet, f.Subnet, f.Gateway = addr(peer), addr(own), block(b+".0/22"), block(a+".0/22"), addr(a+".1")
	f.Network, f.Masquerade, f.BridgeName = block("172.16.0.0/12"), true, "stellar0"
	f.Endpoint = Endpoint{Known: true, Up: true, State: "attached"}
	guest, bridge, uplink := "02:73:00:00:00:"+node+"1", "02:75:00:00:00:"+node+"0", "52:54:00:00:00:"+node+"0"
	eth0 := up("eth0", guest)
	eth0.Addrs = blocks(a + ".2/22")
	f.Guest = &Guest{PID: 4711, Link: eth0, Route: via("0.0.0.0/0", a+".1", "eth0"), HopAddr: f.Gateway, Hop: Neigh{Exists: true, MAC: bridge, State: "reachable"}}
	h := &f.Host
	h.HostEnd = up("veth"+node+"1", "02:74:00:00:00:"+node+"1")
	h.HostEnd.Master, h.HostEnd.Forwards = "stellar0", true
	h.Bridge = up("stellar0", bridge)
	h.Bridge.Addrs = blocks(a + ".1/22")
	h.MAC, h.LocalPort = guest, h.HostEnd.Name
	h.Forwarding = map[string]string{"stellar0": "1", "eth0": "1"}
	h.RPFilter = map[string]int{"stellar0": 0, "eth0": 0}
	to := ours(via(b+".0/22", peer, "eth0"))
	h.Out, h.Plain, h.Main = to, to, to
	h.In, h.Back = onLink(a+".0/22", "stellar0"), onLink(a+".0/22", "stellar0")
	h.ToNextHop = onLink("192.0.2.0/24", "eth0")
	h.Uplink, h.Arrival = up("eth0", uplink), up("eth0", uplink)
	other := map[string]string{"a": "b", "b": "a"}[node]
	h.HopAddr, h.Hop = addr(peer), Neigh{Exists: true, MAC: "52:54:00:00:00:" + other + "0", State: "reachable"}
	h.Answers, h.Asked = []string{h.Hop.MAC}, true
	h.Resident = Neigh{Exists: true, MAC: guest, State: "stale"}
	h.MACs = []string{uplink, bridge}
	h.Filters = stellarTable(a + ".0/22")
	return f
}

func nft(doc string) firewall.Ruleset {
	rs, err := firewall.ParseNFT([]byte(`{"nftables":[`+doc+`]}`), "", nil)
	if err != nil {
		panic(err)
	}
	return rs
}

// stellarTable masquerades what leaves the network.
func stellarTable(subnet string) firewall.Ruleset {
	p := block(subnet)
	return nft(fmt.Sprintf(`{"chain":{"family":"inet","table":"stellar","name":"postrouting","type":"nat","hook":"postrouting","prio":100,"policy":"accept"}},
		{"rule":{"family":"inet","table":"stellar","chain":"postrouting","handle":3,"expr":[
		{"match":{"op":"==","left":{"payload":{"protocol":"ip","field":"saddr"}},"right":{"prefix":{"addr":"%s","len":%d}}}},
		{"match":{"op":"!=","left":{"payload":{"protocol":"ip","field":"daddr"}},"right":{"prefix":{"addr":"172.16.0.0","len":12}}}},
		{"match":{"op":"!=","left":{"meta":{"key":"oifname"}},"right":"stellar0"}},{"masquerade":null}]}}`, p.Addr(), p.Bits()))
}

// dropping is a chain that drops everything at a hook.
func dropping(family, hook string) firewall.Ruleset {
	dev := ""
	if family == "netdev" {
		dev = `,"dev":["eth0"]`
	}
	return nft(fmt.Sprintf(`{"chain":{"family":"%s","table":"corp","name":"c","type":"filter","hook":"%s","prio":0,"policy":"drop"%s}}`, family, hook, dev))
}

// draw writes a trace as the command does, with the causes under it.
func draw(t api.Trace) string {
	var b strings.Builder
	w := tabwriter.NewWriter(&b, 0, 0, 2, ' ', 0)
	for _, h := range t.Hops {
		fmt.Fprintf(w, "%d\t%s\t%s\t%s %s\t%s\t%s\t%s\n", h.Hop, h.Direction, h.Node, h.What, h.Subject, h.State, h.Detail, h.Code)
	}
	w.Flush()
	if t.Cause != nil {
		fmt.Fprintf(&b, "cause: %s %s %s\n  %s\n", t.Cause.Code, t.Cause.Node, t.Cause.Subject, t.Cause.Mend)
	}
	for _, c := range t.Further {
		fmt.Fprintf(&b, "also: %s %s %s\n  %s\n", c.Code, c.Node, c.Subject, c.Mend)
	}
	if t.Unjudged != "" {
		fmt.Fprintf(&b, "unjudged: %s\n", t.Unjudged)
	}
	lines := strings.Split(b.String(), "\n")
	for i := range lines {
		lines[i] = strings.TrimRight(lines[i], " ")
	}
	return strings.Join(lines, "\n")
}

func golden(t *testing.T, name, got string) {
	t.Helper()
	file := filepath.Join("testdata", name+".golden")
	if *update {
		if err := os.MkdirAll("testdata", 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(file, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(want), got); diff != "" {
		t.Errorf("%s (run with -update if that is meant):\n%s", name, diff)
	}
}

// TestWays draws every kind of way, healthy.
func TestWays(t *testing.T) {
	t.Parallel()
	for name, tr := range map[string]api.Trace{
		"across":   across(func(*Facts, *Facts) {}),
		"switched": switched(func(*Facts, *Facts) {}),
		"out":      wayOut(func(*Facts) {}),
		"own-host": ownHost(func(*Facts, *Facts) {}),
		"hosts":    hosts(),
	} {
		if tr.Cause != nil || tr.Unjudged != "" {
			t.Errorf("%s: %+v %s", name, tr.Cause, tr.Unjudged)
		}
		golden(t, name, draw(tr))
	}
}

// across is the way from a container of a to one of b, after change.
func across(change func(a, b *Facts)) api.Trace {
	a, b := healthy("a"), healthy("b")
	change(a, b)
	return Join(a.Local, b.Local, Side(a), Side(b), nil)
}

// switched is the way between two containers of a.
func switched(change func(a, b *Facts)) api.Trace {
	a, b := healthy("a"), healthy("a")
	for _, f := range []*Facts{a, b} {
		f.SameNode, f.Switched, f.NextHop, f.PeerSubnet = true, true, netip.Addr{}, prefix{}
		f.Host.RemoteEnd = f.Host.HostEnd
		f.Guest.Route = onLink("172.16.0.0/22", "eth0")
	}
	second := container("a", "a2", "172.16.0.3")
	b.Answering = true
	b.Local, b.Remote, a.Remote = second, a.Local, second
	b.Guest.Link.Addrs, b.Guest.Link.MAC, b.Host.MAC = blocks("172.16.0.3/22"), "02:73:00:00:00:a2", "02:73:00:00:00:a2"
	b.Host.HostEnd.Name, b.Host.LocalPort = "vetha2", "vetha2"
	a.Host.RemoteEnd.Name, a.Host.RemotePort, a.Host.RemoteMAC = "vetha2", "vetha2", b.Host.MAC
	b.Host.RemoteEnd.Name, b.Host.RemotePort, b.Host.RemoteMAC = "vetha1", "vetha1", a.Host.MAC
	a.Guest.HopAddr, a.Guest.Hop = b.Local.Address, Neigh{Exists: true, MAC: b.Host.MAC, State: "reachable"}
	b.Guest.HopAddr, b.Guest.Hop = a.Local.Address, Neigh{Exists: true, MAC: a.Host.MAC, State: "reachable"}
	change(a, b)
	return Join(a.Local, b.Local, Side(a), Side(b), nil)
}

// wayOut is the way from a container of a to an address outside.
func wayOut(change func(*Facts)) api.Trace {
	f := healthy("a")
	f.Remote = api.TraceEnd{Kind: api.TraceOutside, Address: addr("198.51.100.1")}
	f.NextHop, f.PeerSubnet = netip.Addr{}, prefix{}
	r := via("0.0.0.0/0", "192.0.2.254", "eth0")
	f.Host.Out, f.Host.Plain, f.Host.Main, f.Host.ToNextHop = r, r, r, Route{}
	f.Host.HopAddr = addr("192.0.2.254")
	change(f)
	return Join(f.Local, f.Remote, Side(f), nil, nil)
}

// ownHost is the way from a container of a to a itself.
func ownHost(change func(a, b *Facts)) api.Trace {
	c, h := healthy("a"), healthy("a")
	for _, f := range []*Facts{c, h} {
		f.SameNode, f.NextHop, f.PeerSubnet = true, netip.Addr{}, prefix{}
		f.Host.Uplink, f.Host.Arrival, f.Host.HopAddr = Link{}, Link{}, netip.Addr{}
	}
	h.Local, h.Remote, h.Guest, h.Endpoint, h.Answering = host("a", "192.0.2.1"), c.Local, nil, Endpoint{}, true
	c.Remote = h.Local
	c.Host.Out = local("192.0.2.1/32", "lo")
	h.Host.Plain = onLink("172.16.0.0/22", "stellar0")
	change(c, h)
	return Join(c.Local, h.Local, Side(c), Side(h), nil)
}

// hosts is the way from node a to node b.
func hosts() api.Trace {
	a, b := healthy("a"), healthy("b")
	a.Local, b.Local = host("a", "192.0.2.1"), host("b", "192.0.2.2")
	a.Remote, b.Remote = b.Local, a.Local
	for _, f := range []*Facts{a, b} {
		f.Guest, f.Endpoint, f.PeerSubnet = nil, Endpoint{}, prefix{}
		f.Host.Plain = onLink("192.0.2.0/24", "eth0")
		f.Host.In = local("192.0.2.1/32", "lo")
	}
	return Join(a.Local, b.Local, Side(a), Side(b), nil)
}
