package firewall

import "slices"

// reach says how sure it is that packets come to a rule, from not at all to all of
// them.
type reach int

const (
	nothing reach = iota
	perhaps       // a rule that cannot be judged decides
	some          // a part of them, certainly
	rest          // all but what earlier rules have accepted for their port or protocol
	everything
)

// maxSteps bounds a walk through rules that others wrote.
const maxSteps = 100_000

type walk struct {
	rules    Ruleset
	packet   Packet
	found    []Finding
	rewrites []Rewrite
	steps    int
	depth    int
}

// chain walks one chain and returns how sure it is that packets go on behind it.
func (w *walk) chain(c *Chain, in reach) reach {
	if w.depth++; w.depth > 16 { // the kernel allows no more
		w.depth--
		return min(in, perhaps)
	}
	defer func() { w.depth-- }()
	cur, back := in, nothing
	for i := range c.Rules {
		if cur == nothing {
			break
		}
		if w.steps++; w.steps > maxSteps {
			return perhaps
		}
		r := &c.Rules[i]
		m := w.compare(c, r.matches)
		if m == no {
			continue
		}
		if r.vmap == nil {
			cur = w.act(c, r, r.verdict, m, cur, &back)
			continue
		}
		for _, b := range r.vmap {
			if mm := min(m, w.one(c, b.match)); mm != no && cur != nothing {
				if cur = w.act(c, r, b.verdict, mm, cur, &back); mm == yes {
					break
				}
			}
		}
	}
	if c.Hook == "" {
		return max(cur, back)
	}
	if cur = max(cur, back); cur != nothing && c.Policy == "drop" {
		w.report(c, Rule{Text: "policy drop"}, "drop", cur)
	}
	return cur
}

// act does what a rule says that matches as m, with packets that come to it as cur,
// and returns how they come to the next rule.
func (w *walk) act(c *Chain, r *Rule, v verdict, m outcome, cur reach, back *reach) reach {
	switch v.kind {
	case "accept":
		return without(cur, m)
	case "drop", "reject":
		w.report(c, *r, v.kind, with(cur, m))
		if m == yes {
			return nothing
		}
		return cur
	case "return":
		*back = max(*back, with(cur, m))
		return without(cur, m)
	case "masquerade", "snat":
		w.rewrites = append(w.rewrites, Rewrite{Certain: with(cur, m) >= rest, Where: c.where(), Rule: r.Text, Mend: c.remove(*r)})
		return without(cur, m)
	case "jump", "goto":
		target := w.rules.chain(c, v.target)
		if target == nil {
			return cur
		}
		before := with(cur, m)
		after := w.chain(target, before)
		if v.kind == "goto" { // does not come back here, but to who called
			*back = max(*back, after)
			return without(cur, m)
		}
		if m == yes {
			return after
		}
		if after == before {
			return cur
		}
		return without(cur, m)
	}
	return cur
}

// with is how sure it is that packets meet a rule and match it.
func with(cur reach, m outcome) reach {
	switch m {
	case yes:
		return cur
	case part:
		return min(cur, some)
	}
	return min(cur, perhaps)
}

// without is how packets go on behind a rule that lets those go that match.
func without(cur reach, m outcome) reach {
	switch m {
	case yes:
		return nothing
	case part:
		return min(cur, rest)
	case doubtful:
		return min(cur, perhaps)
	}
	return cur
}

func (w *walk) report(c *Chain, r Rule, verdict string, how reach) {
	if how == nothing {
		return
	}
	f := Finding{Certain: how >= rest, Verdict: verdict, Where: c.where(), Rule: r.Text, Mend: c.mend(r, w.packet)}
	if !slices.Contains(w.found, f) {
		w.found = append(w.found, f)
	}
}
