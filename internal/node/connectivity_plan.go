package node

import (
	"cmp"
	"fmt"
	"slices"

	"stellar.io/stellar/api"
)

// pairs returns which of count nodes are to be tried with each other: all pairs, or a
// sample in which no node is left out before each has been in it. shuffle is that of
// a random source.
func pairs(count, sample int, shuffle func(n int, swap func(i, j int))) [][2]int {
	order := make([]int, count)
	for i := range order {
		order[i] = i
	}
	if all := count * (count - 1) / 2; sample == 0 || sample >= all {
		sample = all
	} else {
		shuffle(count, func(i, j int) { order[i], order[j] = order[j], order[i] })
	}
	// Neighbours on a ring first, then those two apart, and so on; each ring in an order
	// that has every node once before any is there twice.
	var out [][2]int
	for apart := 1; apart <= count/2; apart++ {
		for _, i := range everyOther(count, apart) {
			j := (i + apart) % count
			if len(out) == sample || 2*apart == count && i >= apart {
				continue
			}
			out = append(out, [2]int{min(order[i], order[j]), max(order[i], order[j])})
		}
	}
	slices.SortFunc(out, func(a, b [2]int) int { return cmp.Or(cmp.Compare(a[0], b[0]), cmp.Compare(a[1], b[1])) })
	return out
}

// everyOther returns 0 … count-1, each with a partner that is apart further: those
// first where neither was there before, then those where one was not.
func everyOther(count, apart int) []int {
	var out []int
	there, done := make([]bool, count), make([]bool, count)
	for old := range 3 {
		for i := range count {
			j := (i + apart) % count
			were := 0
			for _, k := range []int{i, j} {
				if there[k] {
					were++
				}
			}
			if !done[i] && were <= old {
				there[i], there[j], done[i] = true, true, true
				out = append(out, i)
			}
		}
	}
	return out
}

// planned is the report to be, and which probes fill it.
type planned struct {
	results []api.ConnectivityResult
	probes  map[string][]api.ConnectivityProbe // by node; the ids count from 0 over all
	result  []int                              // the result that a probe fills; -1: see aside
	aside   map[int]int                        // probes of hosts: the result that they judge
	named   map[int]bool                       // way-out results whose address a person has named
}

// plan says what is to be tried: within each node, and between the nodes of each pair
// in both directions. What cannot be tried is skipped, with the reason.
func plan(nodes []api.ConnectivityLoan, pairs [][2]int, t api.ConnectivityTest) *planned {
	p := &planned{probes: map[string][]api.ConnectivityProbe{}, aside: map[int]int{}, named: map[int]bool{}}
	for i := range nodes {
		p.within(&nodes[i], t)
	}
	for _, pair := range pairs {
		p.between(&nodes[pair[0]], &nodes[pair[1]])
		p.between(&nodes[pair[1]], &nodes[pair[0]])
	}
	return p
}

// end is one end of a path.
type end struct {
	node *api.ConnectivityLoan
	at   *api.ConnectivityEndpoint // nil: the host
}

// why says why nothing can be sent from or to the end; "": it can.
func (e end) why(sends bool) string {
	switch {
	case sends && e.node.ID == "":
		return fmt.Sprintf("node %s took no part: %s", e.node.Node.Node, e.node.Node.Error)
	case e.at != nil && !e.at.Address.IsValid():
		return fmt.Sprintf("node %s has no endpoint for it: %s", e.node.Node.Node, cmp.Or(e.node.Node.Error, "it lent too few"))
	case e.at == nil && !sends && !e.node.Node.Address.IsValid():
		return fmt.Sprintf("node %s has no address for other nodes", e.node.Node.Node)
	}
	return ""
}

func (e end) String() string {
	switch {
	case e.at == nil && e.node.Node.Address.IsValid():
		return fmt.Sprintf("host (%s)", e.node.Node.Address)
	case e.at == nil:
		return "host"
	case !e.at.Address.IsValid():
		return "none"
	}
	return fmt.Sprintf("%s/%s (%s)", e.at.Namespace, e.at.Container, e.at.Address)
}

// endpoint returns the node's i-th endpoint as an end, one without an address where
// there is none.
func endpoint(n *api.ConnectivityLoan, i int) end {
	if i < len(n.Node.Endpoints) {
		return end{n, &n.Node.Endpoints[i]}
	}
	return end{n, &api.ConnectivityEndpoint{}}
}

func host(n *api.ConnectivityLoan) end { return end{n, nil} }

func (p *planned) within(n *api.ConnectivityLoan, t api.ConnectivityTest) {
	first, second := endpoint(n, 0), endpoint(n, 1)
	p.add(api.TestContainers, first, second)
	p.add(api.TestContainers, second, first)
	p.add(api.TestHostToContainer, host(n), first)
	p.add(api.TestContainerToHost, first, host(n))
	p.add(api.TestPathMTU, first, second)
	p.wayOut(n, first, t)
}

func (p *planned) between(a, b *api.ConnectivityLoan) {
	p.add(api.TestContainers, endpoint(a, 0), endpoint(b, 0))
	p.add(api.TestHostToContainer, host(a), endpoint(b, 0))
	p.add(api.TestContainerToHost, endpoint(a, 0), host(b))
	p.add(api.TestPathMTU, endpoint(a, 0), endpoint(b, 0))
}

// add enters a path and, if it can be tried, its probe.
func (p *planned) add(test string, from, to end) {
	r := api.ConnectivityResult{From: from.node.Node.Node, To: to.node.Node.Node, Test: test, Source: from.String(), Target: to.String()}
	if why := cmp.Or(from.why(true), to.why(false)); why != "" {
		r.State, r.Reason = api.TestSkip, why
		p.results = append(p.results, r)
		return
	}
	probe := api.ConnectivityProbe{Target: to.node.Node.Address}
	if to.at != nil {
		probe.Target = to.at.Address
	}
	if from.at != nil {
		probe.From = from.at.Ref()
	}
	if test == api.TestPathMTU {
		probe.MTU = min(from.at.MTU, to.at.MTU)
	}
	p.results = append(p.results, r)
	p.probe(r.From, probe, len(p.results)-1)
}

func (p *planned) probe(node string, probe api.ConnectivityProbe, result int) {
	probe.ID = len(p.result)
	p.result = append(p.result, result)
	p.probes[node] = append(p.probes[node], probe)
}

// wayOut has the host try, too: what does not answer it either says nothing of the
// container's path.
func (p *planned) wayOut(n *api.ConnectivityLoan, from end, t api.ConnectivityTest) {
	target := t.Out
	if !target.IsValid() {
		target = n.Gateway
	}
	r := api.ConnectivityResult{From: n.Node.Node, To: n.Node.Node, Test: api.TestWayOut, Source: from.String(), Target: "none"}
	why := from.why(true)
	if why == "" && !from.at.Address.IsValid() {
		why = from.why(false)
	}
	if why == "" && !target.IsValid() {
		why = "the host has no default route: --out names an address to try"
	}
	if target.IsValid() {
		r.Target = target.String()
	}
	if why != "" {
		r.State, r.Reason = api.TestSkip, why
	}
	p.results = append(p.results, r)
	if why != "" {
		return
	}
	i := len(p.results) - 1
	p.named[i] = t.Out.IsValid()
	p.probe(r.From, api.ConnectivityProbe{From: from.at.Ref(), Target: target}, i)
	p.aside[len(p.result)] = i
	p.probe(r.From, api.ConnectivityProbe{Target: target}, -1)
}

// done enters what came of a probe.
func (p *planned) done(probed api.ConnectivityProbed) {
	if probed.ID < 0 || probed.ID >= len(p.result) {
		return // no probe of ours
	}
	i := p.result[probed.ID]
	if i < 0 {
		p.judge(p.aside[probed.ID], probed)
		return
	}
	r := &p.results[i]
	r.Sent, r.Received, r.RTT, r.MTU = probed.Sent, probed.Received, probed.RTT, probed.MTU
	if probed.Problem != "" {
		r.Reason, r.State = probed.Problem+r.Reason, cmp.Or(r.State, api.TestFail)
	} else {
		r.Reason, r.State = "", api.TestOK
	}
}

// failed counts what has failed so far.
func (p *planned) failed() (n int) {
	for _, r := range p.results {
		if r.State == api.TestFail {
			n++
		}
	}
	return n
}

// judge enters what the host's own attempt at the way out has shown.
func (p *planned) judge(i int, probed api.ConnectivityProbed) {
	r := &p.results[i]
	if probed.Problem == "" || r.State == api.TestOK {
		return
	}
	r.Reason += "; its host gets no answer either"
	if !p.named[i] {
		r.State = api.TestSkip
		r.Reason += " (--out names an address that answers)"
	}
}

// lose enters that a node's probes have ended before all were done.
func (p *planned) lose(node, why string) {
	for _, probe := range p.probes[node] {
		if i := p.result[probe.ID]; i >= 0 && p.results[i].State == "" {
			p.results[i].State, p.results[i].Reason = api.TestFail, fmt.Sprintf("node %s did not say: %s", node, why)
		}
	}
}
