package nlx

import (
	"encoding/binary"

	"golang.org/x/sys/unix"
)

// Settings net.ipv4.conf.IFACE.* by their number (IPV4_DEVCONF_… of linux/ip.h).
const (
	ConfForwarding        = 1
	ConfProxyARP          = 3
	ConfAcceptRedirects   = 4
	ConfSendRedirects     = 6
	ConfRPFilter          = 8
	ConfAcceptSourceRoute = 9
	ConfRouteLocalnet     = 26

	confMax = ConfRouteLocalnet
)

// inetConf is IFLA_INET_CONF of linux/if_link.h.
const inetConf = 1

// IPv4Conf are an interface's settings by their number, from 1.
type IPv4Conf [confMax + 1]int32

// Setting is one of them with its value.
type Setting struct {
	Number uint16
	Value  int32
}

// Has reports whether all of the settings have their value.
func (c IPv4Conf) Has(settings []Setting) bool {
	for _, s := range settings {
		if c[s.Number] != s.Value {
			return false
		}
	}
	return true
}

// IPv4Conf adds settings to a change of a link.
func (m *Message) IPv4Conf(settings []Setting) *Message {
	return m.Nest(unix.IFLA_AF_SPEC, func() { m.ipv4Conf(settings) })
}

// RoutedPort adds settings to a change of a link, and, with noIPv6, what
// NoIPv6Address adds: a message has one place for both.
func (m *Message) RoutedPort(settings []Setting, noIPv6 bool) *Message {
	return m.Nest(unix.IFLA_AF_SPEC, func() {
		m.ipv4Conf(settings)
		if noIPv6 {
			m.noIPv6Address()
		}
	})
}

func (m *Message) ipv4Conf(settings []Setting) {
	m.Nest(unix.AF_INET, func() {
		m.Nest(inetConf, func() {
			for _, s := range settings {
				m.Uint32(s.Number, uint32(s.Value))
			}
		})
	})
}

// parse reads the settings from the value of IFLA_AF_SPEC.
func (c *IPv4Conf) parse(spec []byte) {
	attrs(spec, func(family uint16, v []byte) {
		if family != unix.AF_INET {
			return
		}
		attrs(v, func(typ uint16, v []byte) {
			for i := 1; typ == inetConf && i <= confMax && len(v) >= 4; i++ {
				c[i] = int32(binary.NativeEndian.Uint32(v))
				v = v[4:]
			}
		})
	})
}
