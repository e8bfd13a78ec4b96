package integration

import (
	"encoding/json"
	"fmt"
	"strconv"
	"testing"
	"time"

	"stellar.io/stellar/internal/testx"
)

const (
	iperfPairs   = 7
	iperfSeconds = 1
	linkRate     = "10gbit" // of a wire
	iperfPort    = "5201"
)

// way is where packets are measured: from a namespace, or from what a prefix enters out
// of it, to an address.
type way struct {
	from   *testx.NetNS
	prefix []string
	to     string
}

// benchThroughput measures TCP from a container to one of another node, between the
// same two hosts, and through a VXLAN between them, in turns: over a link of some
// rate, as a wire has one, and over one that is as fast as the processor copies, where
// each step of the way costs throughput. There no bar can hold: what the kernel's bridge,
// and a route without a bridge, cost by themselves, made by hand, is measured beside it.
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
	vxlan(b, from.host, "192.0.2.2", "198.51.100.1/24")
	vxlan(b, to.host, "192.0.2.1", "198.51.100.2/24")
	hears(b, to.host)
	hears(b, to.host, in(to, eps[1])...)
	hosts := way{from: from.host, to: "192.0.2.2"}
	ours := way{from.host, in(from, eps[0]), eps[1].Address}
	tunnel := way{from: from.host, to: "198.51.100.2"}
	names := []string{"  container to container of another node", "  through VXLAN, host to host"}

	for _, n := range []*node{from, to} {
		n.host.Run(b, "tc", "qdisc", "add", "dev", "eth0", "root", "tbf", "rate", linkRate, "burst", "1mb", "limit", "10mb")
	}
	wire := throughput(b, t, "at 10 Gbit/s", names, hosts, ours, tunnel)
	t.ratio("container to container / host to host", wire[1], wire[0], bar{p50: 0.97, atLeast: true})
	t.ratio("  VXLAN / host to host", wire[2], wire[0], bar{})
	for _, n := range []*node{from, to} {
		n.host.Run(b, "tc", "qdisc", "del", "dev", "eth0", "root")
	}

	bridged, routed := byHand(b)
	names = append(names, "  by hand, without an agent: bridged", "  by hand, without an agent: routed, no bridge")
	memory := throughput(b, t, "at memory's speed", names, hosts, ours, tunnel, bridged, routed)
	t.ratio("container to container / the bridge by hand", memory[1], memory[3], bar{})
	t.ratio("  container to container / host to host", memory[1], memory[0], bar{})
	t.ratio("  the bridge by hand / host to host", memory[3], memory[0], bar{})
	t.ratio("  routed by hand / host to host", memory[4], memory[0], bar{})
	t.ratio("  VXLAN / host to host", memory[2], memory[0], bar{})
}

// throughput measures the ways in turns, and adds a row for each; the first of them is
// host to host.
func throughput(b *testing.B, t *table, link string, names []string, ways ...way) []samples {
	b.Helper()
	out := make([]samples, len(ways))
	pairs := scaled(iperfPairs)
	p := newProgress("throughput "+link+", rounds", pairs)
	for i := range pairs {
		for k := range ways {
			k = (i + k) % len(ways)
			out[k] = append(out[k], ways[k].gbits(b))
		}
		p.done(i + 1)
	}
	for k, name := range append([]string{"TCP host to host, link " + link}, names...) {
		t.spread(name, "Gbit/s", out[k], bar{})
	}
	return out
}

// vxlan gives the host one end of a tunnel.
func vxlan(b *testing.B, host *testx.NetNS, remote, address string) {
	b.Helper()
	host.Run(b, "ip", "link", "add", "vx0", "type", "vxlan", "id", "7", "remote", remote, "dstport", "4789", "dev", "eth0")
	host.Run(b, "ip", "address", "add", address, "dev", "vx0")
	host.Run(b, "ip", "link", "set", "vx0", "up")
}

// gbits sends for a while and returns what arrived.
func (w way) gbits(b *testing.B) float64 {
	b.Helper()
	args := append(append([]string{}, w.prefix...), "iperf3", "-c", w.to, "-p", iperfPort, "-t", strconv.Itoa(iperfSeconds), "-J")
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
			Received struct {
				Rate float64 `json:"bits_per_second"`
			} `json:"sum_received"`
		} `json:"end"`
	}
	if err := json.Unmarshal([]byte(out), &r); err != nil {
		b.Fatal(fmt.Errorf("%w: %s", err, out))
	}
	return r.End.Received.Rate / 1e9
}
