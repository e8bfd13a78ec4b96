package integration

import (
	"encoding/json"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"stellar.io/stellar/internal/config"
	"stellar.io/stellar/internal/testx"
)

const (
	iperfPairs   = 7
	iperfSeconds = 1
	linkRate     = "10gbit" // of a wire
	iperfPort    = "5201"
	udpBytes     = "1200" // of a packet's data
)

// way is where packets are measured: from a namespace, or from what a prefix enters out
// of it, to an address.
type way struct {
	from   *testx.NetNS
	prefix []string
	to     string
}

// benchThroughput measures what passes from a container to one of another node, between
// the same two hosts, and between containers through a VXLAN, in turns. TCP over a link of
// some rate, as a wire has one; TCP over one that is as fast as the processor copies, where
// each step of the way costs throughput and no bar can hold: what the kernel's bridge, and
// a route without a bridge, cost by themselves, made by hand, is measured beside it; and
// packets there, one by one: TCP hides what a tunnel costs each packet, for veth pairs
// take 64 KiB as one.
func benchThroughput(b *testing.B, t *table) {
	bridge, bridgeNodes := containersApart(b, config.ModeBridge)
	routed, routedNodes := containersApart(b, config.ModeRouted)
	hand := byHand(b)
	direct := way{from: bridgeNodes[0].host, to: "192.0.2.2"}
	names := []string{
		"  container to container of another node, bridge", "  container to container of another node, routed",
		"  by hand: containers through VXLAN",
	}
	ways := []way{direct, bridge, routed, hand.overlay}

	limited := slices.Clone(hand.hosts)
	for _, n := range slices.Concat(bridgeNodes, routedNodes) {
		limited = append(limited, n.host)
	}
	for _, host := range limited {
		host.Run(b, "tc", "qdisc", "add", "dev", "eth0", "root", "tbf", "rate", linkRate, "burst", "1mb", "limit", "10mb")
	}
	wire := throughput(b, t, "TCP", "at 10 Gbit/s", names, ways...)
	near := bar{p50: 0.97, atLeast: true}
	t.ratio("container to container, bridge / host to host", wire[1], wire[0], near)
	t.ratio("container to container, routed / host to host", wire[2], wire[0], near)
	t.ratio("  VXLAN / host to host", wire[3], wire[0], bar{})
	for _, host := range limited {
		host.Run(b, "tc", "qdisc", "del", "dev", "eth0", "root")
	}

	names = append(names, "  by hand, without an agent: bridged", "  by hand, without an agent: routed, no bridge")
	ways = append(ways, hand.bridged, hand.routed)
	memory := throughput(b, t, "TCP", "at memory's speed", names, ways...)
	near.explained = "no wire limits the sender, so connection tracking, masquerade and the filters of senders show; at 10 Gbit/s they do not"
	t.ratio("  container to container, bridge / host to host", memory[1], memory[0], near)
	t.ratio("  container to container, routed / host to host", memory[2], memory[0], near)
	t.ratio("  the bridge by hand / host to host", memory[4], memory[0], bar{})
	t.ratio("  routed by hand / host to host", memory[5], memory[0], bar{})
	t.ratio("  container to container, bridge / VXLAN", memory[1], memory[3], bar{})
	t.ratio("  container to container, routed / VXLAN", memory[2], memory[3], bar{})

	packets := throughput(b, t, "UDP", "at memory's speed", names, ways...)
	t.ratio("container to container, bridge / VXLAN", packets[1], packets[3], bar{p50: 1.3, atLeast: true,
		explained: "two bridges, connection tracking and the filters of senders on the way of each packet; mode routed comes nearer"})
	t.ratio("container to container, routed / VXLAN", packets[2], packets[3], bar{p50: 1.3, atLeast: true})
	t.ratio("  container to container, bridge / host to host", packets[1], packets[0], bar{})
	t.ratio("  container to container, routed / host to host", packets[2], packets[0], bar{})
	t.ratio("  routed by hand / host to host", packets[5], packets[0], bar{})

	benchFilters(b, t, config.ModeBridge, bridge, bridgeNodes)
	benchFilters(b, t, config.ModeRouted, routed, routedNodes)
}

// containersApart is the way between containers of two nodes in a mode; also the nodes.
// The second node's host hears, too.
func containersApart(b *testing.B, mode string) (way, []*node) {
	b.Helper()
	nodes := startClusterOf(b, 2, nodeOptions{mode: mode})
	var inside [2][]string
	var to endpoint
	for i, n := range nodes {
		n.routed(nodes...)
		to = n.start(unique("apart"))
		pid, err := n.containerd.TaskPID("default", to.Container)
		if err != nil {
			b.Fatal(err)
		}
		inside[i] = []string{"nsenter", "-t", strconv.Itoa(pid), "-n"}
	}
	hears(b, nodes[1].host)
	hears(b, nodes[1].host, inside[1]...)
	return way{nodes[0].host, inside[0], to.Address}, nodes
}

// throughput measures the ways in turns, and adds a row for each; the first of them is
// host to host.
func throughput(b *testing.B, t *table, protocol, link string, names []string, ways ...way) []samples {
	b.Helper()
	unit, measure := "Gbit/s", way.gbits
	if protocol == "UDP" {
		unit, measure = "k packets/s", way.packets
	}
	var sides []func() float64
	for _, w := range ways {
		sides = append(sides, func() float64 { return measure(w, b) })
	}
	out := alternate(protocol+" throughput "+link, scaled(iperfPairs), sides...)
	for k, name := range append([]string{protocol + " host to host, link " + link}, names...) {
		t.spread(name, unit, out[k], bar{})
	}
	return out
}

// alternate measures the sides in turns, another one first in each round.
func alternate(what string, rounds int, sides ...func() float64) []samples {
	out := make([]samples, len(sides))
	p := newProgress(what+", rounds", rounds)
	for i := range rounds {
		for k := range sides {
			k = (i + k) % len(sides)
			out[k] = append(out[k], sides[k]())
		}
		p.done(i + 1)
	}
	return out
}

// gbits sends by TCP for a while and returns what arrived.
func (w way) gbits(b *testing.B) float64 {
	b.Helper()
	return w.iperf(b).Rate / 1e9
}

// packets sends small packets as fast as it can for a while and returns how many
// thousands arrived in a second.
func (w way) packets(b *testing.B) float64 {
	b.Helper()
	r := w.iperf(b, "-u", "-b", "0", "-l", udpBytes)
	return (r.Packets - r.Lost) / r.Seconds / 1e3
}

// iperf runs iperf3's client and returns its sums of what was received.
func (w way) iperf(b *testing.B, options ...string) iperfSum {
	b.Helper()
	args := append(append([]string{}, w.prefix...), "iperf3", "-c", w.to, "-p", iperfPort, "-t", strconv.Itoa(iperfSeconds), "-J")
	args = append(args, options...)
	var out string
	var err error
	for end := time.Now().Add(quiet); ; time.Sleep(20 * time.Millisecond) {
		out, err = w.from.Output(args[0], args[1:]...) // the server takes a moment to be ready again
		if err == nil {
			break
		}
		if time.Now().After(end) {
			b.Fatalf("iperf3 to %s: %v", w.to, err)
		}
	}
	var r struct {
		End struct {
			Received iperfSum `json:"sum_received"` // TCP
			Sum      iperfSum `json:"sum"`          // UDP
		} `json:"end"`
	}
	if _, object, ok := strings.Cut(out, "{"); !ok { // a warning may come first
		b.Fatalf("iperf3 to %s: %s", w.to, out)
	} else if err := json.Unmarshal([]byte("{"+object), &r); err != nil {
		b.Fatal(fmt.Errorf("%w: %s", err, out))
	}
	if len(options) == 0 {
		return r.End.Received
	}
	return r.End.Sum
}

type iperfSum struct {
	Rate    float64 `json:"bits_per_second"`
	Seconds float64 `json:"seconds"`
	Packets float64 `json:"packets"`
	Lost    float64 `json:"lost_packets"`
}
