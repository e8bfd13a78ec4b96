package trace

import (
	"context"
	"errors"
	"fmt"
	"net/netip"

	"golang.org/x/sys/unix"

	"stellar.io/stellar/api"
	"stellar.io/stellar/internal/nlx"
)

// Place says where on this node the local end is. Its descriptors stay the caller's.
type Place struct {
	// NS is the container's namespace, which has passed the gate; -1: there is none, or
	// it cannot be entered.
	NS           int
	PID          int // of a process in it, 0: not known
	Ifname       string
	HostIfname   string
	MAC          string
	RemoteIfname string // host's end of the remote container on this node
	RemoteMAC    string
	// ArrivalMAC is where the other side sends to; "": not known.
	ArrivalMAC string
}

// collector fills in Facts.
type collector struct {
	f     *Facts
	p     Place
	c     *nlx.Conn
	links []nlx.Link
}

// Collect asks the kernel of this node for everything about the way between f.Local
// and f.Remote; the caller has filled in what stands before f.Guest. Side makes the
// answer from it. It runs in the host's namespace, and enters the container's by
// p.NS.
func Collect(ctx context.Context, f *Facts, p Place) error {
	c, err := nlx.Dial(-1, unix.NETLINK_ROUTE)
	if err != nil {
		return err
	}
	defer c.Close()
	k := &collector{f: f, p: p, c: c}
	if k.links, err = c.Links(); err != nil {
		return err
	}
	f.Host.MAC, f.Host.RemoteMAC = p.MAC, p.RemoteMAC
	f.Host.Forwarding, f.Host.RPFilter, f.Host.TC = map[string]string{}, map[string]int{}, map[string]TC{}
	f.Host.Groups = map[string]uint32{}
	for _, l := range k.links {
		f.Host.Groups[l.Name] = l.Group
		if l.Group != linkGroup && len(l.MAC) == 6 && l.MAC.String() != "00:00:00:00:00:00" {
			f.Host.MACs = append(f.Host.MACs, l.MAC.String())
		}
	}
	if err := k.ports(); err != nil {
		return err
	}
	if err := k.routes(); err != nil {
		return err
	}
	if err := k.wire(ctx); err != nil {
		return err
	}
	k.sysctls()
	f.Host.Filters = rulesets(ctx, -1)
	f.Host.Xfrm = xfrmBlocks(ctx)
	k.traffic(ctx)
	if p.NS >= 0 {
		if f.Guest, err = k.guest(ctx); err != nil {
			f.Guest, f.GuestErr = nil, err.Error()
		}
	}
	return nil
}

// linkGroup marks our own links.
const linkGroup = 147

func (k *collector) name(index int) string {
	for _, l := range k.links {
		if l.Index == index {
			return l.Name
		}
	}
	return ""
}

func (k *collector) index(name string) int {
	for _, l := range k.links {
		if l.Name == name {
			return l.Index
		}
	}
	return 0
}

// link reads an interface; "" is none.
func link(c *nlx.Conn, name string, nameOf func(int) string) (Link, nlx.Detail, error) {
	if name == "" {
		return Link{}, nlx.Detail{}, nil
	}
	d, err := c.LinkDetail(name)
	if errors.Is(err, unix.ENODEV) {
		return Link{Name: name}, d, nil
	}
	if err != nil {
		return Link{}, d, fmt.Errorf("interface %s: %w", name, err)
	}
	l := Link{Name: name, Exists: true, Up: d.Up, Carrier: d.Running, MTU: d.MTU, MAC: d.MAC.String(), Master: nameOf(d.Master)}
	if d.Port != nil {
		l.Forwards, l.Isolated = d.Port.State == forwardingState, d.Port.Isolated
	}
	addrs, err := c.Addrs(d.Index)
	if err != nil {
		return Link{}, d, err
	}
	for _, a := range addrs {
		l.Addrs = append(l.Addrs, a.Prefix)
	}
	return l, d, nil
}

// forwardingState is BR_STATE_FORWARDING of linux/if_bridge.h.
const forwardingState = 3

// ports looks at the bridge and what hangs on it, or at the host ends alone.
func (k *collector) ports() (err error) {
	h := &k.f.Host
	if h.HostEnd, _, err = link(k.c, k.p.HostIfname, k.name); err != nil {
		return err
	}
	if h.RemoteEnd, _, err = link(k.c, k.p.RemoteIfname, k.name); err != nil {
		return err
	}
	if k.f.Routed {
		if k.f.Local.Kind == api.TraceContainer && h.HostEnd.Exists {
			h.Resident, err = k.neigh(k.index(h.HostEnd.Name), k.f.Local.Address)
		}
		return err
	}
	var bridge nlx.Detail
	if h.Bridge, bridge, err = link(k.c, k.f.BridgeName, k.name); err != nil || !h.Bridge.Exists {
		return err
	}
	fdb, err := k.c.ForwardingTable(bridge.Index)
	if err != nil {
		return err
	}
	for _, e := range fdb {
		switch e.MAC.String() {
		case k.p.MAC:
			h.LocalPort = k.name(e.Index)
		case k.p.RemoteMAC:
			h.RemotePort = k.name(e.Index)
		}
	}
	if k.f.Local.Kind == api.TraceContainer {
		h.Resident, err = k.neigh(bridge.Index, k.f.Local.Address)
	}
	return err
}

func (k *collector) neigh(index int, a netip.Addr) (Neigh, error) { return neigh(k.c, index, a) }

func neigh(c *nlx.Conn, index int, a netip.Addr) (Neigh, error) {
	all, err := c.Neighs(index)
	if err != nil {
		return Neigh{}, err
	}
	for _, n := range all {
		if n.Addr != a {
			continue
		}
		out := Neigh{Exists: true, State: stateName(n.State)}
		out.Failed = n.State&(unix.NUD_FAILED|unix.NUD_INCOMPLETE) != 0
		out.Permanent = n.State&(unix.NUD_PERMANENT|unix.NUD_NOARP) != 0
		if len(n.MAC) == 6 && !out.Failed {
			out.MAC = n.MAC.String()
		}
		return out, nil
	}
	return Neigh{}, nil
}

func stateName(s uint16) string {
	for _, n := range []struct {
		bit  uint16
		name string
	}{
		{unix.NUD_PERMANENT, "permanent"}, {unix.NUD_NOARP, "noarp"}, {unix.NUD_REACHABLE, "reachable"}, {unix.NUD_PROBE, "probe"},
		{unix.NUD_DELAY, "delay"}, {unix.NUD_STALE, "stale"}, {unix.NUD_FAILED, "failed"}, {unix.NUD_INCOMPLETE, "incomplete"},
	} {
		if s&n.bit != 0 {
			return n.name
		}
	}
	return "none"
}

func lookup(c *nlx.Conn, q nlx.Query, name func(int) string) (Route, error) {
	a, err := c.LookupRoute(q)
	if err != nil {
		return Route{}, err
	}
	return routeOf(a, name), nil
}

func routeOf(a nlx.Answer, name func(int) string) Route {
	if a.Err != nil {
		return Route{Err: a.Err.Error(), Invalid: errors.Is(a.Err, unix.EINVAL) || errors.Is(a.Err, unix.EXDEV)}
	}
	return Route{
		Dst: a.Dst, Via: a.Via, Routed: a.Routed, Dev: name(a.Index), Protocol: a.Protocol, Type: a.Type, Table: a.Table,
		Ours: a.Protocol == ourProto, Connected: !a.Routed,
	}
}

// routes asks for the ways there and back, as the host and as a packet that comes in.
func (k *collector) routes() (err error) {
	f, h := k.f, &k.f.Host
	door := k.index(f.door())
	ask := func(out *Route, q nlx.Query) {
		if err == nil && q.Dst.IsValid() {
			*out, err = lookup(k.c, q, k.name)
		}
	}
	ask(&h.Plain, nlx.Query{Dst: f.Remote.Address})
	ask(&h.Back, nlx.Query{Dst: f.Local.Address})
	ask(&h.ToNextHop, nlx.Query{Dst: f.NextHop})
	if f.Local.Kind == api.TraceContainer && door != 0 {
		ask(&h.Out, nlx.Query{Dst: f.Remote.Address, Src: f.Local.Address, In: door})
	}
	if err != nil {
		return err
	}
	all, err := k.c.MainRoutes()
	if err != nil {
		return err
	}
	h.Main = longest(all, f.Remote.Address, k.name)
	rules, err := k.c.Rules()
	for _, r := range rules {
		if r.Table != tableLocal && r.Table != tableMain && r.Table != tableDefault {
			h.Rules = append(h.Rules, Rule{r.Priority, r.Table})
		}
	}
	return err
}

const tableDefault = 253

// longest is what a table of routes says of an address: the longest prefix, and of
// those the smallest metric.
func longest(all []nlx.FIBRoute, a netip.Addr, name func(int) string) Route {
	best, found := nlx.FIBRoute{}, false
	for _, r := range all {
		if !r.Dst.Contains(a) {
			continue
		}
		if !found || r.Dst.Bits() > best.Dst.Bits() || r.Dst.Bits() == best.Dst.Bits() && r.Metric < best.Metric {
			best, found = r, true
		}
	}
	if !found {
		return Route{Err: "network is unreachable"}
	}
	out := routeOf(nlx.Answer{Lookup: nlx.Lookup{FIBRoute: best}, Table: tableMain}, name)
	return out
}

// wire looks at the interfaces to the others and at the next hop.
func (k *collector) wire(ctx context.Context) error {
	f, h := k.f, &k.f.Host
	if f.SameNode {
		return nil
	}
	out := h.Plain
	if f.Local.Kind == api.TraceContainer && h.Out.Err == "" && k.index(f.door()) != 0 {
		out = h.Out
	}
	if err := k.uplinks(out); err != nil {
		return err
	}
	if out.bad() || out.Type == typeLocal {
		return nil
	}
	h.HopAddr = out.Via
	if !out.Routed {
		h.HopAddr = f.Remote.Address
	}
	if !h.HopAddr.IsValid() {
		return nil
	}
	index := k.index(h.Uplink.Name)
	if h.Uplink.Up && h.Uplink.Carrier && h.Uplink.MAC != "" {
		h.Answers, h.Asked = whoHas(ctx, index, h.HopAddr, f.HostIP)
	}
	if len(h.Answers) > 1 && h.HopAddr == f.NextHop && f.PeerSubnet.IsValid() { // its gateway, if it has a bridge
		own, _ := whoHas(ctx, index, f.PeerSubnet.Addr().Next(), f.HostIP)
		h.Answers = ofOneMachine(h.Answers, own)
	}
	var err error
	h.Hop, err = k.neigh(index, h.HopAddr)
	return err
}

// uplinks finds the interface that packets leave by, as out says, the one that they
// come in by, and the one with this node's address.
func (k *collector) uplinks(out Route) error {
	f, h := k.f, &k.f.Host
	addrs, err := k.c.Addrs(0)
	if err != nil {
		return err
	}
	own := ""
	for _, a := range addrs {
		if a.Prefix.Addr() == f.HostIP {
			own = k.name(a.Index)
		}
	}
	uplink, arrival := own, own
	if !out.bad() && out.Dev != f.door() {
		uplink = out.Dev
	}
	if f.Remote.Kind == api.TraceOutside {
		arrival = uplink
	}
	for _, l := range k.links {
		if k.p.ArrivalMAC != "" && l.MAC.String() == k.p.ArrivalMAC && l.Group != linkGroup && l.Master == 0 {
			arrival = l.Name
		}
	}
	for _, l := range []struct {
		name string
		to   *Link
		in   *Route // of a packet that comes by it
	}{{uplink, &h.Uplink, nil}, {arrival, &h.Arrival, &h.In}, {own, &h.Own, &h.InOwn}} {
		if *l.to, _, err = link(k.c, l.name, k.name); err != nil {
			return err
		}
		if l.name == "" || l.in == nil {
			continue
		}
		if *l.in, err = lookup(k.c, nlx.Query{Dst: f.Local.Address, Src: f.Remote.Address, In: k.index(l.name)}, k.name); err != nil {
			return err
		}
	}
	return nil
}
