package routes

import (
	"fmt"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"stellar.io/stellar/internal/nlx"
)

// describe writes a route as ip(8) does, so that it can be found there.
func describe(r nlx.FIBRoute, name func(index int) string) string {
	var b strings.Builder
	if t := typeName(r.Type); t != "" {
		b.WriteString(t + " ")
	}
	b.WriteString(r.Dst.String())
	if r.TOS != 0 {
		fmt.Fprintf(&b, " tos 0x%02x", r.TOS)
	}
	if r.Via.IsValid() {
		fmt.Fprintf(&b, " via %s", r.Via)
	}
	if r.Index != 0 {
		fmt.Fprintf(&b, " dev %s", name(r.Index))
	}
	fmt.Fprintf(&b, " proto %s", protocolName(r.Protocol))
	if r.Metric != 0 {
		fmt.Fprintf(&b, " metric %d", r.Metric)
	}
	return b.String()
}

func typeName(t uint8) string {
	switch t {
	case unix.RTN_UNICAST:
		return ""
	case unix.RTN_UNREACHABLE:
		return "unreachable"
	case unix.RTN_BLACKHOLE:
		return "blackhole"
	case unix.RTN_PROHIBIT:
		return "prohibit"
	case unix.RTN_THROW:
		return "throw"
	}
	return "type " + strconv.Itoa(int(t))
}

// protocolName is as in iproute2's rt_protos, for those who make routes most.
func protocolName(p uint8) string {
	switch p {
	case unix.RTPROT_KERNEL:
		return "kernel"
	case unix.RTPROT_BOOT:
		return "boot"
	case unix.RTPROT_STATIC:
		return "static"
	case unix.RTPROT_RA:
		return "ra"
	case unix.RTPROT_ZEBRA:
		return "zebra"
	case unix.RTPROT_BIRD:
		return "bird"
	case unix.RTPROT_DHCP:
		return "dhcp"
	case unix.RTPROT_BGP:
		return "bgp"
	case unix.RTPROT_OSPF:
		return "ospf"
	}
	return strconv.Itoa(int(p))
}
