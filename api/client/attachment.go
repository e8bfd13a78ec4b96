package client

import (
	"context"

	"stellar.io/stellar/api"
	"stellar.io/stellar/api/internal/wire"
	stellarv1 "stellar.io/stellar/api/stellar/v1"
)

// Attach gives a container a network by hand.
func (c *Client) Attach(ctx context.Context, r api.AttachRequest) (api.Endpoint, error) {
	m, err := c.endpoints.Attach(ctx, wire.FromAttachRequest(r))
	return wire.ToEndpoint(m.GetEndpoint()), c.fail(ctx, err)
}

// Detach takes a container's network away and returns what it was.
func (c *Client) Detach(ctx context.Context, ref api.EndpointRef) (api.Endpoint, error) {
	m, err := c.endpoints.Detach(ctx, &stellarv1.EndpointsDetachRequest{Ref: wire.FromRef(ref)})
	return wire.ToEndpoint(m.GetEndpoint()), c.fail(ctx, err)
}

// AddAttachment is CNI's ADD.
func (c *Client) AddAttachment(ctx context.Context, s api.AttachmentSpec) (api.AttachmentResult, error) {
	m, err := c.attachments.Add(ctx, wire.FromAttachmentSpec(s))
	return wire.ToAttachmentResult(m), c.fail(ctx, err)
}

// DelAttachment is CNI's DEL; it reports whether there was anything.
func (c *Client) DelAttachment(ctx context.Context, a api.Attachment) (bool, error) {
	m, err := c.attachments.Del(ctx, &stellarv1.AttachmentsDelRequest{Attachment: wire.FromAttachment(a), IpamOnly: a.IPAMOnly})
	return m.GetFound(), c.fail(ctx, err)
}

// CheckAttachment is CNI's CHECK.
func (c *Client) CheckAttachment(ctx context.Context, k api.AttachmentCheck) error {
	_, err := c.attachments.Check(ctx, wire.FromAttachmentCheck(k))
	return c.fail(ctx, err)
}

// AttachmentsReady is CNI's STATUS.
func (c *Client) AttachmentsReady(ctx context.Context) error {
	_, err := c.attachments.Ready(ctx, &stellarv1.AttachmentsReadyRequest{})
	return c.fail(ctx, err)
}

// CollectAttachments is CNI's GC.
func (c *Client) CollectAttachments(ctx context.Context, network string, ipamOnly bool, valid []api.Attachment) ([]string, error) {
	m, err := c.attachments.Collect(ctx, &stellarv1.AttachmentsCollectRequest{
		Network: network, IpamOnly: ipamOnly, Valid: wire.Each(valid, wire.FromAttachment),
	})
	return m.GetCollected(), c.fail(ctx, err)
}

// Asked tells what a container's labels ask for.
func (c *Client) Asked(ctx context.Context, r api.ContainerRef) (api.Asked, error) {
	m, err := c.attachments.Asked(ctx, &stellarv1.AttachmentsAskedRequest{Namespace: r.Namespace, Container: r.Container})
	return wire.ToAsked(m), c.fail(ctx, err)
}

// AwaitEndpoint waits for the network of a container whose init process is pid.
func (c *Client) AwaitEndpoint(ctx context.Context, r api.ContainerRef, pid int) (api.Awaited, error) {
	m, err := c.attachments.Await(ctx, &stellarv1.AttachmentsAwaitRequest{Namespace: r.Namespace, Container: r.Container, Pid: uint32(pid)})
	return wire.ToAwaited(m), c.fail(ctx, err)
}
