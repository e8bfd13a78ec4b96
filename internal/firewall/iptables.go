package firewall

import (
	"slices"
	"strings"
)

// priorities of the tables of iptables at their hooks.
var priorities = map[string]int{"raw": -300, "mangle": -150, "filter": 0, "security": 50, "nat": 100}

// ParseIptables reads what iptables-nft-save or iptables-legacy-save prints;
// program is "iptables-nft" or "iptables-legacy".
func ParseIptables(program, text string) Ruleset {
	var out Ruleset
	table := ""
	for line := range strings.Lines(text) {
		line = strings.TrimSpace(line)
		switch {
		case line == "" || line[0] == '#':
			if strings.Contains(line, "is incompatible") {
				out.Doubts = append(out.Doubts, program+": "+strings.TrimLeft(line, "# "))
			}
		case line[0] == '*':
			table = line[1:]
		case line[0] == ':':
			f := strings.Fields(line[1:])
			if len(f) < 2 {
				continue
			}
			c := &Chain{Program: program, Family: "ip", Table: table, Name: f[0]}
			if f[1] != "-" { // a chain of the user's has no policy
				c.Hook, c.Policy, c.Prio, c.Type = strings.ToLower(f[0]), strings.ToLower(f[1]), priorities[table], "filter"
				if table == "nat" {
					c.Type = "nat"
				}
			}
			out.Chains = append(out.Chains, c)
		case strings.HasPrefix(line, "-A "):
			name, spec, _ := strings.Cut(line[len("-A "):], " ")
			if c := out.chain(&Chain{Program: program, Family: "ip", Table: table}, name); c != nil {
				c.Rules = append(c.Rules, iptablesRule(spec))
			}
		}
	}
	return out
}

// iptablesTarget is what a target does with a packet, "" for what lets it go on.
func iptablesTarget(name string) verdict {
	switch name {
	case "ACCEPT", "DROP", "REJECT", "RETURN", "MASQUERADE", "SNAT":
		return verdict{kind: strings.ToLower(name)}
	case "LOG", "NFLOG", "MARK", "CONNMARK", "CT", "NOTRACK", "TCPMSS", "CHECKSUM", "TRACE", "TOS", "DSCP", "CLASSIFY", "SET", "ULOG",
		"DNAT", "REDIRECT", "NETMAP", "TTL", "SECMARK", "CONNSECMARK", "AUDIT", "TEE", "":
		return verdict{}
	}
	return verdict{kind: "jump", target: name}
}

// partial are the extensions that select by what a packet is not known by here;
// what is in neither list cannot be judged.
var partial = []string{
	"tcp", "udp", "icmp", "icmp6", "sctp", "dccp", "udplite", "multiport", "limit", "hashlimit", "statistic", "length", "time", "connlimit",
	"recent", "tos", "dscp", "ttl", "esp", "ah", "tcpmss", "quota", "string", "u32", "bpf",
}

func iptablesRule(spec string) Rule {
	r := Rule{Text: spec}
	words := split(spec)
	next := func(i int) string {
		if i+1 < len(words) {
			return words[i+1]
		}
		return ""
	}
	negate := false
	for i := 0; i < len(words); i++ {
		v := next(i)
		switch words[i] {
		case "!":
			negate = true
			continue
		case "-i", "-o":
			key := map[string]string{"-i": "iifname", "-o": "oifname"}[words[i]]
			if head, ok := strings.CutSuffix(v, "+"); ok {
				v = head + "*"
			}
			r.matches = append(r.matches, match{key: key, negate: negate, values: []value{{word: v}}})
		case "-s", "-d":
			key := map[string]string{"-s": "ip saddr", "-d": "ip daddr"}[words[i]]
			r.matches = append(r.matches, match{key: key, negate: negate, values: []value{valueOf(v)}})
		case "-p":
			r.matches = append(r.matches, match{key: "l4proto", part: true, negate: negate, values: []value{{word: v}}})
		case "--dport", "--dports":
			m := match{key: "th dport", part: true, negate: negate}
			for s := range strings.SplitSeq(v, ",") {
				m.values = append(m.values, value{word: strings.Replace(s, ":", "-", 1)})
			}
			r.matches = append(r.matches, m)
		case "-f", "--sport", "--sports", "--ports", "--tcp-flags", "--syn", "--tcp-option":
			r.matches, negate = append(r.matches, match{part: true}), false
			continue // what follows is its value, or no word of ours
		case "-m":
			r.extension(v)
		case "--ctstate", "--state":
			var values []value
			for s := range strings.SplitSeq(strings.ToLower(v), ",") {
				values = append(values, value{word: s})
			}
			r.matches = append(r.matches, match{key: "ct state", negate: negate, values: values})
		case "--ctdir", "--ctstatus", "--ctproto", "--ctorigsrc", "--ctorigdst", "--ctreplsrc", "--ctrepldst", "--ctexpire":
			r.matches = append(r.matches, match{})
		case "-j":
			r.verdict = iptablesTarget(v)
			return r
		case "-g":
			r.verdict = verdict{kind: "goto", target: v}
			return r
		default: // an option of an extension, which was judged as a whole
			continue
		}
		negate = false
		i++
	}
	return r
}

func (r *Rule) extension(name string) {
	switch {
	case name == "comment" || name == "conntrack" || name == "state":
	case name == "tcp" || name == "udp" || name == "multiport": // their options follow
	case slices.Contains(partial, name):
		r.matches = append(r.matches, match{part: true})
	default:
		r.matches = append(r.matches, match{})
	}
}

// split cuts a rule into words, of which quoted ones may have spaces.
func split(spec string) []string {
	var out []string
	var word strings.Builder
	quoted, begun := false, false
	for i := 0; i < len(spec); i++ {
		switch c := spec[i]; {
		case c == '"':
			quoted, begun = !quoted, true
		case c == '\\' && quoted && i+1 < len(spec):
			i++
			word.WriteByte(spec[i])
		case c == ' ' && !quoted:
			if begun {
				out = append(out, word.String())
			}
			word.Reset()
			begun = false
		default:
			word.WriteByte(c)
			begun = true
		}
	}
	if begun {
		out = append(out, word.String())
	}
	return out
}
