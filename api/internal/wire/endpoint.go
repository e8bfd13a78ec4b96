package wire

import (
	"google.golang.org/protobuf/types/known/durationpb"

	"stellar.io/stellar/api"
	stellarv1 "stellar.io/stellar/api/stellar/v1"
)

// FromRef makes the message of a name.
func FromRef(r api.EndpointRef) *stellarv1.EndpointRef {
	return &stellarv1.EndpointRef{Namespace: r.Namespace, Container: r.Container, Ifname: r.Ifname}
}

// ToRef reads a name.
func ToRef(m *stellarv1.EndpointRef) api.EndpointRef {
	return api.EndpointRef{Namespace: m.GetNamespace(), Container: m.GetContainer(), Ifname: m.GetIfname()}
}

// FromEndpoint makes the message of an endpoint.
func FromEndpoint(e api.Endpoint) *stellarv1.Endpoint {
	return &stellarv1.Endpoint{
		Namespace: text(e.Namespace), Container: text(e.Container), Network: text(e.Network),
		Address: addrText(e.Address), Mac: e.MAC, Node: e.Node,
		Ifname: text(e.Ifname), HostIfname: text(e.HostIfname),
		State: e.State, Ready: e.Ready, Source: e.Source, Reason: text(e.Reason), Since: stamp(e.Since),
	}
}

// ToEndpoint reads an endpoint.
func ToEndpoint(m *stellarv1.Endpoint) api.Endpoint {
	return api.Endpoint{
		Namespace: m.GetNamespace(), Container: m.GetContainer(), Network: m.GetNetwork(),
		Address: addr(m.GetAddress()), MAC: m.GetMac(), Node: m.GetNode(),
		Ifname: m.GetIfname(), HostIfname: m.GetHostIfname(),
		State: m.GetState(), Ready: m.GetReady(), Source: m.GetSource(), Reason: m.GetReason(), Since: moment(m.GetSince()),
	}
}

// FromDetail makes the message of an inspected endpoint.
func FromDetail(d api.EndpointDetail) *stellarv1.EndpointDetail {
	return &stellarv1.EndpointDetail{
		Endpoint: FromEndpoint(d.Endpoint), Created: stamp(d.Created), Pid: uint32(d.PID), Netns: d.NetNS,
		Subnet: prefixText(d.Subnet), Gateway: addrText(d.Gateway), DefaultRoute: d.DefaultRoute, Mtu: int32(d.MTU),
		Hostname: text(d.Hostname), Static: d.Static, Strict: d.Strict, Provisional: d.Provisional,
		LeaseState: d.LeaseState, Warnings: Each(d.Warnings, text),
		Phases: Each(d.Phases, func(p api.Phase) *stellarv1.Phase {
			return &stellarv1.Phase{Name: p.Name, Duration: durationpb.New(p.Duration)}
		}),
	}
}

// ToDetail reads an inspected endpoint.
func ToDetail(m *stellarv1.EndpointDetail) api.EndpointDetail {
	return api.EndpointDetail{
		Endpoint: ToEndpoint(m.GetEndpoint()), Created: moment(m.GetCreated()), PID: int(m.GetPid()), NetNS: m.GetNetns(),
		Subnet: prefix(m.GetSubnet()), Gateway: addr(m.GetGateway()), DefaultRoute: m.GetDefaultRoute(), MTU: int(m.GetMtu()),
		Hostname: m.GetHostname(), Static: m.GetStatic(), Strict: m.GetStrict(), Provisional: m.GetProvisional(),
		LeaseState: m.GetLeaseState(), Warnings: m.GetWarnings(),
		Phases: Each(m.GetPhases(), func(p *stellarv1.Phase) api.Phase {
			return api.Phase{Name: p.GetName(), Duration: p.GetDuration().AsDuration()}
		}),
	}
}

// FromRepair makes the message of a repair.
func FromRepair(r api.Repair) *stellarv1.EndpointsRepairResponse {
	return &stellarv1.EndpointsRepairResponse{Endpoint: FromEndpoint(r.Endpoint), Repaired: Each(r.Repaired, text)}
}

// ToRepair reads a repair.
func ToRepair(m *stellarv1.EndpointsRepairResponse) api.Repair {
	return api.Repair{Endpoint: ToEndpoint(m.GetEndpoint()), Repaired: m.GetRepaired()}
}
