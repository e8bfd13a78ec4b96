package client

import (
	"context"
	"time"

	"stellar.io/stellar/api"
	"stellar.io/stellar/api/internal/wire"
	stellarv1 "stellar.io/stellar/api/stellar/v1"
)

// CheckHost looks for what keeps packets from containers: on the answering node alone,
// or on every node of its cluster.
func (c *Client) CheckHost(ctx context.Context, allNodes bool) (api.CheckReport, error) {
	m, err := c.check.Check(ctx, &stellarv1.CheckRequest{AllNodes: allNodes})
	return wire.ToCheck(m), c.fail(ctx, err)
}

// Now returns the wall clock of the node and the hardware addresses of its links.
func (c *Client) Now(ctx context.Context) (now time.Time, macs []string, err error) {
	m, err := c.check.Now(ctx, &stellarv1.NowRequest{})
	return m.GetTime().AsTime(), m.GetMacs(), c.fail(ctx, err)
}
