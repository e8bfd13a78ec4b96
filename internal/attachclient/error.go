package attachclient

import (
	"context"
	"encoding/base64"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strings"
	"syscall"

	"stellar.io/stellar/api"
)

const hintRunning = "is the agent running? `systemctl status stellar`"

// dialError tells a failed connection from a failed call.
type dialError struct {
	path string
	err  error
}

func (e *dialError) Error() string { return fmt.Sprintf("connect to %s: %v", e.path, e.err) }
func (e *dialError) Unwrap() error { return e.err }

// fail makes an error of the way to the agent speak the words of package api.
func (c *Client) fail(ctx context.Context, err error) error {
	if errors.Is(ctx.Err(), context.Canceled) {
		return fmt.Errorf("call: %w", context.Canceled)
	}
	// Its socket's own deadline can pass a moment before ctx's.
	if ctx.Err() != nil || errors.Is(err, os.ErrDeadlineExceeded) || errors.Is(err, context.DeadlineExceeded) {
		return api.Errorf(api.CodeTimeout, "no answer from the agent in time").
			WithHint("`stellar status` may say why it is slow")
	}
	d, ok := errors.AsType[*dialError](err)
	switch {
	case !ok:
		return api.Errorf(api.CodeUnreachable, "the agent went away: %w", err).WithHint(hintRunning)
	case errors.Is(d.err, fs.ErrNotExist):
		return api.Errorf(api.CodeUnreachable, "no agent at %s: the socket does not exist", d.path).WithHint(hintRunning)
	case errors.Is(d.err, syscall.ECONNREFUSED):
		return api.Errorf(api.CodeUnreachable, "no agent at %s: nobody listens on the socket", d.path).WithHint(hintRunning)
	case errors.Is(d.err, fs.ErrPermission):
		return api.Errorf(api.CodeDenied, "no access to %s", d.path).WithHint("be root or a member of the group stellar")
	}
	return api.Errorf(api.CodeUnreachable, "%w", d).WithHint(hintRunning)
}

// connectError is an error on Connect's wire.
type connectError struct {
	Code    string `json:"code"`
	Message string `json:"message"`
	Details []struct {
		Type  string `json:"type"`
		Value string `json:"value"` // protobuf in base64 without padding
	} `json:"details"`
}

// codes reads an RPC code when the error carries no detail of ours: it was not
// the backend that failed then, but the way to it.
var codes = map[string]api.Code{
	"invalid_argument":  api.CodeInvalid,
	"not_found":         api.CodeNotFound,
	"permission_denied": api.CodeDenied,
	"unauthenticated":   api.CodeDenied,
	"deadline_exceeded": api.CodeTimeout,
	"unavailable":       api.CodeUnreachable,
}

// refusal reads an answer that is an error.
func refusal(got answer) error {
	var e connectError
	if err := json.Unmarshal(got.body, &e); err != nil || e.Code == "" {
		return strange(fmt.Errorf("status %s", got.status), got.body)
	}
	for _, d := range e.Details {
		if d.Type != "stellar.v1.ErrorDetail" {
			continue
		}
		raw, err := base64.RawStdEncoding.DecodeString(strings.TrimRight(d.Value, "="))
		if err != nil {
			continue
		}
		if f := stringFields(raw); f[1] != "" {
			return api.Errorf(api.Code(f[1]), "%s", e.Message).WithHint(f[2])
		}
	}
	switch code, ok := codes[e.Code]; {
	case e.Code == "unimplemented":
		return api.Errorf(api.CodeInternal, "the agent does not know this request").
			WithHint("it is older than this program: restart it")
	case ok:
		return api.Errorf(code, "%s", e.Message)
	}
	return api.Errorf(api.CodeInternal, "%s", e.Message)
}

// strange is the error of an answer that the agent would not give.
func strange(err error, data []byte) error {
	const most = 120
	if len(data) > most {
		data = data[:most]
	}
	return api.Errorf(api.CodeInternal, "not an agent's answer: %w %q", err, data).
		WithHint("does another program listen on the socket?")
}

// stringFields returns the length-delimited fields of a protobuf message by their
// number, and what was read of one that ends early. It skips all other fields.
func stringFields(b []byte) map[uint64]string {
	out := map[uint64]string{}
	for len(b) > 0 {
		tag, n := binary.Uvarint(b)
		if n <= 0 {
			break
		}
		b = b[n:]
		skip := uint64(0)
		switch tag & 7 {
		case 0: // varint
			_, n := binary.Uvarint(b)
			if n <= 0 {
				return out
			}
			skip = uint64(n)
		case 1: // 64 bits
			skip = 8
		case 2: // a length and as many bytes
			size, n := binary.Uvarint(b)
			if n <= 0 || size > uint64(len(b)-n) {
				return out
			}
			out[tag>>3] = string(b[n : uint64(n)+size])
			skip = uint64(n) + size
		case 5: // 32 bits
			skip = 4
		default:
			return out
		}
		if skip > uint64(len(b)) {
			break
		}
		b = b[skip:]
	}
	return out
}
