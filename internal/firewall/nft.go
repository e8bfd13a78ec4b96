package firewall

import (
	"encoding/json"
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"
)

// ParseNFT reads what `nft -j list ruleset` prints; text is what `nft -a list
// ruleset` prints, from which people are shown the rules ("": they are shown as JSON).
// Tables of the families in skip are left out: another program lists them better. So
// are the tables that keep containers from speaking for others: what passes there is
// the agent's word, which compares them every second.
func ParseNFT(data []byte, text string, skip func(family, table string) bool) (Ruleset, error) {
	var doc struct {
		Nftables []struct {
			Chain *nftChain
			Rule  *nftRule
			Set   *nftSet
			Map   *nftSet
		}
	}
	if err := json.Unmarshal(data, &doc); err != nil {
		return Ruleset{}, fmt.Errorf("read nftables: %w", err)
	}
	given := skip
	skip = func(family, table string) bool {
		return isGuard(family, table) || given != nil && given(family, table)
	}
	var out Ruleset
	shown, devices := ruleTexts(text)
	sets := map[string]map[string][]value{}
	for _, o := range doc.Nftables {
		if s := o.Set; s != nil && !skip(s.Family, s.Table) {
			key := s.Family + " " + s.Table
			if sets[key] == nil {
				sets[key] = map[string][]value{}
			}
			sets[key][s.Name] = valuesOf(s.Elem)
		}
	}
	for _, o := range doc.Nftables {
		if c := o.Chain; c != nil && !skip(c.Family, c.Table) {
			out.Chains = append(out.Chains, &Chain{
				Program: "nft", Family: c.Family, Table: c.Table, Name: c.Name, Type: c.Type, Hook: c.Hook, Prio: c.Prio, Policy: c.Policy,
				Devices: c.devices(devices), sets: sets[c.Family+" "+c.Table],
			})
		}
	}
	for _, o := range doc.Nftables {
		r := o.Rule
		if r == nil || skip(r.Family, r.Table) {
			continue
		}
		c := out.chain(&Chain{Program: "nft", Family: r.Family, Table: r.Table}, r.Chain)
		if c == nil {
			continue
		}
		rule := r.rule()
		if rule.Text = shown[ruleKey{r.Family, r.Table, r.Chain, r.Handle}]; rule.Text == "" {
			rule.Text = string(r.Expr)
		}
		c.Rules = append(c.Rules, rule)
	}
	return out, nil
}

// isGuard recognises the tables of netsetup's guard; `inet stellar` is another matter.
func isGuard(family, table string) bool { return table == "stellar" && family != "inet" }

type nftChain struct {
	Family, Table, Name, Type, Hook, Policy string
	Prio                                    int
	Dev                                     json.RawMessage
}

// devices of a netdev chain; older versions of nft print them in the text alone.
func (c *nftChain) devices(shown map[ruleKey][]string) []string {
	var out []string
	for _, v := range valuesOf(c.Dev) {
		out = append(out, v.word)
	}
	if len(out) == 0 {
		out = shown[ruleKey{family: c.Family, table: c.Table, chain: c.Name}]
	}
	return out
}

type nftSet struct {
	Family, Table, Name string
	Elem                json.RawMessage
}

type nftRule struct {
	Family, Table, Chain string
	Handle               int
	Expr                 json.RawMessage
}

// rule reads a rule's statements. What is not known makes it one that cannot be judged.
func (r *nftRule) rule() Rule {
	out := Rule{Handle: r.Handle}
	var statements []map[string]json.RawMessage
	if json.Unmarshal(r.Expr, &statements) != nil {
		out.matches = append(out.matches, match{})
		return out
	}
	for _, s := range statements {
		for name, body := range s {
			out.statement(name, body)
		}
	}
	return out
}

func (r *Rule) statement(name string, body json.RawMessage) {
	switch name {
	case "match":
		r.matches = append(r.matches, nftMatch(body))
	case "accept", "drop", "return", "reject", "masquerade", "snat":
		r.verdict = verdict{kind: name}
	case "jump", "goto":
		var t struct{ Target string }
		_ = json.Unmarshal(body, &t) // without a target there is no such chain
		r.verdict = verdict{kind: name, target: t.Target}
	case "vmap":
		r.vmap = nftVmap(body)
	case "limit", "quota", "connlimit", "ct count":
		r.matches = append(r.matches, match{part: true})
	case "xt":
		r.xt(body)
	case "queue":
		r.matches, r.verdict = append(r.matches, match{}), verdict{kind: "drop"} // whoever reads the queue decides
	}
	// counter, log, notrack, mangle, set updates and the like let the packet go on.
}

// xt is an extension of iptables behind an nftables rule.
func (r *Rule) xt(body json.RawMessage) {
	var x struct{ Type, Name string }
	err := json.Unmarshal(body, &x)
	switch {
	case err == nil && x.Type == "match" && x.Name == "comment":
	case err == nil && x.Type == "target":
		r.verdict = iptablesTarget(x.Name)
	default:
		r.matches = append(r.matches, match{})
	}
}

func nftVmap(body json.RawMessage) []branch {
	var m struct {
		Key  json.RawMessage
		Data struct{ Set [][]json.RawMessage }
	}
	out := []branch{}
	if json.Unmarshal(body, &m) != nil {
		return out
	}
	for _, pair := range m.Data.Set {
		if len(pair) != 2 {
			continue
		}
		r := Rule{}
		var v map[string]json.RawMessage
		if json.Unmarshal(pair[1], &v) == nil {
			for name, body := range v {
				r.statement(name, body)
			}
		}
		b := branch{match: keyed(m.Key), verdict: r.verdict}
		b.match.values = valuesOf(pair[0])
		out = append(out, b)
	}
	return out
}

func nftMatch(body json.RawMessage) match {
	var m struct {
		Op    string
		Left  json.RawMessage
		Right json.RawMessage
	}
	if json.Unmarshal(body, &m) != nil {
		return match{}
	}
	out := keyed(m.Left)
	out.negate = m.Op == "!="
	if m.Op != "==" && m.Op != "!=" && m.Op != "in" {
		if out.part { // of some packets it is true either way
			return match{part: true, protocol: out.protocol}
		}
		return match{}
	}
	out.values = valuesOf(m.Right)
	return out
}

// keyed says what the left side of a match reads.
func keyed(left json.RawMessage) match {
	var e struct {
		Meta    *struct{ Key string }
		Payload *struct{ Protocol, Field string }
		Ct      *struct{ Key string }
		Numgen  json.RawMessage
		And     []json.RawMessage `json:"&"`
	}
	if json.Unmarshal(left, &e) != nil {
		return match{}
	}
	switch {
	case e.Meta != nil:
		return metaKey(e.Meta.Key)
	case e.Payload != nil:
		return payloadKey(e.Payload.Protocol, e.Payload.Field)
	case e.Ct != nil && e.Ct.Key == "state":
		return match{key: "ct state"}
	case e.Numgen != nil:
		return match{part: true}
	case len(e.And) > 0 && keyed(e.And[0]).part:
		return keyed(e.And[0])
	}
	return match{}
}

func metaKey(key string) match {
	switch key {
	case "iif":
		return match{key: "iifname"}
	case "oif":
		return match{key: "oifname"}
	case "iifname", "oifname", "iifgroup", "oifgroup", "protocol", "nfproto", "pkttype":
		return match{key: key}
	case "l4proto":
		return match{key: key, part: true}
	case "length", "day", "hour", "time", "random":
		return match{part: true}
	}
	return match{}
}

func payloadKey(protocol, field string) match {
	switch protocol {
	case "ether":
		switch field {
		case "saddr", "daddr":
			return match{key: "ether " + field}
		case "type":
			return match{key: "protocol"}
		}
	case "ip":
		if field == "saddr" || field == "daddr" {
			return match{key: "ip " + field, protocol: "ip"}
		}
		if field == "protocol" {
			return match{key: "l4proto", part: true, protocol: "ip"}
		}
		return match{part: true, protocol: "ip"}
	case "tcp", "udp", "icmp", "th", "sctp", "udplite", "dccp", "igmp", "esp", "ah", "comp":
		if field == "dport" && (protocol == "tcp" || protocol == "udp" || protocol == "th") {
			return match{key: protocol + " dport", part: true, protocol: "ip"}
		}
		return match{part: true, protocol: "ip"}
	case "ip6", "icmpv6":
		return match{part: true, protocol: "ip6"}
	case "arp":
		return match{part: true, protocol: "arp"}
	case "vlan":
		return match{part: true, protocol: "8021q"}
	}
	return match{}
}

// valuesOf reads the right side of a match, or the elements of a set.
func valuesOf(raw json.RawMessage) []value {
	if len(raw) == 0 {
		return nil
	}
	var word string
	if json.Unmarshal(raw, &word) == nil {
		return []value{valueOf(word)}
	}
	var number json.Number
	if json.Unmarshal(raw, &number) == nil {
		return []value{{word: number.String()}}
	}
	var list []json.RawMessage
	if json.Unmarshal(raw, &list) == nil {
		var out []value
		for _, e := range list {
			out = append(out, valuesOf(e)...)
		}
		return out
	}
	var e struct {
		Set    json.RawMessage
		Prefix *struct {
			Addr string
			Len  int
		}
		Range []json.RawMessage
		Elem  *struct{ Val json.RawMessage }
	}
	if json.Unmarshal(raw, &e) != nil {
		return nil
	}
	switch {
	case e.Set != nil:
		return valuesOf(e.Set)
	case e.Elem != nil:
		return valuesOf(e.Elem.Val)
	case e.Prefix != nil:
		if p, err := netip.ParsePrefix(e.Prefix.Addr + "/" + strconv.Itoa(e.Prefix.Len)); err == nil {
			return []value{{block: p}}
		}
	case len(e.Range) == 2:
		lo, hi := valuesOf(e.Range[0]), valuesOf(e.Range[1])
		if len(lo) == 1 && len(hi) == 1 && lo[0].lo.IsValid() && hi[0].lo.IsValid() {
			return []value{{lo: lo[0].lo, hi: hi[0].hi}}
		}
		if len(lo) == 1 && len(hi) == 1 && !lo[0].lo.IsValid() && !hi[0].lo.IsValid() {
			return []value{{word: lo[0].word + "-" + hi[0].word}}
		}
	}
	return nil
}

type ruleKey struct {
	family, table, chain string
	handle               int
}

// ruleTexts reads the rules as people write them from `nft -a list ruleset`, and the
// interfaces of its netdev chains.
func ruleTexts(text string) (rules map[ruleKey]string, devices map[ruleKey][]string) {
	rules, devices = map[ruleKey]string{}, map[ruleKey][]string{}
	var at ruleKey
	for line := range strings.Lines(text) {
		line = strings.TrimSpace(line)
		body, handle, ok := strings.Cut(line, " # handle ")
		f := strings.Fields(body)
		switch {
		case len(f) > 3 && f[0] == "table" && f[3] == "{":
			at = ruleKey{family: f[1], table: f[2]}
		case len(f) == 3 && slices.Contains([]string{"chain", "set", "map", "flowtable"}, f[0]) && f[2] == "{":
			at.chain, at.handle = f[1], 0
		case ok:
			if n, err := strconv.Atoi(handle); err == nil {
				key := at
				key.handle = n
				rules[key] = body
			}
		case len(f) > 4 && f[0] == "type" && strings.HasPrefix(f[4], "device"):
			head, _, _ := strings.Cut(line, " priority ")
			for i, part := range strings.Split(head, `"`) {
				if i%2 == 1 {
					devices[at] = append(devices[at], part)
				}
			}
		}
	}
	return rules, devices
}
