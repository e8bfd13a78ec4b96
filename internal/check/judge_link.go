package check

import (
	"fmt"
	"slices"

	"stellar.io/stellar/internal/nlx"
	"stellar.io/stellar/netsetup"
)

func (f Facts) link(name string) (nlx.Link, bool) {
	i := slices.IndexFunc(f.Links, func(l nlx.Link) bool { return l.Name == name })
	if i < 0 {
		return nlx.Link{}, false
	}
	return f.Links[i], true
}

func (f Facts) linkName(index int) string {
	for _, l := range f.Links {
		if l.Index == index {
			return l.Name
		}
	}
	return fmt.Sprintf("interface %d", index)
}

const restartMend = "systemctl restart stellar"

// repair is how what the agent keeps right comes to be right again: by itself while
// the agent runs.
func (f Facts) repair(byHand string) string {
	if f.AgentDown != "" {
		return "systemctl start stellar, which restores it; or now: " + byHand
	}
	return byHand
}

// links judges the interfaces of the host.
func (j *judgement) links() {
	f := j.f
	for _, name := range f.Uplinks {
		switch l, ok := f.link(name); {
		case !ok:
		case !l.Up:
			j.error(UplinkDown, name, fmt.Sprintf("%s, which leads to the other nodes, is down", name), "ip link set "+name+" up")
		case !l.Running:
			j.error(UplinkDown, name, fmt.Sprintf("%s, which leads to the other nodes, has no carrier", name), "check its cable and the switch's port: ip -br link show "+name)
		}
	}
	if a := f.Address.Addr(); a.IsValid() && f.Addrs != nil && !slices.ContainsFunc(f.Addrs, func(o nlx.Addr) bool { return o.Prefix.Addr() == a }) {
		j.error(NodeAddress, a.String(), fmt.Sprintf("no interface has %s, by which the other nodes know this one", a), "give it back to its interface, ip address add "+a.String()+"/PREFIX dev IFACE, or name another one with --advertise")
	}
	if !f.Subnet.IsValid() || f.Links == nil {
		return
	}
	switch b, ok := f.link(f.Bridge); {
	case f.Routed:
		if !slices.ContainsFunc(f.Addrs, func(a nlx.Addr) bool { return a.Prefix.Addr() == netsetup.RoutedGateway }) {
			j.error(GatewayMissing, netsetup.RoutedGateway.String(), fmt.Sprintf("the host lacks the gateway's address %s, and with it the routes to its containers", netsetup.RoutedGateway), f.repair(restartMend))
		}
	case !ok:
		j.error(BridgeMissing, f.Bridge, fmt.Sprintf("the bridge %s does not exist", f.Bridge), f.repair(restartMend))
	case b.Kind != "bridge":
		j.error(BridgeMissing, f.Bridge, fmt.Sprintf("%s is no bridge", f.Bridge), "rename that interface, or choose another name: bridge in /etc/stellar/config.toml")
	case !b.Up:
		j.error(BridgeDown, f.Bridge, fmt.Sprintf("the bridge %s is down", f.Bridge), f.repair("ip link set "+f.Bridge+" up"))
	case !slices.ContainsFunc(f.Addrs, func(a nlx.Addr) bool { return a.Index == b.Index && a.Prefix.Addr() == f.Gateway }):
		j.error(BridgeDown, f.Bridge, fmt.Sprintf("the bridge %s lacks the gateway's address %s", f.Bridge, f.Gateway),
			f.repair(fmt.Sprintf("ip address add %s/%d dev %s", f.Gateway, f.Subnet.Bits(), f.Bridge)))
	}
}

// endpoints judges what the host has of each container.
func (j *judgement) endpoints() {
	f := j.f
	bridge, _ := f.link(f.Bridge)
	for _, e := range f.Endpoints {
		l, ok := f.link(e.HostIfname)
		if !ok {
			continue // it has ended meanwhile
		}
		who := e.Owner.Namespace + "/" + e.Owner.ID
		switch {
		case !l.Up:
			j.error(HostLinkDown, who, fmt.Sprintf("%s, the host's end of %s, is down", l.Name, who), f.repair("ip link set "+l.Name+" up"))
		case f.Routed && l.Master != 0:
			j.error(HostLinkBridge, who, fmt.Sprintf("%s, the host's end of %s, is a port of %s: its packets do not come to the host", l.Name, who, f.linkName(l.Master)), f.repair("ip link set "+l.Name+" nomaster"))
		case !f.Routed && l.Master != bridge.Index:
			j.error(HostLinkBridge, who, fmt.Sprintf("%s, the host's end of %s, is no port of %s", l.Name, who, f.Bridge), f.repair("ip link set "+l.Name+" master "+f.Bridge))
		case !l.Running:
			j.error(ContainerLinkDown, who, fmt.Sprintf("%s has no carrier: the interface %s inside %s is down", l.Name, e.Ifname, who), "inside the container: ip link set "+e.Ifname+" up; or restart it")
		}
		if f.Routed {
			j.routed(e, who)
		}
		for _, name := range f.Uplinks {
			if up, ok := f.link(name); ok && up.MTU > 0 && l.MTU > up.MTU {
				j.error(PathMTU, name, fmt.Sprintf("%s takes packets of %d bytes, %s sends %d: large ones are lost on their way in", name, up.MTU, who, l.MTU),
					fmt.Sprintf("ip link set %s mtu %d, if the network takes it; or restart %s, which then gets %d", name, l.MTU, who, up.MTU))
				break
			}
		}
		for _, n := range f.FDB {
			if n.Index != l.Index && n.MAC.String() == netsetup.MACFor(e.Addr).String() {
				j.error(FDB, who, fmt.Sprintf("a static entry of %s sends the frames of %s (%s) to %s instead of %s", f.Bridge, who, n.MAC, f.linkName(n.Index), l.Name),
					fmt.Sprintf("bridge fdb del %s dev %s master", n.MAC, f.linkName(n.Index)))
			}
		}
	}
}

func (j *judgement) forwarding() {
	for _, name := range append(j.f.doors(), j.f.Arrivals...) {
		if on, known := j.f.Forwarding[name]; known && !on && j.f.Subnet.IsValid() {
			j.error(Forwarding, name, fmt.Sprintf("the kernel does not forward what comes in by %s", name), j.f.repair("sysctl -w net.ipv4.conf."+name+".forwarding=1"))
		}
	}
}
