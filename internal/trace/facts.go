package trace

import (
	"net/netip"

	"stellar.io/stellar/api"
	"stellar.io/stellar/internal/firewall"
)

// Facts are what one node knows of the way between an end that is on it and
// another. They are as the kernel gave them, unjudged.
type Facts struct {
	Node          string
	Local, Remote api.TraceEnd
	// Switched: both ends are containers of this node: the bridge alone is between them.
	// Never where each container has a route of its own.
	Switched bool
	// SameNode: both ends are on this node.
	SameNode bool
	// Answering: Local answers to what Remote has sent.
	Answering bool
	// NextHop is the address of Remote's node; zero: it has none, or is this one.
	NextHop    netip.Addr
	PeerSubnet netip.Prefix // that Remote's address is in; zero outside
	HostIP     netip.Addr   // of this node, as peers know it

	Network, Subnet netip.Prefix
	Gateway         netip.Addr // of this node's containers
	// Routed: there is no bridge, each container has a route and a gateway of its own.
	Routed     bool
	Masquerade bool // as configured
	BridgeName string

	Endpoint Endpoint
	Guest    *Guest // nil: Local is the host itself, or the container could not be entered
	GuestErr string // why it could not be entered
	Host     Host
}

// Endpoint is what the agent knows of the container.
type Endpoint struct {
	Known  bool
	Up     bool
	State  string
	Reason string
}

// Link is an interface; the zero Link does not exist.
type Link struct {
	Name    string
	Exists  bool
	Up      bool
	Carrier bool
	MTU     int
	MAC     string
	Addrs   []netip.Prefix
	Master  string // the bridge that it is a port of
	// Of a port of a bridge.
	Forwards, Isolated bool
}

// Route is the kernel's answer.
type Route struct {
	Err       string // it refuses, with this text; "": it does not
	Invalid   bool   // it refuses because of the packet's source
	Dst       netip.Prefix
	Via       netip.Addr
	Routed    bool
	Dev       string
	Protocol  uint8
	Type      uint8
	Table     uint32
	Ours      bool
	Connected bool
}

// Neigh is a neighbour entry.
type Neigh struct {
	Exists    bool
	MAC       string
	Failed    bool
	Permanent bool
	State     string // as ip(8) writes it
}

// TCFilter is a filter of traffic control that may drop.
type TCFilter struct {
	Certain bool
	Text    string
	Mend    string
}

// TC are the filters of an interface.
type TC struct{ Ingress, Egress []TCFilter }

// Guest is what the container's namespace holds.
type Guest struct {
	PID     int // of a process in it, 0: not known
	Link    Link
	Route   Route // to the remote end
	HopAddr netip.Addr
	Hop     Neigh // of the next hop, or of the remote end on link
	Filters firewall.Ruleset
	TC      TC
}

// Host is what the host's namespace holds.
type Host struct {
	HostEnd    Link // of the local container's veth
	RemoteEnd  Link // of the remote container's, if it is on this node
	Bridge     Link
	MAC        string // of the local container
	RemoteMAC  string // of the remote container on this node
	LocalPort  string // where the bridge sends frames for MAC; "": not known to it
	RemotePort string

	IPForward  string            // net.ipv4.ip_forward
	Forwarding map[string]string // net.ipv4.conf.*.forwarding by interface
	RPFilter   map[string]int    // in force

	// Out is the route of a packet from Local to Remote as it comes out of the
	// container, Plain of one that the host itself sends, In of one from Remote to Local
	// as it comes from the wire, Back the plain one to Local.
	Out, Plain, In, Back Route
	// Main is what the main table alone says of Remote.
	Main Route
	// ToNextHop is the route to NextHop.
	ToNextHop Route
	Rules     []Rule

	Uplink  Link // that Out leaves by, or else the one with HostIP
	Arrival Link // that packets from Remote come in by
	// Own has HostIP, and InOwn is as In, by it.
	Own     Link
	InOwn   Route
	HopAddr netip.Addr
	Hop     Neigh
	Answers []string // who answers for HopAddr on the link
	Asked   bool     // they were asked
	// Resident is the neighbour entry of Local on the bridge, or on its host end.
	Resident Neigh

	Filters    firewall.Ruleset
	BridgeCall bool // net.bridge.bridge-nf-call-iptables
	TC         map[string]TC
	Xfrm       []XfrmBlock
	MACs       []string
	Groups     map[string]uint32 // of the interfaces
}

// Rule is a policy rule that is not one of the kernel's three.
type Rule struct {
	Priority uint32
	Table    uint32
}

// XfrmBlock is an IPsec policy that blocks.
type XfrmBlock struct {
	Src, Dst netip.Prefix
	Dir      string // in, out or fwd
	Text     string
	// Part: it selects by protocol or port, too.
	Part bool
}

// door is the interface by which the host's IP meets the container: its own, or if that
// is the remote end's, that one's.
func (f *Facts) door() string {
	switch {
	case !f.Routed:
		return f.BridgeName
	case f.Local.Kind != api.TraceContainer:
		return f.Host.RemoteEnd.Name
	}
	return f.Host.HostEnd.Name
}

// beyond is the interface that a packet to the remote end leaves the host by.
func (f *Facts) beyond() string {
	if f.SameNode {
		return f.Host.RemoteEnd.Name
	}
	return f.Host.Uplink.Name
}

// Has reports whether the container's interface has an address.
func (g *Guest) Has(a netip.Addr) bool {
	for _, p := range g.Link.Addrs {
		if p.Addr() == a {
			return true
		}
	}
	return false
}
