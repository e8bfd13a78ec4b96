package trace

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"stellar.io/stellar/api"
)

// asRouted turns the facts of a way into those of a node without a bridge.
func asRouted(f *Facts) {
	h := &f.Host
	gateway := addr("169.254.1.1")
	f.Routed, f.Switched, f.Gateway = true, false, gateway
	h.Bridge, h.LocalPort, h.RemotePort = Link{}, "", ""
	h.HostEnd.Master, h.HostEnd.Forwards = "", false
	h.RemoteEnd.Master = ""
	if f.Guest != nil {
		f.Guest.Route, f.Guest.HopAddr = via("0.0.0.0/0", gateway.String(), "eth0"), gateway
		f.Guest.Hop = Neigh{Exists: true, MAC: h.HostEnd.MAC, Permanent: true, State: "permanent"}
	}
	door := f.door()
	own := ours(onLink(f.Local.Address.String()+"/32", h.HostEnd.Name))
	h.Forwarding = map[string]string{door: "1", "eth0": "1"}
	h.RPFilter = map[string]int{door: 0, "eth0": 0}
	h.In, h.Back = own, own
	h.Resident = Neigh{Exists: true, MAC: h.MAC, Permanent: true, State: "permanent"}
}

// routedWay is the way from a container of a to one of b, both without a bridge.
func routedWay(change func(a, b *Facts)) func() api.Trace {
	return func() api.Trace {
		return across(func(a, b *Facts) {
			asRouted(a)
			asRouted(b)
			change(a, b)
		})
	}
}

// routedBeside is the way between two containers of a, without a bridge.
func routedBeside(change func(a, b *Facts)) func() api.Trace {
	return func() api.Trace {
		return switched(func(a, b *Facts) {
			for _, f := range []*Facts{a, b} {
				asRouted(f)
				f.Host.Out = ours(onLink(f.Remote.Address.String()+"/32", f.Host.RemoteEnd.Name))
				f.Host.Plain = f.Host.Out
			}
			change(a, b)
		})
	}
}

// TestRoutedWays draws the ways of nodes without a bridge, healthy.
func TestRoutedWays(t *testing.T) {
	t.Parallel()
	for name, tr := range map[string]api.Trace{
		"routed":        routedWay(func(*Facts, *Facts) {})(),
		"routed-beside": routedBeside(func(*Facts, *Facts) {})(),
		"routed-mixed":  across(func(_, b *Facts) { asRouted(b) }),
		"routed-host": ownHost(func(c, h *Facts) {
			asRouted(c)
			h.Host.RemoteEnd = c.Host.HostEnd
			asRouted(h)
			h.Host.Plain = ours(onLink("172.16.0.2/32", "vetha1"))
		}),
		"routed-out": wayOut(asRouted),
	} {
		if tr.Cause != nil || tr.Unjudged != "" {
			t.Errorf("%s: %+v %s", name, tr.Cause, tr.Unjudged)
		}
		if slices.ContainsFunc(tr.Hops, func(h api.TraceHop) bool {
			return strings.HasPrefix(h.What, "bridge") && (name != "routed-mixed" || h.Node != "a")
		}) {
			t.Errorf("%s: it goes over a bridge", name)
		}
		golden(t, name, draw(tr))
	}
}

// TestRoutedFaults: each kind of hop that is another one without a bridge, broken.
func TestRoutedFaults(t *testing.T) {
	t.Parallel()
	near := func(change func(*Facts)) func() api.Trace { return routedWay(func(a, _ *Facts) { change(a) }) }
	distant := func(change func(*Facts)) func() api.Trace { return routedWay(func(_, b *Facts) { change(b) }) }
	nowhere := Route{Err: "network is unreachable"}
	var out strings.Builder
	for _, f := range []struct {
		name, code string
		t          func() api.Trace
	}{
		{"default route replaced", codeRoute, near(func(f *Facts) {
			f.Guest.Route = via("0.0.0.0/0", "169.254.7.7", "eth0")
			f.Guest.HopAddr = addr("169.254.7.7")
		})},
		{"container hardware address", codeMAC, near(func(f *Facts) { f.Guest.Link.MAC = "02:00:00:00:00:99" })},
		{"gateway's neighbour wrong", codeGateway, near(func(f *Facts) { f.Guest.Hop.MAC = "02:00:00:00:00:99" })},
		{"gateway's neighbour gone", codeGateway, near(func(f *Facts) { f.Guest.Hop = Neigh{} })},
		{"gateway's neighbour failed", codeGateway, near(func(f *Facts) { f.Guest.Hop = Neigh{Exists: true, Failed: true, State: "failed"} })},
		{"host end down", codeHostLink, near(func(f *Facts) {
			f.Host.HostEnd.Up, f.Guest.Link.Carrier, f.Host.In, f.Host.Back, f.Host.Resident = false, false, nowhere, nowhere, Neigh{}
		})},
		{"host end on a bridge", codeHostLinkOut, near(func(f *Facts) { f.Host.HostEnd.Master = "br0" })},
		{"forwarding", codeForwarding, near(func(f *Facts) { f.Host.Forwarding["vetha1"] = "0"; f.Host.Out = refused("no route to host") })},
		{"host route gone", codeHostRoute, distant(func(f *Facts) { f.Host.In, f.Host.Back = nowhere, nowhere })},
		{"host route gone on the way back", codeHostRoute, near(func(f *Facts) { f.Host.In, f.Host.Back = nowhere, nowhere })},
		{"host route elsewhere", codeHostRoute, distant(func(f *Facts) {
			f.Host.In, f.Host.Back = onLink("172.16.4.2/32", "corp0"), onLink("172.16.4.2/32", "corp0")
		})},
		{"policy rule", codeRouteRule, distant(func(f *Facts) {
			f.Host.Rules = []Rule{{100, 77}}
			f.Host.In = Route{Dst: block("0.0.0.0/0"), Dev: "corp0", Table: 77, Type: typeAway}
		})},
		{"neighbour by hand", codeNeighbour, distant(func(f *Facts) { f.Host.Resident.MAC = "02:00:00:00:00:99" })},
		{"neighbour gone", "", distant(func(f *Facts) { f.Host.Resident = Neigh{} })},
		{"forward filter", codeForwardDrop, near(func(f *Facts) { f.Host.Filters.Append(dropping("ip", "forward")) })},
		{"beside: host route gone", codeHostRoute, routedBeside(func(a, b *Facts) {
			a.Host.Out, a.Host.Plain, b.Host.In, b.Host.Back = nowhere, nowhere, nowhere, nowhere
		})},
		{"beside: forwarding", codeForwarding, routedBeside(func(a, _ *Facts) {
			a.Host.Forwarding["vetha1"], a.Host.Out = "0", refused("no route to host")
		})},
		{"beside: forward filter", codeForwardDrop, routedBeside(func(a, _ *Facts) { a.Host.Filters.Append(dropping("ip", "forward")) })},
		{"beside: the other's host end down", codeHostLink, routedBeside(func(a, b *Facts) {
			a.Host.RemoteEnd.Up, a.Host.Out, a.Host.Plain = false, nowhere, nowhere
			b.Host.HostEnd.Up, b.Guest.Link.Carrier, b.Host.Back, b.Host.Resident = false, false, nowhere, Neigh{}
		})},
		{"the address of the gateway on the host", "", near(func(f *Facts) {
			f.Host.Uplink.Addrs = append(f.Host.Uplink.Addrs, netip.MustParsePrefix("169.254.1.1/16"))
		})},
	} {
		tr := f.t()
		got := ""
		if tr.Cause != nil {
			got = tr.Cause.Code
		}
		if got != f.code {
			t.Errorf("%s: cause %q, want %q\n%s", f.name, got, f.code, draw(tr))
		}
		tr.Hops = slices.DeleteFunc(tr.Hops, func(h api.TraceHop) bool { return h.State == api.TraceOK })
		fmt.Fprintf(&out, "== %s\n%s\n", f.name, draw(tr))
	}
	golden(t, "routed-faults", out.String())
}
