package server

import (
	"context"
	"errors"
	"time"

	"connectrpc.com/connect"

	"stellar.io/stellar/api"
	"stellar.io/stellar/api/internal/rpc"
	"stellar.io/stellar/api/internal/wire"
	stellarv1 "stellar.io/stellar/api/stellar/v1"
)

// Connectivity tries paths with packets. What is asked is valid (Validate). The
// methods return the error of send, and at ctx's end.
type Connectivity interface {
	// Ping sends requests from where r.From is, which may be another node that is asked
	// through the cluster, unless the request came from there. Names are as people type
	// them: api.CodeNotFound and api.CodeConflict say what to type instead.
	Ping(ctx context.Context, r api.PingRequest, send func(api.PingMessage) error) error
	// TestConnectivity asks each node to lend and to probe. When it returns, nothing is
	// left of what was made for it, or its nodes take it back at the end of t.Limit.
	TestConnectivity(ctx context.Context, t api.ConnectivityTest, send func(api.ConnectivityMessage) error) error
	// LendEndpoints calls send once, holds what it has made until ctx ends, GiveBack or
	// the time is over, and takes it back before it returns.
	LendEndpoints(ctx context.Context, own bool, limit time.Duration, send func(api.ConnectivityLoan) error) error
	// GiveBackEndpoints returns when nothing is left of the loan; there need not be one.
	GiveBackEndpoints(ctx context.Context, loan string) error
	// ProbePaths calls send, from one goroutine, once for each.
	ProbePaths(ctx context.Context, probes []api.ConnectivityProbe, send func(api.ConnectivityProbed) error) error
}

// maxProbes bounds one request to probe; a node of the largest cluster asks for less.
const maxProbes = 1 << 16

type connectivityHandler struct{ *Server }

// streaming runs a call that answers with many messages. The headers go out at once, so
// that the caller knows that it is connected; the end of the agent ends it.
func streaming[M any](ctx context.Context, out *connect.ServerStream[M], call func(ctx context.Context) error) error {
	if err := out.Send(nil); err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	run := serving(ctx)
	defer context.AfterFunc(run, cancel)()
	err := call(ctx)
	if run.Err() != nil && (err == nil || errors.Is(err, context.Canceled)) {
		err = api.Errorf(api.CodeUnreachable, "the agent is stopping").WithHint("`systemctl status stellar` shows whether it comes back")
	}
	return rpc.Error(err)
}

func (h connectivityHandler) Ping(ctx context.Context, m *stellarv1.ConnectivityPingRequest, out *connect.ServerStream[stellarv1.ConnectivityPingResponse]) error {
	b, err := part[Connectivity](h.Server)
	r := wire.ToPingRequest(m)
	if err == nil {
		err = r.Validate()
	}
	if err != nil {
		return rpc.Error(err)
	}
	return streaming(ctx, out, func(ctx context.Context) error {
		return b.Ping(ctx, r, func(p api.PingMessage) error { return out.Send(wire.FromPingMessage(p)) })
	})
}

func (h connectivityHandler) Test(ctx context.Context, m *stellarv1.ConnectivityTestRequest, out *connect.ServerStream[stellarv1.ConnectivityTestResponse]) error {
	b, err := part[Connectivity](h.Server)
	t := wire.ToConnectivityTest(m)
	if err == nil {
		err = errors.Join(checkAddress(m.GetOut()), t.Validate())
	}
	if err != nil {
		return rpc.Error(err)
	}
	h.audit(ctx, "connectivity test begun", "own", t.Own, "sample", t.Sample)
	return streaming(ctx, out, func(ctx context.Context) error {
		return b.TestConnectivity(ctx, t, func(c api.ConnectivityMessage) error { return out.Send(wire.FromConnectivityMessage(c)) })
	})
}

func (h connectivityHandler) Lend(ctx context.Context, m *stellarv1.ConnectivityLendRequest, out *connect.ServerStream[stellarv1.ConnectivityLendResponse]) error {
	b, err := part[Connectivity](h.Server)
	limit := m.GetLimit().AsDuration()
	if err == nil {
		err = api.ConnectivityTest{Limit: limit}.Validate()
	}
	if err != nil {
		return rpc.Error(err)
	}
	h.audit(ctx, "endpoints lent for a connectivity test", "own", m.GetOwn(), "limit", limit)
	return streaming(ctx, out, func(ctx context.Context) error {
		return b.LendEndpoints(ctx, m.GetOwn(), limit, func(l api.ConnectivityLoan) error { return out.Send(wire.FromConnectivityLoan(l)) })
	})
}

func (h connectivityHandler) GiveBack(ctx context.Context, m *stellarv1.ConnectivityGiveBackRequest) (*stellarv1.ConnectivityGiveBackResponse, error) {
	b, err := part[Connectivity](h.Server)
	if err == nil {
		err = b.GiveBackEndpoints(ctx, m.GetLoan())
	}
	if err != nil {
		return nil, rpc.Error(err)
	}
	return &stellarv1.ConnectivityGiveBackResponse{}, nil
}

func (h connectivityHandler) Probe(ctx context.Context, m *stellarv1.ConnectivityProbeRequest, out *connect.ServerStream[stellarv1.ConnectivityProbeResponse]) error {
	b, err := part[Connectivity](h.Server)
	if err != nil {
		return rpc.Error(err)
	}
	if len(m.GetProbes()) > maxProbes {
		return rpc.Error(api.Errorf(api.CodeInvalid, "%d probes at once are more than %d", len(m.GetProbes()), maxProbes))
	}
	for _, p := range m.GetProbes() {
		if a, err := api.ParseAddress(p.GetTarget()); err != nil || !a.Is4() {
			return rpc.Error(api.Errorf(api.CodeInvalid, "%q is not an IPv4 address", p.GetTarget()))
		}
	}
	return streaming(ctx, out, func(ctx context.Context) error {
		return b.ProbePaths(ctx, wire.Each(m.GetProbes(), wire.ToConnectivityProbe), func(p api.ConnectivityProbed) error { return out.Send(wire.FromConnectivityProbed(p)) })
	})
}
