package nlx

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"

	"golang.org/x/sys/unix"
)

// What only a look at the whole host needs: tables other than main, rules, filters of
// tc, policies of IPsec. Nothing here changes anything.

// TableRoute is an IPv4 route of any table.
type TableRoute struct {
	FIBRoute
	Table uint32
}

// AllRoutes returns the IPv4 routes of all tables but local.
func (c *Conn) AllRoutes() ([]TableRoute, error) {
	b := make([]byte, unix.SizeofRtMsg)
	b[0] = unix.AF_INET
	data, err := c.Dump(NewMessage(unix.RTM_GETROUTE, 0).Raw(b))
	if errors.Is(err, unix.ENOENT) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("list routes: %w", err)
	}
	var out []TableRoute
	for _, b := range data {
		if len(b) < unix.SizeofRtMsg || b[0] != unix.AF_INET || binary.NativeEndian.Uint32(b[8:])&unix.RTM_F_CLONED != 0 {
			continue
		}
		r := TableRoute{Table: uint32(b[4])}
		attrs(b[unix.SizeofRtMsg:], func(typ uint16, v []byte) {
			if typ == unix.RTA_TABLE && len(v) == 4 {
				r.Table = binary.NativeEndian.Uint32(v)
			}
		})
		var ok bool
		if r.FIBRoute, ok = parseFIBRoute(b); ok && r.Table != unix.RT_TABLE_LOCAL {
			out = append(out, r)
		}
	}
	return out, nil
}

// fibRuleInvert is FIB_RULE_INVERT of linux/fib_rules.h.
const fibRuleInvert = 2

// PolicyRule is an IPv4 policy rule.
type PolicyRule struct {
	Priority uint32
	Table    uint32 // of a lookup
	Lookup   bool   // its action; otherwise it refuses, or jumps
	// Always: it looks at nothing of the packet.
	Always bool
	// MinBits: routes with shorter prefixes do not count (suppress_prefixlength).
	MinBits int
}

// PolicyRules returns the IPv4 policy rules in the order in which the kernel asks them.
func (c *Conn) PolicyRules() ([]PolicyRule, error) {
	data, err := c.Dump(NewMessage(unix.RTM_GETRULE, 0).Raw(append([]byte{unix.AF_INET}, make([]byte, 11)...)))
	if err != nil {
		return nil, fmt.Errorf("list rules: %w", err)
	}
	var out []PolicyRule
	for _, b := range data {
		if r, ok := parseRule(b); ok {
			out = append(out, r)
		}
	}
	return out, nil
}

func parseRule(b []byte) (r PolicyRule, ok bool) {
	const header = 12 // struct fib_rule_hdr
	if len(b) < header || b[0] != unix.AF_INET {
		return r, false
	}
	flags := binary.NativeEndian.Uint32(b[8:])
	r = PolicyRule{Table: uint32(b[4]), Lookup: b[7] == unix.FR_ACT_TO_TBL, Always: b[3] == 0 && flags&fibRuleInvert == 0}
	attrs(b[header:], func(typ uint16, v []byte) {
		n := uint32(0)
		if len(v) == 4 {
			n = binary.NativeEndian.Uint32(v)
		}
		switch typ {
		case unix.FRA_PRIORITY:
			r.Priority = n
		case unix.FRA_TABLE:
			r.Table = n
		case unix.FRA_SUPPRESS_PREFIXLEN:
			if n != 1<<32-1 { // -1 is none
				r.MinBits = int(n) + 1
			}
		case unix.FRA_PROTOCOL: // who made the rule
		case unix.FRA_FWMARK, unix.FRA_FWMASK:
			r.Always = r.Always && n == 0
		case unix.FRA_DST, unix.FRA_SRC, unix.FRA_IIFNAME, unix.FRA_OIFNAME, unix.FRA_UID_RANGE, unix.FRA_IP_PROTO, unix.FRA_SPORT_RANGE, unix.FRA_DPORT_RANGE,
			unix.FRA_TUN_ID, unix.FRA_L3MDEV:
			r.Always = false
		}
	})
	return r, true
}

// TrafficFilter is a filter of tc at one side of an interface.
type TrafficFilter struct {
	Kind    string // bpf, u32, flower, …
	Ingress bool
}

// TrafficFilters returns what clsact or ingress have on an interface, one of each kind
// and side.
func (c *Conn) TrafficFilters(index int) ([]TrafficFilter, error) {
	const clsact, in, out = 0xffff0000, 0xfff2, 0xfff3
	var found []TrafficFilter
	for _, side := range []uint32{in, out} {
		b := make([]byte, 20) // struct tcmsg
		binary.NativeEndian.PutUint32(b[4:], uint32(index))
		binary.NativeEndian.PutUint32(b[12:], clsact|side)
		data, err := c.Dump(NewMessage(unix.RTM_GETTFILTER, 0).Raw(b))
		if errors.Is(err, unix.EINVAL) || errors.Is(err, unix.EOPNOTSUPP) || errors.Is(err, unix.ENOENT) {
			continue // it has no such side
		}
		if err != nil {
			return nil, fmt.Errorf("list tc filters: %w", err)
		}
		seen := map[string]bool{}
		for _, b := range data {
			attrs(b[min(20, len(b)):], func(typ uint16, v []byte) {
				if kind := unix.ByteSliceToString(v); typ == unix.TCA_KIND && !seen[kind] {
					seen[kind] = true
					found = append(found, TrafficFilter{Kind: kind, Ingress: side == in})
				}
			})
		}
	}
	return found, nil
}

// BlockPolicy is an IPsec policy that drops what it selects.
type BlockPolicy struct {
	Src, Dst  netip.Prefix
	Direction string // in, out or fwd
}

// Of linux/xfrm.h.
const (
	xfrmGetPolicy      = 0x15
	xfrmUserpolicySize = 168 // struct xfrm_userpolicy_info
	xfrmOffsetDaddr    = 0
	xfrmOffsetSaddr    = 16
	xfrmOffsetFamily   = 40
	xfrmOffsetBitsDst  = 42
	xfrmOffsetBitsSrc  = 43
	xfrmOffsetDir      = 160
	xfrmOffsetAction   = 161
	xfrmActionBlock    = 1
)

// BlockPolicies returns the IPv4 policies of IPsec that drop. The socket's protocol is
// NETLINK_XFRM.
func (c *Conn) BlockPolicies() ([]BlockPolicy, error) {
	data, err := c.Dump(NewMessage(xfrmGetPolicy, 0))
	if err != nil {
		return nil, fmt.Errorf("list IPsec policies: %w", err)
	}
	var out []BlockPolicy
	for _, b := range data {
		if len(b) < xfrmUserpolicySize || b[xfrmOffsetAction] != xfrmActionBlock || binary.NativeEndian.Uint16(b[xfrmOffsetFamily:]) != unix.AF_INET {
			continue
		}
		dir := int(b[xfrmOffsetDir])
		if dir > 2 {
			continue
		}
		dst, _ := netip.AddrFromSlice(b[xfrmOffsetDaddr : xfrmOffsetDaddr+4])
		src, _ := netip.AddrFromSlice(b[xfrmOffsetSaddr : xfrmOffsetSaddr+4])
		out = append(out, BlockPolicy{
			Src: netip.PrefixFrom(src, int(b[xfrmOffsetBitsSrc])), Dst: netip.PrefixFrom(dst, int(b[xfrmOffsetBitsDst])),
			Direction: [...]string{"in", "out", "fwd"}[dir],
		})
	}
	return out, nil
}
