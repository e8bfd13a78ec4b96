package routes

import (
	"context"
	"errors"
	"fmt"
	"sync"

	"golang.org/x/sys/unix"

	"stellar.io/stellar/internal/nlx"
)

// view is what a watcher has to know to tell which of the kernel's notifications
// matter. Our own changes do not: each would lead to a round that finds nothing.
type view struct {
	mu     sync.Mutex // guards what follows
	wants  Wants
	expect map[key]nlx.FIBRoute // what is ours and desired
	// Interfaces that lead to peers, or did: whether packets pass. The kernel
	// does not tell of the routes that go with an interface.
	uplinks map[int]bool
}

// set is called before the kernel is changed.
func (v *view) set(w Wants, goals []goal) {
	expect := make(map[key]nlx.FIBRoute, len(goals))
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.uplinks == nil {
		v.uplinks = map[int]bool{}
	}
	for _, g := range goals {
		if g.state != "" {
			continue
		}
		r := g.fib()
		expect[keyOf(r)] = r
		if g.index != 0 {
			v.uplinks[g.index] = !g.down
		}
	}
	v.wants, v.expect = w, expect
}

// matters reports whether a notification may change what there is to do.
func (v *view) matters(typ uint16, body []byte) bool {
	switch typ {
	case unix.RTM_NEWADDR, unix.RTM_DELADDR, unix.RTM_NEWRULE, unix.RTM_DELRULE:
		return true
	case unix.RTM_NEWROUTE, unix.RTM_DELROUTE:
		r, ok := nlx.ParseFIBRoute(body)
		return ok && v.routeMatters(typ, r)
	case unix.RTM_NEWLINK, unix.RTM_DELLINK:
		index, running := nlx.LinkState(body)
		return v.linkMatters(index, running && typ == unix.RTM_NEWLINK)
	case unix.RTM_NEWNETCONF:
		index, all := nlx.NetconfIndex(body)
		v.mu.Lock()
		defer v.mu.Unlock()
		_, uplink := v.uplinks[index]
		return all || uplink
	}
	return false
}

func (v *view) routeMatters(typ uint16, r nlx.FIBRoute) bool {
	v.mu.Lock()
	defer v.mu.Unlock()
	if !ours(r) {
		// Single containers of this node come and go at a high rate.
		return r.Routed || !contains(v.wants.Subnet, r.Dst)
	}
	want, wanted := v.expect[keyOf(r)]
	if typ == unix.RTM_DELROUTE {
		return wanted && same(want, r)
	}
	if wanted {
		return !same(want, r)
	}
	return stray(v.wants, r)
}

func (v *view) linkMatters(index int, running bool) bool {
	v.mu.Lock()
	defer v.mu.Unlock()
	was, uplink := v.uplinks[index]
	if !uplink || was == running {
		return false
	}
	v.uplinks[index] = running
	return true
}

func subscribe(nsfd int) (*nlx.Subscription, error) {
	sub, err := nlx.Subscribe(nsfd, unix.NETLINK_ROUTE, unix.RTNLGRP_IPV4_ROUTE, unix.RTNLGRP_LINK,
		unix.RTNLGRP_IPV4_IFADDR, unix.RTNLGRP_IPV4_RULE, unix.RTNLGRP_IPV4_NETCONF)
	if err != nil {
		return nil, fmt.Errorf("watch routes: %w", err)
	}
	return sub, nil
}

// watch calls moved whenever something in the namespace changes that matters,
// until ctx ends. Lost notifications matter.
func watch(ctx context.Context, sub *nlx.Subscription, v *view, moved func()) error {
	for {
		err := sub.Receive(ctx, func(typ uint16, body []byte) {
			if v.matters(typ, body) {
				moved()
			}
		})
		switch {
		case ctx.Err() != nil:
			return nil
		case errors.Is(err, nlx.ErrOverrun):
			moved()
		case err != nil:
			return fmt.Errorf("watch routes: %w", err)
		}
	}
}
