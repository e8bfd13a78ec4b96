package trace

import (
	"context"

	"golang.org/x/sys/unix"

	"stellar.io/stellar/internal/nlx"
)

// guest looks into the container's namespace.
func (k *collector) guest(ctx context.Context) (*Guest, error) {
	c, err := nlx.Dial(k.p.NS, unix.NETLINK_ROUTE)
	if err != nil {
		return nil, err
	}
	defer c.Close()
	links, err := c.Links()
	if err != nil {
		return nil, err
	}
	name := func(index int) string {
		for _, l := range links {
			if l.Index == index {
				return l.Name
			}
		}
		return ""
	}
	g := &Guest{PID: k.p.PID}
	if g.Link, _, err = link(c, k.p.Ifname, name); err != nil {
		return nil, err
	}
	if k.f.Host.MAC == "" {
		k.f.Host.MAC = g.Link.MAC
	}
	if g.Route, err = lookup(c, nlx.Query{Dst: k.f.Remote.Address}, name); err != nil {
		return nil, err
	}
	if !g.Route.bad() && g.Link.Exists {
		g.HopAddr = g.Route.Via
		if !g.Route.Routed {
			g.HopAddr = k.f.Remote.Address
		}
		for _, l := range links {
			if l.Name == g.Link.Name && g.HopAddr.IsValid() {
				if g.Hop, err = neigh(c, l.Index, g.HopAddr); err != nil {
					return nil, err
				}
			}
		}
	}
	g.Filters = rulesets(ctx, k.p.NS)
	g.TC = trafficControl(ctx, k.p.NS)[g.Link.Name]
	return g, nil
}
