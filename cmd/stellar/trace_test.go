package main

import (
	"net/netip"

	"stellar.io/stellar/api"
)

// fakeTrace is what the agent says to `fake trace KIND` of a script.
func fakeTrace(kind string) api.Trace {
	hop := func(n int, node, what, subject, detail string) api.TraceHop {
		return api.TraceHop{Hop: n, Direction: api.TraceThere, Node: node, What: what, Subject: subject, State: api.TraceOK, Detail: detail}
	}
	t := api.Trace{
		From: api.TraceEnd{Kind: api.TraceContainer, Node: "alpha", Namespace: "default", Container: "web", Address: netip.MustParseAddr("172.16.0.2")},
		To:   api.TraceEnd{Kind: api.TraceContainer, Node: "beta", Namespace: "default", Container: "db", Address: netip.MustParseAddr("172.16.4.2")},
		Hops: []api.TraceHop{
			hop(1, "alpha", "container interface", "default/web", "eth0 172.16.0.2, mtu 1500"), hop(2, "alpha", "forwarding", "stellar0", "on"),
			hop(3, "beta", "forward filter", "eth0 → stellar0", "nothing drops"),
		},
		Probe: &api.TraceProbe{Sent: 20, Received: 20, RTT: 0.25, PathMTU: 1500, MTU: 1500},
	}
	switch kind {
	case "ok":
		t.Hops = append(t.Hops, hop(4, "alpha", "probe", "172.16.4.2", "20 of 20 answered, 0.25 ms, path mtu 1500"))
	case "broken":
		h := &t.Hops[1]
		h.State, h.Code, h.Detail = api.TraceBroken, "forwarding", "the kernel does not forward what comes in by stellar0"
		h.Mend = "sysctl -w net.ipv4.conf.stellar0.forwarding=1"
		t.Cause = &api.TraceCause{Code: h.Code, Node: h.Node, Subject: h.Subject, Message: h.Detail, Mend: h.Mend, Hop: 2}
		h = &t.Hops[2]
		h.State, h.Code, h.Detail = api.TraceBroken, "forward-drop", "iptables-nft chain FORWARD: policy drop"
		h.Mend = "iptables-nft -I FORWARD -s 172.16.0.2 -d 172.16.4.2 -j ACCEPT"
		t.Further = []api.TraceCause{{Code: h.Code, Node: h.Node, Subject: h.Subject, Message: h.Detail, Mend: h.Mend, Hop: 3}}
	case "unknown":
		t.Hops = append(t.Hops[:1], api.TraceHop{Hop: 2, Direction: api.TraceThere, Node: "beta", What: "agent", Subject: "beta", State: api.TraceUnknown, Detail: "does not tell its part"})
		t.Unjudged = "hop 2, agent beta: does not tell its part"
	}
	return t
}
