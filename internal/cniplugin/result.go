package cniplugin

import (
	"encoding/json"
	"net"
	"net/netip"

	"github.com/containernetworking/cni/pkg/skel"
	"github.com/containernetworking/cni/pkg/types"
	current "github.com/containernetworking/cni/pkg/types/100"
	"github.com/containernetworking/cni/pkg/version"

	"stellar.io/stellar/api"
)

// previous is the result of the plugins that ran before this one; nil: none did.
func (c *conf) previous() (*current.Result, *types.Error) {
	if c.PrevResult == nil {
		return nil, nil
	}
	data, err := json.Marshal(c.PrevResult)
	if err != nil {
		return nil, badConf("prevResult: %v", err)
	}
	// A result that does not say its version has that of the configuration.
	of := c.CNIVersion
	if v, ok := c.PrevResult["cniVersion"].(string); ok && v != "" {
		of = v
	}
	r, err := version.NewResult(of, data)
	if err != nil {
		return nil, badConf("prevResult: %v", err)
	}
	out, err := current.NewResultFromResult(r)
	if err != nil {
		return nil, badConf("prevResult: %v", err)
	}
	return out, nil
}

// result is what ADD answers: what was there before and, after it, the two ends of
// the veth, its address and where it leads.
func (c *conf) result(prev *current.Result, got api.AttachmentResult, a *skel.CmdArgs) *current.Result {
	r := prev
	if r == nil {
		r = &current.Result{}
	}
	r.CNIVersion = current.ImplementedSpecVersion
	host := &current.Interface{Name: got.HostIfname, Mac: got.HostMAC}
	inside := &current.Interface{Name: a.IfName, Mac: got.MAC, Sandbox: a.Netns}
	if c.CNIVersion == current.ImplementedSpecVersion { // earlier versions have no mtu
		host.Mtu, inside.Mtu = got.MTU, got.MTU
	}
	r.Interfaces = append(r.Interfaces, host, inside)
	ip := ipConfig(got)
	ip.Interface = current.Int(len(r.Interfaces) - 1)
	r.IPs = append(r.IPs, ip)
	switch {
	case got.DefaultRoute:
		r.Routes = append(r.Routes, defaultRoute(got))
	case got.Network.IsValid():
		r.Routes = append(r.Routes, &types.Route{Dst: ipNet(got.Network), GW: got.Gateway.AsSlice()})
	}
	if r.DNS.IsEmpty() {
		r.DNS = c.DNS
	}
	return r
}

// addressResult is what an IPAM plugin answers its caller: an address, and the
// routes that the caller shall make.
func (c *conf) addressResult(got api.AttachmentResult) *current.Result {
	r := &current.Result{CNIVersion: current.ImplementedSpecVersion, IPs: []*current.IPConfig{ipConfig(got)}}
	if c.IPAM.Routes == nil {
		r.Routes = []*types.Route{defaultRoute(got)}
		return r
	}
	for _, route := range *c.IPAM.Routes {
		if route != nil {
			r.Routes = append(r.Routes, route)
		}
	}
	return r
}

func ipConfig(got api.AttachmentResult) *current.IPConfig {
	n := ipNet(got.Address)
	n.IP = got.Address.Addr().AsSlice() // CNI's has the host's part, too
	return &current.IPConfig{Address: n, Gateway: got.Gateway.AsSlice()}
}

func defaultRoute(got api.AttachmentResult) *types.Route {
	return &types.Route{Dst: ipNet(netip.PrefixFrom(netip.IPv4Unspecified(), 0)), GW: got.Gateway.AsSlice()}
}

func ipNet(p netip.Prefix) net.IPNet {
	return net.IPNet{IP: p.Masked().Addr().AsSlice(), Mask: net.CIDRMask(p.Bits(), p.Addr().BitLen())}
}

// ours finds, in the result of ADD, the address and the MAC address of the
// interface that a CHECK is about. A result without interfaces is an IPAM
// plugin's: its one address is meant. What it does not say is not checked.
func ours(prev *current.Result, a *skel.CmdArgs) (netip.Addr, string, *types.Error) {
	mine, mac := -1, ""
	for i, dev := range prev.Interfaces {
		if dev != nil && dev.Name == a.IfName && dev.Sandbox != "" {
			mine, mac = i, dev.Mac
		}
	}
	if mine < 0 && len(prev.Interfaces) > 0 {
		return netip.Addr{}, "", badConf("prevResult has no interface %s in a sandbox", quoted(a.IfName))
	}
	var found netip.Addr
	for _, ip := range prev.IPs {
		if ip == nil || ip.Interface != nil && *ip.Interface != mine {
			continue
		}
		addr, ok := netip.AddrFromSlice(ip.Address.IP)
		if addr = addr.Unmap(); !ok || !addr.Is4() {
			continue
		}
		if found.IsValid() {
			return netip.Addr{}, mac, nil // another plugin's is beside ours
		}
		found = addr
	}
	return found, mac, nil
}
