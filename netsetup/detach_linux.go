package netsetup

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"os"
	"syscall"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"stellar.io/stellar/internal/failpoint"
	"stellar.io/stellar/internal/nlx"
	"stellar.io/stellar/ipam"
)

const (
	// dyingWait is how long Detach waits for the kernel to remove the link of a
	// namespace whose process has exited. A delete by request costs some 20 ms
	// under the kernel's one lock; a dying namespace costs nobody anything.
	dyingWait = 200 * time.Millisecond
	// pollGone and pollGoneWatched are the intervals at which a link is asked for
	// while it is waited for, without and with notifications.
	pollGone        = 5 * time.Millisecond
	pollGoneWatched = 50 * time.Millisecond
	// deleteBatch bounds the messages of one datagram.
	deleteBatch = 64
)

// Detach takes an owner's interface away. When it returns nil the host's link is
// confirmed gone, so the address is off the wire, and the kernel has forgotten
// connections and neighbours of the address. An owner that is not attached is no
// error. Where the container's process has exited, Detach first gives the dying
// namespace up to 200 ms to take the link along; concurrent calls share the
// cost of the deletes. Errors: ErrNotGone, or the kernel's.
func (n *Network) Detach(ctx context.Context, owner ipam.Owner) error {
	if err := n.detach(ctx, owner); err != nil {
		return fmt.Errorf("detach %s: %w", owner, err)
	}
	return nil
}

func (n *Network) detach(ctx context.Context, owner ipam.Owner) error {
	if err := n.load(ctx); err != nil {
		return err
	}
	release, err := n.table.hold(ctx, owner)
	if err != nil {
		return err
	}
	defer release()
	p, ok, err := n.find(owner)
	if err != nil || !ok {
		return err
	}
	n.table.change(p.HostIndex, func(p *port) { p.leaving = true })
	if p.pid != 0 && !inNamespace(p.pid, p.NSID) {
		if err := n.waitGone(ctx, p); err != nil {
			return err
		}
	}
	present, err := n.present(p)
	if err != nil {
		return err
	}
	if present {
		if err := n.removeLink(p.HostIndex); err != nil {
			return err
		}
		if present, err = n.present(p); err != nil {
			return err
		}
		if present {
			return fmt.Errorf("%w: %s", ErrNotGone, p.HostIfname)
		}
	}
	n.table.drop(p.HostIndex)
	if err := n.guard.dismiss(p.HostIndex); err != nil {
		return err
	}
	if err := n.flush.do(p.Addr); err != nil {
		// The address is free all the same: flows time out by themselves.
		n.log.Warn("connections of a released address may linger", "address", p.Addr, "err", err)
	}
	return nil
}

// find returns the owner's port from the table or, should the table not know it,
// from the kernel under the names that Attach would have used.
func (n *Network) find(owner ipam.Owner) (port, bool, error) {
	if p, ok := n.table.get(owner); ok {
		return p, true, nil
	}
	c, err := n.conn()
	if err != nil {
		return port{}, false, err
	}
	defer n.release(c)
	for g := range generations {
		l, err := c.LinkByName(hostName(owner, g))
		if errors.Is(err, unix.ENODEV) {
			return port{}, false, nil
		}
		if err != nil {
			return port{}, false, err
		}
		if p, ok := portOf(l); ok && p.Owner == owner {
			return p, true, nil
		}
	}
	return port{}, false, nil
}

// present asks the kernel whether the port's link is there: same index and same
// alias, for indexes are given out again.
func (n *Network) present(p port) (bool, error) {
	c, err := n.conn()
	if err != nil {
		return false, err
	}
	defer n.release(c)
	l, err := c.LinkByIndex(p.HostIndex)
	if errors.Is(err, unix.ENODEV) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	m, ours := parseAlias(l.Alias)
	return ours && m.owner == p.Owner, nil
}

// waitGone waits until the port's link has gone, at most dyingWait.
func (n *Network) waitGone(ctx context.Context, p port) error {
	ctx, cancel := context.WithTimeout(ctx, dyingWait)
	defer cancel()
	announced := n.table.watch(p.HostIndex)
	interval := pollGone
	if n.watching.Load() {
		interval = pollGoneWatched
	}
	tick := time.NewTicker(interval)
	defer tick.Stop()
	for {
		select {
		case <-announced:
			return nil
		case <-ctx.Done():
			return nil // the caller looks, and deletes
		case <-tick.C:
			if present, err := n.present(p); err != nil || !present {
				return err
			}
		}
	}
}

// inNamespace reports whether the process exists and is in the namespace.
func inNamespace(pid int, id NSID) bool {
	fi, err := os.Stat(nsPath(pid))
	if err != nil {
		return false
	}
	st, ok := fi.Sys().(*syscall.Stat_t)
	return ok && NSID{Dev: uint64(st.Dev), Ino: st.Ino} == id
}

// removeLink deletes one host link, together with what others delete meanwhile,
// and returns when it is gone. One that is not there is no error.
func (n *Network) removeLink(index int) error {
	if err := failpoint.Err(failpoint.NetRemove); err != nil {
		return err
	}
	if err := n.remove.do(index); err != nil {
		return fmt.Errorf("delete link %d: %w", index, err)
	}
	failpoint.Hit(failpoint.NetRemoved)
	n.table.drop(index)
	return nil
}

// deleteLinks deletes links. Each delete waits for a grace period of the kernel;
// a group of links waits once. So several links are first moved to a group that
// nobody else uses.
func (n *Network) deleteLinks(indexes []int) []error {
	errs := make([]error, len(indexes))
	defer func() { errs[0] = errors.Join(errs[0], n.dismissGone(indexes, errs)) }()
	c, err := n.conn()
	if err != nil {
		return fill(errs, err)
	}
	defer n.release(c)
	if len(indexes) == 1 {
		r, err := c.Do(nlx.DelLink(indexes[0]))
		errs[0] = firstError(r, err, unix.ENODEV)
		return errs
	}
	group := leavingGroup | rand.Uint32N(leavingGroup)
	for start := 0; start < len(indexes); start += deleteBatch {
		part := indexes[start:min(start+deleteBatch, len(indexes))]
		msgs := make([]*nlx.Message, len(part))
		for i, index := range part {
			msgs[i] = nlx.SetLink(index).Uint32(unix.IFLA_GROUP, group)
		}
		replies, err := c.Do(msgs...)
		for i := range part {
			if errs[start+i] = err; err == nil && !errors.Is(replies[i].Err, unix.ENODEV) {
				errs[start+i] = replies[i].Err
			}
		}
	}
	r, err := c.Do(nlx.DelLinkGroup(group))
	if err := firstError(r, err, unix.ENODEV); err != nil {
		return fill(errs, err)
	}
	return errs
}

// dismissGone takes the rights of the links that could be deleted.
func (n *Network) dismissGone(indexes []int, errs []error) error {
	var gone []int
	for i, index := range indexes {
		if errs[i] == nil {
			gone = append(gone, index)
		}
	}
	return n.guard.dismiss(gone...)
}

func fill(errs []error, err error) []error {
	for i := range errs {
		errs[i] = errors.Join(errs[i], err)
	}
	return errs
}

// forgetAddrs deletes the connection tracking and neighbour entries of addresses,
// so that the next owner of one does not inherit its predecessor's flows.
func (n *Network) forgetAddrs(addrs []netip.Addr) []error {
	return fill(make([]error, len(addrs)), errors.Join(n.forgetNeighbours(addrs), n.forgetFlows(addrs)))
}

func (n *Network) forgetNeighbours(addrs []netip.Addr) error {
	c, err := n.conn()
	if err != nil {
		return err
	}
	defer n.release(c)
	return n.layout.forget(c, addrs)
}

// addrFilter matches flows that have one of its addresses as source or
// destination in either direction.
type addrFilter map[netip.Addr]bool

// MatchConntrackFlow implements netlink.CustomConntrackFilter.
func (f addrFilter) MatchConntrackFlow(flow *netlink.ConntrackFlow) bool {
	for _, t := range []netlink.IPTuple{flow.Forward, flow.Reverse} {
		for _, ip := range [][]byte{t.SrcIP, t.DstIP} {
			if a, ok := netip.AddrFromSlice(ip); ok && f[a.Unmap()] {
				return true
			}
		}
	}
	return false
}

func (n *Network) forgetFlows(addrs []netip.Addr) error {
	f := make(addrFilter, len(addrs))
	for _, a := range addrs {
		f[a] = true
	}
	h, err := nlx.Open(n.hostFD(), unix.NETLINK_NETFILTER)
	if err != nil {
		return err
	}
	defer h.Close()
	_, err = h.ConntrackDelete(f)
	if errors.Is(err, unix.EOPNOTSUPP) || errors.Is(err, unix.EPROTONOSUPPORT) || errors.Is(err, unix.EINVAL) {
		return nil // no connection tracking in this kernel, so no flows
	}
	return err
}
