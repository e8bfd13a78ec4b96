package wire

import (
	"stellar.io/stellar/api"
	stellarv1 "stellar.io/stellar/api/stellar/v1"
)

// FromAttachRequest makes the message of an attachment by hand.
func FromAttachRequest(r api.AttachRequest) *stellarv1.EndpointsAttachRequest {
	return &stellarv1.EndpointsAttachRequest{
		Ref: FromRef(r.Ref), Address: addrText(r.Address), Mac: r.MAC, Hostname: r.Hostname, Mtu: int32(r.MTU),
	}
}

// ToAttachRequest reads an attachment by hand; the address is checked by the caller.
func ToAttachRequest(m *stellarv1.EndpointsAttachRequest) api.AttachRequest {
	return api.AttachRequest{
		Ref: ToRef(m.GetRef()), Address: addr(m.GetAddress()), MAC: m.GetMac(), Hostname: m.GetHostname(), MTU: int(m.GetMtu()),
	}
}

// FromAttachment makes the message of an attachment's name.
func FromAttachment(a api.Attachment) *stellarv1.Attachment {
	return &stellarv1.Attachment{Network: a.Network, ContainerId: a.ContainerID, Ifname: a.Ifname, Netns: a.NetNS}
}

// ToAttachment reads an attachment's name.
func ToAttachment(m *stellarv1.Attachment, ipamOnly bool) api.Attachment {
	return api.Attachment{
		Network: m.GetNetwork(), ContainerID: m.GetContainerId(), Ifname: m.GetIfname(), NetNS: m.GetNetns(), IPAMOnly: ipamOnly,
	}
}

// FromAttachmentSpec makes the message of an ADD.
func FromAttachmentSpec(s api.AttachmentSpec) *stellarv1.AttachmentsAddRequest {
	return &stellarv1.AttachmentsAddRequest{
		Attachment: FromAttachment(s.Attachment), IpamOnly: s.IPAMOnly,
		Address: addrText(s.Address), Mac: s.MAC, Hostname: s.Hostname, Mtu: int32(s.MTU),
	}
}

// ToAttachmentSpec reads an ADD; the address is checked by the caller.
func ToAttachmentSpec(m *stellarv1.AttachmentsAddRequest) api.AttachmentSpec {
	return api.AttachmentSpec{
		Attachment: ToAttachment(m.GetAttachment(), m.GetIpamOnly()),
		Address:    addr(m.GetAddress()), MAC: m.GetMac(), Hostname: m.GetHostname(), MTU: int(m.GetMtu()),
	}
}

// FromAttachmentResult makes the message of an ADD's answer.
func FromAttachmentResult(r api.AttachmentResult) *stellarv1.AttachmentsAddResponse {
	return &stellarv1.AttachmentsAddResponse{
		Address: prefixText(r.Address), Gateway: addrText(r.Gateway), Network: prefixText(r.Network), Subnet: prefixText(r.Subnet),
		Mac: r.MAC, HostIfname: text(r.HostIfname), HostMac: r.HostMAC, Ifname: text(r.Ifname), Mtu: int32(r.MTU),
		DefaultRoute: r.DefaultRoute, Warnings: Each(r.Warnings, text),
	}
}

// ToAttachmentResult reads an ADD's answer.
func ToAttachmentResult(m *stellarv1.AttachmentsAddResponse) api.AttachmentResult {
	return api.AttachmentResult{
		Address: prefix(m.GetAddress()), Gateway: addr(m.GetGateway()), Network: prefix(m.GetNetwork()), Subnet: prefix(m.GetSubnet()),
		MAC: m.GetMac(), HostIfname: m.GetHostIfname(), HostMAC: m.GetHostMac(), Ifname: m.GetIfname(), MTU: int(m.GetMtu()),
		DefaultRoute: m.GetDefaultRoute(), Warnings: m.GetWarnings(),
	}
}

// FromAttachmentCheck makes the message of a CHECK.
func FromAttachmentCheck(c api.AttachmentCheck) *stellarv1.AttachmentsCheckRequest {
	return &stellarv1.AttachmentsCheckRequest{
		Attachment: FromAttachment(c.Attachment), IpamOnly: c.IPAMOnly, Address: addrText(c.Address), Mac: c.MAC,
	}
}

// ToAttachmentCheck reads a CHECK; the address is checked by the caller.
func ToAttachmentCheck(m *stellarv1.AttachmentsCheckRequest) api.AttachmentCheck {
	return api.AttachmentCheck{
		Attachment: ToAttachment(m.GetAttachment(), m.GetIpamOnly()), Address: addr(m.GetAddress()), MAC: m.GetMac(),
	}
}

// FromAsked makes the message of what a container asks for.
func FromAsked(a api.Asked) *stellarv1.AttachmentsAskedResponse {
	return &stellarv1.AttachmentsAskedResponse{Wanted: a.Wanted, Strict: a.Strict, Rejected: text(a.Rejected)}
}

// ToAsked reads what a container asks for.
func ToAsked(m *stellarv1.AttachmentsAskedResponse) api.Asked {
	return api.Asked{Wanted: m.GetWanted(), Strict: m.GetStrict(), Rejected: m.GetRejected()}
}

// FromAwaited makes the message of a network that was waited for.
func FromAwaited(a api.Awaited) *stellarv1.AttachmentsAwaitResponse {
	return &stellarv1.AttachmentsAwaitResponse{Wanted: a.Wanted, Address: addrText(a.Address), Ifname: text(a.Ifname), Ready: a.Ready}
}

// ToAwaited reads a network that was waited for.
func ToAwaited(m *stellarv1.AttachmentsAwaitResponse) api.Awaited {
	return api.Awaited{Wanted: m.GetWanted(), Address: addr(m.GetAddress()), Ifname: m.GetIfname(), Ready: m.GetReady()}
}
