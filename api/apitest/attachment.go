package apitest

import (
	"context"
	"fmt"
	"net/netip"
	"slices"

	"stellar.io/stellar/api"
)

// attachment is one that a client of CNI has made.
type attachment struct {
	spec   api.AttachmentSpec
	result api.AttachmentResult
}

// PutContainer adds a container that asks for a.
func (b *Backend) PutContainer(c api.ContainerRef, a api.Asked) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.containers[c] = a
}

// Containers implements server.Attachments.
func (b *Backend) Containers(context.Context) ([]api.ContainerRef, error) {
	unlock, err := b.begin("Containers")
	defer unlock()
	var out []api.ContainerRef
	for c := range b.containers {
		out = append(out, c)
	}
	return out, err
}

// Attach implements server.Attachments.
func (b *Backend) Attach(_ context.Context, r api.AttachRequest) (api.Endpoint, error) {
	unlock, err := b.begin("Attach")
	defer unlock()
	if err != nil {
		return api.Endpoint{}, err
	}
	d := api.EndpointDetail{Endpoint: api.Endpoint{
		Namespace: r.Ref.Namespace, Container: r.Ref.Container, Network: "default", Node: NodeName, MAC: r.MAC,
		Ifname: r.Ref.Ifname, State: api.StateAttached, Ready: "late", Source: "manual", Since: b.now(),
	}, MTU: r.MTU, Hostname: r.Hostname, Static: r.Address.IsValid()}
	if d.Ifname == "" {
		d.Ifname = "eth0"
	}
	if d.Address, err = b.address(r.Address); err != nil {
		return api.Endpoint{}, err
	}
	b.endpoints = append(slices.DeleteFunc(b.endpoints, func(o api.EndpointDetail) bool { return o.Ref() == d.Ref() }), d)
	return d.Endpoint, b.lease(d)
}

// address returns the one asked for, or one that no attachment has.
func (b *Backend) address(want netip.Addr) (netip.Addr, error) {
	s, err := b.subnet()
	if err != nil || want.IsValid() {
		return want, err
	}
	a := s.Prefix.Addr().Next().Next()
	for range b.handedOut {
		a = a.Next()
	}
	b.handedOut++
	return a, nil
}

// Detach implements server.Attachments.
func (b *Backend) Detach(_ context.Context, ref api.EndpointRef) (api.Endpoint, error) {
	unlock, err := b.begin("Detach")
	defer unlock()
	if err != nil {
		return api.Endpoint{}, err
	}
	d, err := b.find(ref)
	if err == nil {
		b.endpoints = slices.DeleteFunc(b.endpoints, func(o api.EndpointDetail) bool { return o.Ref() == ref })
	}
	return d.Endpoint, err
}

func attachmentKey(a api.Attachment) string {
	return fmt.Sprintf("%s/%s/%t", a.ContainerID, a.Ifname, a.IPAMOnly)
}

// AddAttachment implements server.Attachments.
func (b *Backend) AddAttachment(_ context.Context, s api.AttachmentSpec) (api.AttachmentResult, error) {
	unlock, err := b.begin("AddAttachment")
	defer unlock()
	if err != nil {
		return api.AttachmentResult{}, err
	}
	if had, ok := b.attachments[attachmentKey(s.Attachment)]; ok {
		return had.result, nil
	}
	subnet, err := b.subnet()
	if err != nil {
		return api.AttachmentResult{}, err
	}
	a, err := b.address(s.Address)
	if err != nil {
		return api.AttachmentResult{}, err
	}
	if !subnet.Prefix.Contains(a) {
		return api.AttachmentResult{}, api.Errorf(api.CodeConflict, "address %s is not in this node's subnet %s", a, subnet.Prefix)
	}
	r := api.AttachmentResult{Address: netip.PrefixFrom(a, subnet.Prefix.Bits()), Gateway: subnet.Gateway(), Subnet: subnet.Prefix}
	if !s.IPAMOnly {
		r.MAC, r.HostIfname, r.HostMAC, r.Ifname, r.MTU, r.DefaultRoute = "02:00:00:00:00:01", "vethfake", "02:00:00:00:00:02", s.Ifname, 1500, true
	}
	b.attachments[attachmentKey(s.Attachment)] = attachment{s, r}
	return r, nil
}

// DelAttachment implements server.Attachments.
func (b *Backend) DelAttachment(_ context.Context, a api.Attachment) (bool, error) {
	unlock, err := b.begin("DelAttachment")
	defer unlock()
	_, found := b.attachments[attachmentKey(a)]
	if err == nil {
		delete(b.attachments, attachmentKey(a))
	}
	return found, err
}

// CheckAttachment implements server.Attachments.
func (b *Backend) CheckAttachment(_ context.Context, c api.AttachmentCheck) error {
	unlock, err := b.begin("CheckAttachment")
	defer unlock()
	if err != nil {
		return err
	}
	had, ok := b.attachments[attachmentKey(c.Attachment)]
	switch {
	case !ok:
		return api.Errorf(api.CodeNotFound, "no attachment %s of %s", c.Ifname, c.ContainerID)
	case c.Address.IsValid() && c.Address != had.result.Address.Addr():
		return api.Errorf(api.CodeConflict, "%s has %s, not %s", c.ContainerID, had.result.Address.Addr(), c.Address)
	}
	return nil
}

// AttachmentsReady implements server.Attachments.
func (b *Backend) AttachmentsReady(context.Context) error {
	unlock, err := b.begin("AttachmentsReady")
	defer unlock()
	if err == nil {
		_, err = b.subnet()
	}
	return err
}

// CollectAttachments implements server.Attachments.
func (b *Backend) CollectAttachments(_ context.Context, network string, ipamOnly bool, valid []api.Attachment) ([]string, error) {
	unlock, err := b.begin("CollectAttachments")
	defer unlock()
	if err != nil {
		return nil, err
	}
	var out []string
	for key, a := range b.attachments {
		same := func(v api.Attachment) bool {
			return v.ContainerID == a.spec.ContainerID && v.Ifname == a.spec.Ifname
		}
		if a.spec.Network != network || a.spec.IPAMOnly != ipamOnly || slices.ContainsFunc(valid, same) {
			continue
		}
		delete(b.attachments, key)
		out = append(out, a.spec.ContainerID+" "+a.spec.Ifname)
	}
	slices.Sort(out)
	return out, nil
}

// Asked implements server.Attachments.
func (b *Backend) Asked(_ context.Context, c api.ContainerRef) (api.Asked, error) {
	unlock, err := b.begin("Asked")
	defer unlock()
	if err != nil {
		return api.Asked{}, err
	}
	a, ok := b.containers[c]
	if !ok {
		return api.Asked{}, api.Errorf(api.CodeNotFound, "no container %s/%s", c.Namespace, c.Container)
	}
	return a, nil
}

// AwaitEndpoint implements server.Attachments.
func (b *Backend) AwaitEndpoint(_ context.Context, c api.ContainerRef, _ int) (api.Awaited, error) {
	unlock, err := b.begin("AwaitEndpoint")
	defer unlock()
	if err != nil {
		return api.Awaited{}, err
	}
	asked := b.containers[c]
	switch {
	case !asked.Wanted:
		return api.Awaited{}, nil
	case asked.Rejected != "":
		return api.Awaited{}, api.Errorf(api.CodeConflict, "%s", asked.Rejected)
	}
	a, err := b.address(netip.Addr{})
	return api.Awaited{Wanted: true, Address: a, Ifname: "eth0", Ready: "sync"}, err
}
