package server

import (
	"context"
	"strings"

	"stellar.io/stellar/api"
	"stellar.io/stellar/api/internal/rpc"
	"stellar.io/stellar/api/internal/wire"
	stellarv1 "stellar.io/stellar/api/stellar/v1"
)

// Tracer follows packets.
type Tracer interface {
	// Trace follows a packet there and back, and asks the other nodes on its way for
	// their parts. api.CodeNotFound, api.CodeConflict or api.CodeInvalid for ends that
	// are none.
	Trace(ctx context.Context, s api.TraceSpec) (api.Trace, error)
	// TraceSide is this node's part; s.Local is on it.
	TraceSide(ctx context.Context, s api.TraceSideSpec) (api.TraceSide, error)
}

type traceHandler struct{ *Server }

func (h traceHandler) Path(ctx context.Context, m *stellarv1.TracePathRequest) (*stellarv1.TracePathResponse, error) {
	b, err := part[Tracer](h.Server)
	if err != nil {
		return nil, rpc.Error(err)
	}
	s := api.TraceSpec{From: m.GetFrom(), To: m.GetTo(), Probe: m.GetProbe()}
	for _, end := range []string{s.From, s.To} {
		if strings.TrimSpace(end) == "" || len(end) > maxTraceEnd {
			return nil, rpc.Error(api.Errorf(api.CodeInvalid, "%s is no container, address or node", quoted(end)))
		}
	}
	t, err := b.Trace(ctx, s)
	if err != nil {
		return nil, rpc.Error(err)
	}
	if s.Probe {
		h.audit(ctx, "packets sent on request", "from", t.From.String(), "to", t.To.String())
	}
	return wire.FromTrace(t), nil
}

// maxTraceEnd bounds what names an end: a namespace and a container.
const maxTraceEnd = 512

func (h traceHandler) Side(ctx context.Context, m *stellarv1.TraceSideRequest) (*stellarv1.TraceSideResponse, error) {
	return h.side(ctx, m, false)
}

func (h traceHandler) Probe(ctx context.Context, m *stellarv1.TraceSideRequest) (*stellarv1.TraceSideResponse, error) {
	return h.side(ctx, m, true)
}

func (h traceHandler) side(ctx context.Context, m *stellarv1.TraceSideRequest, probe bool) (*stellarv1.TraceSideResponse, error) {
	b, err := part[Tracer](h.Server)
	if err != nil {
		return nil, rpc.Error(err)
	}
	s := wire.ToTraceSideSpec(m)
	s.Probe = probe
	if !s.Local.Address.Is4() || !s.Remote.Address.Is4() {
		return nil, rpc.Error(api.Errorf(api.CodeInvalid, "the ends of a trace have IPv4 addresses"))
	}
	side, err := b.TraceSide(ctx, s)
	if err != nil {
		return nil, rpc.Error(err)
	}
	if probe {
		h.audit(ctx, "packets sent on request", "from", s.Local.String(), "to", s.Remote.String())
	}
	return wire.FromTraceSide(side), nil
}
