package trace

import (
	"fmt"
	"slices"
	"strings"

	"stellar.io/stellar/api"
)

// Silence is why the other node has not told its part.
type Silence struct {
	// Dead: its host answers, its agent does not. If not, it may be either.
	Dead bool
	Text string
}

// Join puts the parts of two nodes together: there and back. there is nil when
// nobody could be asked for the far end's part; silent then says why, or is nil
// because the far end is outside of the cluster. The two parts may be of one node.
// Pure.
func Join(from, to api.TraceEnd, here, there *api.TraceSide, silent *Silence) api.Trace {
	out := api.Trace{From: from, To: to, Hops: []api.TraceHop{}}
	add := func(direction string, hops []api.TraceHop) {
		for _, h := range hops {
			h.Direction, h.Hop = direction, len(out.Hops)+1
			out.Hops = append(out.Hops, h)
		}
	}
	add(api.TraceThere, confirm(here, there, to, silent))
	if silent != nil {
		h := silent.hop(to.Node)
		if slices.ContainsFunc(out.Hops, func(h api.TraceHop) bool { return h.State == api.TraceBroken && h.Node == here.Node }) {
			// Who did not answer, if the way there is broken, is not known.
			h.State, h.Code, h.Mend = api.TraceUnknown, "", ""
		}
		add(api.TraceThere, []api.TraceHop{h})
	}
	if there != nil {
		add(api.TraceThere, there.Enter)
		add(api.TraceBack, confirm(there, here, from, nil))
	}
	add(api.TraceBack, here.Enter)
	if here.Probe != nil {
		out.Probe = here.Probe
		add(api.TraceThere, []api.TraceHop{probed(here, to)})
	}
	conclude(&out)
	return out
}

func (s *Silence) hop(node string) api.TraceHop {
	h := api.TraceHop{Node: node, What: whatPeer, Subject: node, State: api.TraceUnknown, Detail: "does not tell its part: " + s.Text}
	if s.Dead {
		h.State, h.Code = api.TraceBroken, codeAgentDown
		h.Detail = "the agent of node " + node + " does not answer, its part is not known: " + s.Text
		h.Mend = "systemctl restart stellar"
	}
	return h
}

// confirm compares the hardware address that a node sends to with those that the
// other one has, as it says itself.
func confirm(side, other *api.TraceSide, peer api.TraceEnd, silent *Silence) []api.TraceHop {
	hops := slices.Clone(side.Leave)
	i := slices.IndexFunc(hops, func(h api.TraceHop) bool { return h.What == whatNextHop && h.Subject == peer.Node && peer.Node != "" })
	if i < 0 {
		return hops
	}
	h := &hops[i]
	if other == nil {
		switch {
		case len(side.Answers) > 1:
			h.State, h.Code = api.TraceBroken, codeDuplicate
		case side.Asked && len(side.Answers) == 0 && silent != nil && !silent.Dead && h.State == api.TraceOK:
			h.State, h.Code = api.TraceBroken, codePeer
			h.Detail = "node " + peer.Node + " does not answer on the link: is the machine up, is it on this link?"
			h.Mend = "stellar node inspect " + peer.Node
		}
		return hops
	}
	stranger := slices.IndexFunc(side.Answers, func(m string) bool { return !slices.Contains(other.MACs, m) })
	wrong := side.NextHopMAC != "" && !slices.Contains(other.MACs, side.NextHopMAC)
	switch {
	case wrong && side.Static:
		h.State, h.Code = api.TraceBroken, codeNeighbour
		h.Detail = fmt.Sprintf("packets for node %s go to %s, which was set by hand and is not its own", peer.Node, side.NextHopMAC)
	case stranger >= 0:
		h.State, h.Code = api.TraceBroken, codeDuplicate
		h.Detail = fmt.Sprintf("%s answers for the address of node %s, which has not got it: two machines have the address", side.Answers[stranger], peer.Node)
	case wrong:
		h.State, h.Code = api.TraceBroken, codeDuplicate
		h.Detail = fmt.Sprintf("packets for node %s go to %s, which is not its own: another machine has its address", peer.Node, side.NextHopMAC)
	case h.Code == codeDuplicate: // all are the peer's
		h.State, h.Code, h.Mend = api.TraceOK, "", ""
	}
	if h.Code == codeDuplicate && h.Mend == "" {
		h.Mend = "ip neigh show"
	}
	return hops
}

// conclude names the causes: the first broken hop, and each other fault once.
func conclude(t *api.Trace) {
	seen := map[string]bool{}
	for _, h := range t.Hops {
		if h.State == api.TraceUnknown && t.Unjudged == "" {
			t.Unjudged = fmt.Sprintf("hop %d, %s %s: %s", h.Hop, h.What, h.Subject, h.Detail)
		}
		if h.State != api.TraceBroken || seen[key(h)] {
			continue
		}
		seen[key(h)] = true
		c := api.TraceCause{Code: h.Code, Node: h.Node, Subject: h.Subject, Message: h.Detail, Mend: h.Mend, Hop: h.Hop}
		if t.Cause == nil {
			t.Cause = &c
			continue
		}
		t.Further = append(t.Further, c)
	}
	if t.Cause != nil {
		t.Unjudged = ""
	}
}

// probed is what real packets tell.
func probed(side *api.TraceSide, to api.TraceEnd) api.TraceHop {
	r := side.Probe
	h := api.TraceHop{Node: side.Node, What: whatProbe, Subject: to.Address.String(), State: api.TraceOK}
	switch {
	case r.Received == 0:
		h.State, h.Code = api.TraceBroken, codeLost
		h.Detail = fmt.Sprintf("none of %d packets was answered", r.Sent)
		if r.Vanished != "" {
			h.Detail += "; " + r.Vanished
		}
		return h
	case r.PathMTU > 0 && r.PathMTU < r.MTU:
		h.State, h.Code = api.TraceBroken, codeMTU
		h.Detail = fmt.Sprintf("packets of more than %d bytes are lost, the sender's go up to %d", r.PathMTU, r.MTU)
		h.Mend = fmt.Sprintf("on every node: mtu = %d in /etc/stellar/config.toml, then systemctl restart stellar", r.PathMTU)
	case r.Received < r.Sent:
		h.State, h.Detail = api.TraceWarn, fmt.Sprintf("%d of %d packets were answered", r.Received, r.Sent)
	default:
		h.Detail = fmt.Sprintf("%d of %d answered, %.2f ms", r.Received, r.Sent, r.RTT)
	}
	if r.PathMTU >= r.MTU && r.MTU > 0 {
		h.Detail += fmt.Sprintf(", path mtu %d", r.PathMTU)
	}
	return h
}

// Vanished says where the counters saw packets last, of sent ones that none was
// answered. Other traffic raises counters, too, so a place is only named when the
// counters before it have all of them and those behind it none. Pure.
func Vanished(sent int, here, there [2][]api.TraceCounter) string {
	type step struct {
		name string
		seen uint64
	}
	var steps []step
	read := func(side [2][]api.TraceCounter, leave, reverse bool) {
		if len(side[0]) != len(side[1]) {
			return
		}
		var part []step
		for i, before := range side[0] {
			after := side[1][i]
			seen := after.Enter - before.Enter
			if leave {
				seen = after.Leave - before.Leave
			}
			part = append(part, step{before.Name, seen})
		}
		if reverse {
			slices.Reverse(part)
		}
		steps = append(steps, part...)
	}
	read(here, true, false)
	read(there, false, true)
	last, gone := "", ""
	for _, s := range steps {
		switch {
		case s.seen >= uint64(sent) && gone == "":
			last = s.name
		case s.seen >= uint64(sent):
			return "" // seen behind where it was not: the counters do not tell
		case gone == "":
			gone = s.name
		}
	}
	switch {
	case last == "" && gone == "":
		return ""
	case gone == "":
		return "they arrived: the answers are lost (last seen at " + last + ")"
	case last == "":
		return "they were not seen at " + gone
	}
	return strings.Join([]string{"last seen at", last + ",", "not at", gone}, " ")
}

// NoAddress is the trace between ends of which one has no address, and why.
func NoAddress(from, to, end api.TraceEnd, state, reason string) api.Trace {
	t := api.Trace{From: from, To: to, Hops: []api.TraceHop{{
		Hop: 1, Direction: api.TraceThere, Node: end.Node, What: whatEndpoint, Subject: end.String(), State: api.TraceBroken,
		Detail: "it has no address: " + state + ": " + reason, Code: codeEndpoint, Mend: "stellar endpoint inspect " + end.String(),
	}}}
	conclude(&t)
	return t
}
