package integration

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"

	"stellar.io/stellar/internal/testx"
)

// BenchmarkJoin measures what a join costs: from `cluster join` typed on a
// running agent to a route to its subnet on all the others (1 to 20 of them), and
// to its own routes to all of them. The hosts have no containerd: it is not asked.
func BenchmarkJoin(b *testing.B) {
	const joins = 20
	lan := testx.NewLAN(b, joins+1)
	nodes := make([]*node, 0, joins+1)
	for i := range lan.Hosts {
		dir, err := os.MkdirTemp("", "stl")
		if err != nil {
			b.Fatal(err)
		}
		b.Cleanup(func() { os.RemoveAll(dir) })
		n := &node{
			t: b, name: fmt.Sprintf("n%02d", i), host: lan.Hosts[i], outside: lan.Outside, dir: dir, log: filepath.Join(dir, "agent.log"),
			containerd: &testx.Containerd{Address: filepath.Join(dir, "none.sock")},
		}
		b.Cleanup(func() { n.stopAgent(syscall.SIGTERM) })
		nodes = append(nodes, n)
	}
	first := nodes[0]
	first.startAgent("--init")
	first.eventually(quiet, "the cluster is there", func() error {
		_, err := first.run("node", "ls")
		return err
	})
	var theirs, own []time.Duration
	for i, n := range nodes[1:] {
		n.startAgent()
		token := first.token()
		start := time.Now()
		cmd := exec.Command(binary, "-a", "unix://"+filepath.Join(n.dir, "run", "stellar.sock"), "cluster", "join", "192.0.2.1:9640", "--token-file", "-")
		cmd.Stdin = strings.NewReader(token + "\n")
		var out bytes.Buffer
		cmd.Stdout, cmd.Stderr = &out, &out
		if err := cmd.Start(); err != nil {
			b.Fatal(err)
		}
		var last time.Duration
		for _, peer := range nodes[:i+1] {
			last = until(b, start, peer.host, i+1, fmt.Sprintf("172.16.%d.0/22", 4*(i+1)))
		}
		theirs = append(theirs, last)
		own = append(own, until(b, start, n.host, i+1, ""))
		if err := cmd.Wait(); err != nil {
			b.Fatalf("%v: %s\n%s", err, out.String(), n.tail())
		}
	}
	slices.Sort(theirs)
	slices.Sort(own)
	b.ReportMetric(float64(theirs[joins/2].Microseconds())/1000, "ms-to-all-peers-routes-p50")
	b.ReportMetric(float64(theirs[joins-1].Microseconds())/1000, "ms-to-all-peers-routes-max")
	b.ReportMetric(float64(own[joins/2].Microseconds())/1000, "ms-to-own-routes-p50")
	b.ReportMetric(float64(own[joins-1].Microseconds())/1000, "ms-to-own-routes-max")
	b.ReportMetric(0, "ns/op")
}

// until waits for a route with our protocol to the destination, or for as many
// as there are peers, and returns how long after start it was there.
func until(b *testing.B, start time.Time, host *testx.NetNS, peers int, destination string) time.Duration {
	b.Helper()
	h, err := netlink.NewHandleAt(netns.NsHandle(host.FD))
	if err != nil {
		b.Fatal(err)
	}
	defer h.Close()
	for time.Since(start) < 30*time.Second {
		list, err := h.RouteListFiltered(netlink.FAMILY_V4, &netlink.Route{Protocol: 147}, netlink.RT_FILTER_PROTOCOL)
		if err == nil {
			via := 0
			for _, r := range list {
				if r.Gw == nil {
					continue
				}
				via++
				if r.Dst.String() == destination {
					return time.Since(start)
				}
			}
			if destination == "" && via >= peers {
				return time.Since(start)
			}
		}
		time.Sleep(500 * time.Microsecond)
	}
	b.Fatalf("no route %q within 30s", destination)
	return 0
}
