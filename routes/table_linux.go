package routes

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"stellar.io/stellar/internal/nlx"
)

// kernel is the main routing table of one network namespace.
type kernel struct{ h *nlx.Handle }

func openKernel(nsfd int) (*kernel, error) {
	h, err := nlx.Open(nsfd)
	if err != nil {
		return nil, err
	}
	return &kernel{h}, nil
}

func (k *kernel) close() { k.h.Close() }

// read returns every route of the main table whose destination lies inside
// network (anywhere, for the zero Prefix), and all that bear our mark.
func (k *kernel) read(network netip.Prefix) (table, error) {
	have := table{ours: map[key]Route{}, foreign: map[key]Route{}}
	filter := &netlink.Route{Table: unix.RT_TABLE_MAIN}
	list, err := k.h.RouteListFiltered(netlink.FAMILY_V4, filter, netlink.RT_FILTER_TABLE)
	if err != nil {
		return have, err
	}
	names := map[int]string{}
	for i := range list {
		r, ok := k.decode(&list[i], names)
		switch {
		case !ok:
		case list[i].Protocol == Protocol:
			have.ours[r.key()] = r
		case !network.IsValid(), network.Contains(r.Destination.Addr()) && r.Destination.Bits() >= network.Bits():
			have.foreign[r.key()] = r
		}
	}
	return have, nil
}

func (k *kernel) decode(r *netlink.Route, names map[int]string) (Route, bool) {
	if r.Dst == nil {
		return Route{}, false
	}
	addr, ok := netip.AddrFromSlice(r.Dst.IP.To4())
	if !ok {
		return Route{}, false
	}
	bits, _ := r.Dst.Mask.Size()
	out := Route{Kind: Via, Destination: netip.PrefixFrom(addr, bits), Metric: uint32(r.Priority)}
	if r.Type == unix.RTN_UNREACHABLE {
		out.Kind = Unreachable
		return out, true
	}
	if gw, ok := netip.AddrFromSlice(r.Gw.To4()); ok {
		out.Gateway = gw
	}
	if r.LinkIndex != 0 {
		name, known := names[r.LinkIndex]
		if !known {
			if link, err := k.h.LinkByIndex(r.LinkIndex); err == nil {
				name = link.Attrs().Name
			}
			names[r.LinkIndex] = name
		}
		out.Device = name
	}
	return out, true
}

func (k *kernel) encode(r Route) (*netlink.Route, error) {
	out := &netlink.Route{
		Dst: &net.IPNet{
			IP:   r.Destination.Addr().AsSlice(),
			Mask: net.CIDRMask(r.Destination.Bits(), r.Destination.Addr().BitLen()),
		},
		Protocol: Protocol, Table: unix.RT_TABLE_MAIN, Priority: int(r.Metric),
	}
	if r.Kind == Unreachable {
		out.Type = unix.RTN_UNREACHABLE
		return out, nil
	}
	link, err := k.h.LinkByName(r.Device)
	if err != nil {
		return nil, fmt.Errorf("device %s: %w", r.Device, err)
	}
	out.LinkIndex = link.Attrs().Index
	if r.Gateway.IsValid() {
		out.Gw = r.Gateway.AsSlice()
	}
	return out, nil
}

// add makes r, replacing a route of ours with the same key. An identical route
// is no error.
func (k *kernel) add(r Route, replace bool) error {
	kr, err := k.encode(r)
	if err != nil {
		return err
	}
	if replace {
		err = k.h.RouteReplace(kr)
	} else {
		err = k.h.RouteAdd(kr)
	}
	if err != nil && !errors.Is(err, unix.EEXIST) {
		return fmt.Errorf("add route %s: %w", r.Destination, err)
	}
	return nil
}

// remove deletes r if it is ours; a route that is not there is no error.
func (k *kernel) remove(r Route) error {
	kr, err := k.encode(r)
	if err != nil {
		return nil // its device is gone, and the route with it
	}
	if err := k.h.RouteDel(kr); err != nil && !errors.Is(err, unix.ESRCH) {
		return fmt.Errorf("delete route %s: %w", r.Destination, err)
	}
	return nil
}

// watch calls changed whenever a route or link of the namespace changes, until
// ctx ends. Lost notifications count as a change.
func watch(ctx context.Context, nsfd int, changed func()) error {
	sub, err := nlx.Subscribe(nsfd, unix.NETLINK_ROUTE, unix.RTNLGRP_IPV4_ROUTE, unix.RTNLGRP_LINK, unix.RTNLGRP_IPV4_IFADDR)
	if err != nil {
		return fmt.Errorf("watch routes: %w", err)
	}
	defer sub.Close()
	for {
		err := sub.Receive(ctx, func(typ uint16, _ []byte) {
			switch typ {
			case unix.RTM_DELROUTE, unix.RTM_NEWROUTE, unix.RTM_DELADDR, unix.RTM_NEWADDR:
				changed()
			}
		})
		switch {
		case ctx.Err() != nil:
			return nil
		case errors.Is(err, nlx.ErrOverrun):
			changed()
		case err != nil:
			return fmt.Errorf("watch routes: %w", err)
		}
	}
}

