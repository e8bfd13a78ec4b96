package netsetup

import (
	"context"
	"fmt"

	"golang.org/x/sys/unix"

	"stellar.io/stellar/internal/nlx"
)

// List returns the endpoints that the kernel has in the host namespace, in the
// order of their addresses, whichever process attached them. What this process
// attached comes with MAC and NSID. The list is complete or an error.
func (n *Network) List(ctx context.Context) ([]Endpoint, error) {
	c, err := n.conn()
	if err != nil {
		return nil, fmt.Errorf("list endpoints: %w", err)
	}
	defer n.release(c)
	links, err := n.scan(ctx, c)
	if err != nil {
		return nil, fmt.Errorf("list endpoints: %w", err)
	}
	return n.table.endpoints(links), nil
}

// scan lists the host's links and enters the ports that the table does not know.
// Ports of owners that are being changed at this moment are left to who changes
// them, and what is only in the table stays: its end is announced or found out.
func (n *Network) scan(ctx context.Context, c *nlx.Conn) ([]nlx.Link, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	links, err := c.Links()
	if err != nil {
		return nil, err
	}
	n.table.merge(links)
	return links, nil
}

// portOf reads an endpoint from its host link; ok is false for other links.
func portOf(l nlx.Link) (port, bool) {
	m, ours := parseAlias(l.Alias)
	if !ours || l.Kind != "veth" {
		return port{}, false
	}
	return port{
		Endpoint: Endpoint{
			Owner: m.owner, Node: m.node, Addr: m.addr, Ifname: m.owner.Interface,
			HostIfname: l.Name, HostIndex: l.Index, Up: l.Up,
		},
		alias: l.Alias, routed: m.routed, mtu: l.MTU,
	}, true
}

// Inspect reports what a container's namespace holds. The caller closes ns.
func (n *Network) Inspect(ctx context.Context, ns *Namespace) (NSInfo, error) {
	info, err := n.inspect(ctx, ns)
	if err != nil {
		return NSInfo{}, fmt.Errorf("inspect namespace %s: %w", ns.id, err)
	}
	return info, nil
}

func (n *Network) inspect(ctx context.Context, ns *Namespace) (info NSInfo, err error) {
	if err := ctx.Err(); err != nil {
		return NSInfo{}, err
	}
	c, err := nlx.Dial(int(ns.file.Fd()), unix.NETLINK_ROUTE)
	if err != nil {
		return NSInfo{}, err
	}
	defer c.Close()
	links, err := c.Links()
	if err != nil {
		return NSInfo{}, err
	}
	addrs, err := c.Addrs(0)
	if err != nil {
		return NSInfo{}, err
	}
	routes, err := c.Routes(0)
	if err != nil {
		return NSInfo{}, err
	}
	names := make(map[int]string, len(links))
	for _, l := range links {
		names[l.Index] = l.Name
		if l.Index == loIndex {
			continue
		}
		f := Interface{Name: l.Name, MAC: l.MAC, Up: l.Up}
		for _, a := range addrs {
			if a.Index == l.Index {
				f.Addrs = append(f.Addrs, a.Prefix)
				f.Ours = f.Ours || l.MAC.String() == MACFor(a.Prefix.Addr()).String()
			}
		}
		info.Interfaces = append(info.Interfaces, f)
	}
	for _, r := range routes {
		if r.Default() && !info.DefaultRoute {
			info.DefaultRoute, info.DefaultRouteOurs = true, r.Protocol == protocol
			info.DefaultVia = names[r.Index]
		}
	}
	return info, nil
}
