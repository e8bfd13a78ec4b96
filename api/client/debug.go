package client

import (
	"context"

	"stellar.io/stellar/api"
	stellarv1 "stellar.io/stellar/api/stellar/v1"
)

// LogLevel returns the level of the agent's log, and what it was before level, if
// that is not empty, was set.
func (c *Client) LogLevel(ctx context.Context, level string) (now, before string, err error) {
	m, err := c.debug.LogLevel(ctx, &stellarv1.DebugLogLevelRequest{Level: level})
	return m.GetLevel(), m.GetBefore(), c.fail(ctx, err)
}

// Bugreport returns the files that only the agent itself can tell. Those that came
// before an error are returned with it; the last of them may be a part.
func (c *Client) Bugreport(ctx context.Context) (files []api.ReportFile, err error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	stream, err := c.debug.Bugreport(ctx, &stellarv1.DebugBugreportRequest{})
	if err != nil {
		return nil, c.fail(ctx, err)
	}
	ended := false
	for stream.Receive() {
		m := stream.Msg()
		if ended = m.GetEnd(); ended {
			break
		}
		if n := len(files); n == 0 || files[n-1].Name != m.GetName() {
			files = append(files, api.ReportFile{Name: m.GetName()})
		}
		last := &files[len(files)-1]
		last.Data = append(last.Data, m.GetChunk()...)
	}
	err = c.fail(ctx, stream.Err())
	stream.Close()
	if err == nil && !ended {
		err = api.Errorf(api.CodeInternal, "%s sent a part of its report", c.name)
	}
	return files, err
}
