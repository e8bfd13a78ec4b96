package raftstore

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"stellar.io/stellar/ipam"
)

// bed is a cluster of stores on one machine.
type bed struct {
	t       testing.TB
	f       *fabric
	base    string
	prepare func(*Config) // changes a node's configuration before it is opened
	nodes   []*member1

	mu    sync.Mutex
	moved map[ipam.NodeID]string // AddressOf
	unfit map[ipam.NodeID]bool   // not Eligible
}

// member1 is one node of a bed.
type member1 struct {
	*Store
	b       *bed
	host    string
	id      ipam.NodeID
	address string
	cfg     Config
	cancel  context.CancelFunc
	done    chan error
	calls   *caller
	rpc     net.Listener
	served  func()
}

func newBed(t testing.TB, prepare func(*Config)) *bed {
	b := &bed{t: t, f: newFabric(t), base: t.TempDir(), prepare: prepare,
		moved: map[ipam.NodeID]string{}, unfit: map[ipam.NodeID]bool{}}
	t.Cleanup(func() {
		for _, n := range b.nodes {
			n.stop()
		}
	})
	return b
}

func idOf(i int) ipam.NodeID { return ipam.NodeID(fmt.Sprintf("%032x", i+1)) }

// add makes a node that is not started.
func (b *bed) add(i int) *member1 {
	host := fmt.Sprintf("n%d", i)
	n := &member1{b: b, host: host, id: idOf(i), address: fmt.Sprintf("10.0.0.%d:9640", i+1)}
	b.nodes = append(b.nodes, n)
	n.configure()
	return n
}

func (n *member1) configure() {
	b := n.b
	n.cfg = Config{
		Dir: filepath.Join(b.base, n.host, "raft"), NodeID: n.id, Address: n.address,
		StabilizeTime: 200 * time.Millisecond, DeadTime: 500 * time.Millisecond,
		AddressOf: func(id ipam.NodeID) (string, bool) {
			b.mu.Lock()
			defer b.mu.Unlock()
			a, ok := b.moved[id]
			return a, ok
		},
		Eligible: func(id ipam.NodeID) bool {
			b.mu.Lock()
			defer b.mu.Unlock()
			return !b.unfit[id]
		},
		Forward: func(ctx context.Context, _ ipam.NodeID, address string, request []byte) ([]byte, error) {
			return n.calls.call(ctx, "rpc:"+address, append([]byte{'f'}, request...))
		},
		FetchState: func(ctx context.Context, _ ipam.NodeID, address string) (io.ReadCloser, error) {
			data, err := n.calls.call(ctx, "rpc:"+address, []byte{'s'})
			return io.NopCloser(bytes.NewReader(data)), err
		},
	}
	if os.Getenv("STELLAR_TEST_LOG") != "" {
		n.cfg.Logger = slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelDebug})).With("node", n.host)
	}
	if b.prepare != nil {
		b.prepare(&n.cfg)
	}
	if err := os.MkdirAll(filepath.Dir(n.cfg.Dir), 0o700); err != nil {
		b.t.Fatal(err)
	}
}

// start opens and runs the node's store.
func (n *member1) start() {
	t := n.b.t
	t.Helper()
	n.cfg.Streams = streamsOf{n.b.f.listen(n.host, n.address), n.b.f, n.host}
	n.cfg.Followers = followsOf{streamsOf{n.b.f.listen(n.host, "fl:"+n.address), n.b.f, n.host}}
	n.calls = &caller{f: n.b.f, host: n.host, idle: map[string][]net.Conn{}}
	s, err := Open(n.cfg)
	if err != nil {
		t.Fatal(err)
	}
	n.Store = s
	n.rpc = n.b.f.listen(n.host, "rpc:"+n.address)
	n.served = serve(n.rpc, n.handle)
	ctx, cancel := context.WithCancel(context.Background())
	n.cancel, n.done = cancel, make(chan error, 1)
	go func() { n.done <- s.Run(ctx) }()
}

func (n *member1) handle(request []byte) []byte {
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	switch request[0] {
	case 'f':
		answer, err := n.HandleForward(ctx, request[1:])
		if err != nil {
			return nil
		}
		return answer
	case 's':
		var w bytes.Buffer
		if _, err := n.SnapshotSave(ctx, &w); err != nil {
			return nil
		}
		return w.Bytes()
	}
	return nil
}

// stop ends the node's store, in bounded time.
func (n *member1) stop() {
	t := n.b.t
	t.Helper()
	if n.cancel == nil {
		return
	}
	begin := time.Now()
	n.cancel()
	n.cancel = nil
	n.rpc.Close()
	select {
	case err := <-n.done:
		if err != nil {
			t.Errorf("%s: Run: %v", n.host, err)
		}
	case <-time.After(15 * time.Second):
		t.Fatalf("%s: Run does not end", n.host)
	}
	if took := time.Since(begin); took > 5*time.Second {
		t.Errorf("%s: Run took %s to end", n.host, took)
	}
	n.calls.close()
	n.b.f.breakConns(func(p *pipe) bool { return p.from == n.host || p.to == n.host })
	n.served()
}

// restart starts a stopped node again, with its links free.
func (n *member1) restart() {
	n.b.f.isolate(n.host, n.b.hosts(), false)
	n.configure()
	n.start()
}

func (b *bed) hosts() []string {
	var hosts []string
	for _, n := range b.nodes {
		hosts = append(hosts, n.host)
	}
	return hosts
}

// form starts a cluster of count nodes and waits for its voters.
func (b *bed) form(count, voters int) {
	t := b.t
	t.Helper()
	first := b.add(0)
	if err := Init(t.Context(), first.cfg, b.firstEnvelope()); err != nil {
		t.Fatal(err)
	}
	first.start()
	b.waitLeader(first)
	for i := 1; i < count; i++ {
		b.join(i)
	}
	waitIn(t, 15*time.Second, func() bool {
		for _, n := range b.nodes { // the leader shows what is not yet committed
			if st := n.Stats(); st.Voters != voters || st.Leader == "" {
				return false
			}
		}
		return true
	})
}

func (b *bed) firstEnvelope() ipam.Envelope {
	return ipam.Envelope{Commands: []ipam.Command{
		ipam.InitCluster{ClusterID: cluster, Network: ipam.DefaultNetwork, Prefix: netip.MustParsePrefix("172.16.0.0/12"), SubnetBits: 22},
		register(0), ipam.ClaimSubnet{Node: idOf(0), Network: ipam.DefaultNetwork},
	}}
}

func register(i int) ipam.RegisterNode {
	return ipam.RegisterNode{Node: idOf(i), Name: fmt.Sprintf("n%d", i), MachineID: fmt.Sprintf("%032x", 100+i),
		Address: fmt.Sprintf("10.0.0.%d:9640", i+1), Version: "1", Mode: ipam.ModeBridge}
}

// join adds a node through whoever leads, as a joiner does.
func (b *bed) join(i int) *member1 {
	t := b.t
	t.Helper()
	n := b.add(i)
	if err := InitJoin(t.Context(), n.cfg); err != nil {
		t.Fatal(err)
	}
	n.start()
	ctx, cancel := context.WithTimeout(t.Context(), 15*time.Second)
	defer cancel()
	b.retry(func() error { return b.anyLeader().AddServer(ctx, n.id, n.address) })
	b.retry(func() error {
		_, err := b.anyLeader().Propose(ctx, ipam.Envelope{Commands: []ipam.Command{register(i), ipam.ClaimSubnet{Node: n.id, Network: ipam.DefaultNetwork}}})
		return err
	})
	b.waitLeader(n)
	return n
}

// retry tries until it works.
func (b *bed) retry(fn func() error) {
	b.t.Helper()
	var err error
	for end := time.Now().Add(15 * time.Second); time.Now().Before(end); time.Sleep(20 * time.Millisecond) {
		if err = fn(); err == nil {
			return
		}
	}
	b.t.Fatal(err)
}

func (b *bed) waitLeader(n *member1) {
	b.t.Helper()
	ctx, cancel := context.WithTimeout(b.t.Context(), 15*time.Second)
	defer cancel()
	if err := n.WaitLeader(ctx); err != nil {
		b.t.Fatalf("%s: %v", n.host, err)
	}
}

// leader returns the running node that leads in the highest term, nil if none does.
func (b *bed) leader() *member1 {
	var best *member1
	var term uint64
	for _, n := range b.nodes {
		if n.cancel == nil {
			continue
		}
		if st := n.Stats(); st.State == "leader" && st.Term > term {
			best, term = n, st.Term
		}
	}
	return best
}

// anyLeader waits for a leader.
func (b *bed) anyLeader() *member1 {
	b.t.Helper()
	var l *member1
	waitIn(b.t, 15*time.Second, func() bool { l = b.leader(); return l != nil })
	return l
}

// follower returns a running voter that does not lead.
func (b *bed) follower() *member1 {
	l := b.anyLeader()
	for _, n := range b.nodes {
		if n != l && n.cancel != nil {
			return n
		}
	}
	b.t.Fatal("no follower")
	return nil
}

func (b *bed) subnet(s *Store, id ipam.NodeID) ipam.Subnet {
	var sub ipam.Subnet
	s.View(func(st *ipam.State) {
		for sub = range st.SubnetsOf(id) {
			break
		}
	})
	return sub
}

// same checks that the running nodes have the same state at the same index.
func (b *bed) same() {
	t := b.t
	t.Helper()
	l := b.anyLeader()
	b.waitLeader(l)
	b.retry(func() error {
		index, sum, err := l.Hash(t.Context(), 0)
		if err != nil {
			return err
		}
		for _, n := range b.nodes {
			if n.cancel == nil || n.Stats().State == "removed" {
				continue
			}
			ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
			i, got, err := n.Hash(ctx, index)
			cancel()
			if err != nil {
				return fmt.Errorf("%s: %w", n.host, err)
			}
			if i != index || got != sum {
				t.Fatalf("%s has another state at %d", n.host, index)
			}
		}
		return nil
	})
	for _, n := range b.nodes {
		if n.cancel != nil {
			n.View(func(st *ipam.State) {
				if err := st.Check(); err != nil {
					t.Errorf("%s: %v", n.host, err)
				}
			})
		}
	}
}

func waitIn(t testing.TB, limit time.Duration, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(limit); !ok(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("did not happen within %s", limit)
		}
	}
}
