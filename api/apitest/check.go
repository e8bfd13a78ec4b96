package apitest

import (
	"context"

	"stellar.io/stellar/api"
)

// Find adds a finding of host checks.
func (b *Backend) Find(f api.CheckFinding) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.findings = append(b.findings, f)
}

// CheckHost implements server.HostChecker: what was added by Find, and for all nodes one
// node more, which does not answer.
func (b *Backend) CheckHost(_ context.Context, allNodes bool) (api.CheckReport, error) {
	unlock, err := b.begin("CheckHost")
	defer unlock()
	r := api.CheckReport{Node: NodeName, Time: b.now(), Items: b.findings, Nodes: []api.CheckedNode{{Node: NodeName}}}
	if allNodes {
		r.Nodes = append(r.Nodes, api.CheckedNode{Node: "beta", Error: "no answer"})
	}
	return r, err
}
