package client

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"syscall"

	"connectrpc.com/connect"

	"stellar.io/stellar/api"
	"stellar.io/stellar/api/internal/rpc"
)

const hintRunning = "is the agent running? `systemctl status stellar`"

// codes reads an RPC code when the error carries no detail of ours: it was not
// the backend that failed then, but the way to it.
var codes = map[connect.Code]api.Code{
	connect.CodeInvalidArgument:  api.CodeInvalid,
	connect.CodeNotFound:         api.CodeNotFound,
	connect.CodePermissionDenied: api.CodeDenied,
	connect.CodeUnauthenticated:  api.CodeDenied,
	connect.CodeDeadlineExceeded: api.CodeTimeout,
	connect.CodeUnavailable:      api.CodeUnreachable,
}

// fail makes the error of a call speak the words of package api.
func (c *Client) fail(ctx context.Context, err error) error {
	if err == nil {
		return nil
	}
	if d, ok := errors.AsType[*dialError](err); ok && ctx.Err() == nil {
		return fromDial(d)
	}
	if errors.Is(ctx.Err(), context.Canceled) {
		return fmt.Errorf("call: %w", context.Canceled)
	}
	ce, ok := errors.AsType[*connect.Error](err)
	if !ok {
		return api.Errorf(api.CodeInternal, "%w", err)
	}
	if e, ok := rpc.Detail(err); ok {
		return e
	}
	code := codes[ce.Code()]
	if errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, syscall.ECONNRESET) || errors.Is(err, syscall.EPIPE) {
		code = api.CodeUnreachable // it died in the middle of the answer
	}
	switch code {
	case "":
		if ce.Code() == connect.CodeUnimplemented {
			return api.Errorf(api.CodeInternal, "%s does not know this request", c.name).
				WithHint("it is older than this one: `stellar version` and `stellar node ls` show the versions")
		}
		return api.Errorf(api.CodeInternal, "%s", ce.Message())
	case api.CodeTimeout:
		return api.Errorf(code, "no answer from %s in time", c.name).
			WithHint("give it longer with --timeout; `stellar status` may say why it is slow")
	case api.CodeUnreachable:
		return api.Errorf(code, "%s went away: %s", c.name, ce.Message()).WithHint(c.hint)
	default:
		return api.Errorf(code, "%s", ce.Message())
	}
}

// fromDial says in few words why there is no connection.
func fromDial(d *dialError) error {
	switch {
	case errors.Is(d.err, fs.ErrNotExist):
		return api.Errorf(api.CodeUnreachable, "no agent at %s: the socket does not exist", d.path).WithHint(hintRunning)
	case errors.Is(d.err, syscall.ECONNREFUSED):
		return api.Errorf(api.CodeUnreachable, "no agent at %s: nobody listens on the socket", d.path).WithHint(hintRunning)
	case errors.Is(d.err, fs.ErrPermission):
		return api.Errorf(api.CodeDenied, "no access to %s", d.path).WithHint("be root or a member of the group stellar")
	}
	return api.Errorf(api.CodeUnreachable, "%w", d).WithHint(hintRunning)
}
