package nlx

import (
	"errors"
	"fmt"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"
)

// Handle is vishvananda/netlink bound to one namespace, with the package's
// timeout and with lists that are complete or fail. Its other methods are the
// library's own.
type Handle struct {
	*netlink.Handle
}

// Open returns a handle on the namespace with the open descriptor nsfd for the
// given protocols; none means NETLINK_ROUTE. nsfd -1 is the calling thread's
// namespace. The caller closes it.
func Open(nsfd int, protocols ...int) (*Handle, error) {
	if len(protocols) == 0 {
		protocols = []int{unix.NETLINK_ROUTE}
	}
	h, err := netlink.NewHandleAt(netns.NsHandle(nsfd), protocols...)
	if err != nil {
		return nil, fmt.Errorf("netlink handle: %w", err)
	}
	if err := h.SetSocketTimeout(timeout); err != nil {
		h.Close()
		return nil, fmt.Errorf("netlink handle: %w", err)
	}
	return &Handle{h}, nil
}

// list repeats an interrupted dump and never returns a partial one.
func list[T any](what string, dump func() ([]T, error)) ([]T, error) {
	for range dumpTries {
		items, err := dump()
		if err == nil {
			return items, nil
		}
		if !errors.Is(err, netlink.ErrDumpInterrupted) && !errors.Is(err, unix.EINTR) {
			return nil, fmt.Errorf("list %s: %w", what, err)
		}
	}
	return nil, fmt.Errorf("list %s: %w", what, ErrInterrupted)
}

// LinkList returns all interfaces.
func (h *Handle) LinkList() ([]netlink.Link, error) {
	return list("links", h.Handle.LinkList)
}

// AddrList returns the addresses of one interface, or all for a nil link.
func (h *Handle) AddrList(link netlink.Link, family int) ([]netlink.Addr, error) {
	return list("addresses", func() ([]netlink.Addr, error) { return h.Handle.AddrList(link, family) })
}

// RouteList returns the routes of the main table, of one interface unless link is nil.
func (h *Handle) RouteList(link netlink.Link, family int) ([]netlink.Route, error) {
	return list("routes", func() ([]netlink.Route, error) { return h.Handle.RouteList(link, family) })
}

// RouteListFiltered returns the routes that agree with filter in the fields of mask.
func (h *Handle) RouteListFiltered(family int, filter *netlink.Route, mask uint64) ([]netlink.Route, error) {
	return list("routes", func() ([]netlink.Route, error) {
		return h.Handle.RouteListFiltered(family, filter, mask)
	})
}

// NeighList returns the neighbour entries of one interface, of all for 0.
func (h *Handle) NeighList(linkIndex, family int) ([]netlink.Neigh, error) {
	return list("neighbours", func() ([]netlink.Neigh, error) { return h.Handle.NeighList(linkIndex, family) })
}

// ConntrackDelete deletes the IPv4 connection tracking entries that any filter
// matches and returns their number. Interrupted dumps are repeated: what the
// earlier rounds have deleted stays deleted.
func (h *Handle) ConntrackDelete(filters ...netlink.CustomConntrackFilter) (uint, error) {
	var total uint
	for range dumpTries {
		n, err := h.Handle.ConntrackDeleteFilters(netlink.ConntrackTable, unix.AF_INET, filters...)
		total += n
		if err == nil {
			return total, nil
		}
		if !errors.Is(err, netlink.ErrDumpInterrupted) {
			return total, fmt.Errorf("delete connection tracking entries: %w", err)
		}
	}
	return total, fmt.Errorf("delete connection tracking entries: %w", ErrInterrupted)
}
