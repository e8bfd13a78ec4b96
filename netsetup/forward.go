package netsetup

import (
	"fmt"
	"slices"
	"strings"
)

const (
	// forwardComment marks the one rule in a chain of someone else.
	forwardComment = "stellar"
	// forwardChain is our own chain, which that rule jumps to.
	forwardChain = "STELLAR"
	chainForward = "FORWARD"
	chainDocker  = "DOCKER-USER"
)

// The exception for iptables: where the policy of FORWARD is DROP, our packets
// need someone to accept them there, for an accept in a table of our own does not
// outweigh a drop in another one.
//
// One rule of iptables cannot say "to or from containers": its matches are all
// and-ed. So the one rule, commented `stellar`, jumps to a chain STELLAR with two
// accepting rules. The rule is in DOCKER-USER, where Docker leaves its user's
// rules alone, if that chain is in use; there, before a closing RETURN. Otherwise
// it is at the end of FORWARD. Either way the user's own rules come first.

// ruleset is what `iptables -S` lists.
type ruleset struct {
	policy map[string]string   // of built-in chains
	chains map[string][]string // all chains; rules as listed, without "-A CHAIN "
}

// parseRuleset reads the output of `iptables -S`.
func parseRuleset(out string) ruleset {
	r := ruleset{policy: make(map[string]string), chains: make(map[string][]string)}
	for line := range strings.Lines(out) {
		op, rest, _ := strings.Cut(strings.TrimSpace(line), " ")
		name, rest, _ := strings.Cut(rest, " ")
		switch op {
		case "-P":
			r.policy[name], r.chains[name] = rest, nil
		case "-N":
			r.chains[name] = nil
		case "-A":
			r.chains[name] = append(r.chains[name], rest)
		}
	}
	return r
}

// jump is the one rule, as iptables lists it.
const jump = "-m comment --comment " + forwardComment + " -j " + forwardChain

// ours reports whether a rule is the one rule.
func ours(rule string) bool { return rule == jump }

// wanted returns the chain that must carry the one rule, "" for none.
func (r ruleset) wanted() string {
	switch {
	case r.policy[chainForward] != "DROP":
		return ""
	case slices.ContainsFunc(r.chains[chainForward], func(rule string) bool {
		return strings.HasSuffix(rule, "-j "+chainDocker)
	}):
		return chainDocker
	}
	return chainForward
}

// planForward returns the input for `iptables-restore --noflush` that makes the
// exception what it must be, "" when nothing is to be done; accepting is the content
// of our chain, as iptables lists it. Pure. With none it removes the exception
// whatever the policy is.
func planForward(r ruleset, accepting []string, none bool) string {
	want := r.wanted()
	if none {
		want = ""
	}
	var add, remove []string
	placed := false
	for _, chain := range sortedChains(r) {
		rules := r.chains[chain]
		for i, rule := range rules {
			if !ours(rule) {
				continue
			}
			if chain == want && !placed && !afterReturn(rules, i) {
				placed = true
				continue
			}
			remove = append(remove, fmt.Sprintf("-D %s %s", chain, rule))
		}
	}
	_, exists := r.chains[forwardChain]
	if want != "" {
		if !exists || !slices.Equal(r.chains[forwardChain], accepting) {
			add = append(add, ":"+forwardChain+" - [0:0]")
			for _, rule := range accepting {
				add = append(add, "-A "+forwardChain+" "+rule)
			}
		}
		if !placed {
			remove = append(remove, place(r.chains[want], want))
		}
	} else if exists {
		remove = append(remove, "-F "+forwardChain, "-X "+forwardChain)
	}
	lines := append(add, remove...)
	if len(lines) == 0 {
		return ""
	}
	return "*filter\n" + strings.Join(lines, "\n") + "\nCOMMIT\n"
}

// place returns the command that adds the one rule behind the user's own, but
// before a closing unconditional RETURN. It runs after the deletions, whose
// number in this chain is taken off.
func place(rules []string, chain string) string {
	rest := slices.DeleteFunc(slices.Clone(rules), ours)
	if n := len(rest); n > 0 && rest[n-1] == "-j RETURN" {
		return fmt.Sprintf("-I %s %d %s", chain, n, jump)
	}
	return fmt.Sprintf("-A %s %s", chain, jump)
}

// afterReturn reports whether an unconditional RETURN makes rule i unreachable.
func afterReturn(rules []string, i int) bool { return slices.Contains(rules[:i], "-j RETURN") }

func sortedChains(r ruleset) []string {
	var names []string
	for name := range r.chains {
		names = append(names, name)
	}
	slices.Sort(names)
	return names
}
