package wire

import (
	"time"

	"google.golang.org/protobuf/types/known/durationpb"

	"stellar.io/stellar/api"
	stellarv1 "stellar.io/stellar/api/stellar/v1"
)

// span keeps the zero duration as an absent message.
func span(d time.Duration) *durationpb.Duration {
	if d == 0 {
		return nil
	}
	return durationpb.New(d)
}

// FromPingRequest makes the message of a request.
func FromPingRequest(r api.PingRequest) *stellarv1.ConnectivityPingRequest {
	return &stellarv1.ConnectivityPingRequest{
		From: text(r.From), Target: text(r.Target), Count: uint32(r.Count), Interval: span(r.Interval), Wait: span(r.Wait), Size: uint32(r.Size),
	}
}

// ToPingRequest reads a request.
func ToPingRequest(m *stellarv1.ConnectivityPingRequest) api.PingRequest {
	return api.PingRequest{
		From: m.GetFrom(), Target: m.GetTarget(), Count: int(m.GetCount()), Interval: m.GetInterval().AsDuration(), Wait: m.GetWait().AsDuration(), Size: int(m.GetSize()),
	}
}

// FromPingMessage makes the message of a start or a reply.
func FromPingMessage(p api.PingMessage) *stellarv1.ConnectivityPingResponse {
	m := &stellarv1.ConnectivityPingResponse{}
	if s := p.Start; s != nil {
		m.Start = &stellarv1.PingStart{Node: s.Node, From: text(s.From), Target: text(s.Target), Address: addrText(s.Address)}
	}
	if r := p.Reply; r != nil {
		m.Reply = &stellarv1.PingReply{
			Seq: uint32(r.Seq), From: addrText(r.From), Bytes: uint32(r.Bytes), Ttl: uint32(r.TTL), Rtt: span(time.Duration(r.RTT)), Problem: text(r.Problem),
		}
	}
	return m
}

// ToPingMessage reads a start or a reply.
func ToPingMessage(m *stellarv1.ConnectivityPingResponse) (p api.PingMessage) {
	if s := m.GetStart(); s != nil {
		p.Start = &api.PingStart{Node: s.GetNode(), From: s.GetFrom(), Target: s.GetTarget(), Address: addr(s.GetAddress())}
	}
	if r := m.GetReply(); r != nil {
		p.Reply = &api.PingReply{
			Seq: int(r.GetSeq()), From: addr(r.GetFrom()), Bytes: int(r.GetBytes()), TTL: int(r.GetTtl()), RTT: api.Millis(r.GetRtt().AsDuration()), Problem: r.GetProblem(),
		}
	}
	return p
}

// FromConnectivityTest makes the message of a test that is asked for.
func FromConnectivityTest(t api.ConnectivityTest) *stellarv1.ConnectivityTestRequest {
	return &stellarv1.ConnectivityTestRequest{Own: t.Own, Sample: uint32(t.Sample), Out: addrText(t.Out), Limit: span(t.Limit)}
}

// ToConnectivityTest reads it.
func ToConnectivityTest(m *stellarv1.ConnectivityTestRequest) api.ConnectivityTest {
	return api.ConnectivityTest{Own: m.GetOwn(), Sample: int(m.GetSample()), Out: addr(m.GetOut()), Limit: m.GetLimit().AsDuration()}
}

// FromConnectivityMessage makes the message of a test's progress or report.
func FromConnectivityMessage(c api.ConnectivityMessage) *stellarv1.ConnectivityTestResponse {
	m := &stellarv1.ConnectivityTestResponse{}
	if p := c.Progress; p != nil {
		m.Progress = &stellarv1.ConnectivityProgress{Phase: p.Phase, Done: uint32(p.Done), Total: uint32(p.Total), Failed: uint32(p.Failed)}
	}
	if r := c.Report; r != nil {
		m.Report = &stellarv1.ConnectivityReport{
			Time: stamp(r.Time), Node: r.Node, Pairs: uint32(r.Pairs), AllPairs: uint32(r.AllPairs),
			Nodes: Each(r.Nodes, fromConnectivityNode), Results: Each(r.Results, fromConnectivityResult),
		}
	}
	return m
}

// ToConnectivityMessage reads it.
func ToConnectivityMessage(m *stellarv1.ConnectivityTestResponse) (c api.ConnectivityMessage) {
	if p := m.GetProgress(); p != nil {
		c.Progress = &api.ConnectivityProgress{Phase: p.GetPhase(), Done: int(p.GetDone()), Total: int(p.GetTotal()), Failed: int(p.GetFailed())}
	}
	if r := m.GetReport(); r != nil {
		c.Report = &api.ConnectivityReport{
			Time: moment(r.GetTime()), Node: r.GetNode(), Pairs: int(r.GetPairs()), AllPairs: int(r.GetAllPairs()),
			Nodes: Each(r.GetNodes(), toConnectivityNode), Results: Each(r.GetResults(), toConnectivityResult),
		}
	}
	return c
}

func fromConnectivityNode(n api.ConnectivityNode) *stellarv1.ConnectivityNode {
	return &stellarv1.ConnectivityNode{Node: n.Node, Address: addrText(n.Address), Error: text(n.Error), Endpoints: Each(n.Endpoints, func(e api.ConnectivityEndpoint) *stellarv1.ConnectivityEndpoint {
		return &stellarv1.ConnectivityEndpoint{
			Namespace: text(e.Namespace), Container: text(e.Container), Ifname: text(e.Ifname), Address: addrText(e.Address), Mtu: uint32(e.MTU), Own: e.Own,
		}
	})}
}

func toConnectivityNode(m *stellarv1.ConnectivityNode) api.ConnectivityNode {
	return api.ConnectivityNode{Node: m.GetNode(), Address: addr(m.GetAddress()), Error: m.GetError(), Endpoints: Each(m.GetEndpoints(), func(e *stellarv1.ConnectivityEndpoint) api.ConnectivityEndpoint {
		return api.ConnectivityEndpoint{
			Namespace: e.GetNamespace(), Container: e.GetContainer(), Ifname: e.GetIfname(), Address: addr(e.GetAddress()), MTU: int(e.GetMtu()), Own: e.GetOwn(),
		}
	})}
}

func fromConnectivityResult(r api.ConnectivityResult) *stellarv1.ConnectivityResult {
	return &stellarv1.ConnectivityResult{
		From: r.From, To: r.To, Test: r.Test, State: r.State, Source: text(r.Source), Target: text(r.Target),
		Sent: uint32(r.Sent), Received: uint32(r.Received), Rtt: span(time.Duration(r.RTT)), Mtu: uint32(r.MTU), Reason: text(r.Reason),
	}
}

func toConnectivityResult(m *stellarv1.ConnectivityResult) api.ConnectivityResult {
	return api.ConnectivityResult{
		From: m.GetFrom(), To: m.GetTo(), Test: m.GetTest(), State: m.GetState(), Source: m.GetSource(), Target: m.GetTarget(),
		Sent: int(m.GetSent()), Received: int(m.GetReceived()), RTT: api.Millis(m.GetRtt().AsDuration()), MTU: int(m.GetMtu()), Reason: m.GetReason(),
	}
}

// FromConnectivityLoan makes the message of a loan.
func FromConnectivityLoan(l api.ConnectivityLoan) *stellarv1.ConnectivityLendResponse {
	return &stellarv1.ConnectivityLendResponse{Loan: l.ID, Node: fromConnectivityNode(l.Node), Gateway: addrText(l.Gateway)}
}

// ToConnectivityLoan reads a loan.
func ToConnectivityLoan(m *stellarv1.ConnectivityLendResponse) api.ConnectivityLoan {
	return api.ConnectivityLoan{ID: m.GetLoan(), Node: toConnectivityNode(m.GetNode()), Gateway: addr(m.GetGateway())}
}

// FromConnectivityProbe makes the message of a probe.
func FromConnectivityProbe(p api.ConnectivityProbe) *stellarv1.ConnectivityProbe {
	m := &stellarv1.ConnectivityProbe{Id: uint32(p.ID), Target: addrText(p.Target), Mtu: uint32(p.MTU)}
	if p.From != (api.EndpointRef{}) {
		m.From = FromRef(p.From)
	}
	return m
}

// ToConnectivityProbe reads a probe.
func ToConnectivityProbe(m *stellarv1.ConnectivityProbe) api.ConnectivityProbe {
	return api.ConnectivityProbe{ID: int(m.GetId()), From: ToRef(m.GetFrom()), Target: addr(m.GetTarget()), MTU: int(m.GetMtu())}
}

// FromConnectivityProbed makes the message of what came of a probe.
func FromConnectivityProbed(p api.ConnectivityProbed) *stellarv1.ConnectivityProbeResponse {
	return &stellarv1.ConnectivityProbeResponse{
		Id: uint32(p.ID), Sent: uint32(p.Sent), Received: uint32(p.Received), Rtt: span(time.Duration(p.RTT)), Mtu: uint32(p.MTU), Problem: text(p.Problem),
	}
}

// ToConnectivityProbed reads it.
func ToConnectivityProbed(m *stellarv1.ConnectivityProbeResponse) api.ConnectivityProbed {
	return api.ConnectivityProbed{
		ID: int(m.GetId()), Sent: int(m.GetSent()), Received: int(m.GetReceived()), RTT: api.Millis(m.GetRtt().AsDuration()), MTU: int(m.GetMtu()), Problem: m.GetProblem(),
	}
}
