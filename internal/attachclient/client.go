// Package attachclient calls the agent's attachment service for the programs that
// a container waits for: the CNI plugins and the wrapper of the OCI runtime. It
// does what api/client does for everything else, but without Connect, protobuf and
// net/http: those programs run once per container, and it is their start that
// counts. On the wire it is Connect's unary protocol, JSON in one POST.
//
// Every error is an *api.Error: the agent's own code and hint, or
// api.CodeUnreachable, api.CodeDenied and api.CodeTimeout for the way to it.
// A context that was cancelled gives context.Canceled.
package attachclient

import (
	"context"
	"encoding/json"
	"errors"
	"strconv"
	"time"

	"stellar.io/stellar/api"
)

const (
	service     = "/stellar.v1.Attachments/"
	maxResponse = 4 << 20 // bytes; thousands of collected attachments stay far below
)

// Client calls one agent. It is safe for concurrent use; each call makes a
// connection of its own. Make it with New.
type Client struct {
	path string
	err  error // what is wrong with the address; every call returns it
}

// New returns a client for the agent at an address like
// unix:///run/stellar/stellar.sock. It does not connect: a wrong address is the
// api.CodeInvalid of each call.
func New(address string) *Client {
	path, err := api.SocketPath(address)
	return &Client{path: path, err: err}
}

// Add is CNI's ADD.
func (c *Client) Add(ctx context.Context, s api.AttachmentSpec) (api.AttachmentResult, error) {
	var out addResponse
	if err := c.call(ctx, "Add", fromSpec(s), &out); err != nil {
		return api.AttachmentResult{}, err
	}
	return out.result()
}

// Del is CNI's DEL. It reports whether there was anything to take away.
func (c *Client) Del(ctx context.Context, a api.Attachment) (found bool, err error) {
	var out delResponse
	err = c.call(ctx, "Del", delRequest{Attachment: fromAttachment(a), IPAMOnly: a.IPAMOnly}, &out)
	return out.Found, err
}

// Check is CNI's CHECK: nil when everything is as Add left it.
func (c *Client) Check(ctx context.Context, k api.AttachmentCheck) error {
	return c.call(ctx, "Check", checkRequest{
		Attachment: fromAttachment(k.Attachment), IPAMOnly: k.IPAMOnly, Address: addrText(k.Address), MAC: k.MAC,
	}, &struct{}{})
}

// Ready is CNI's STATUS: nil when an Add would be served.
func (c *Client) Ready(ctx context.Context) error {
	return c.call(ctx, "Ready", struct{}{}, &struct{}{})
}

// Collect is CNI's GC: it ends the attachments of a CNI network that are not
// among the valid ones and returns what they were.
func (c *Client) Collect(ctx context.Context, network string, ipamOnly bool, valid []api.Attachment) ([]string, error) {
	in := collectRequest{Network: network, IPAMOnly: ipamOnly}
	for _, a := range valid {
		in.Valid = append(in.Valid, fromAttachment(a))
	}
	var out collectResponse
	err := c.call(ctx, "Collect", in, &out)
	return out.Collected, err
}

// Asked tells what a container's trusted labels and annotations ask for.
func (c *Client) Asked(ctx context.Context, r api.ContainerRef) (api.Asked, error) {
	var out askedResponse
	err := c.call(ctx, "Asked", askedRequest{Namespace: r.Namespace, Container: r.Container}, &out)
	return api.Asked{Wanted: out.Wanted, Strict: out.Strict, Rejected: out.Rejected}, err
}

// Await waits for the network of the container whose init process is pid.
func (c *Client) Await(ctx context.Context, r api.ContainerRef, pid int) (api.Awaited, error) {
	var out awaitResponse
	err := c.call(ctx, "Await", awaitRequest{Namespace: r.Namespace, Container: r.Container, PID: uint32(pid)}, &out)
	if err != nil {
		return api.Awaited{}, err
	}
	a, err := addr(out.Address)
	if err != nil {
		return api.Awaited{}, strange(err, nil)
	}
	return api.Awaited{Wanted: out.Wanted, Address: a, Ifname: out.Ifname, Ready: out.Ready}, nil
}

// call does one request. The agent is told a deadline that is a little earlier
// than ctx's, so that its own reason arrives before ours is all there is.
func (c *Client) call(ctx context.Context, method string, in, out any) error {
	if c.err != nil {
		return c.err
	}
	body, err := json.Marshal(in)
	if err != nil {
		return api.Errorf(api.CodeInternal, "%w", err)
	}
	timeout := ""
	if end, ok := ctx.Deadline(); ok {
		left := time.Until(end)
		ms := (left - min(left/10, 100*time.Millisecond)).Milliseconds()
		timeout = strconv.FormatInt(max(ms, 1), 10)
	}
	got, err := c.post(ctx, method, timeout, body)
	switch {
	case errors.Is(err, errLong):
		return api.Errorf(api.CodeInternal, "%w", err)
	case err != nil:
		return c.fail(ctx, err)
	case !got.ok():
		return refusal(got)
	}
	if err := json.Unmarshal(got.body, out); err != nil {
		return strange(err, got.body)
	}
	return nil
}
