package integration

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"sync"
	"testing"
	"time"

	"stellar.io/stellar/api"
	"stellar.io/stellar/api/client"
	"stellar.io/stellar/internal/testx"
	"stellar.io/stellar/internal/testx/faults"
)

const (
	// Small subnets and a short cool-down, so that addresses come round within a test.
	faultConfig  = "cool-down = \"1s\"\n"
	faultNetwork = "172.16.0.0/16"
	faultPrefix  = "26"

	podsPerNode = 6
)

// faultBed is a cluster under load: each node has a containerd with one container
// that is pinged from another node, and namespaces that clients attach and detach
// by CNI's calls. Call finish at the end.
type faultBed struct {
	t     *testing.T
	rng   *rand.Rand // of the test's goroutine
	seed  uint64
	nodes []*node
	api   map[*node]*client.Client
	pods  map[*node]chan *testx.NetNS // those that nobody uses

	hist     *history
	kernels  *kernels
	baseline map[*node]int // links
	rest     map[*node]rest
	steady   map[*node]endpoint
	held     sync.Map // owner: *holding, what clients hold when the load ends
	pings    []func() (sent, missing int)

	stopLoad func()
}

// holding is an owner that may have an address.
type holding struct {
	on       *node
	owner    string
	pod      *testx.NetNS // nil: an address alone
	addr     string       // "": not known
	resolved bool         // the last call was acknowledged
}

// faultOptions of a bed; the zero value has no extras.
type faultOptions struct {
	build  string              // the agents' binary; "": the usual one
	before func(nodes []*node) // runs before any agent starts
	follow int                 // so many of the nodes, the last, follow the others
	exact  bool                // at rest all of the hosts and the agents is what it was, not the links alone
}

// startFaults makes a cluster whose nodes all vote, but those that follow.
func startFaults(t *testing.T, size int, o faultOptions) *faultBed {
	t.Helper()
	b := &faultBed{
		t: t, seed: faults.Seed(t, "./integration"), api: map[*node]*client.Client{}, pods: map[*node]chan *testx.NetNS{},
		hist: newHistory(), baseline: map[*node]int{}, steady: map[*node]endpoint{}, rest: map[*node]rest{},
	}
	b.rng = rand.New(rand.NewPCG(b.seed, uint64(size)))
	lan := testx.NewLAN(t, size)
	for i := range size {
		n := newNode(t, lan, i, nodeOptions{flags: []string{"--config", writeConfig(t, faultConfig)}})
		n.build = o.build
		b.nodes = append(b.nodes, n)
	}
	if o.before != nil {
		o.before(b.nodes)
	}
	first := b.nodes[0]
	first.startAgent()
	first.cli("cluster", "init", "--network", faultNetwork, "--subnet-prefix", faultPrefix)
	first.cli("status", "--wait", "--timeout", "60s")
	for i, n := range b.nodes[1:] {
		n.startAgent()
		if i+1 >= size-o.follow {
			n.joinToFollow(first)
		} else {
			n.join(first, first.token())
		}
	}
	allVote(t, b.nodes[:size-o.follow])
	for _, n := range b.nodes {
		b.api[n] = n.client()
		b.steady[n] = n.start(unique("steady-" + n.name))
		b.pods[n] = make(chan *testx.NetNS, podsPerNode)
	}
	b.kernels = newKernels(t, b.nodes...)
	for _, n := range b.nodes {
		for range podsPerNode {
			pod := testx.NewNetNS(t)
			b.kernels.add(t, pod)
			b.pods[n] <- pod
		}
	}
	for i, n := range b.nodes { // in a ring
		next := b.steady[b.nodes[(i+1)%size]]
		n.eventually(quiet, "the route to "+next.Address, func() error {
			_, err := n.exec(b.steady[n].Container, "ping", "-c", "1", "-w", "1", next.Address)
			return err
		})
		b.pings = append(b.pings, n.pinging(b.steady[n].Container, next.Address))
	}
	for _, n := range b.nodes {
		if b.baseline[n] = b.links(n); o.exact {
			b.rest[n] = n.rests(t, size-1)
		}
	}
	b.kernels.start(t)
	return b
}

// upTo is a random time below limit.
func (b *faultBed) upTo(limit time.Duration) time.Duration {
	return time.Duration(b.rng.Int64N(int64(limit)))
}

// links counts the interfaces of a host.
func (b *faultBed) links(n *node) int {
	b.t.Helper()
	return strings.Count(n.host.Run(b.t, "ip", "-o", "link"), "\n")
}

// settled waits until all nodes are ready, know one leader and can read what it has.
func (b *faultBed) settled() {
	b.t.Helper()
	for _, n := range b.nodes {
		n.cli("status", "--wait", "--timeout", "60s")
		n.eventually(time.Minute, n.name+" reads what is committed", func() error {
			ctx, cancel := context.WithTimeout(b.t.Context(), 5*time.Second)
			defer cancel()
			_, err := b.api[n].Linearizable().Subnets(ctx)
			return err
		})
	}
}

// verdict is what a test has found; it is shown only if nothing was wrong.
type verdict struct {
	ops, acked, samples, addresses, pings, missing int
}

func (v verdict) String() string {
	return fmt.Sprintf("%d calls, %d acknowledged: 0 lost, 0 doubled (porcupine; %d samples of all kernels); %d of %d pings lost", v.ops, v.acked, v.samples, v.missing, v.pings)
}

// finish ends the load and fails the test unless everything promised holds: what
// was acknowledged is there, on every node and in the kernel, and when it has been
// given back nothing is left.
func (b *faultBed) finish() verdict {
	b.t.Helper()
	b.stopLoad()
	b.settled()
	b.askAgain()
	b.replicated()
	b.dropAll()
	b.kernels.stop()
	v := verdict{samples: b.kernels.samples, addresses: b.kernels.most}
	for _, err := range b.kernels.errs {
		b.t.Error(err)
	}
	for _, wrong := range b.kernels.wrong() {
		faults.Safety(b.t, "seen in the kernels: %s", wrong)
	}
	if v.samples < 10 || v.addresses < 2*len(b.nodes) {
		b.t.Errorf("%d samples of at most %d addresses prove nothing", v.samples, v.addresses)
	}
	for i, lost := range b.pings {
		sent, missing := lost()
		v.pings, v.missing = v.pings+sent, v.missing+missing
		if missing > 0 {
			faults.Safety(b.t, "%d of %d pings from %s lost", missing, sent, b.nodes[i].name)
		}
		if sent < 50 {
			b.t.Errorf("%d pings from %s prove nothing", sent, b.nodes[i].name)
		}
	}
	b.atRest()
	ops := b.hist.snapshot()
	v.ops = len(ops)
	for _, o := range ops {
		if o.acked {
			v.acked++
		}
	}
	for _, wrong := range judge(ops) {
		b.t.Error(wrong)
	}
	if v.acked < 50 {
		b.t.Errorf("%d acknowledged calls prove nothing", v.acked)
	}
	return v
}

// holdings are what clients hold.
func (b *faultBed) holdings() (all []*holding) {
	b.held.Range(func(_, v any) bool {
		all = append(all, v.(*holding))
		return true
	})
	return all
}

// askAgain repeats the add of everything that is held: the answers belong to the
// history, and must be what was acknowledged.
func (b *faultBed) askAgain() {
	b.t.Helper()
	for _, h := range b.holdings() {
		h.on.eventually(quiet, "an answer for "+h.owner, func() error {
			was, known := h.addr, h.resolved
			if err := b.add(-1, h); err != nil {
				return err
			}
			if known && was != "" && h.addr != was {
				faults.Safety(b.t, "lost: %s had %s, has %s", h.owner, was, h.addr)
			}
			return nil
		})
	}
}

// replicated waits until every node shows every holding with its owner.
func (b *faultBed) replicated() {
	b.t.Helper()
	for _, h := range b.holdings() {
		for _, n := range b.nodes {
			n.eventually(time.Minute, n.name+" knows who has "+h.addr, func() error {
				ctx, cancel := context.WithTimeout(b.t.Context(), 10*time.Second)
				defer cancel()
				a, err := b.api[n].Linearizable().Address(ctx, mustAddr(h.addr))
				if err != nil {
					return err
				}
				return holds(a, h.owner)
			})
		}
	}
}

// holds returns nil when the owner has the address, replicated.
func holds(a api.Address, owner string) error {
	switch {
	case a.Owner == nil || a.Owner.Container != owner || a.State == api.AddressCooling:
		return faults.Violation("%s is not %s's: %+v, owner %+v", a.Address, owner, a, a.Owner)
	case a.Provisional:
		return fmt.Errorf("%+v", a)
	}
	return nil
}

// dropAll gives everything back.
func (b *faultBed) dropAll() {
	b.t.Helper()
	for _, h := range b.holdings() {
		h.on.eventually(quiet, h.owner+" is given back", func() error { return b.del(-1, h) })
	}
}

// atRest waits until nothing is left but the containers that never changed.
func (b *faultBed) atRest() {
	b.t.Helper()
	for _, n := range b.nodes {
		n.eventually(time.Minute, "the links of "+n.name+" are those of before", func() error {
			if now := b.links(n); now != b.baseline[n] {
				return fmt.Errorf("%d, were %d:\n%s", now, b.baseline[n], n.host.Run(b.t, "ip", "-br", "link"))
			}
			return nil
		})
		if was, exact := b.rest[n]; exact {
			n.asBefore(b.t, was)
		}
		n.eventually(time.Minute, "`ipam check` of "+n.name+" is clean", n.problems)
		n.eventually(time.Minute, n.name+" has its container alone", func() error {
			es, err := n.list()
			if err != nil {
				return err
			}
			was := b.steady[n]
			e := es["default/"+was.Container]
			if e.Address != was.Address || e.MAC != was.MAC || e.HostIfname != was.HostIfname {
				return faults.Violation("%+v, was %+v", e, was)
			}
			if len(es) != 1 || e.State != "attached" {
				return fmt.Errorf("%+v, want %+v alone", es, was)
			}
			return nil
		})
		if out, err := n.run("route", "ls", "--drift", "--no-headers"); err != nil || strings.Contains(out, "172.16.") {
			b.t.Errorf("routes of %s: %v\n%s", n.name, err, out)
		}
	}
	b.nodes[0].eventually(time.Minute, "no address is used but by the containers", func() error {
		text, err := b.nodes[0].run("ipam", "ls", "-o", "json", "--linearizable")
		if err != nil {
			return err
		}
		var list struct{ Items []api.Subnet }
		if err := json.Unmarshal([]byte(text), &list); err != nil {
			return err
		}
		used := 0
		for _, s := range list.Items {
			used += s.Used
		}
		if used != len(b.nodes) {
			return errors.New(text)
		}
		return nil
	})
	sameState(b.t, b.nodes)
}
