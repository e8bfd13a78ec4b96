package integration

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"

	"stellar.io/stellar/internal/testx"
)

const benchJoins = 20

// bareNodes makes hosts on one LAN and an agent's directory for each, without
// containerd: what is measured does not ask it. Nothing is started.
func bareNodes(b *testing.B, count int, flags ...string) []*node {
	b.Helper()
	lan := testx.NewLAN(b, count)
	nodes := make([]*node, count)
	for i := range nodes {
		dir, err := os.MkdirTemp("", "stl")
		if err != nil {
			b.Fatal(err)
		}
		b.Cleanup(func() { os.RemoveAll(dir) })
		n := &node{
			t: b, name: fmt.Sprintf("n%02d", i), host: lan.Hosts[i], outside: lan.Outside, dir: dir, log: filepath.Join(dir, "agent.log"),
			containerd: &testx.Containerd{Address: filepath.Join(dir, "none.sock")}, flags: flags,
		}
		b.Cleanup(func() { n.stopAgent(syscall.SIGTERM) })
		nodes[i] = n
	}
	return nodes
}

// initBare makes the cluster of nodes that have no containerd.
func (n *node) initBare() {
	n.t.Helper()
	n.startAgent("--init")
	n.eventually(quiet, "the cluster is there", func() error {
		_, err := n.run("node", "ls")
		return err
	})
}

// typeJoin types `cluster join`. done waits for its end.
func (n *node) typeJoin(at, token string) (start time.Time, done func()) {
	n.t.Helper()
	cmd := exec.Command(binary, "-a", "unix://"+filepath.Join(n.dir, "run", "stellar.sock"), "cluster", "join", at, "--token-file", "-")
	cmd.Stdin = strings.NewReader(token + "\n")
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	start = time.Now()
	if err := cmd.Start(); err != nil {
		n.t.Fatal(err)
	}
	return start, func() {
		n.t.Helper()
		if err := cmd.Wait(); err != nil {
			n.t.Fatalf("%v: %s\n%s", err, out.String(), n.tail())
		}
	}
}

// benchJoin measures what a join costs: from `cluster join` typed on a running
// agent to a route to its subnet on all the others (1 to 20 of them), and to its own
// routes to all of them.
func benchJoin(b *testing.B, t *table) {
	nodes := bareNodes(b, benchJoins+1)
	nodes[0].initBare()
	var theirs, own samples
	p := newProgress("join", benchJoins)
	for i, n := range nodes[1:] {
		n.startAgent()
		start, done := n.typeJoin("192.0.2.1:9640", nodes[0].token())
		subnet := fmt.Sprintf("172.16.%d.0/22", 4*(i+1))
		// The joiner's own, beside the rest: on few processors the order of looking
		// would count.
		mine := make(chan time.Duration, 1)
		go func() { mine <- until(b, start, n.host, i+1, "") }()
		var last time.Duration
		for _, peer := range nodes[:i+1] {
			last = max(last, until(b, start, peer.host, i+1, subnet))
		}
		theirs.add(last)
		own.add(<-mine)
		done()
		p.done(i + 1)
	}
	t.spread("cluster join typed → routed on all peers, 1 to 20", "ms", theirs, bar{p50: 90})
	t.spread("  → its own routes are complete", "ms", own, bar{p50: 200, p99: 200})
}

// until waits for a route with our protocol to the destination, or for as many
// as there are peers, and returns how long after start it was there.
func until(b *testing.B, start time.Time, host *testx.NetNS, peers int, destination string) time.Duration {
	b.Helper()
	h, err := netlink.NewHandleAt(netns.NsHandle(host.FD))
	if err != nil {
		b.Error(err)
		return time.Minute
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
	b.Errorf("no route %q within 30s", destination)
	return time.Minute // misses every bar
}
