package node

import (
	"context"
	"errors"
	"net/netip"
	"os"

	"stellar.io/stellar/agent"
	"stellar.io/stellar/api"
	"stellar.io/stellar/events"
	"stellar.io/stellar/ipam"
	"stellar.io/stellar/netsetup"
)

// Containers implements server.Attachments.
func (n *Node) Containers(context.Context) ([]api.ContainerRef, error) {
	p, err := n.ready()
	if err != nil {
		return nil, err
	}
	var out []api.ContainerRef
	for _, key := range p.agent.Containers() {
		out = append(out, api.ContainerRef{Namespace: key.Namespace, Container: key.ID})
	}
	return out, nil
}

// Attach implements server.Attachments.
func (n *Node) Attach(ctx context.Context, r api.AttachRequest) (api.Endpoint, error) {
	p, err := n.ready()
	if err != nil {
		return api.Endpoint{}, err
	}
	e, err := p.agent.Attach(ctx, agent.Request{
		Key:    events.Key{Namespace: r.Ref.Namespace, ID: r.Ref.Container},
		Ifname: r.Ref.Ifname, Address: r.Address, MAC: r.MAC, Hostname: r.Hostname, MTU: r.MTU,
	})
	return n.endpoint(e), attachmentError(err)
}

// Detach implements server.Attachments.
func (n *Node) Detach(ctx context.Context, ref api.EndpointRef) (api.Endpoint, error) {
	p, err := n.ready()
	if err != nil {
		return api.Endpoint{}, err
	}
	e, ok := p.find(ref)
	if !ok {
		return api.Endpoint{}, api.Errorf(api.CodeNotFound, "no endpoint of container %s", ref)
	}
	if e.Source == agent.SourceCNI {
		return api.Endpoint{}, api.Errorf(api.CodeConflict, "%s was attached by a CNI client, which ends it", ref).
			WithHint("remove the container with the client that made it")
	}
	return n.endpoint(e), attachmentError(p.agent.Detach(ctx, e.Key))
}

// AddAttachment implements server.Attachments.
func (n *Node) AddAttachment(ctx context.Context, s api.AttachmentSpec) (api.AttachmentResult, error) {
	p, err := n.ready()
	if err != nil {
		return api.AttachmentResult{}, err
	}
	if err := checkAttachment(s.Attachment); err != nil {
		return api.AttachmentResult{}, err
	}
	r := request(s.Attachment)
	r.Address, r.MAC, r.Hostname, r.MTU = s.Address, s.MAC, s.Hostname, s.MTU
	e, err := p.agent.Add(ctx, r)
	if err != nil {
		return api.AttachmentResult{}, attachmentError(err)
	}
	out := api.AttachmentResult{
		Address: netip.PrefixFrom(e.Address, p.subnet.Prefix.Bits()), Gateway: p.gateway(),
		Network: p.network.Prefix, Subnet: p.subnet.Prefix,
	}
	if e.Reason != "" && !s.IPAMOnly {
		out.Warnings = []string{e.Reason}
	}
	if s.IPAMOnly {
		return out, nil
	}
	if p.subnet.Mode == ipam.ModeRouted {
		out.Address = netip.PrefixFrom(e.Address, e.Address.BitLen()) // what the interface has
	}
	out.MAC, out.HostIfname, out.Ifname, out.DefaultRoute, out.MTU = e.MAC, e.HostIfname, e.Ifname, e.DefaultRoute, e.MTU
	if out.MTU == 0 {
		out.MTU = p.net.MTU()
	}
	return out, nil
}

// checkAttachment refuses a name that no attachment can have.
func checkAttachment(a api.Attachment) error {
	for _, part := range []struct{ what, value string }{
		{"network", a.Network}, {"container id", a.ContainerID}, {"interface name", a.Ifname},
	} {
		if part.value == "" {
			return api.Errorf(api.CodeInvalid, "the attachment has no %s", part.what)
		}
	}
	if a.Network == lentNetwork {
		return api.Errorf(api.CodeInvalid, "the network name %s is the agent's own", lentNetwork).WithHint("give the CNI network another name")
	}
	return nil
}

// DelAttachment implements server.Attachments.
func (n *Node) DelAttachment(ctx context.Context, a api.Attachment) (bool, error) {
	p, err := n.ready()
	if err != nil {
		return false, err
	}
	if err := checkAttachment(a); err != nil {
		return false, err
	}
	found, err := p.agent.Del(ctx, request(a))
	return found, attachmentError(err)
}

// CheckAttachment implements server.Attachments.
func (n *Node) CheckAttachment(ctx context.Context, c api.AttachmentCheck) error {
	p, err := n.ready()
	if err != nil {
		return err
	}
	if err := checkAttachment(c.Attachment); err != nil {
		return err
	}
	r := request(c.Attachment)
	r.Address, r.MAC = c.Address, c.MAC
	err = p.agent.Verify(ctx, r)
	if errors.Is(err, events.ErrNotFound) {
		return api.Errorf(api.CodeNotFound, "no attachment %s of %s", c.Ifname, c.ContainerID)
	}
	return attachmentError(err)
}

// AttachmentsReady implements server.Attachments.
func (n *Node) AttachmentsReady(context.Context) error {
	p, err := n.ready()
	if err != nil {
		return err
	}
	if err := n.barred(p); err != nil {
		return api.Errorf(api.CodeConflict, "%w", err)
	}
	return nil
}

// CollectAttachments implements server.Attachments.
func (n *Node) CollectAttachments(ctx context.Context, network string, ipamOnly bool, valid []api.Attachment) ([]string, error) {
	p, err := n.ready()
	if err != nil {
		return nil, err
	}
	type name struct{ id, ifname string }
	known := make(map[name]bool, len(valid))
	for _, a := range valid {
		known[name{a.ContainerID, a.Ifname}] = true
	}
	collected, err := p.agent.CollectUnknown(ctx, network, ipamOnly, func(id, ifname string) bool { return known[name{id, ifname}] })
	return collected, attachmentError(err)
}

// Asked implements server.Attachments.
func (n *Node) Asked(ctx context.Context, c api.ContainerRef) (api.Asked, error) {
	p, err := n.ready()
	if err != nil {
		return api.Asked{}, err
	}
	wish, err := p.agent.Asked(ctx, events.Key{Namespace: c.Namespace, ID: c.Container})
	if refused, ok := errors.AsType[*agent.RejectError](err); ok {
		return api.Asked{Wanted: true, Strict: refused.Strict(), Rejected: refused.Reason}, nil
	}
	if err != nil || wish == nil {
		return api.Asked{}, attachmentError(err)
	}
	return api.Asked{Wanted: true, Strict: wish.Strict}, nil
}

// AwaitEndpoint implements server.Attachments.
func (n *Node) AwaitEndpoint(ctx context.Context, c api.ContainerRef, pid int) (api.Awaited, error) {
	p, err := n.ready()
	if err != nil {
		return api.Awaited{}, err
	}
	e, wanted, err := p.agent.Await(ctx, events.Key{Namespace: c.Namespace, ID: c.Container}, pid)
	if err != nil || !wanted {
		return api.Awaited{}, attachmentError(err)
	}
	return api.Awaited{Wanted: true, Address: e.Address, Ifname: e.Ifname, Ready: string(e.Grade)}, nil
}

func request(a api.Attachment) agent.Request {
	return agent.Request{
		Source: agent.SourceCNI, Network: a.Network, ContainerID: a.ContainerID, Ifname: a.Ifname, NetNS: a.NetNS, IPAMOnly: a.IPAMOnly,
	}
}

// attachmentError gives an attachment's failure its code.
func attachmentError(err error) error {
	refused, isRefused := errors.AsType[*agent.RejectError](err)
	switch {
	case err == nil:
		return nil
	case isRefused:
		return api.Errorf(api.CodeConflict, "%s", refused.Reason)
	case errors.Is(err, events.ErrNotFound):
		return api.Errorf(api.CodeNotFound, "%w", err)
	case errors.Is(err, netsetup.ErrHostNamespace):
		return api.Errorf(api.CodeDenied, "%w", err)
	case errors.Is(err, netsetup.ErrNotNamespace), errors.Is(err, netsetup.ErrProcessGone), errors.Is(err, os.ErrNotExist):
		return api.Errorf(api.CodeInvalid, "%w", err)
	}
	return err
}
