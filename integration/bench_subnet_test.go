package integration

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"

	"stellar.io/stellar/api"
	"stellar.io/stellar/api/client"
)

const (
	subnetPeers = 4 // one leads, three follow
	// subnetGuests take turns: one address may join 30 times at once, not more.
	subnetGuests = 3
	subnetRounds = 60 // a node joins and is removed: two changes on all peers
)

// benchSubnets measures from the commit of a subnet, or of its end, to the kernel's
// route on each peer. The moment of the commit is the leader's, as its log has it,
// rounded down to a millisecond; that of the route is the kernel's announcement in the
// peer's namespace.
func benchSubnets(b *testing.B, t *table) {
	nodes := bareNodes(b, subnetPeers+subnetGuests, "--debug")
	peers, guests := nodes[:subnetPeers], nodes[subnetPeers:]
	leader := peers[0]
	leader.initBare()
	for _, n := range peers[1:] {
		n.startAgent()
		_, done := n.typeJoin("192.0.2.1:9640", leader.token())
		done()
	}
	leader.voters(3)
	api := leader.dial(b)
	log := &commitLog{path: leader.log}
	watches := make([]*routeWatch, len(peers))
	for i, n := range peers {
		watches[i] = watchRoutes(b, n)
	}
	var leads, follows samples
	rounds := scaled(subnetRounds)
	p := newProgress("subnets that come and go", rounds)
	for round := range rounds {
		subnet := fmt.Sprintf("172.%d.%d.0/22", 16+(subnetPeers+round)/64, 4*((subnetPeers+round)%64)) // in order, never-held ones first
		guest := guests[round%subnetGuests]
		guest.startAgent()
		_, done := guest.typeJoin("192.0.2.1:9640", leader.token())
		done()
		measure := func(state string, there bool) {
			at := log.changed(b, leader, subnet, state)
			for i, w := range watches {
				took := w.seen(b, subnet, there).Sub(at)
				if i == 0 {
					leads.add(took)
				} else {
					follows.add(took)
				}
			}
		}
		measure("held", true)
		remove(b, api, guest)
		measure("free", false)
		p.done(round + 1)
	}
	t.spread("subnet committed → kernel route on each follower", "ms", follows, bar{p99: 30})
	t.spread("  and on the leader", "ms", leads, bar{p99: 30})
}

// remove takes a node out of the cluster and wipes what it had.
func remove(b *testing.B, c *client.Client, n *node) {
	b.Helper()
	ctx, cancel := context.WithTimeout(b.Context(), quiet)
	defer cancel()
	if _, err := c.RemoveNode(ctx, api.NodeRemoval{Node: n.name}); err != nil {
		b.Fatal(err)
	}
	_ = n.stopAgent(syscall.SIGKILL)
	n.host.Run(b, "ip", "route", "flush", "proto", "147")
	for _, dir := range []string{"data", "run"} {
		if err := os.RemoveAll(filepath.Join(n.dir, dir)); err != nil {
			b.Fatal(err)
		}
	}
}

// dial opens a client of the node's API.
func (n *node) dial(b *testing.B) *client.Client {
	b.Helper()
	c, err := client.New("unix://" + filepath.Join(n.dir, "run", "stellar.sock"))
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(c.Close)
	return c
}

// voters waits until so many nodes vote, as n says.
func (n *node) voters(count int) {
	n.t.Helper()
	n.eventually(quiet, fmt.Sprint(count, " nodes vote"), func() error {
		out, err := n.run("raft", "peers", "-o", "json")
		if err != nil {
			return err
		}
		if strings.Count(out, `"voter": true`) != count {
			return fmt.Errorf("%s", out)
		}
		return nil
	})
}

// commitLog reads from a leader's log when it has applied changes of subnets.
type commitLog struct {
	path   string
	offset int64
	rest   string
	seen   []commitLine
}

type commitLine struct {
	at            time.Time
	subnet, state string
}

// changed waits for the next change of the subnet that the log has.
func (l *commitLog) changed(b *testing.B, n *node, subnet, state string) (at time.Time) {
	b.Helper()
	n.eventually(quiet, subnet+" is "+state, func() error {
		if err := l.read(); err != nil {
			return err
		}
		for i, c := range l.seen {
			if c.subnet == subnet && c.state == state {
				at, l.seen = c.at, l.seen[i+1:]
				return nil
			}
		}
		return fmt.Errorf("the log has %v", l.seen)
	})
	return at
}

func (l *commitLog) read() error {
	data, err := os.ReadFile(l.path)
	if err != nil {
		return err
	}
	text := l.rest + string(data[l.offset:])
	l.offset = int64(len(data))
	for {
		line, rest, whole := strings.Cut(text, "\n")
		if !whole {
			l.rest = text
			return nil
		}
		text = rest
		if !strings.Contains(line, `msg="subnet changed"`) {
			continue
		}
		attrs := map[string]string{}
		for _, m := range attrPattern.FindAllStringSubmatch(line, -1) {
			attrs[m[1]] = strings.Trim(m[2], `"`)
		}
		at, err := time.Parse(time.RFC3339Nano, attrs["time"])
		if err != nil {
			return err
		}
		l.seen = append(l.seen, commitLine{at, attrs["subnet"], attrs["state"]})
	}
}

// routeWatch notes when routes of ours come and go in a namespace.
type routeWatch struct {
	n    *node
	mu   sync.Mutex // guards when
	when map[routeNews]time.Time
}

type routeNews struct {
	subnet string
	there  bool
}

// watchRoutes listens until the benchmark ends.
func watchRoutes(b *testing.B, n *node) *routeWatch {
	b.Helper()
	w := &routeWatch{n: n, when: map[routeNews]time.Time{}}
	updates, stop, ended := make(chan netlink.RouteUpdate), make(chan struct{}), make(chan struct{})
	ns := netns.NsHandle(n.host.FD)
	if err := netlink.RouteSubscribeWithOptions(updates, stop, netlink.RouteSubscribeOptions{Namespace: &ns}); err != nil {
		b.Fatal(err)
	}
	go func() {
		defer close(ended)
		for u := range updates {
			now := time.Now()
			if u.Protocol == 147 && u.Dst != nil && u.Gw != nil {
				w.mu.Lock()
				w.when[routeNews{u.Dst.String(), u.Type == unix.RTM_NEWROUTE}] = now
				w.mu.Unlock()
			}
		}
	}()
	b.Cleanup(func() {
		close(stop)
		// The library looks at stop after the next message only.
		n.host.Run(b, "ip", "route", "add", "198.51.100.1/32", "dev", "lo")
		<-ended
	})
	return w
}

// seen returns when the route came or went, and forgets it.
func (w *routeWatch) seen(b *testing.B, subnet string, there bool) (at time.Time) {
	b.Helper()
	w.n.eventually(quiet, fmt.Sprintf("%s: route to %s: %t", w.n.name, subnet, there), func() error {
		w.mu.Lock()
		defer w.mu.Unlock()
		key := routeNews{subnet, there}
		var ok bool
		if at, ok = w.when[key]; !ok {
			return fmt.Errorf("not seen")
		}
		delete(w.when, key)
		return nil
	})
	return at
}
