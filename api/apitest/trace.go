package apitest

import (
	"context"

	"stellar.io/stellar/api"
)

// SetTrace makes Trace return t, whatever is asked.
func (b *Backend) SetTrace(t api.Trace) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.trace = &t
}

// Trace implements server.Tracer.
func (b *Backend) Trace(_ context.Context, s api.TraceSpec) (api.Trace, error) {
	unlock, err := b.begin("Trace")
	defer unlock()
	if err != nil {
		return api.Trace{}, err
	}
	if b.trace == nil {
		return api.Trace{}, api.Errorf(api.CodeNotFound, "no container, address or node %q", s.From)
	}
	t := *b.trace
	if !s.Probe {
		t.Probe = nil
	}
	return t, nil
}

// TraceSide implements server.Tracer.
func (b *Backend) TraceSide(_ context.Context, s api.TraceSideSpec) (api.TraceSide, error) {
	unlock, err := b.begin("TraceSide")
	defer unlock()
	return api.TraceSide{Node: NodeName, MACs: []string{s.ArrivalMAC}}, err
}
