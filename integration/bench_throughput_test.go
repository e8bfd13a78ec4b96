package integration

import (
	"encoding/json"
	"fmt"
	"strconv"
	"strings"
	"testing"
	"time"

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
	nodes := startCluster(b, 2)
	from, to := nodes[0], nodes[1]
	from.routed(nodes...)
	to.routed(nodes...)
	eps := [2]endpoint{from.start(unique("sends")), to.start(unique("hears"))}
	in := func(n *node, e endpoint) []string {
		pid, err := n.containerd.TaskPID("default", e.Container)
		if err != nil {
			b.Fatal(err)
		}
		return []string{"nsenter", "-t", strconv.Itoa(pid), "-n"}
	}
	hears(b, to.host)
	hears(b, to.host, in(to, eps[1])...)
	hand := byHand(b)
	hosts := way{from: from.host, to: "192.0.2.2"}
	ours := way{from.host, in(from, eps[0]), eps[1].Address}
	names := []string{"  container to container of another node", "  by hand: containers through VXLAN"}

	limited := append([]*testx.NetNS{from.host, to.host}, hand.hosts...)
	for _, host := range limited {
		host.Run(b, "tc", "qdisc", "add", "dev", "eth0", "root", "tbf", "rate", linkRate, "burst", "1mb", "limit", "10mb")
	}
	wire := throughput(b, t, "TCP", "at 10 Gbit/s", names, hosts, ours, hand.overlay)
	t.ratio("container to container / host to host", wire[1], wire[0], bar{p50: 0.97, atLeast: true})
	t.ratio("  VXLAN / host to host", wire[2], wire[0], bar{})
	for _, host := range limited {
		host.Run(b, "tc", "qdisc", "del", "dev", "eth0", "root")
	}

	names = append(names, "  by hand, without an agent: bridged", "  by hand, without an agent: routed, no bridge")
	ways := []way{hosts, ours, hand.overlay, hand.bridged, hand.routed}
	memory := throughput(b, t, "TCP", "at memory's speed", names, ways...)
	t.ratio("container to container / the bridge by hand", memory[1], memory[3], bar{})
	t.ratio("  container to container / host to host", memory[1], memory[0], bar{})
	t.ratio("  the bridge by hand / host to host", memory[3], memory[0], bar{})
	t.ratio("  routed by hand / host to host", memory[4], memory[0], bar{})
	t.ratio("  container to container / VXLAN", memory[1], memory[2], bar{})

	packets := throughput(b, t, "UDP", "at memory's speed", names, ways...)
	t.ratio("container to container / VXLAN", packets[1], packets[2], bar{p50: 1.3, atLeast: true})
	t.ratio("  container to container / host to host", packets[1], packets[0], bar{})
	t.ratio("  routed by hand / host to host", packets[4], packets[0], bar{})
}

// throughput measures the ways in turns, and adds a row for each; the first of them is
// host to host.
func throughput(b *testing.B, t *table, protocol, link string, names []string, ways ...way) []samples {
	b.Helper()
	unit, measure := "Gbit/s", way.gbits
	if protocol == "UDP" {
		unit, measure = "k packets/s", way.packets
	}
	out := make([]samples, len(ways))
	pairs := scaled(iperfPairs)
	p := newProgress(protocol+" throughput "+link+", rounds", pairs)
	for i := range pairs {
		for k := range ways {
			k = (i + k) % len(ways)
			out[k] = append(out[k], measure(ways[k], b))
		}
		p.done(i + 1)
	}
	for k, name := range append([]string{protocol + " host to host, link " + link}, names...) {
		t.spread(name, unit, out[k], bar{})
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
