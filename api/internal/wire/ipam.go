package wire

import (
	"stellar.io/stellar/api"
	stellarv1 "stellar.io/stellar/api/stellar/v1"
)

// FromSubnet makes the message of a subnet.
func FromSubnet(s api.Subnet) *stellarv1.Subnet {
	return &stellarv1.Subnet{
		Network: s.Network, Subnet: prefixText(s.Subnet), Node: s.Node, Epoch: s.Epoch, State: s.State,
		Used: int64(s.Used), Free: int64(s.Free), Cooling: int64(s.Cooling), Reserved: int64(s.Reserved),
	}
}

// ToSubnet reads a subnet.
func ToSubnet(m *stellarv1.Subnet) api.Subnet {
	return api.Subnet{
		Network: m.GetNetwork(), Subnet: prefix(m.GetSubnet()), Node: m.GetNode(), Epoch: m.GetEpoch(), State: m.GetState(),
		Used: int(m.GetUsed()), Free: int(m.GetFree()), Cooling: int(m.GetCooling()), Reserved: int(m.GetReserved()),
	}
}

// FromOwner makes the message of an owner, nil for none.
func FromOwner(o *api.Owner) *stellarv1.Owner {
	if o == nil {
		return nil
	}
	return &stellarv1.Owner{Kind: o.Kind, Namespace: text(o.Namespace), Container: text(o.Container), Ifname: text(o.Ifname), Created: stamp(o.Created)}
}

// ToOwner reads an owner, nil for none.
func ToOwner(m *stellarv1.Owner) *api.Owner {
	if m == nil {
		return nil
	}
	return &api.Owner{Kind: m.GetKind(), Namespace: m.GetNamespace(), Container: m.GetContainer(), Ifname: m.GetIfname(), Created: moment(m.GetCreated())}
}

// FromAddress makes the message of an address.
func FromAddress(a api.Address) *stellarv1.Address {
	return &stellarv1.Address{
		Address: addrText(a.Address), Subnet: prefixText(a.Subnet), Node: a.Node, State: a.State, Owner: FromOwner(a.Owner),
		Static: a.Static, Provisional: a.Provisional, Hostname: text(a.Hostname), Reason: text(a.Reason), Since: stamp(a.Since),
	}
}

// ToAddress reads an address.
func ToAddress(m *stellarv1.Address) api.Address {
	return api.Address{
		Address: addr(m.GetAddress()), Subnet: prefix(m.GetSubnet()), Node: m.GetNode(), State: m.GetState(), Owner: ToOwner(m.GetOwner()),
		Static: m.GetStatic(), Provisional: m.GetProvisional(), Hostname: m.GetHostname(), Reason: m.GetReason(), Since: moment(m.GetSince()),
	}
}

// FromReport makes the message of a report.
func FromReport(r api.IpamReport) *stellarv1.IpamCheckResponse {
	return &stellarv1.IpamCheckResponse{
		Time: stamp(r.Time), Node: r.Node, Checked: int64(r.Checked),
		Problems: Each(r.Problems, func(p api.IpamProblem) *stellarv1.IpamProblem {
			return &stellarv1.IpamProblem{Kind: p.Kind, Address: addrText(p.Address), Owner: FromOwner(p.Owner), Message: text(p.Message), Releasable: p.Releasable, Node: p.Node}
		}),
		Nodes: Each(r.Nodes, func(n api.IpamNodeCheck) *stellarv1.IpamNodeCheck {
			return &stellarv1.IpamNodeCheck{Node: n.Node, Checked: int64(n.Checked), Error: text(n.Error)}
		}),
	}
}

// ToReport reads a report.
func ToReport(m *stellarv1.IpamCheckResponse) api.IpamReport {
	return api.IpamReport{
		Time: moment(m.GetTime()), Node: m.GetNode(), Checked: int(m.GetChecked()),
		Problems: Each(m.GetProblems(), func(p *stellarv1.IpamProblem) api.IpamProblem {
			return api.IpamProblem{Kind: p.GetKind(), Address: addr(p.GetAddress()), Owner: ToOwner(p.GetOwner()), Message: p.GetMessage(), Releasable: p.GetReleasable(), Node: p.GetNode()}
		}),
		Nodes: Each(m.GetNodes(), func(n *stellarv1.IpamNodeCheck) api.IpamNodeCheck {
			return api.IpamNodeCheck{Node: n.GetNode(), Checked: int(n.GetChecked()), Error: n.GetError()}
		}),
	}
}
