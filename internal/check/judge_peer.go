package check

import (
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"stellar.io/stellar/internal/nlx"
	"stellar.io/stellar/routes"
)

// maxSkew is how far apart two clocks may be: a token's or a certificate's time, and
// the order of events in logs, are judged by them.
const maxSkew = 5 * time.Second

// peers judges the other nodes as they are seen from here.
func (j *judgement) peers() {
	f := j.f
	j.ownAddress()
	for _, p := range f.Peers {
		a := p.Address.Addr()
		macs, asked := f.Answers[a]
		asked = asked && f.adjacent(p)
		switch foreign := f.foreign(p, macs); {
		case asked && len(foreign) > 0:
			j.error(AddressDuplicate, p.Name, fmt.Sprintf("%s of node %s is answered by several machines: %s", a, p.Name, strings.Join(macs, ", ")),
				fmt.Sprintf("find the other machine by its hardware address and give it another IP address: arping -D -I %s %s", first(f.Uplinks), a))
		case asked && len(macs) == 1 && f.pinned(a) != "" && f.pinned(a) != macs[0]:
			j.error(Neighbour, p.Name, fmt.Sprintf("a permanent neighbour entry has %s for %s of node %s, which answers as %s", f.pinned(a), a, p.Name, macs[0]),
				fmt.Sprintf("ip neigh del %s dev %s", a, f.pinnedAt(a)))
		case asked && len(macs) == 0 && p.Asked && p.Silent != "":
			j.error(PeerUnreachable, p.Name, fmt.Sprintf("the host of node %s, %s, does not answer on the link: %s", p.Name, a, p.Silent),
				fmt.Sprintf("on node %s: ip -br address; stellar check", p.Name))
		case p.Asked && p.Silent != "":
			j.warn(AgentDown, p.Name, fmt.Sprintf("the agent of node %s does not answer: %s; its containers keep their networks", p.Name, p.Silent),
				fmt.Sprintf("on node %s: systemctl restart stellar; stellar check", p.Name))
		}
	}
	j.clocks()
}

func first(list []string) string {
	if len(list) == 0 {
		return ""
	}
	return list[0]
}

// adjacent reports whether the peer is to answer on a link of this host.
func (f Facts) adjacent(p Peer) bool {
	return !slices.ContainsFunc(f.Routes, func(r routes.Status) bool { return r.Node == p.Name && r.State == routes.NotAdjacent })
}

// foreign are the hardware addresses that answer for a peer and are not its own. A
// host with two interfaces on one link answers by both. Its own are those that it says;
// while it is silent, those that answer for its gateway.
func (f Facts) foreign(p Peer, macs []string) []string {
	if len(macs) < 2 && (len(p.MACs) == 0 || p.Silent != "") {
		return nil
	}
	own := p.MACs
	if p.Silent != "" && p.Subnet.IsValid() { // else a copy of the machine, which has both addresses, went unseen
		own = slices.Concat(own, f.Answers[p.gateway()])
	}
	var out []string
	for _, m := range macs {
		if !slices.Contains(own, m) {
			out = append(out, m)
		}
	}
	if len(macs) < 2 {
		return nil // a proxy on the way answers for it
	}
	return out
}

// ownAddress: nobody else is to answer for this node's own address.
func (j *judgement) ownAddress() {
	a := j.f.Address.Addr()
	for _, m := range j.f.Answers[a] {
		if !slices.ContainsFunc(j.f.Links, func(l nlx.Link) bool { return l.MAC.String() == m }) {
			j.error(AddressDuplicate, a.String(), fmt.Sprintf("another machine, %s, answers for this node's address %s", m, a),
				fmt.Sprintf("find that machine and give it another address: arping -D -I %s %s", first(j.f.Uplinks), a))
		}
	}
}

// pinned is the hardware address that somebody has set for a neighbour.
func (f Facts) pinned(a netip.Addr) string {
	for _, n := range f.Neighbours {
		if n.Addr == a && n.State&unix.NUD_PERMANENT != 0 {
			return n.MAC.String()
		}
	}
	return ""
}

func (f Facts) pinnedAt(a netip.Addr) string {
	for _, n := range f.Neighbours {
		if n.Addr == a && n.State&unix.NUD_PERMANENT != 0 {
			return f.linkName(n.Index)
		}
	}
	return ""
}

// clocks compares this node's clock with those of the peers that answered. The one
// that differs from most others is wrong.
func (j *judgement) clocks() {
	var differ, agree []Peer
	for _, p := range j.f.Peers {
		switch {
		case !p.Asked || p.Silent != "":
		case p.Ahead.Abs()-p.Within > maxSkew:
			differ = append(differ, p)
		default:
			agree = append(agree, p)
		}
	}
	const mend = "systemctl restart systemd-timesyncd or chronyd; timedatectl shows the clock"
	if len(differ) > len(agree) {
		p := differ[0]
		with := "node " + p.Name
		if len(differ) > 1 {
			with = fmt.Sprintf("%d other nodes", len(differ))
		}
		j.error(Clock, j.f.Node, fmt.Sprintf("the clock of this node is %s of that of %s by %s", aheadOrBehind(-p.Ahead), with, p.Ahead.Abs().Round(time.Second)), mend)
		return
	}
	for _, p := range differ {
		j.warn(Clock, p.Name, fmt.Sprintf("the clock of node %s is %s of this one's by %s", p.Name, aheadOrBehind(p.Ahead), p.Ahead.Abs().Round(time.Second)), "on node "+p.Name+": "+mend)
	}
}

func aheadOrBehind(d time.Duration) string {
	if d < 0 {
		return "behind"
	}
	return "ahead"
}

func isEthernet(m net.HardwareAddr) bool { return len(m) == 6 }
