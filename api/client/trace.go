package client

import (
	"context"

	"stellar.io/stellar/api"
	"stellar.io/stellar/api/internal/wire"
	stellarv1 "stellar.io/stellar/api/stellar/v1"
)

// Trace follows a packet there and back.
func (c *Client) Trace(ctx context.Context, s api.TraceSpec) (api.Trace, error) {
	m, err := c.trace.Path(ctx, &stellarv1.TracePathRequest{From: s.From, To: s.To, Probe: s.Probe})
	return wire.ToTrace(m), c.fail(ctx, err)
}

// TraceSide returns the node's part of a trace; with s.Probe after real packets.
func (c *Client) TraceSide(ctx context.Context, s api.TraceSideSpec) (api.TraceSide, error) {
	ask := c.trace.Side
	if s.Probe {
		ask = c.trace.Probe
	}
	m, err := ask(ctx, wire.FromTraceSideSpec(s))
	return wire.ToTraceSide(m), c.fail(ctx, err)
}
