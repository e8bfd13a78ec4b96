package client

import (
	"context"

	"stellar.io/stellar/api"
	"stellar.io/stellar/api/internal/wire"
	stellarv1 "stellar.io/stellar/api/stellar/v1"
)

// serverStream is what a call returns that answers with many messages.
type serverStream[M any] interface {
	Receive() bool
	Msg() *M
	Err() error
	Close() error
}

// each reads a stream to its end, or to the error of do. cancel ends the call.
func each[M any](ctx context.Context, c *Client, cancel context.CancelFunc, stream serverStream[M], do func(*M) error) error {
	defer cancel()
	for stream.Receive() {
		if err := do(stream.Msg()); err != nil {
			cancel() // else Close would wait for the stream's end
			stream.Close()
			return err
		}
	}
	err := c.fail(ctx, stream.Err())
	stream.Close()
	return err
}

// Ping has a node send echo requests and calls do with the start, then with what came
// of each. It returns when all are accounted for, when ctx ends (its error) or with
// the error of do.
func (c *Client) Ping(ctx context.Context, r api.PingRequest, do func(api.PingMessage) error) error {
	ctx, cancel := context.WithCancel(ctx)
	stream, err := c.connectivity.Ping(ctx, wire.FromPingRequest(r))
	if err != nil {
		cancel()
		return c.fail(ctx, err)
	}
	return each(ctx, c, cancel, stream, func(m *stellarv1.ConnectivityPingResponse) error { return do(wire.ToPingMessage(m)) })
}

// TestConnectivity has the node test the cluster's paths and calls progress meanwhile.
func (c *Client) TestConnectivity(ctx context.Context, t api.ConnectivityTest, progress func(api.ConnectivityProgress)) (api.ConnectivityReport, error) {
	ctx, cancel := context.WithCancel(ctx)
	stream, err := c.connectivity.Test(ctx, wire.FromConnectivityTest(t))
	if err != nil {
		cancel()
		return api.ConnectivityReport{}, c.fail(ctx, err)
	}
	var report *api.ConnectivityReport
	err = each(ctx, c, cancel, stream, func(m *stellarv1.ConnectivityTestResponse) error {
		got := wire.ToConnectivityMessage(m)
		if got.Progress != nil {
			progress(*got.Progress)
		}
		if got.Report != nil {
			report = got.Report
		}
		return nil
	})
	switch {
	case err != nil:
		return api.ConnectivityReport{}, err
	case report == nil:
		return api.ConnectivityReport{}, api.Errorf(api.CodeInternal, "%s ended the test without a report", c.name)
	}
	return *report, nil
}

// LendEndpoints asks the node for endpoints to test with and calls do with them. They
// are lent until ctx ends.
func (c *Client) LendEndpoints(ctx context.Context, t api.ConnectivityTest, do func(api.ConnectivityLoan)) error {
	ctx, cancel := context.WithCancel(ctx)
	stream, err := c.connectivity.Lend(ctx, &stellarv1.ConnectivityLendRequest{Own: t.Own, Limit: wire.FromConnectivityTest(t).GetLimit()})
	if err != nil {
		cancel()
		return c.fail(ctx, err)
	}
	return each(ctx, c, cancel, stream, func(m *stellarv1.ConnectivityLendResponse) error {
		if m.GetNode() != nil {
			do(wire.ToConnectivityLoan(m))
		}
		return nil
	})
}

// GiveBackEndpoints ends a loan and returns when nothing is left of it.
func (c *Client) GiveBackEndpoints(ctx context.Context, loan string) error {
	_, err := c.connectivity.GiveBack(ctx, &stellarv1.ConnectivityGiveBackRequest{Loan: loan})
	return c.fail(ctx, err)
}

// ProbePaths has the node try paths and calls do with what came of each, in no order.
func (c *Client) ProbePaths(ctx context.Context, probes []api.ConnectivityProbe, do func(api.ConnectivityProbed)) error {
	ctx, cancel := context.WithCancel(ctx)
	stream, err := c.connectivity.Probe(ctx, &stellarv1.ConnectivityProbeRequest{Probes: wire.Each(probes, wire.FromConnectivityProbe)})
	if err != nil {
		cancel()
		return c.fail(ctx, err)
	}
	return each(ctx, c, cancel, stream, func(m *stellarv1.ConnectivityProbeResponse) error {
		do(wire.ToConnectivityProbed(m))
		return nil
	})
}
