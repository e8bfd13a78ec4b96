// Package trace follows a packet from one end to another, hop by hop, and names
// the first that is broken, with its cause and what to type.
//
// Collect asks the kernel of one node; it changes nothing and sends nothing but one
// ARP request for the next hop. Leave and Enter, which are pure, judge what it
// found: the way from this node's end to the wire, and from the wire to it. Join
// puts the sides of two nodes together, each of which has judged its own.
//
// A hop is BROKEN only when every packet ends there. What cannot be judged from
// here is WARN, or UNKNOWN, and never a cause.
package trace

import (
	"fmt"
	"strings"

	"stellar.io/stellar/api"
)

// Codes of causes; testdata/broken/README.md says what each means.
const (
	codeAgentDown    = "agent-down"
	codeForwarding   = "forwarding"
	codeForwardDrop  = "forward-drop"
	codeHostFilter   = "host-filter"
	codeIngressDrop  = "ingress-drop"
	codeBridgeDrop   = "bridge-drop"
	codeBrNetfilter  = "br-netfilter"
	codeTCDrop       = "tc-drop"
	codeXfrmDrop     = "xfrm-drop"
	codeRPFilter     = "rp-filter"
	codeRouteMissing = "route-missing"
	codeRouteForeign = "route-foreign"
	codeRouteRule    = "route-rule"
	codeNotAdjacent  = "not-adjacent"
	codeOverlap      = "range-overlap"
	codeNeighbour    = "neighbour"
	codeDuplicate    = "address-duplicate"
	codePeer         = "peer-unreachable"
	codeUplinkDown   = "uplink-down"
	codeMTU          = "path-mtu"
	codeDefaultRoute = "default-route"
	codeMasquerade   = "masquerade"
	codeNoBridge     = "bridge-missing"
	codeBridgeDown   = "bridge-down"
	codeHostLink     = "host-link-down"
	codeHostLinkOut  = "host-link-bridge"
	codeHostRoute    = "host-route"
	codeFDB          = "fdb"
	codeLink         = "container-link-down"
	codeAddress      = "container-address"
	codeMAC          = "container-mac"
	codeRoute        = "container-route"
	codeGateway      = "container-neighbour"
	codeFilter       = "container-filter"
	codeEndpoint     = "endpoint"
	codeLost         = "packets-lost"
)

// Kinds of hops.
const (
	whatEndpoint   = "endpoint"
	whatInterface  = "container interface"
	whatRoute      = "container route"
	whatNeighbour  = "container neighbour"
	whatFilter     = "container filter"
	whatHostEnd    = "host end"
	whatBridge     = "bridge"
	whatFDB        = "bridge table"
	whatFrames     = "bridge filter"
	whatForwarding = "forwarding"
	whatHostRoute  = "route"
	whatForward    = "forward filter"
	whatHostFilter = "host filter"
	whatSource     = "source address"
	whatNextHop    = "next hop"
	whatUplink     = "uplink"
	whatReverse    = "reverse path"
	whatPeer       = "agent"
	whatProbe      = "probe"
)

// verdict is what is wrong with a hop.
type verdict struct {
	state  api.TraceState
	code   string
	detail string
	mend   string
}

// broken makes the verdict of a hop at which packets end.
func broken(code, mend, format string, args ...any) verdict {
	return verdict{api.TraceBroken, code, fmt.Sprintf(format, args...), mend}
}

func doubt(code, mend, format string, args ...any) verdict {
	return verdict{api.TraceWarn, code, fmt.Sprintf(format, args...), mend}
}

func fine(format string, args ...any) verdict {
	return verdict{state: api.TraceOK, detail: fmt.Sprintf(format, args...)}
}

func unknown(format string, args ...any) verdict {
	return verdict{state: api.TraceUnknown, detail: fmt.Sprintf(format, args...)}
}

// worst returns the first of the worst verdicts.
func worst(vs ...verdict) verdict {
	rank := map[api.TraceState]int{api.TraceOK: 0, api.TraceUnknown: 1, api.TraceWarn: 2, api.TraceBroken: 3}
	out := vs[0]
	for _, v := range vs[1:] {
		if rank[v.state] > rank[out.state] {
			out = v
		}
	}
	return out
}

// path is a list of hops under construction.
type path struct {
	f    *Facts
	hops []api.TraceHop
}

func (p *path) add(what, subject string, v verdict) {
	p.hops = append(p.hops, api.TraceHop{
		Node: p.f.Node, What: what, Subject: subject, State: v.state, Detail: v.detail, Code: v.code, Mend: v.mend,
	})
}

// key tells one fault from another: the same one is met on the way there and back.
func key(h api.TraceHop) string { return strings.Join([]string{h.Code, h.Node, h.Detail}, "|") }
