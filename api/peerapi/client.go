package peerapi

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptrace"
	"sync/atomic"

	"connectrpc.com/connect"

	"stellar.io/stellar/api"
	"stellar.io/stellar/api/internal/rpc"
	peerv1 "stellar.io/stellar/api/stellar/peer/v1"
	"stellar.io/stellar/api/stellar/peer/v1/peerv1connect"
)

// maxAnswer bounds one message of an answer.
const maxAnswer = 4 << 20

// Client calls one node. It is safe for concurrent use.
//
// Every error is an *api.Error with the code and hint of the other node, or
//   - api.CodeUnreachable: there is no connection, nothing was sent;
//   - api.CodeUnknownOutcome: the connection broke after a request that changes
//     something was sent; api.CodeUnreachable for one that only reads;
//   - api.CodeTimeout: ctx's deadline has passed, and it may have been sent;
//   - api.CodeDenied: the certificates do not do, or the other node said so.
//
// context.Canceled is passed through.
type Client struct {
	name string
	peer peerv1connect.PeerClient
	join peerv1connect.JoinClient
}

// NewClient returns a client for the node that hc reaches at base, which names it
// to people as name.
func NewClient(hc *http.Client, base, name string) *Client {
	opts := []connect.ClientOption{connect.WithReadMaxBytes(maxAnswer)}
	return &Client{
		name: name,
		peer: peerv1connect.NewPeerClient(hc, base, opts...),
		join: peerv1connect.NewJoinClient(hc, base, opts...),
	}
}

// Forward sends a request of raftstore (Config.Forward) to the leader and returns
// the answer. Sent tells what an error means.
func (c *Client) Forward(ctx context.Context, request []byte) (answer []byte, err error) {
	var m *peerv1.ForwardResponse
	err = c.change(ctx, func(ctx context.Context) (err error) {
		m, err = c.peer.Forward(ctx, &peerv1.ForwardRequest{Request: request})
		return err
	})
	return m.GetAnswer(), err
}

// Sent reports whether a request that ended with err may have been executed: the
// connection broke, or the time was over. Else it was refused or never sent.
func Sent(err error) bool {
	switch api.CodeOf(err) {
	case api.CodeUnknownOutcome, api.CodeTimeout, api.CodeInternal:
		return true
	}
	return false
}

// Announce tells where this node is reached now.
func (c *Client) Announce(ctx context.Context, a Announcement) error {
	return c.change(ctx, func(ctx context.Context) error {
		_, err := c.peer.Announce(ctx, &peerv1.AnnounceRequest{Address: a.Address, Version: a.Version})
		return err
	})
}

// WhoAmI asks what the other node's state says of this one.
func (c *Client) WhoAmI(ctx context.Context) (Standing, error) {
	m, err := c.peer.WhoAmI(ctx, &peerv1.WhoAmIRequest{})
	if err != nil {
		return Standing{}, c.fail(ctx, err)
	}
	return standingFromPB(m), nil
}

// Claim tells what this node holds. It may be repeated as it is.
func (c *Client) Claim(ctx context.Context, claim Claim) (ClaimAnswer, error) {
	m, err := c.peer.Claim(ctx, claimToPB(claim))
	return claimAnswerFromPB(m), c.fail(ctx, err)
}

// RenewCertificate has a new certificate signed for this node. DER, leaf first.
func (c *Client) RenewCertificate(ctx context.Context, csr []byte) ([][]byte, error) {
	m, err := c.peer.RenewCertificate(ctx, &peerv1.RenewCertificateRequest{Csr: csr})
	return m.GetChain(), c.fail(ctx, err)
}

// CAKey asks for the cluster's key, PEM. It is given to voters only.
func (c *Client) CAKey(ctx context.Context) ([]byte, error) {
	m, err := c.peer.CAKey(ctx, &peerv1.CAKeyRequest{})
	return m.GetKey(), c.fail(ctx, err)
}

// Join asks for a membership. It may be repeated as it is.
func (c *Client) Join(ctx context.Context, r JoinRequest) (JoinAnswer, error) {
	var m *peerv1.JoinResponse
	err := c.change(ctx, func(ctx context.Context) (err error) {
		m, err = c.join.Join(ctx, joinToPB(r))
		return err
	})
	if err != nil {
		return JoinAnswer{}, err
	}
	return joinAnswerFromPB(m)
}

// FetchState returns the other node's state as a snapshot. A read ends with io.EOF
// only when nothing is missing; close it in any case. It lives as long as ctx.
func (c *Client) FetchState(ctx context.Context) (io.ReadCloser, error) {
	ctx, cancel := context.WithCancel(ctx)
	stream, err := c.peer.FetchState(ctx, &peerv1.FetchStateRequest{})
	if err != nil {
		cancel()
		return nil, c.fail(ctx, err)
	}
	f := &fetch{stream: stream, cancel: cancel}
	var size int64
	f.Reader = rpc.NewChunkReader(func() ([]byte, error) {
		if !stream.Receive() {
			if err := stream.Err(); err != nil {
				return nil, c.fail(ctx, err)
			}
			return nil, api.Errorf(api.CodeUnreachable, "%s ended in the middle of its state", c.name)
		}
		if end := stream.Msg().GetEnd(); end != nil {
			if end.GetSize() != size {
				return nil, api.Errorf(api.CodeInternal, "%s sent %d bytes of state, not %d", c.name, size, end.GetSize())
			}
			return nil, io.EOF
		}
		size += int64(len(stream.Msg().GetChunk()))
		return stream.Msg().GetChunk(), nil
	})
	return f, nil
}

type fetch struct {
	io.Reader
	stream *connect.ServerStreamForClient[peerv1.FetchStateResponse]
	cancel context.CancelFunc
}

// Close ends the stream, also in the middle.
func (f *fetch) Close() error {
	f.cancel() // else Close would wait for the stream's end
	_ = f.stream.Close()
	return nil
}

// change makes a call after which it matters whether it was sent.
func (c *Client) change(ctx context.Context, call func(context.Context) error) error {
	var connected atomic.Bool
	traced := httptrace.WithClientTrace(ctx, &httptrace.ClientTrace{GotConn: func(httptrace.GotConnInfo) { connected.Store(true) }})
	err := c.fail(ctx, call(traced))
	if connected.Load() && api.CodeOf(err) == api.CodeUnreachable && !answered(err) {
		return api.Errorf(api.CodeUnknownOutcome, "%w", errors.Unwrap(err)).WithHint("look whether it was done before you repeat it")
	}
	return err
}

// answered tells an error that the other node has sent from one on the way to it.
func answered(err error) bool {
	_, ok := errors.AsType[*remoteError](err)
	return ok
}

// remoteError is what the other node has answered.
type remoteError struct{ msg string }

func (e *remoteError) Error() string { return e.msg }

// fail makes the error of a call speak the words of package api.
func (c *Client) fail(ctx context.Context, err error) error {
	if err == nil {
		return nil
	}
	if errors.Is(ctx.Err(), context.Canceled) {
		return fmt.Errorf("call %s: %w", c.name, context.Canceled)
	}
	if e, ok := rpc.Detail(err); ok {
		return &api.Error{Code: e.Code, Hint: e.Hint, Err: &remoteError{e.Error()}}
	}
	if e, ok := errors.AsType[*api.Error](err); ok { // of the transport, e.g. another CA than the token names
		return &api.Error{Code: e.Code, Hint: e.Hint, Err: fmt.Errorf("%s: %w", c.name, e.Err)}
	}
	ce, ok := errors.AsType[*connect.Error](err)
	if !ok {
		return api.Errorf(api.CodeInternal, "call %s: %w", c.name, err)
	}
	switch ce.Code() {
	case connect.CodeDeadlineExceeded:
		return api.Errorf(api.CodeTimeout, "no answer from %s in time", c.name)
	case connect.CodePermissionDenied, connect.CodeUnauthenticated:
		return api.Errorf(api.CodeDenied, "%s: %s", c.name, ce.Message())
	case connect.CodeUnimplemented:
		return api.Errorf(api.CodeInternal, "%s does not know this request", c.name).WithHint("it runs an older version: `stellar node ls` shows them")
	case connect.CodeInvalidArgument, connect.CodeResourceExhausted:
		return api.Errorf(api.CodeInvalid, "%s: %s", c.name, ce.Message())
	default: // no handler of ours has spoken: the way to it failed
		return api.Errorf(api.CodeUnreachable, "%s cannot be reached: %w", c.name, unwrapped(ce))
	}
}

// unwrapped leaves the RPC code's word out of the message.
func unwrapped(e *connect.Error) error {
	if inner := errors.Unwrap(e); inner != nil {
		return inner
	}
	return e
}
