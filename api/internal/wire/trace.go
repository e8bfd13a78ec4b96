package wire

import (
	"stellar.io/stellar/api"
	stellarv1 "stellar.io/stellar/api/stellar/v1"
)

// FromTraceEnd makes the message of an end of a trace.
func FromTraceEnd(e api.TraceEnd) *stellarv1.TraceEnd {
	return &stellarv1.TraceEnd{Kind: e.Kind, Node: text(e.Node), Namespace: text(e.Namespace), Container: text(e.Container), Address: addrText(e.Address)}
}

// ToTraceEnd reads an end of a trace.
func ToTraceEnd(m *stellarv1.TraceEnd) api.TraceEnd {
	return api.TraceEnd{Kind: m.GetKind(), Node: m.GetNode(), Namespace: m.GetNamespace(), Container: m.GetContainer(), Address: addr(m.GetAddress())}
}

func fromHop(h api.TraceHop) *stellarv1.TraceHop {
	return &stellarv1.TraceHop{
		Hop: int32(h.Hop), Direction: h.Direction, Node: text(h.Node), What: text(h.What), Subject: text(h.Subject), State: string(h.State),
		Detail: text(h.Detail), Code: h.Code, Mend: text(h.Mend),
	}
}

func toHop(m *stellarv1.TraceHop) api.TraceHop {
	return api.TraceHop{
		Hop: int(m.GetHop()), Direction: m.GetDirection(), Node: m.GetNode(), What: m.GetWhat(), Subject: m.GetSubject(), State: api.TraceState(m.GetState()),
		Detail: m.GetDetail(), Code: m.GetCode(), Mend: m.GetMend(),
	}
}

func fromCause(c api.TraceCause) *stellarv1.TraceCause {
	return &stellarv1.TraceCause{Code: c.Code, Node: text(c.Node), Subject: text(c.Subject), Message: text(c.Message), Mend: text(c.Mend), Hop: int32(c.Hop)}
}

func toCause(m *stellarv1.TraceCause) api.TraceCause {
	return api.TraceCause{Code: m.GetCode(), Node: m.GetNode(), Subject: m.GetSubject(), Message: m.GetMessage(), Mend: m.GetMend(), Hop: int(m.GetHop())}
}

func fromProbe(p *api.TraceProbe) *stellarv1.TraceProbe {
	if p == nil {
		return nil
	}
	return &stellarv1.TraceProbe{
		Sent: int32(p.Sent), Received: int32(p.Received), RttMs: p.RTT, PathMtu: int32(p.PathMTU), Mtu: int32(p.MTU), Vanished: text(p.Vanished),
	}
}

func toProbe(m *stellarv1.TraceProbe) *api.TraceProbe {
	if m == nil {
		return nil
	}
	return &api.TraceProbe{
		Sent: int(m.GetSent()), Received: int(m.GetReceived()), RTT: m.GetRttMs(), PathMTU: int(m.GetPathMtu()), MTU: int(m.GetMtu()), Vanished: m.GetVanished(),
	}
}

// FromTrace makes the message of a trace.
func FromTrace(t api.Trace) *stellarv1.TracePathResponse {
	m := &stellarv1.TracePathResponse{
		From: FromTraceEnd(t.From), To: FromTraceEnd(t.To), Hops: Each(t.Hops, fromHop), Further: Each(t.Further, fromCause),
		Unjudged: text(t.Unjudged), Probe: fromProbe(t.Probe),
	}
	if t.Cause != nil {
		m.Cause = fromCause(*t.Cause)
	}
	return m
}

// ToTrace reads a trace.
func ToTrace(m *stellarv1.TracePathResponse) api.Trace {
	t := api.Trace{
		From: ToTraceEnd(m.GetFrom()), To: ToTraceEnd(m.GetTo()), Hops: Each(m.GetHops(), toHop),
		Unjudged: m.GetUnjudged(), Probe: toProbe(m.GetProbe()),
	}
	if m.GetCause() != nil {
		c := toCause(m.GetCause())
		t.Cause = &c
	}
	if len(m.GetFurther()) > 0 {
		t.Further = Each(m.GetFurther(), toCause)
	}
	return t
}

// FromTraceSideSpec makes the question for one node's part.
func FromTraceSideSpec(s api.TraceSideSpec) *stellarv1.TraceSideRequest {
	return &stellarv1.TraceSideRequest{
		Local: FromTraceEnd(s.Local), Remote: FromTraceEnd(s.Remote), NextHop: addrText(s.NextHop), ArrivalMac: text(s.ArrivalMAC), Answering: s.Answering,
	}
}

// ToTraceSideSpec reads the question for one node's part.
func ToTraceSideSpec(m *stellarv1.TraceSideRequest) api.TraceSideSpec {
	return api.TraceSideSpec{
		Local: ToTraceEnd(m.GetLocal()), Remote: ToTraceEnd(m.GetRemote()), NextHop: addr(m.GetNextHop()), ArrivalMAC: m.GetArrivalMac(), Answering: m.GetAnswering(),
	}
}

// FromTraceSide makes the message of one node's part.
func FromTraceSide(s api.TraceSide) *stellarv1.TraceSideResponse {
	return &stellarv1.TraceSideResponse{
		Node: text(s.Node), Leave: Each(s.Leave, fromHop), Enter: Each(s.Enter, fromHop), Macs: s.MACs, NextHopMac: s.NextHopMAC, Answers: s.Answers,
		Asked: s.Asked, Static: s.Static, Probe: fromProbe(s.Probe),
		Counters: Each(s.Counters, func(c api.TraceCounter) *stellarv1.TraceCounter {
			return &stellarv1.TraceCounter{Name: text(c.Name), Leave: c.Leave, Enter: c.Enter}
		}),
	}
}

// ToTraceSide reads one node's part.
func ToTraceSide(m *stellarv1.TraceSideResponse) api.TraceSide {
	return api.TraceSide{
		Node: m.GetNode(), Leave: Each(m.GetLeave(), toHop), Enter: Each(m.GetEnter(), toHop), MACs: m.GetMacs(), NextHopMAC: m.GetNextHopMac(),
		Answers: m.GetAnswers(), Asked: m.GetAsked(), Static: m.GetStatic(), Probe: toProbe(m.GetProbe()),
		Counters: Each(m.GetCounters(), func(c *stellarv1.TraceCounter) api.TraceCounter {
			return api.TraceCounter{Name: c.GetName(), Leave: c.GetLeave(), Enter: c.GetEnter()}
		}),
	}
}
