package trace

import (
	"fmt"
	"slices"
	"strings"

	"stellar.io/stellar/api"
	"stellar.io/stellar/internal/firewall"
)

// hostEnd is the host's side of the container's veth.
func (p *path) hostEnd() {
	f, l := p.f, p.f.Host.HostEnd
	var v verdict
	switch {
	case l.Name == "":
		v = unknown("not known")
	case !l.Exists:
		v = broken(codeHostLink, p.repair(), "%s does not exist", l.Name)
	case !l.Up:
		v = broken(codeHostLink, p.repair(), "%s is down", l.Name)
	case f.Routed && l.Master != "":
		v = broken(codeHostLinkOut, fmt.Sprintf("ip link set %s nomaster", l.Name), "%s is a port of %s: the container's packets do not come to the host", l.Name, l.Master)
	case !f.Routed && l.Master != f.BridgeName:
		v = broken(codeHostLinkOut, p.repair(), "%s is not a port of %s", l.Name, f.BridgeName)
	case !l.Carrier:
		v = unknown("%s has no carrier: the container's end is down", l.Name)
	case f.Routed:
		v = fine("up")
	case !l.Forwards:
		v = broken(codeHostLinkOut, fmt.Sprintf("bridge link set dev %s state 3", l.Name), "%s is a port of %s that does not forward", l.Name, f.BridgeName)
	case f.Switched && l.Isolated && f.Host.RemoteEnd.Isolated:
		v = broken(codeBridgeDrop, fmt.Sprintf("bridge link set dev %s isolated off", l.Name), "%s and %s are isolated from each other", l.Name, f.Host.RemoteEnd.Name)
	default:
		v = fine("up, port of %s", f.BridgeName)
	}
	tc := f.Host.TC[l.Name]
	in := p.judge(f.Host.Filters, l.Name, p.packet(l.Name, l.Name), []firewall.Hook{{Family: "netdev", Name: "ingress"}, {Family: "netdev", Name: "egress"}}, codeIngressDrop)
	p.add(whatHostEnd, l.Name, worst(v, in, p.tc(tc.Ingress, "gets from the container"), p.tc(tc.Egress, "sends to the container")))
}

// packet is the one that leaves the local end.
func (p *path) packet(in, out string) firewall.Packet {
	return p.except(firewall.Packet{In: in, Out: out, Src: p.f.Local.Address, Dst: p.f.Remote.Address, Established: p.f.Answering})
}

// reply is the one that comes to the local end.
func (p *path) reply(in, out string) firewall.Packet {
	return p.except(firewall.Packet{In: in, Out: out, Src: p.f.Remote.Address, Dst: p.f.Local.Address, Established: !p.f.Answering})
}

// except adds what is known of the interfaces, and what a command that mends a firewall
// lets through.
func (p *path) except(pkt firewall.Packet) firewall.Packet {
	pkt.Groups = p.f.Host.Groups
	if p.f.Routed {
		pkt.Network = p.f.Network
	} else {
		pkt.Bridge = p.f.BridgeName
	}
	return pkt
}

// bridge reports whether there is one.
func (p *path) bridge() bool {
	f, l := p.f, p.f.Host.Bridge
	var v verdict
	switch has := slices.ContainsFunc(l.Addrs, func(a prefix) bool { return a.Addr() == f.Gateway }); {
	case !l.Exists:
		v = broken(codeNoBridge, "systemctl restart stellar", "%s does not exist", f.BridgeName)
	case !l.Up:
		v = broken(codeBridgeDown, fmt.Sprintf("ip link set %s up", f.BridgeName), "%s is down", f.BridgeName)
	case !has && !f.Switched:
		v = broken(codeBridgeDown, "systemctl restart stellar", "%s lacks the gateway's address %s", f.BridgeName, f.Gateway)
	default:
		v = fine("up, %s", f.Gateway)
	}
	p.add(whatBridge, f.BridgeName, v)
	return l.Exists
}

// table is where the bridge sends frames for a container.
func (p *path) table(mac, port, want string, whose api.TraceEnd) {
	var v verdict
	switch {
	case mac == "" || want == "":
		v = unknown("the hardware address of %s is not known", whose)
	case port == "":
		v = fine("%s not learned yet: to all ports", mac)
	case port != want:
		v = broken(codeFDB, fmt.Sprintf("bridge fdb del %s dev %s master", mac, port), "frames for %s (%s) go to %s, its port is %s", whose, mac, port, want)
	default:
		v = fine("%s behind %s", mac, port)
	}
	p.add(whatFDB, whose.String(), v)
}

// frames are the filters inside the bridge.
func (p *path) frames(hooks ...string) {
	f := p.f
	pkt := p.packet(f.Host.HostEnd.Name, "")
	switch {
	case f.Switched:
		pkt.Out, pkt.SrcMAC, pkt.DstMAC = f.Host.RemoteEnd.Name, f.Host.MAC, f.Host.RemoteMAC
	case hooks[0] == "output":
		pkt = p.reply("", f.Host.HostEnd.Name)
		pkt.SrcMAC, pkt.DstMAC = f.Host.Bridge.MAC, f.Host.MAC
	default:
		pkt.SrcMAC, pkt.DstMAC = f.Host.MAC, f.Host.Bridge.MAC
	}
	var hs []firewall.Hook
	for _, h := range hooks {
		hs = append(hs, firewall.Hook{Family: "bridge", Name: h})
	}
	arp := pkt
	arp.ARP = true
	v := worst(
		p.judge(f.Host.Filters, "", pkt, hs, codeBridgeDrop),
		p.judge(f.Host.Filters, "", arp, hs, codeBridgeDrop))
	if f.Switched && f.Host.BridgeCall {
		call := p.packet(f.BridgeName, f.BridgeName)
		w := p.judge(f.Host.Filters, f.BridgeName, call, []firewall.Hook{{Family: "ip", Name: "prerouting"}, {Family: "ip", Name: "forward"}, {Family: "ip", Name: "postrouting"}}, codeBrNetfilter)
		if w.state == api.TraceBroken {
			w.detail = "bridged packets go through iptables (br_netfilter); " + w.detail
			w.mend = "sysctl -w net.bridge.bridge-nf-call-iptables=0"
		}
		v = worst(v, w)
	}
	p.add(whatFrames, f.BridgeName, v)
}

// forwarding is whether the kernel sends on what comes in by an interface.
func (p *path) forwarding(dev string) {
	if dev == "" {
		return
	}
	switch on, known := p.f.Host.Forwarding[dev]; {
	case !known:
		p.add(whatForwarding, dev, unknown("net.ipv4.conf.%s.forwarding cannot be read", dev))
	case on != "1":
		p.add(whatForwarding, dev, broken(codeForwarding, fmt.Sprintf("sysctl -w net.ipv4.conf.%s.forwarding=1", dev), "the kernel does not forward what comes in by %s", dev))
	default:
		p.add(whatForwarding, dev, fine("on"))
	}
}

// forward are the host's filters for what it sends on from one interface to another.
func (p *path) forward(in, out string) {
	pkt := p.packet(in, out)
	if in != p.f.door() {
		pkt = p.reply(in, out)
	}
	hooks := []firewall.Hook{{Family: "ip", Name: "prerouting"}, {Family: "ip", Name: "forward"}, {Family: "ip", Name: "postrouting"}}
	v := worst(p.judge(p.f.Host.Filters, "", pkt, hooks, codeForwardDrop), p.xfrm(pkt, "fwd", "out"))
	p.add(whatForward, in+" → "+orNothing(out), v)
}

func orNothing(s string) string {
	if s == "" {
		return "?"
	}
	return s
}

// hostFilter are the host's filters for what it sends or receives itself.
func (p *path) hostFilter(hook string) {
	f := p.f
	pkt, dev, hooks, dirs := p.packet("", f.Host.Uplink.Name), f.Host.Uplink.Name, []string{"output", "postrouting"}, []string{"out"}
	if hook == "input" {
		pkt, dev, hooks, dirs = p.reply(f.Host.Arrival.Name, ""), f.Host.Arrival.Name, []string{"prerouting", "input"}, []string{"in"}
	}
	if f.SameNode {
		dev, pkt.In, pkt.Out = f.door(), "", ""
	}
	var hs []firewall.Hook
	for _, h := range hooks {
		hs = append(hs, firewall.Hook{Family: "ip", Name: h})
	}
	p.add(whatHostFilter, f.Node, worst(p.judge(f.Host.Filters, dev, pkt, hs, codeHostFilter), p.xfrm(pkt, dirs...)))
}

// xfrm are IPsec policies that block.
func (p *path) xfrm(pkt firewall.Packet, dirs ...string) verdict {
	for _, b := range p.f.Host.Xfrm {
		if !slices.Contains(dirs, b.Dir) || !b.Src.Contains(pkt.Src) || !b.Dst.Contains(pkt.Dst) {
			continue
		}
		mend := fmt.Sprintf("ip xfrm policy delete src %s dst %s dir %s", b.Src, b.Dst, b.Dir)
		if b.Part {
			return doubt(codeXfrmDrop, mend, "an IPsec policy may block it: %s", b.Text)
		}
		return broken(codeXfrmDrop, mend, "an IPsec policy blocks it: %s", b.Text)
	}
	return fine("nothing drops")
}

// source is the address under which packets leave the host: the container's own
// inside the network, the host's outside.
func (p *path) source() {
	f := p.f
	if f.Answering {
		return // what answers keeps the address that was asked
	}
	inside := f.Network.Contains(f.Remote.Address)
	pkt := p.packet("", f.Host.Uplink.Name)
	rewrites := f.Host.Filters.Rewrites(pkt)
	certain := len(rewrites) > 0 && rewrites[len(rewrites)-1].Certain
	var v verdict
	switch {
	case inside && certain:
		r := rewrites[len(rewrites)-1]
		v = doubt(codeMasquerade, r.Mend, "packets inside the network leave under the host's address: %s: %s", r.Where, r.Rule)
	case inside && len(rewrites) > 0:
		v = doubt(codeMasquerade, rewrites[0].Mend, "some packets inside the network may leave under the host's address: %s: %s", rewrites[0].Where, rewrites[0].Rule)
	case inside:
		v = fine("its own")
	case certain:
		v = fine("the host's (%s)", strings.TrimPrefix(rewrites[len(rewrites)-1].Where, "nftables chain "))
	case len(rewrites) > 0:
		v = doubt(codeMasquerade, "", "perhaps the host's: %s: %s", rewrites[0].Where, rewrites[0].Rule)
	case !f.Masquerade:
		v = fine("its own: masquerade is off in the configuration")
	default:
		v = broken(codeMasquerade, "systemctl restart stellar", "packets leave the cluster under %s: no rule gives them the host's address", f.Local.Address)
	}
	p.add(whatSource, f.Local.String(), v)
}

// uplink is the interface to the wire, and what drops on it.
func (p *path) uplink(l Link, hook string) {
	f := p.f
	if l.Name == "" {
		return
	}
	v := linkDown(l)
	if v.state == api.TraceOK && hook == "egress" && f.Guest != nil && f.Guest.Link.MTU > l.MTU {
		v = broken(codeMTU, fmt.Sprintf("ip link set %s mtu %d", l.Name, f.Guest.Link.MTU),
			"mtu %d, the container sends packets of up to %d", l.MTU, f.Guest.Link.MTU)
	}
	pkt, filters, verb := p.packet("", l.Name), f.Host.TC[l.Name].Egress, "sends"
	if hook == "ingress" {
		pkt, filters, verb = p.reply(l.Name, ""), f.Host.TC[l.Name].Ingress, "receives"
	}
	drops := p.judge(f.Host.Filters, l.Name, pkt, []firewall.Hook{{Family: "netdev", Name: hook}}, codeIngressDrop)
	p.add(whatUplink, l.Name, worst(v, drops, p.tc(filters, verb)))
}

func linkDown(l Link) verdict {
	switch {
	case !l.Exists:
		return broken(codeUplinkDown, "", "%s does not exist", l.Name)
	case !l.Up:
		return broken(codeUplinkDown, fmt.Sprintf("ip link set %s up", l.Name), "%s is down", l.Name)
	case !l.Carrier:
		return broken(codeUplinkDown, "ethtool "+l.Name, "%s has no carrier: check cable and switch", l.Name)
	}
	return fine("up, mtu %d", l.MTU)
}

// resident is the host's neighbour entry of the container.
func (p *path) resident() {
	f, n := p.f, p.f.Host.Resident
	clear := fmt.Sprintf("ip neigh del %s dev %s", f.Local.Address, f.door())
	if f.Routed {
		clear = p.repair()
	}
	var v verdict
	switch {
	case n.MAC != "" && f.Host.MAC != "" && n.MAC != f.Host.MAC && n.Permanent:
		v = broken(codeNeighbour, clear, "the host sends packets for %s to %s (%s), the container has %s", f.Local.Address, n.MAC, n.State, f.Host.MAC)
	case n.MAC != "" && f.Host.MAC != "" && n.MAC != f.Host.MAC:
		v = broken(codeDuplicate, clear, "%s answers for %s on %s, the container has %s", n.MAC, f.Local.Address, f.door(), f.Host.MAC)
	case n.Failed:
		v = doubt(codeNeighbour, "", "%s did not answer when the host asked for it last", f.Local.Address)
	case !n.Exists:
		v = fine("not asked for yet")
	default:
		v = fine("%s at %s", f.Local.Address, n.MAC)
	}
	p.add(whatNextHop, f.Local.Address.String(), v)
}
