package netsetup

import (
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"time"

	"stellar.io/stellar/ipam"
)

const (
	// MaxEndpoints is the most endpoints of one bridge, and the addresses of a /22 in
	// bridge mode. A bridge takes 1,023 ports; two are left for others. A frame
	// flooded to more than 1,000 would overflow the receive backlog
	// (net.core.netdev_max_backlog), so nothing is flooded to ours.
	MaxEndpoints = 1021
	// RoutedGateway is the next hop of containers in routed mode.
	routedGateway = "169.254.1.1"
	// DefaultBridge is the bridge's name unless configured.
	DefaultBridge = "stellar0"

	defaultAudit = 10 * time.Second
	defaultMTU   = 1500
	minMTU       = 68
	maxMTU       = 65535
)

// RoutedGateway is the next hop of all containers in routed mode: an address of the
// host, on no link of it.
var RoutedGateway = netip.MustParseAddr(routedGateway)

// Config is what a Network is made of. It is not changed after New.
type Config struct {
	Node    ipam.NodeID
	Network netip.Prefix // the cluster's whole network
	Subnet  netip.Prefix // this node's part; the zero Prefix: see ErrNoSubnet
	Gateway netip.Addr   // the bridge's address; zero: the subnet's first; RoutedGateway in routed mode
	Mode    ipam.Mode    // zero: ModeBridge
	MTU     int          // bytes; 0: that of the default route's interface
	Bridge  string       // empty: DefaultBridge; not used in routed mode
	Uplinks []string     // interfaces that lead to peers, besides those of the default routes

	// Masquerade lets packets from this subnet to outside the network leave
	// under the host's address.
	Masquerade bool

	// AgentPorts are the TCP ports that the agent listens on, 0.0.0.0 for all
	// addresses. No container reaches them. Nil: none.
	AgentPorts []netip.AddrPort

	// HostNS is the namespace that holds the bridge; nil: the namespace of the
	// goroutine that calls New. It is only read by New.
	HostNS *os.File
	// ForbiddenPIDs returns processes whose namespaces are refused besides the
	// host's own, containerd's above all. It is called each time a namespace is
	// opened; pids that do not exist are passed over. Nil: none.
	ForbiddenPIDs func() []int

	// OnRepair is called when something of ours had been changed by someone else
	// and was put right: what ("bridge", "port", "filter", "forwarding",
	// "forward rule"; in routed mode "gateway", "unreachable route", "endpoint
	// route", "neighbour"), and the interface, address or table. Nil: not called.
	OnRepair func(what, subject string)
	// OnLost is called when an endpoint's link has disappeared without Detach: its
	// container ended or deleted it. Whether to attach again is the caller's
	// decision. Both callbacks come from Run's goroutine and must not block. Nil:
	// not called.
	OnLost func(Endpoint)

	AuditEvery time.Duration // 0: 10 s
	Logger     *slog.Logger  // nil: discard
}

// Validate reports all that is wrong with c, as one error.
func (c Config) Validate() error {
	var errs []error
	bad := func(format string, args ...any) {
		errs = append(errs, fmt.Errorf("%w: "+format, append([]any{ErrInvalid}, args...)...))
	}
	if c.Mode != ipam.ModeBridge && c.Mode != ipam.ModeRouted {
		bad("mode %s", c.Mode)
	}
	if !validIfname(c.Bridge) {
		bad("bridge name %q", c.Bridge)
	}
	for _, u := range c.Uplinks {
		if !validIfname(u) {
			bad("uplink name %q", u)
		}
	}
	if c.MTU != 0 && (c.MTU < minMTU || c.MTU > maxMTU) {
		bad("MTU %d", c.MTU)
	}
	if c.AuditEvery < 0 {
		bad("audit interval %s", c.AuditEvery)
	}
	if !c.Subnet.IsValid() {
		return errors.Join(errs...)
	}
	if !c.Node.Valid() {
		bad("node id %q", c.Node)
	}
	switch {
	case !c.Network.IsValid() || !c.Network.Addr().Is4() || c.Network != c.Network.Masked():
		bad("network %s", c.Network)
	case !c.Subnet.Addr().Is4() || c.Subnet != c.Subnet.Masked() || c.Subnet.Bits() > 30:
		bad("subnet %s", c.Subnet)
	case c.Subnet.Bits() < c.Network.Bits() || !c.Network.Contains(c.Subnet.Addr()):
		bad("subnet %s is not in network %s", c.Subnet, c.Network)
	case c.Mode == ipam.ModeRouted:
		if c.Network.Contains(RoutedGateway) {
			bad("network %s contains %s, the containers' gateway in routed mode", c.Network, RoutedGateway)
		}
	case !c.Subnet.Contains(c.Gateway) || c.Gateway == c.Subnet.Addr():
		bad("gateway %s is not in subnet %s", c.Gateway, c.Subnet)
	}
	return errors.Join(errs...)
}

// withDefaults fills in what the zero values stand for.
func (c Config) withDefaults() Config {
	if c.Mode == 0 {
		c.Mode = ipam.ModeBridge
	}
	if c.Bridge == "" {
		c.Bridge = DefaultBridge
	}
	if c.Mode == ipam.ModeRouted {
		c.Gateway = RoutedGateway
	} else if c.Subnet.IsValid() && !c.Gateway.IsValid() {
		c.Gateway = c.Subnet.Masked().Addr().Next()
	}
	if c.AuditEvery == 0 {
		c.AuditEvery = defaultAudit
	}
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
	if c.OnRepair == nil {
		c.OnRepair = func(string, string) {}
	}
	if c.OnLost == nil {
		c.OnLost = func(Endpoint) {}
	}
	if c.ForbiddenPIDs == nil {
		c.ForbiddenPIDs = func() []int { return nil }
	}
	return c
}

// Spec is one wanted attachment.
type Spec struct {
	Owner        ipam.Owner
	Addr         netip.Addr
	MAC          net.HardwareAddr // nil: MACFor(Addr)
	Ifname       string           // in the container; empty: the owner's interface
	DefaultRoute bool             // false: only a route to the cluster's network
	MTU          int              // 0: the node's
	NS           *Namespace
}

// complete fills in the defaults and checks s against the network it joins.
func (s Spec) complete(c Config, mtu int) (Spec, error) {
	if s.Ifname == "" {
		s.Ifname = s.Owner.Interface
	}
	if s.MAC == nil && s.Addr.Is4() {
		s.MAC = MACFor(s.Addr)
	}
	if s.MTU == 0 {
		s.MTU = mtu
	}
	switch {
	case s.NS == nil || s.NS.file == nil:
		return s, fmt.Errorf("%w: no open namespace", ErrInvalid)
	case !validIfname(s.Ifname) || s.Ifname == "lo":
		return s, fmt.Errorf("%w: interface name %q", ErrInvalid, s.Ifname)
	case s.Ifname != s.Owner.Interface:
		return s, fmt.Errorf("%w: interface %q of owner %s", ErrInvalid, s.Ifname, s.Owner)
	case !c.Subnet.Contains(s.Addr) || s.Addr == c.Gateway || s.Addr == c.Subnet.Addr():
		return s, fmt.Errorf("%w: address %s in subnet %s", ErrInvalid, s.Addr, c.Subnet)
	case !validMAC(s.MAC):
		return s, fmt.Errorf("%w: hardware address %s", ErrInvalid, s.MAC)
	case s.MTU < minMTU || s.MTU > maxMTU:
		return s, fmt.Errorf("%w: MTU %d", ErrInvalid, s.MTU)
	}
	return s, nil
}

// validMAC reports whether m is an address of one Ethernet interface.
func validMAC(m net.HardwareAddr) bool {
	return len(m) == 6 && m[0]&1 == 0 && string(m) != string(make([]byte, 6))
}
