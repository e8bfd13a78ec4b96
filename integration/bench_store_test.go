package integration

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"stellar.io/stellar/api/peerapi"
	"stellar.io/stellar/internal/peer"
	"stellar.io/stellar/internal/pki"
	"stellar.io/stellar/ipam"
	"stellar.io/stellar/raftstore"
	"stellar.io/stellar/raftstore/holder"
)

// storeBench is the store of a cluster in one process: its nodes have files on a real
// disk, and speak TLS over the node-to-node port as agents do. Each holds a /16 in
// routed mode, so 65,534 leases need no release in between.
type storeBench struct {
	b     *testing.B
	nodes []*storeNode
	made  atomic.Int64 // owners so far
}

// storeNode is one node of it.
type storeNode struct {
	id     ipam.NodeID
	dir    string
	port   *peer.Port
	store  *raftstore.Store
	holder *holder.Holder
	sent   atomic.Int64 // envelopes that it proposed
	took   atomic.Int64 // ns, all of them together
}

const storeCluster = "abababababababababababababababab"

func newStoreBench(b *testing.B, nodes int) *storeBench {
	b.Helper()
	s := &storeBench{b: b}
	ca, err := pki.NewCA(storeCluster, time.Now())
	s.check(err)
	for i := range nodes {
		s.add(i, ca)
	}
	ctx, cancel := context.WithTimeout(b.Context(), quiet)
	defer cancel()
	for s.follower() == nil || s.nodes[0].store.Stats().Voters != nodes {
		s.check(ctx.Err())
		time.Sleep(10 * time.Millisecond)
	}
	for _, n := range s.nodes {
		s.hold(ctx, n)
	}
	return s
}

func (s *storeBench) check(err error) {
	s.b.Helper()
	if err != nil {
		s.b.Fatal(err)
	}
}

// add starts the store of one more node; the first makes the cluster.
func (s *storeBench) add(i int, ca *pki.CA) {
	s.b.Helper()
	n := &storeNode{id: ipam.NodeID(fmt.Sprintf("%032x", i+1)), dir: scratch(s.b)}
	s.nodes = append(s.nodes, n)
	s.listen(n, ca)
	address := n.port.Advertise().String()
	cfg := raftstore.Config{
		Dir: filepath.Join(n.dir, "raft"), NodeID: n.id, Address: peer.RaftAddress(n.id, address), Streams: n.port.Raft(),
		StabilizeTime: 200 * time.Millisecond,
		OnPropose: func(took time.Duration, _ error) {
			n.sent.Add(1)
			n.took.Add(int64(took))
		},
		Forward: func(ctx context.Context, leader ipam.NodeID, at string, request []byte) ([]byte, error) {
			return n.client(leader, at).Forward(ctx, request)
		},
		FetchState: func(ctx context.Context, leader ipam.NodeID, at string) (io.ReadCloser, error) {
			return n.client(leader, at).FetchState(ctx)
		},
	}
	register := []ipam.Command{
		ipam.RegisterNode{Node: n.id, Name: fmt.Sprint("n", i), MachineID: string(n.id), Address: address, Version: "1", Mode: ipam.ModeRouted},
		ipam.ClaimSubnet{Node: n.id, Network: ipam.DefaultNetwork},
	}
	if i == 0 {
		network := ipam.InitCluster{ClusterID: storeCluster, Network: ipam.DefaultNetwork, Prefix: netip.MustParsePrefix("10.0.0.0/8"), SubnetBits: 16}
		s.check(raftstore.Init(s.b.Context(), cfg, ipam.Envelope{Commands: append([]ipam.Command{network}, register...)}))
	} else {
		s.check(raftstore.InitJoin(s.b.Context(), cfg))
	}
	var err error
	n.store, err = raftstore.Open(cfg)
	s.check(err)
	s.background(n.port.Run)
	s.background(n.store.Run)
	ctx, cancel := context.WithTimeout(s.b.Context(), quiet)
	defer cancel()
	if i > 0 {
		first := s.nodes[0].store
		s.check(raftstore.Retry(ctx, func(ctx context.Context) error { return first.AddServer(ctx, n.id, cfg.Address) }))
		s.check(raftstore.Retry(ctx, func(ctx context.Context) error {
			_, err := first.Propose(ctx, ipam.Envelope{Commands: register})
			return err
		}))
	}
	s.check(n.store.WaitLeader(ctx))
}

// listen opens the node's port, which serves what other nodes forward.
func (s *storeBench) listen(n *storeNode, ca *pki.CA) {
	s.b.Helper()
	identity := pki.Identity{Cluster: storeCluster, Node: n.id, Name: n.id.Short(), Role: pki.RoleServer, Raft: true}
	certs, err := pki.Open(filepath.Join(n.dir, "tls"), pki.Options{})
	s.check(err)
	request, err := certs.Request(identity)
	s.check(err)
	der, err := ca.Sign(request, identity, time.Now(), time.Hour)
	s.check(err)
	roots, err := pki.ParseCerts(ca.CertPEM())
	s.check(err)
	s.check(certs.Install(der, roots))
	n.port, err = peer.New(peer.Config{Listen: netip.MustParseAddrPort("127.0.0.1:0"), TLS: certs})
	s.check(err)
	n.port.HandleAPI(peerapi.Handler(peerapi.Config{Backend: storeBackend{node: n}, Caller: func(ctx context.Context) (peerapi.Caller, bool) {
		id, ok := peer.Caller(ctx)
		return peerapi.Caller{Node: id.Node, Name: id.Name, Role: id.Role.String(), Raft: id.Raft}, ok
	}}))
}

// storeBackend answers what the stores of other nodes ask, and nothing else.
type storeBackend struct {
	peerapi.Backend
	node *storeNode
}

func (b storeBackend) Forward(ctx context.Context, request []byte) ([]byte, error) {
	return b.node.store.HandleForward(ctx, request)
}

func (b storeBackend) FetchState(ctx context.Context, w io.Writer) error {
	_, err := b.node.store.SnapshotSave(ctx, w)
	return err
}

// client calls another node.
func (n *storeNode) client(id ipam.NodeID, at string) *peerapi.Client {
	hostPort := at[strings.IndexByte(at, '@')+1:] // also without an id
	return peerapi.NewClient(n.port.HTTPClient(id), "https://"+hostPort, id.Short())
}

// hold opens the node's holder, whose released addresses are free at once.
func (s *storeBench) hold(ctx context.Context, n *storeNode) {
	s.b.Helper()
	s.check(n.store.WaitLeader(ctx))
	var subnet ipam.Subnet
	n.store.View(func(st *ipam.State) {
		for subnet = range st.SubnetsOf(n.id) {
			break
		}
	})
	var err error
	n.holder, err = holder.Open(holder.Config{
		Node: n.id, Subnet: subnet, JournalPath: filepath.Join(n.dir, "journal"), Store: n.store, CoolDown: time.Millisecond,
		CommitWait: 10 * time.Second, // what is not committed is not counted: a busy machine only takes longer
	})
	s.check(err)
	s.check(n.holder.Adopt(ctx, nil))
	s.background(n.holder.Run)
}

// background runs fn until the benchmark ends; the last one begun ends first.
func (s *storeBench) background(fn func(context.Context) error) {
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- fn(ctx) }()
	s.b.Cleanup(func() {
		cancel()
		if err := <-done; err != nil && !errors.Is(err, context.Canceled) {
			s.b.Error(err)
		}
	})
}

// follower returns a node that does not lead, nil when there is no leader yet.
func (s *storeBench) follower() *storeNode {
	var follower *storeNode
	led := false
	for _, n := range s.nodes {
		led = led || n.store.Stats().State == "leader"
		if n.store.Stats().State == "follower" {
			follower = n
		}
	}
	if !led {
		return nil
	}
	return follower
}

// leader returns the node that leads.
func (s *storeBench) leader() *storeNode {
	for _, n := range s.nodes {
		if n.store.Stats().State == "leader" {
			return n
		}
	}
	s.b.Fatal("no leader")
	return nil
}

// bind lets callers together make leases on a node, each for an owner of its own. When
// it returns each of them is in the node's journal, with fsync, committed by a majority
// of the nodes' logs, with fsync, and applied on the node: none is provisional.
func (s *storeBench) bind(n *storeNode, callers, leases int) (took time.Duration, each samples) {
	s.b.Helper()
	var wg sync.WaitGroup
	var failed atomic.Pointer[error]
	var left atomic.Int64
	left.Store(int64(leases))
	all := make([]samples, callers)
	begin := time.Now()
	for c := range callers {
		wg.Go(func() {
			for left.Add(-1) >= 0 && failed.Load() == nil {
				start := time.Now()
				held, err := n.holder.Bind(s.b.Context(), holder.BindRequest{Owner: s.owner()})
				if err == nil && held.Provisional {
					err = fmt.Errorf("lease of %s is provisional", held.Addr)
				}
				if err != nil {
					failed.Store(&err)
				}
				all[c].add(time.Since(start))
			}
		})
	}
	wg.Wait()
	took = time.Since(begin)
	if err := failed.Load(); err != nil {
		s.b.Fatal(*err)
	}
	for _, one := range all {
		each = append(each, one...)
	}
	return took, each
}

// owner returns an owner that there was not before, with an id as long as containers have.
func (s *storeBench) owner() ipam.Owner {
	return ipam.Owner{Kind: ipam.OwnerContainer, Namespace: "default", ID: fmt.Sprintf("%064x", s.made.Add(1)), Created: time.Now().UnixNano(), Interface: "eth0"}
}

// release gives all addresses of a node back and waits until they are free everywhere.
func (s *storeBench) release(n *storeNode) {
	s.b.Helper()
	var wg sync.WaitGroup
	held := n.holder.All()
	var next atomic.Int64
	for range 256 {
		wg.Go(func() {
			for i := next.Add(1) - 1; i < int64(len(held)); i = next.Add(1) - 1 {
				if err := n.holder.Release(s.b.Context(), held[i].Owner); err != nil {
					s.b.Error(err)
				}
			}
		})
	}
	wg.Wait()
	for end := time.Now().Add(time.Minute); ; time.Sleep(20 * time.Millisecond) {
		count := 0
		n.store.View(func(st *ipam.State) {
			for sub := range st.SubnetsOf(n.id) {
				u := st.Usage(sub.SubnetKey)
				count = u.Used + u.Cooling
			}
		})
		if count == 0 && n.holder.Counts().Cooling == 0 {
			return
		}
		if time.Now().After(end) {
			s.b.Fatalf("%d addresses are not free yet", count)
		}
	}
}

// BenchmarkLeases measures leases per second and what one caller waits, with 1 and with
// 256 callers in one agent, on a node that leads and on one that does not.
func BenchmarkLeases(b *testing.B) {
	for _, callers := range []int{1, 256} {
		for _, where := range []string{"leader", "follower"} {
			b.Run(fmt.Sprintf("%d/%s", callers, where), func(b *testing.B) {
				s := newStoreBench(b, 3)
				n := s.follower()
				if where == "leader" {
					n = s.leader()
				}
				s.bind(n, callers, min(100*callers, 2000)) // warm
				leases := min(2000*callers, 60_000)
				b.ResetTimer()
				for range b.N {
					n.sent.Store(0)
					n.took.Store(0)
					before := processorTime(b)
					took, each := s.bind(n, callers, leases)
					b.ReportMetric(float64((processorTime(b)-before).Microseconds())/float64(leases), "cpu-µs/lease")
					b.ReportMetric(float64(leases)/float64(n.sent.Load()), "leases/entry")
					b.ReportMetric(ms(time.Duration(n.took.Load()/n.sent.Load())), "propose-ms")
					b.ReportMetric(float64(leases)/took.Seconds(), "leases/s")
					b.ReportMetric(each.quantile(0.5), "p50-ms")
					b.ReportMetric(each.quantile(0.99), "p99-ms")
					if b.N > 1 {
						b.StopTimer()
						s.release(n)
						b.StartTimer()
					}
				}
			})
		}
	}
}

// processorTime is what this process has used, all nodes of it.
func processorTime(b *testing.B) time.Duration {
	b.Helper()
	var u unix.Rusage
	if err := unix.Getrusage(unix.RUSAGE_SELF, &u); err != nil {
		b.Fatal(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}
