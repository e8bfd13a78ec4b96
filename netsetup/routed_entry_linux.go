package netsetup

import (
	"errors"
	"fmt"
	"net"
	"net/netip"

	"golang.org/x/sys/unix"

	"stellar.io/stellar/internal/nlx"
)

// askEach is the number of ports up to which each is asked for; of more, everything
// is listed.
const askEach = 64

// entry is what the host has for a port besides its link.
type entry struct {
	route     *nlx.Route // the one in use for its address alone
	neighbour *nlx.Neighbour
}

// entryFix is one thing that is wrong with it, and what to send.
type entryFix struct {
	what string // "endpoint route" or "neighbour"
	msgs []*nlx.Message
}

// entries makes route and neighbour entry of each port what they must be. It goes
// on past a failure, and leaves a route of somebody else alone.
func (r *routed) entries(c *nlx.Conn, ports []port) error {
	if len(ports) == 0 {
		return nil
	}
	look := askEntries
	if len(ports) > askEach {
		look = listEntries
	}
	have, err := look(c, ports)
	if err != nil {
		return err
	}
	var errs []error
	for i, p := range ports {
		if p.MAC == nil {
			p.MAC = r.learn(c, p, have[i])
		}
		fixes, err := planEntry(p, have[i])
		errs = append(errs, err)
		for _, f := range fixes {
			replies, err := c.Do(f.msgs...)
			err = firstError(replies, err, unix.ESRCH)
			switch {
			case err == nil:
				r.n.log.Info("endpoint restored", "interface", p.HostIfname, "owner", p.Owner, "what", f.what)
				r.n.cfg.OnRepair(f.what, p.HostIfname)
			case errors.Is(err, unix.ENODEV), errors.Is(err, unix.ENETDOWN), errors.Is(err, unix.EEXIST):
				// The link goes, or somebody was faster: another notification tells.
			case errors.Is(err, unix.EINVAL):
				r.known.Store(false) // the host has lost the gateway's address
				fallthrough
			default:
				errs = append(errs, fmt.Errorf("%s of %s: %w", f.what, p.HostIfname, err))
			}
		}
	}
	return errors.Join(errs...)
}

// learn finds the hardware address of an endpoint that an earlier process attached:
// the entry that it made says it, or else the container's end does.
func (r *routed) learn(c *nlx.Conn, p port, have entry) net.HardwareAddr {
	var mac net.HardwareAddr
	if e := have.neighbour; e != nil && e.State == unix.NUD_PERMANENT && validMAC(e.MAC) {
		mac = e.MAC
	} else {
		mac = r.n.guestMAC(c, p)
	}
	r.n.table.change(p.HostIndex, func(p *port) {
		if p.MAC == nil {
			p.MAC = mac
		}
	})
	return mac
}

// planEntry compares what the host has for a port with what it must have. Pure.
func planEntry(p port, have entry) (fixes []entryFix, err error) {
	if have.neighbour == nil || !neighbourRight(p, *have.neighbour) {
		fixes = append(fixes, entryFix{"neighbour", []*nlx.Message{nlx.NewNeigh(p.HostIndex, p.Addr, p.MAC)}})
	}
	route := []*nlx.Message{nlx.NewHostRoute(p.HostIndex, p.Addr, RoutedGateway, protocol)}
	switch has := have.route; {
	case has == nil:
	case routeRight(p, *has):
		return fixes, nil
	case has.Protocol != protocol:
		return fixes, fmt.Errorf("route of %s: %w: %s", p.HostIfname, ErrHostRoute, p.Addr)
	default:
		route = append([]*nlx.Message{nlx.DelRoute(*has)}, route...)
	}
	return append(fixes, entryFix{"endpoint route", route}), nil
}

// askEntries asks for each port.
func askEntries(c *nlx.Conn, ports []port) ([]entry, error) {
	msgs := make([]*nlx.Message, 0, 2*len(ports))
	for _, p := range ports {
		msgs = append(msgs, nlx.GetRoute(p.Addr), nlx.GetNeigh(p.HostIndex, p.Addr))
	}
	replies, err := c.Ask(msgs)
	if err != nil {
		return nil, fmt.Errorf("look at %d endpoints: %w", len(ports), err)
	}
	out := make([]entry, len(ports))
	for i, p := range ports {
		route, neighbour := replies[2*i], replies[2*i+1]
		if route.Err == nil && len(route.Data) == 1 {
			if r, ok := nlx.ParseRoute(route.Data[0]); ok && r.Dst == netip.PrefixFrom(p.Addr, 32) {
				out[i].route = &r
			}
		}
		if neighbour.Err == nil && len(neighbour.Data) == 1 {
			if e, ok := nlx.ParseNeigh(neighbour.Data[0]); ok {
				out[i].neighbour = &e
			}
		}
	}
	return out, nil
}

// listEntries lists all routes and neighbours of the host.
func listEntries(c *nlx.Conn, ports []port) ([]entry, error) {
	routes, err := c.Routes(0)
	if err != nil {
		return nil, err
	}
	neighbours, err := c.Neighbours()
	if err != nil {
		return nil, err
	}
	byAddr := make(map[netip.Addr]int, len(ports))
	for i, p := range ports {
		byAddr[p.Addr] = i
	}
	out := make([]entry, len(ports))
	for k := range routes {
		r := &routes[k]
		if i, ok := byAddr[r.Dst.Addr()]; ok && r.Dst.Bits() == 32 && (out[i].route == nil || r.Metric < out[i].route.Metric) {
			out[i].route = r
		}
	}
	for k := range neighbours {
		e := &neighbours[k]
		if i, ok := byAddr[e.Addr]; ok && e.Index == ports[i].HostIndex {
			out[i].neighbour = e
		}
	}
	return out, nil
}
