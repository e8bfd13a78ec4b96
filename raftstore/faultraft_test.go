package raftstore

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"stellar.io/stellar/internal/testx/faults"
	"stellar.io/stellar/ipam"
)

const (
	fuzzSeeds              = 2
	fuzzTime, fuzzTimeLong = 8 * time.Second, 20 * time.Second
	fuzzClients            = 5
	fuzzNodes              = 5
)

// TestFaultRaft: five stores on real files, over links that are cut, held one way,
// slow and broken, whose requests are doubled, late and lost, with leaders handed
// over, voters demoted and promoted, nodes killed and replaced, and a snapshot every
// 50 entries. A term has one leader; the state is the same at the same index; and what
// clients were told of leases is linearizable: nothing acknowledged is lost, no read
// is old. A seed fixes what is done to the cluster; the order in which the machine
// runs its goroutines it does not.
func TestFaultRaft(t *testing.T) {
	took, seeds := fuzzTime, uint64(fuzzSeeds)
	if faults.Long() {
		took = fuzzTimeLong
	}
	first := faults.Seed(t, "./raftstore")
	if os.Getenv(faults.EnvSeed) != "" {
		seeds = 1
	}
	var sum fuzzed
	for seed := first; seed < first+seeds; seed++ {
		if !t.Run(fmt.Sprint(seed), func(t *testing.T) { sum.add(fuzzRaft(t, seed, took)) }) {
			t.Fatal(faults.Replay(t.Name(), "./raftstore", seed, faults.Long()))
		}
	}
	faults.Report(t, faults.InProcess, "five stores in trouble: links, kills, members, snapshots",
		"%d histories, %d troubles, %d terms, %d operations, %d of unknown outcome: all linearizable, 0 lost, one leader a term",
		seeds, sum.troubles, sum.terms, sum.operations, sum.unknown)
}

// fuzzed counts what happened.
type fuzzed struct{ troubles, terms, operations, unknown int }

func (f *fuzzed) add(o fuzzed) {
	f.troubles += o.troubles
	f.terms += o.terms
	f.operations += o.operations
	f.unknown += o.unknown
}

// fuzz is one history.
type fuzz struct {
	*bed
	rng  *rand.Rand
	end  time.Time
	done chan struct{}

	history history
	chaos   atomic.Bool // requests are doubled, late and lost

	mu      sync.Mutex // guards what follows, and the bed's nodes while one is replaced
	leaders map[uint64]ipam.NodeID
	subnets []ipam.Subnet
	log     []string
}

func fuzzRaft(t *testing.T, seed uint64, took time.Duration) fuzzed {
	z := &fuzz{rng: rand.New(rand.NewPCG(seed, 3)), leaders: map[uint64]ipam.NodeID{}, done: make(chan struct{})}
	z.bed = newBed(t, func(c *Config) {
		c.Voters, c.SnapshotThreshold, c.TrailingLogs, c.SnapshotInterval = fuzzNodes, 50, 30, 200*time.Millisecond
		c.Forward = z.unreliable(c.Forward, seed)
	})
	z.form(fuzzNodes, fuzzNodes)
	z.mu.Lock()
	for _, n := range z.nodes {
		z.subnets = append(z.subnets, z.subnet(z.nodes[0].Store, n.id))
	}
	z.mu.Unlock()
	z.end = time.Now().Add(took)
	var clients, watcher sync.WaitGroup
	watcher.Go(z.watchLeaders)
	for i := range fuzzClients {
		rng := rand.New(rand.NewPCG(seed, uint64(100+i)))
		clients.Go(func() { z.client(i, rng) })
	}
	z.chaos.Store(true)
	for time.Now().Before(z.end) {
		z.trouble()
	}
	z.chaos.Store(false)
	z.heal()
	clients.Wait()
	z.replaceOne()
	z.readAll()
	z.same()
	close(z.done)
	watcher.Wait()
	z.history.check(t)
	if t.Failed() {
		for _, l := range z.log {
			t.Log(l)
		}
	}
	return fuzzed{len(z.log), len(z.leaders), len(z.history.ops), z.history.unknown}
}

// unreliable makes requests to the leader arrive twice, late, or without an answer.
func (z *fuzz) unreliable(forward func(context.Context, ipam.NodeID, string, []byte) ([]byte, error), seed uint64) func(context.Context, ipam.NodeID, string, []byte) ([]byte, error) {
	var mu sync.Mutex
	rng := rand.New(rand.NewPCG(seed, 5))
	return func(ctx context.Context, l ipam.NodeID, address string, request []byte) ([]byte, error) {
		mu.Lock()
		n, wait := rng.IntN(100), time.Duration(rng.IntN(60))*time.Millisecond
		mu.Unlock()
		if !z.chaos.Load() || n >= 24 {
			return forward(ctx, l, address, request)
		}
		switch {
		case n < 8: // late: what was sent after it overtakes it
			time.Sleep(wait)
		case n < 16: // twice
			_, _ = forward(ctx, l, address, request)
		default: // its answer is lost
			_, _ = forward(ctx, l, address, request)
			return nil, errors.New("answer lost")
		}
		return forward(ctx, l, address, request)
	}
}

// trouble does one thing to the cluster, for some time.
func (z *fuzz) trouble() {
	n := z.nodes[z.rng.IntN(len(z.nodes))]
	other := z.nodes[z.rng.IntN(len(z.nodes))]
	wait := time.Duration(200+z.rng.IntN(1200)) * time.Millisecond
	kind := z.rng.IntN(8)
	if l := z.leader(); l != nil && z.rng.IntN(2) == 0 {
		n = l
	}
	z.note("%s %s %s", [...]string{"isolate", "mute", "deafen", "halves", "slow", "break", "kill", "members"}[kind], n.host, other.host)
	switch kind {
	case 0:
		z.f.isolate(n.host, z.hosts(), true)
	case 1, 2:
		for _, h := range z.hosts() {
			if h == n.host {
				continue
			} else if kind == 1 {
				z.f.hold(n.host, h, true)
			} else {
				z.f.hold(h, n.host, true)
			}
		}
	case 3:
		for i, a := range z.hosts() {
			for _, b := range z.hosts()[i+1:] {
				if (a == n.host || a == other.host) != (b == n.host || b == other.host) {
					z.f.hold(a, b, true)
					z.f.hold(b, a, true)
				}
			}
		}
	case 4:
		for _, h := range z.hosts() {
			z.f.delay(n.host, h, time.Duration(z.rng.IntN(150))*time.Millisecond)
		}
	case 5:
		z.f.breakConns(func(p *pipe) bool { return p.from == n.host || p.to == n.host })
	case 6:
		z.mu.Lock()
		z.f.kill(n.host, z.hosts())
		n.stop()
		n.restart()
		z.mu.Unlock()
	case 7:
		z.members(n, other)
	}
	time.Sleep(wait)
	z.heal()
	time.Sleep(time.Duration(z.rng.IntN(600)) * time.Millisecond)
}

// members hands the leadership over, or changes who votes. A refusal is an answer.
func (z *fuzz) members(n, other *member1) {
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Second)
	defer cancel()
	var err error
	switch z.rng.IntN(3) {
	case 0:
		err = n.TransferLeader(ctx, other.id)
	case 1:
		err = n.Demote(ctx, other.id, false)
	case 2:
		err = n.Promote(ctx, other.id, false)
	}
	z.note("members: %v", err)
}

// replaceOne removes a node for good and has another join in its place.
func (z *fuzz) replaceOne() {
	lost := z.follower()
	z.note("replace %s", lost.host)
	z.retry(func() error {
		return z.anyLeader().Remove(within(z.t, 5*time.Second), lost.id, true)
	})
	z.mu.Lock()
	lost.stop()
	z.join(len(z.nodes))
	z.mu.Unlock()
}

func (z *fuzz) heal() {
	for _, a := range z.hosts() {
		for _, b := range z.hosts() {
			if a != b {
				z.f.hold(a, b, false)
				z.f.delay(a, b, 0)
			}
		}
	}
}

func (z *fuzz) note(format string, args ...any) {
	z.log = append(z.log, time.Now().Format("05.000 ")+fmt.Sprintf(format, args...))
}

// store returns the i-th node's store, as it is now.
func (z *fuzz) store(i int) *Store {
	z.mu.Lock()
	defer z.mu.Unlock()
	return z.nodes[i%len(z.nodes)].Store
}

// watchLeaders sees two leaders of one term.
func (z *fuzz) watchLeaders() {
	for {
		select {
		case <-z.done:
			return
		case <-time.After(5 * time.Millisecond):
		}
		z.mu.Lock()
		for _, n := range z.nodes {
			if n.cancel == nil {
				continue
			}
			st := n.Stats()
			if st.State != "leader" {
				continue
			}
			if l, ok := z.leaders[st.Term]; ok && l != n.id {
				z.t.Errorf("term %d has two leaders, %s and %s", st.Term, l.Short(), n.id.Short())
			}
			z.leaders[st.Term] = n.id
		}
		z.mu.Unlock()
	}
}
