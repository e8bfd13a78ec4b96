package wire

import (
	"stellar.io/stellar/api"
	stellarv1 "stellar.io/stellar/api/stellar/v1"
)

// FromNode makes the message of a node.
func FromNode(n api.Node) *stellarv1.Node {
	return &stellarv1.Node{
		Name: n.Name, Id: n.ID, Address: n.Address, Subnet: prefixText(n.Subnet), Epoch: n.Epoch,
		Status: n.Status, Role: n.Role, Endpoints: int32(n.Endpoints), Version: n.Version, Self: n.Self, Mode: n.Mode,
	}
}

// ToNode reads a node.
func ToNode(m *stellarv1.Node) api.Node {
	return api.Node{
		Name: m.GetName(), ID: m.GetId(), Address: m.GetAddress(), Subnet: prefix(m.GetSubnet()), Epoch: m.GetEpoch(),
		Status: m.GetStatus(), Role: m.GetRole(), Endpoints: int(m.GetEndpoints()), Version: m.GetVersion(), Self: m.GetSelf(), Mode: m.GetMode(),
	}
}

// FromRoute makes the message of a route.
func FromRoute(r api.Route) *stellarv1.Route {
	return &stellarv1.Route{Destination: prefixText(r.Destination), Via: addrText(r.Via), Dev: text(r.Dev), Node: r.Node, State: r.State, Reason: text(r.Reason)}
}

// ToRoute reads a route.
func ToRoute(m *stellarv1.Route) api.Route {
	return api.Route{Destination: prefix(m.GetDestination()), Via: addr(m.GetVia()), Dev: m.GetDev(), Node: m.GetNode(), State: m.GetState(), Reason: m.GetReason()}
}

// FromRouteChange makes the message of a change.
func FromRouteChange(c api.RouteChange) *stellarv1.RouteChange {
	return &stellarv1.RouteChange{Action: c.Action, Route: FromRoute(c.Route)}
}

// ToRouteChange reads a change.
func ToRouteChange(m *stellarv1.RouteChange) api.RouteChange {
	return api.RouteChange{Action: m.GetAction(), Route: ToRoute(m.GetRoute())}
}
