package node

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"slices"
	"sync"
	"time"

	"stellar.io/stellar/api"
	"stellar.io/stellar/ipam"
)

const (
	// lendPatience is how long a node may take to make its endpoints.
	lendPatience = 30 * time.Second
	// lendGrace is how much longer than the test itself a node lends: the test gives
	// back, the deadline is for one that has died.
	lendGrace = 15 * time.Second
	// progressEvery is between two reports of how far a test is.
	progressEvery = 500 * time.Millisecond
	// testedAtOnce bounds the nodes that are asked at the same time.
	testedAtOnce = 64
)

// Phases of a test.
const (
	phasePreparing  = "preparing"
	phaseTesting    = "testing"
	phaseCleaningUp = "cleaning up"
)

// tester is a node that takes part in a test: this one, or another through the cluster.
type tester struct {
	name     string
	address  netip.Addr
	lend     func(ctx context.Context, t api.ConnectivityTest, send func(api.ConnectivityLoan)) error
	probe    func(ctx context.Context, probes []api.ConnectivityProbe, done func(api.ConnectivityProbed)) error
	giveBack func(ctx context.Context, loan string) error
}

// TestConnectivity implements server.Connectivity.
func (n *Node) TestConnectivity(ctx context.Context, t api.ConnectivityTest, send func(api.ConnectivityMessage) error) error {
	p, err := n.ready()
	if err != nil {
		return err
	}
	testers := n.testers(p)
	c := campaign{test: t, send: send, report: api.ConnectivityReport{Time: time.Now(), Node: n.id.Name, AllPairs: len(testers) * (len(testers) - 1) / 2}}
	chosen := pairs(len(testers), t.Sample, rand.Shuffle)
	c.report.Pairs = len(chosen)
	c.testers, c.pairs = involved(testers, chosen)
	return c.run(ctx)
}

// testers are the members of the cluster in the order of their names.
func (n *Node) testers(p *parts) []tester {
	out := []tester{n.ownTester()}
	p.store.View(func(s *ipam.State) {
		for m := range s.Nodes() {
			if !m.Removed && m.ID != n.id.ID {
				out = append(out, p.otherTester(m))
			}
		}
	})
	slices.SortFunc(out, func(a, b tester) int { return cmp.Compare(a.name, b.name) })
	return out
}

func (n *Node) ownTester() tester {
	return tester{
		name: n.id.Name,
		lend: func(ctx context.Context, t api.ConnectivityTest, send func(api.ConnectivityLoan)) error {
			return n.LendEndpoints(ctx, t.Own, t.Limit, func(l api.ConnectivityLoan) error { send(l); return nil })
		},
		probe: func(ctx context.Context, probes []api.ConnectivityProbe, done func(api.ConnectivityProbed)) error {
			return n.ProbePaths(ctx, probes, func(r api.ConnectivityProbed) error { done(r); return nil })
		},
		giveBack: n.GiveBackEndpoints,
	}
}

func (p *parts) otherTester(m ipam.Node) tester {
	host, _ := netip.ParseAddrPort(m.Address)
	return tester{
		name: m.Name, address: host.Addr(),
		lend: func(ctx context.Context, t api.ConnectivityTest, send func(api.ConnectivityLoan)) error {
			c, err := p.relay(ctx, m.ID, m.Address)
			if err != nil {
				return err
			}
			return c.LendEndpoints(ctx, t, send)
		},
		probe: func(ctx context.Context, probes []api.ConnectivityProbe, done func(api.ConnectivityProbed)) error {
			c, err := p.relay(ctx, m.ID, m.Address)
			if err != nil {
				return err
			}
			return c.ProbePaths(ctx, probes, done)
		},
		giveBack: func(ctx context.Context, loan string) error {
			c, err := p.relay(ctx, m.ID, m.Address)
			if err != nil {
				return err
			}
			return c.GiveBackEndpoints(ctx, loan)
		},
	}
}

// involved leaves out the testers that are in no pair, if there are pairs at all.
func involved(testers []tester, chosen [][2]int) ([]tester, [][2]int) {
	if len(chosen) == 0 {
		return testers, nil
	}
	at := map[int]int{}
	var out []tester
	for i, t := range testers {
		if slices.ContainsFunc(chosen, func(p [2]int) bool { return p[0] == i || p[1] == i }) {
			at[i] = len(out)
			out = append(out, t)
		}
	}
	var renumbered [][2]int
	for _, p := range chosen {
		renumbered = append(renumbered, [2]int{at[p[0]], at[p[1]]})
	}
	return out, renumbered
}

// campaign is one test of the cluster's paths: borrow, probe, give back, report.
type campaign struct {
	test    api.ConnectivityTest
	testers []tester
	pairs   [][2]int // of testers
	send    func(api.ConnectivityMessage) error
	report  api.ConnectivityReport
}

// run sends progress and then the report. However it ends, it has given back what it
// borrowed, or tried to.
func (c *campaign) run(ctx context.Context) (err error) {
	ctx, cancel := context.WithTimeoutCause(ctx, c.test.Limit,
		api.Errorf(api.CodeTimeout, "the test is not over after %s", c.test.Limit).WithHint("give it longer with --timeout, or test a part with --sample"))
	defer cancel()
	if err := c.progress(phasePreparing, 0, len(c.testers), 0); err != nil {
		return err
	}
	b := borrow(ctx, c.testers, c.test)
	defer b.giveBack(context.WithoutCancel(ctx))
	err = c.await(ctx, b.answered, func(done int) error { return c.progress(phasePreparing, done, len(c.testers), 0) })
	if err != nil {
		return err
	}
	planned := plan(b.loans, c.pairs, c.test)
	if err := c.probe(ctx, planned); err != nil {
		return err
	}
	if err := c.progress(phaseCleaningUp, 0, len(c.testers), planned.failed()); err != nil {
		return err
	}
	b.giveBack(context.WithoutCancel(ctx))
	for _, l := range b.loans {
		c.report.Nodes = append(c.report.Nodes, l.Node)
	}
	c.report.Results = planned.results
	return c.send(api.ConnectivityMessage{Report: &c.report})
}

func (c *campaign) progress(phase string, done, total, failed int) error {
	return c.send(api.ConnectivityMessage{Progress: &api.ConnectivityProgress{Phase: phase, Done: done, Total: total, Failed: failed}})
}

// await returns when one value per tester has come, or with ctx.
func (c *campaign) await(ctx context.Context, one <-chan struct{}, progress func(done int) error) error {
	tick := time.NewTicker(progressEvery)
	defer tick.Stop()
	for done := 0; done < len(c.testers); {
		select {
		case <-one:
			done++
		case <-tick.C:
			if err := progress(done); err != nil {
				return err
			}
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
	return nil
}

// probe has each node try its paths, all nodes at once.
func (c *campaign) probe(ctx context.Context, p *planned) error {
	ctx, cancel := context.WithCancel(ctx)
	var tasks sync.WaitGroup
	defer tasks.Wait()
	defer cancel()
	var mu sync.Mutex // guards p and done
	done, ended := 0, make(chan struct{})
	turns := make(chan struct{}, testedAtOnce)
	for _, t := range c.testers {
		tasks.Go(func() {
			turns <- struct{}{}
			defer func() { <-turns }()
			if err := c.probeFrom(ctx, t, p.probes[t.name], func(r api.ConnectivityProbed) {
				mu.Lock()
				defer mu.Unlock()
				p.done(r)
				done++
			}); err != nil {
				mu.Lock()
				defer mu.Unlock()
				p.lose(t.name, err.Error())
			}
			select {
			case ended <- struct{}{}:
			case <-ctx.Done():
			}
		})
	}
	report := func(int) error {
		mu.Lock()
		done, total, failed := done, len(p.result), p.failed()
		mu.Unlock()
		return c.progress(phaseTesting, done, total, failed)
	}
	if err := report(0); err != nil {
		return err
	}
	return c.await(ctx, ended, report)
}

// probeFrom returns nil only when there is an answer for each probe.
func (c *campaign) probeFrom(ctx context.Context, t tester, probes []api.ConnectivityProbe, done func(api.ConnectivityProbed)) error {
	if len(probes) == 0 {
		return nil
	}
	answers := 0
	err := t.probe(ctx, probes, func(r api.ConnectivityProbed) { answers++; done(r) })
	if err == nil && answers < len(probes) {
		err = fmt.Errorf("%d of %d paths tried", answers, len(probes))
	}
	return err
}

// borrowed is what the nodes have lent.
type borrowed struct {
	testers  []tester
	answered chan struct{} // one for each tester; after all of them loans does not change
	cancel   context.CancelFunc
	tasks    sync.WaitGroup
	once     sync.Once

	mu    sync.Mutex             // guards loans until then
	loans []api.ConnectivityLoan // in the order of the testers; without an id: nothing
}

// loan returns a copy.
func (b *borrowed) loan(i int) api.ConnectivityLoan {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.loans[i]
}

// enter notes what a node has lent, or why it has not.
func (b *borrowed) enter(i int, l api.ConnectivityLoan) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.loans[i] = l
}

// borrow asks each node for endpoints. They are lent until giveBack.
func borrow(ctx context.Context, testers []tester, t api.ConnectivityTest) *borrowed {
	ctx, cancel := context.WithCancel(ctx)
	b := &borrowed{testers: testers, loans: make([]api.ConnectivityLoan, len(testers)), answered: make(chan struct{}, len(testers)), cancel: cancel}
	t.Limit = min(t.Limit+lendGrace, api.MaxConnectivityLimit)
	for i, tester := range testers {
		b.loans[i].Node = api.ConnectivityNode{Node: tester.name, Address: tester.address}
		b.tasks.Go(func() { b.hold(ctx, i, t) })
	}
	return b
}

// hold asks one node and holds what it lends until ctx ends.
func (b *borrowed) hold(ctx context.Context, i int, t api.ConnectivityTest) {
	answer := sync.OnceFunc(func() { b.answered <- struct{}{} })
	defer answer()
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	late := time.AfterFunc(lendPatience, func() { cancel(fmt.Errorf("it lends nothing within %s", lendPatience)) })
	defer late.Stop()
	err := b.testers[i].lend(ctx, t, func(l api.ConnectivityLoan) {
		if b.loan(i).ID != "" || !late.Stop() {
			return // it comes too late, or again
		}
		b.enter(i, l)
		answer()
	})
	l := b.loan(i)
	if l.ID != "" {
		return
	}
	if err == nil || errors.Is(err, context.Canceled) {
		err = cmp.Or(context.Cause(ctx), errors.New("it lends nothing"))
	}
	l.Node.Error = err.Error()
	if api.CodeOf(err) == api.CodeDenied { // this node's certificate is that of a mere node
		l.Node.Error += ": test from a server (`stellar node ls` shows the roles)"
	}
	b.enter(i, l)
}

// giveBack returns when the nodes have taken back what they lent, or cannot be asked
// any more: then they do it by themselves. It may be called again.
func (b *borrowed) giveBack(ctx context.Context) {
	b.once.Do(func() {
		defer b.tasks.Wait()
		defer b.cancel() // of those that could not be asked
		ctx, cancel := context.WithTimeout(ctx, takeBackTime)
		defer cancel()
		var tasks sync.WaitGroup
		for i, t := range b.testers {
			tasks.Go(func() {
				if id := b.loan(i).ID; id != "" {
					_ = t.giveBack(ctx, id) // the node does it at the deadline, too
				}
			})
		}
		tasks.Wait()
	})
}
