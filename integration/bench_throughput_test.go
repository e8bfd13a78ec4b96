package integration

import (
	"encoding/json"
	"fmt"
	"strconv"
	"testing"

	"stellar.io/stellar/internal/testx"
)

const (
	iperfPairs   = 7
	iperfSeconds = 1
	linkRate     = "10gbit" // of a wire
	iperfPort    = "5201"
)

// benchThroughput measures TCP from a container to one of another node, between the
// same two hosts, and through a VXLAN between them, in turns: over a link of some
// rate, as a wire has one, and over one that is as fast as the processor copies, where
// each step of the way costs throughput.
func benchThroughput(b *testing.B, t *table, trio []*node) {
	from, to := trio[0], trio[1]
	eps := [2]endpoint{from.start(unique("sends")), to.start(unique("hears"))}
	in := func(n *node, e endpoint) []string {
		pid, err := n.containerd.TaskPID("default", e.Container)
		if err != nil {
			b.Fatal(err)
		}
		return []string{"nsenter", "-t", strconv.Itoa(pid), "-n"}
	}
	sender, hearer := in(from, eps[0]), in(to, eps[1])
	vxlan(b, from.host, "192.0.2.2", "198.51.100.1/24")
	vxlan(b, to.host, "192.0.2.1", "198.51.100.2/24")
	serve := func(prefix []string) {
		args := append(prefix, "iperf3", "-s", "-p", iperfPort)
		b.Cleanup(to.background(to.host, args[0], args[1:]...))
	}
	serve(nil)
	serve(hearer)
	for _, n := range []*node{from, to} {
		n.host.Run(b, "tc", "qdisc", "add", "dev", "eth0", "root", "tbf", "rate", linkRate, "burst", "1mb", "limit", "10mb")
	}
	throughput(b, t, "at 10 Gbit/s", from, sender, eps[1].Address)
	for _, n := range []*node{from, to} {
		n.host.Run(b, "tc", "qdisc", "del", "dev", "eth0", "root")
	}
	throughput(b, t, "at memory's speed", from, sender, eps[1].Address)
}

// throughput measures the three ways in turns.
func throughput(b *testing.B, t *table, link string, from *node, sender []string, address string) {
	b.Helper()
	var plain, routed, tunnelled samples
	pairs := scaled(iperfPairs)
	p := newProgress("throughput "+link+", rounds", pairs)
	for i := range pairs {
		measure := []func(){
			func() { plain = append(plain, gbits(from, nil, "192.0.2.2")) },
			func() { routed = append(routed, gbits(from, sender, address)) },
			func() { tunnelled = append(tunnelled, gbits(from, nil, "198.51.100.2")) },
		}
		for k := range measure {
			measure[(i+k)%len(measure)]()
		}
		p.done(i + 1)
	}
	t.spread("TCP host to host, link "+link, "Gbit/s", plain, bar{})
	t.spread("  container to container of another node", "Gbit/s", routed, bar{})
	t.spread("  through VXLAN, host to host", "Gbit/s", tunnelled, bar{})
	t.ratio("container to container / host to host", routed, plain, bar{p50: 0.97, atLeast: true})
	t.ratio("  VXLAN / host to host", tunnelled, plain, bar{})
}

// vxlan gives the host one end of a tunnel.
func vxlan(b *testing.B, host *testx.NetNS, remote, address string) {
	b.Helper()
	host.Run(b, "ip", "link", "add", "vx0", "type", "vxlan", "id", "7", "remote", remote, "dstport", "4789", "dev", "eth0")
	host.Run(b, "ip", "address", "add", address, "dev", "vx0")
	host.Run(b, "ip", "link", "set", "vx0", "up")
}

// gbits sends to the address for a while and returns what arrived.
func gbits(n *node, prefix []string, address string) float64 {
	n.t.Helper()
	args := append(append([]string{}, prefix...), "iperf3", "-c", address, "-p", iperfPort, "-t", strconv.Itoa(iperfSeconds), "-J")
	var out string
	n.eventually(quiet, "iperf3 to "+address, func() (err error) {
		out, err = n.host.Output(args[0], args[1:]...) // the server takes a moment to be ready again
		return err
	})
	var r struct {
		End struct {
			Received struct {
				Rate float64 `json:"bits_per_second"`
			} `json:"sum_received"`
		} `json:"end"`
	}
	if err := json.Unmarshal([]byte(out), &r); err != nil {
		n.t.Fatal(fmt.Errorf("%w: %s", err, out))
	}
	return r.End.Received.Rate / 1e9
}
