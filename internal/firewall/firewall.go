// Package firewall says what the packet filters of one network namespace do to a
// packet, from what nft and iptables list. It is pure: it reads text and decides;
// who asks the programs is another package's matter.
//
// The packet is known by its addresses and interfaces, and no further: not by its
// protocol, ports, marks. So a rule's match is one of four: it does not match; it
// matches; it matches a part of such packets (one port, one in ten); or it cannot
// be judged from here (a mark, an extension). A drop is certain only when every
// packet of the kind that no earlier rule has accepted meets it, and a doubt is
// reported as one.
package firewall

import (
	"cmp"
	"net"
	"net/netip"
	"slices"
	"strconv"
	"strings"
)

// Packet is what is known of a packet.
type Packet struct {
	In, Out  string // interfaces; "" where it has none yet or any more
	Src, Dst netip.Addr
	// Groups are the groups of interfaces, as far as they are known.
	Groups map[string]uint32
	// SrcMAC and DstMAC are known inside a bridge; empty: not known.
	SrcMAC, DstMAC string
	ARP            bool // it asks for the hardware address of Dst
	// Bridge is the interface whose packets a command to mend things excepts; "": the
	// packet's own addresses.
	Bridge string
	// Network are the addresses whose packets a command to mend things excepts where
	// there is no bridge; zero: these two.
	Network netip.Prefix
	// Established: it answers one that went the other way.
	Established bool
	// Protocol is tcp or udp, and Port where it goes; "": it stands for packets of all
	// protocols.
	Protocol string
	Port     uint16
}

// Hook is a place where the kernel shows packets to the filters.
type Hook struct {
	Family string // "ip", "bridge", "arp" or "netdev"
	Name   string // prerouting, input, forward, output, postrouting, ingress, egress
}

// Finding is a rule, or a policy, that takes packets away.
type Finding struct {
	// Certain: it takes all packets of the kind that no earlier rule accepts. If not,
	// it takes some, or may take them.
	Certain bool
	Verdict string // drop or reject
	Where   string // "nftables chain inet filter forward"
	Rule    string // as its program lists it
	// Mend is a command that ends it.
	Mend string
}

// Ruleset is all that filters packets in one namespace.
type Ruleset struct {
	Chains []*Chain
	// Doubts say what could not be read.
	Doubts []string
}

// Chain is a chain of rules; one with a Hook is where packets come in.
type Chain struct {
	Program string // "nft", "iptables-nft" or "iptables-legacy": what lists and changes it
	Family  string // of its table: ip, inet, bridge, arp, netdev
	Table   string
	Name    string
	Type    string // filter, nat or route
	Hook    string
	Prio    int
	// Devices are the interfaces of a netdev chain; none: not known.
	Devices []string
	Policy  string
	Rules   []Rule

	sets map[string][]value
}

// Rule is one rule.
type Rule struct {
	Text    string
	Handle  int // of nftables
	matches []match
	// vmap, if there is one, decides by the value of one key.
	vmap    []branch
	verdict verdict
}

type branch struct {
	match   match
	verdict verdict
}

// verdict of a rule.
type verdict struct {
	kind   string // accept, drop, reject, return, jump, goto, masquerade, snat, "": goes on
	target string
}

// match is one condition.
type match struct {
	key    string // "iifname", "ip saddr", …; "": cannot be judged
	negate bool
	values []value
	// part: it selects by what a packet is not known by, such as a port.
	part bool
	// protocol is what the packet must be for the rule to look at it: ip, ip6, arp
	// or "", anything.
	protocol string
}

// value is a word, an address or a block, of which the one that is set counts.
type value struct {
	word   string
	block  netip.Prefix
	lo, hi netip.Addr
}

// outcome of comparing a packet with a match.
type outcome int

const (
	no outcome = iota
	doubtful
	part
	yes
)

// Append adds what another program lists.
func (r *Ruleset) Append(other Ruleset) {
	r.Chains = append(r.Chains, other.Chains...)
	r.Doubts = append(r.Doubts, other.Doubts...)
}

// at returns the chains of a hook in the order in which packets meet them.
func (r Ruleset) at(h Hook, p Packet) []*Chain {
	var out []*Chain
	for _, c := range r.Chains {
		if c.Hook != h.Name || !familyMatches(c.Family, h.Family) {
			continue
		}
		if len(c.Devices) > 0 && !slices.Contains(c.Devices, p.In) && !slices.Contains(c.Devices, p.Out) {
			continue
		}
		out = append(out, c)
	}
	slices.SortStableFunc(out, func(a, b *Chain) int { return cmp.Compare(a.Prio, b.Prio) })
	return out
}

func familyMatches(table, hook string) bool {
	return table == hook || table == "inet" && hook == "ip"
}

func (r Ruleset) chain(like *Chain, name string) *Chain {
	for _, c := range r.Chains {
		if c.Program == like.Program && c.Family == like.Family && c.Table == like.Table && c.Name == name {
			return c
		}
	}
	return nil
}

// Judge returns what takes the packet away at a hook, the first that it meets first.
// After a certain one nothing more is looked for.
func (r Ruleset) Judge(h Hook, p Packet) []Finding {
	var out []Finding
	for _, c := range r.at(h, p) {
		w, begin := walk{rules: r, packet: p}, everything
		if c.Family == "netdev" && len(c.Devices) == 0 {
			begin = perhaps
		}
		w.chain(c, begin)
		out = append(out, w.found...)
		if slices.ContainsFunc(out, func(f Finding) bool { return f.Certain }) {
			break
		}
	}
	return out
}

// Rewrite is a rule that changes a packet's source address.
type Rewrite struct {
	Certain bool
	Where   string
	Rule    string
	Mend    string // removes it
}

// Rewrites returns the rules at postrouting that change the source of the packet,
// the first that applies certainly last.
func (r Ruleset) Rewrites(p Packet) []Rewrite {
	var out []Rewrite
	for _, c := range r.at(Hook{Family: "ip", Name: "postrouting"}, p) {
		if c.Type != "nat" {
			continue
		}
		w := walk{rules: r, packet: p}
		w.chain(c, everything)
		for _, f := range w.rewrites {
			out = append(out, f)
			if f.Certain {
				return out
			}
		}
	}
	return out
}

func (w *walk) compare(c *Chain, ms []match) outcome {
	out := yes
	for _, m := range ms {
		if out = min(out, w.one(c, m)); out == no {
			break
		}
	}
	return out
}

func (w *walk) one(c *Chain, m match) outcome {
	if own, _ := w.packet.field("protocol"); m.protocol != "" && m.protocol != own.word {
		return no
	}
	got, known := w.packet.field(m.key)
	if m.part && (!known || len(m.values) == 0) {
		return part
	}
	if m.key == "" || !known {
		return doubtful
	}
	hit := slices.ContainsFunc(m.values, func(v value) bool {
		if name, ok := strings.CutPrefix(v.word, "@"); ok {
			return slices.ContainsFunc(c.sets[name], func(v value) bool { return v.equals(got) })
		}
		return v.equals(got)
	})
	if hit != m.negate {
		return yes
	}
	return no
}

// field is the packet's own value of a key.
func (p Packet) field(key string) (value, bool) {
	word := func(s string) (value, bool) { return value{word: strings.ToLower(s)}, true }
	switch key {
	case "iifname":
		return value{word: p.In}, true
	case "oifname":
		return value{word: p.Out}, true
	case "iifgroup", "oifgroup":
		dev := p.In
		if key == "oifgroup" {
			dev = p.Out
		}
		g, known := p.Groups[dev]
		if g == 0 {
			return value{word: "default"}, known
		}
		return value{word: strconv.FormatUint(uint64(g), 10)}, known
	case "ip saddr", "ip daddr":
		a := p.Src
		if key == "ip daddr" {
			a = p.Dst
		}
		return value{lo: a, hi: a}, a.IsValid()
	case "ether saddr":
		v, _ := word(p.SrcMAC)
		return v, p.SrcMAC != ""
	case "ether daddr":
		v, _ := word(p.DstMAC)
		return v, p.DstMAC != ""
	case "protocol":
		if p.ARP {
			return word("arp")
		}
		return word("ip")
	case "nfproto":
		if p.ARP {
			return word("arp")
		}
		return word("ipv4")
	case "ct state":
		if p.Established {
			return word("established")
		}
		return word("new")
	case "l4proto":
		return value{word: p.Protocol}, p.Protocol != ""
	case "th dport", "tcp dport", "udp dport":
		if protocol, _, _ := strings.Cut(key, " "); protocol != "th" && protocol != p.Protocol {
			return value{}, p.Protocol != "" // equals nothing
		}
		return value{word: strconv.Itoa(int(p.Port))}, p.Protocol != ""
	case "pkttype":
		return word("unicast")
	}
	return value{}, false
}

// equals reports whether got, a packet's own value, is among what v stands for.
func (v value) equals(got value) bool {
	switch {
	case v.block.IsValid():
		return got.lo.IsValid() && v.block.Contains(got.lo)
	case v.lo.IsValid():
		return got.lo.IsValid() && v.lo.Compare(got.lo) <= 0 && got.lo.Compare(v.hi) <= 0
	}
	if head, ok := strings.CutSuffix(v.word, "*"); ok {
		return strings.HasPrefix(got.word, head) && !got.lo.IsValid()
	}
	if from, to, ok := numbers(v.word); ok {
		n, err := strconv.Atoi(got.word)
		return err == nil && from <= n && n <= to
	}
	return v.word == got.word && !got.lo.IsValid() && got != (value{})
}

// numbers reads a range of ports.
func numbers(s string) (from, to int, ok bool) {
	a, b, found := strings.Cut(s, "-")
	from, err1 := strconv.Atoi(a)
	to, err2 := strconv.Atoi(b)
	return from, to, found && err1 == nil && err2 == nil
}

// valueOf reads a word of a rule as an address, a block, a hardware address or itself.
func valueOf(s string) value {
	if a, err := netip.ParseAddr(s); err == nil {
		return value{lo: a, hi: a}
	}
	if p, err := netip.ParsePrefix(s); err == nil {
		return value{block: p}
	}
	if lo, hi, ok := strings.Cut(s, "-"); ok {
		a, err1 := netip.ParseAddr(lo)
		b, err2 := netip.ParseAddr(hi)
		if err1 == nil && err2 == nil {
			return value{lo: a, hi: b}
		}
	}
	if m, err := net.ParseMAC(s); err == nil {
		return value{word: m.String()}
	}
	return value{word: s}
}
