package cniplugin

import (
	"cmp"
	"net"
	"net/netip"
	"strings"

	"github.com/containernetworking/cni/pkg/types"
)

// wish is what a caller asks for in an attachment.
type wish struct {
	address  netip.Addr // zero: any
	mac      string     // empty: any
	hostname string
	warnings []string
}

// wish gathers what CNI_ARGS, args.cni and runtimeConfig ask for. Addresses are
// put together, as host-local does, and must be one; of the MAC addresses the
// later of the three counts, as with the bridge plugin.
func (p *plugin) wish(c *conf, a args) (wish, *types.Error) {
	var w wish
	if len(c.RuntimeConfig.PortMappings) > 0 && !p.ipamOnly { // those of another plugin are its own business
		return w, types.NewError(types.ErrUnsupportedField, "runtimeConfig.portMappings is not supported: "+quoted(string(c.RuntimeConfig.PortMappings[0])),
			"start the container without published ports (nerdctl: without -p) and reach it at its own address")
	}
	for _, ip := range a.ips {
		if err := w.addAddress("CNI_ARGS", ip, types.ErrInvalidEnvironmentVariables); err != nil {
			return w, err
		}
	}
	for _, from := range []struct {
		where string
		ips   []string
	}{{"args.cni.ips", c.Args.CNI.IPs}, {"runtimeConfig.ips", c.RuntimeConfig.IPs}} {
		for _, ip := range from.ips {
			if err := w.addAddress(from.where, ip, types.ErrInvalidNetworkConfig); err != nil {
				return w, err
			}
		}
	}
	if mac := cmp.Or(c.RuntimeConfig.MAC, c.Args.CNI.MAC); mac != "" {
		if err := w.setMAC("mac", mac, types.ErrInvalidNetworkConfig); err != nil {
			return w, err
		}
	} else if a.mac != "" {
		if err := w.setMAC("CNI_ARGS: MAC", a.mac, types.ErrInvalidEnvironmentVariables); err != nil {
			return w, err
		}
	}
	if validHostname(a.hostname) {
		w.hostname = a.hostname
	} else if a.hostname != "" {
		w.warnings = append(w.warnings, "the host name "+quoted(a.hostname)+" is no DNS name and is not recorded")
	}
	return w, nil
}

// addAddress takes an address, with or without a prefix length, which is the
// node's to say.
func (w *wish) addAddress(where, s string, code uint) *types.Error {
	text, _, _ := strings.Cut(s, "/")
	ip, err := netip.ParseAddr(text)
	if err == nil && text != s {
		_, err = netip.ParsePrefix(s)
	}
	if err != nil || ip.Zone() != "" {
		return types.NewError(code, where+": "+quoted(s)+" is not an IP address", "")
	}
	if ip = ip.Unmap(); !ip.Is4() {
		return types.NewError(types.ErrUnsupportedField, where+": IPv6 is not supported: "+ip.String(),
			"leave the IPv6 address away (nerdctl: --ip6)")
	}
	if w.address.IsValid() && w.address != ip {
		return types.NewError(code, where+": two addresses are asked for, "+w.address.String()+" and "+ip.String(),
			"an interface has one address")
	}
	w.address = ip
	return nil
}

func (w *wish) setMAC(where, s string, code uint) *types.Error {
	mac, err := net.ParseMAC(s)
	if err != nil || len(mac) != 6 {
		return types.NewError(code, where+": "+quoted(s)+" is not a MAC address", "")
	}
	w.mac = mac.String()
	return nil
}

// validHostname accepts DNS names; the agent refuses others, and a host name is
// nothing to fail a container for.
func validHostname(s string) bool {
	if len(s) > 253 {
		return false
	}
	for part := range strings.SplitSeq(s, ".") {
		if part == "" || len(part) > 63 || part[0] == '-' || part[len(part)-1] == '-' {
			return false
		}
		for _, r := range part {
			if r != '-' && (r < '0' || r > '9') && (r < 'a' || r > 'z') && (r < 'A' || r > 'Z') {
				return false
			}
		}
	}
	return true
}
