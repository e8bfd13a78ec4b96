package netsetup

import (
	"net"
	"net/netip"
	"time"

	"stellar.io/stellar/internal/nsx"
	"stellar.io/stellar/ipam"
)

// NSID is the identity of a network namespace; see nsx.ID for how long it holds.
type NSID = nsx.ID

// Endpoint is an attached container as the kernel has it.
type Endpoint struct {
	Owner      ipam.Owner
	Node       string // short id of the node that attached it, from the alias
	Addr       netip.Addr
	MAC        net.HardwareAddr // of the container's end; nil when only the host's end was seen
	Ifname     string           // in the container
	HostIfname string
	HostIndex  int
	NSID       NSID // zero when unknown
	Up         bool // the host's end
}

// Timing says where the time of one Attach went.
type Timing struct {
	Open  time.Duration // socket in the container's namespace
	Link  time.Duration // the veth request
	Guard time.Duration // the right to speak for its address
	Host  time.Duration // alias, host end up
	Guest time.Duration // the container's addresses, routes, interfaces up
	Total time.Duration
	// Adopted: the attachment was there already; only what was wrong was changed.
	Adopted bool
}

// NSInfo is what a container's namespace holds.
type NSInfo struct {
	Interfaces []Interface // without lo, in the kernel's order
	// DefaultRoute: the main table has an IPv4 default route; DefaultRouteOurs: we made it.
	DefaultRoute, DefaultRouteOurs bool
	DefaultVia                     string // the interface of the default route
}

// Interface is an interface of a container.
type Interface struct {
	Name  string
	MAC   net.HardwareAddr
	Up    bool
	Addrs []netip.Prefix
	Ours  bool // its hardware address or alias is of our making
}

// Has reports whether an interface of the given name exists.
func (i NSInfo) Has(name string) bool {
	for _, f := range i.Interfaces {
		if f.Name == name {
			return true
		}
	}
	return false
}
