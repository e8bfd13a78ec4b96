package holder

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/goleak"

	"stellar.io/stellar/ipam"
	"stellar.io/stellar/raftstore"
	"stellar.io/stellar/raftstore/journal"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const (
	testNode = ipam.NodeID("0123456789abcdef0123456789abcdef")
	cluster  = "00112233445566778899aabbccddeeff"
)

// fault is how a proposal fails.
type fault int

const (
	none       fault = iota
	noLeader         // definitely not proposed
	lost             // unknown outcome, never committed
	replyLost        // unknown outcome, committed at once
	late             // unknown outcome, committed when fakeStore.deliver is called
	slow             // committed after 300 ms
	verySlow         // committed after 2 s
	faultKinds       // how many there are
)

func (f fault) String() string {
	return [...]string{"fine", "no leader", "lost", "reply lost", "late", "slow", "very slow"}[f]
}

// failer is what testing.T and rapid.T have in common.
type failer interface {
	Helper()
	Error(...any)
	Fatal(...any)
}

// fakeStore is a Proposer that runs the real Apply, with faults.
type fakeStore struct {
	t     failer
	fault func() fault  // called for each proposal, under mu
	takes time.Duration // each proposal, before anything else

	mu       sync.Mutex
	state    *ipam.State
	index    uint64
	pending  [][]byte // late entries
	requests []ipam.RequestID
	commands int // that were applied
	// traced is told what becomes of each proposal, nil: nobody.
	traced func(format string, args ...any)
}

// newFakeStore has a cluster whose one node holds a subnet with the given prefix length.
func newFakeStore(t failer, bits int) *fakeStore {
	s := &fakeStore{t: t, state: ipam.New(), fault: func() fault { return none }}
	for _, r := range s.must(
		ipam.InitCluster{ClusterID: cluster, Network: ipam.DefaultNetwork, Prefix: netip.MustParsePrefix("172.16.0.0/16"), SubnetBits: bits},
		ipam.RegisterNode{Node: testNode, Name: "a", MachineID: strings.Repeat("1", 32), Address: "127.0.0.1:9640", Version: "1", Mode: ipam.ModeBridge},
		ipam.ClaimSubnet{Node: testNode, Network: ipam.DefaultNetwork},
	) {
		if r.Err != nil {
			t.Fatal(r.Err)
		}
	}
	return s
}

// must applies commands past all faults.
func (s *fakeStore) must(cmds ...ipam.Command) []ipam.Result {
	s.t.Helper()
	data, err := ipam.Envelope{Commands: cmds}.Encode()
	if err != nil {
		s.t.Fatal(err)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.apply(data)
}

func (s *fakeStore) apply(data []byte) []ipam.Result {
	s.index++
	out, err := s.state.Apply(s.index, data)
	if err != nil {
		s.t.Error(err)
	}
	if err := s.state.Check(); err != nil {
		s.t.Error(err)
	}
	s.commands += len(out.Results)
	return out.Results
}

// deliver applies the late entries, in any order.
func (s *fakeStore) deliver(r *rand.Rand) {
	s.mu.Lock()
	defer s.mu.Unlock()
	r.Shuffle(len(s.pending), func(i, j int) { s.pending[i], s.pending[j] = s.pending[j], s.pending[i] })
	for _, data := range s.pending {
		s.apply(data)
	}
	if s.traced != nil && len(s.pending) > 0 {
		s.traced("%d late entries are applied", len(s.pending))
	}
	s.pending = nil
}

func (s *fakeStore) setFault(f func() fault) {
	s.mu.Lock()
	s.fault = f
	s.mu.Unlock()
}

func always(f fault) func() fault { return func() fault { return f } }

func (s *fakeStore) Propose(ctx context.Context, env ipam.Envelope) ([]ipam.Result, error) {
	data, err := env.Encode()
	if err != nil {
		return nil, err
	}
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	time.Sleep(s.takes)
	s.mu.Lock()
	f := s.fault()
	s.requests = append(s.requests, env.Request)
	if s.traced != nil {
		s.traced("proposed %d %+v: %s", env.Request.Seq, env.Commands, f)
	}
	unknownErr := fmt.Errorf("fake: %w", raftstore.ErrUnknownOutcome)
	switch f {
	case noLeader:
		s.mu.Unlock()
		return nil, fmt.Errorf("fake: %w", raftstore.ErrNoLeader)
	case lost:
		s.mu.Unlock()
		return nil, unknownErr
	case late:
		s.pending = append(s.pending, data)
		s.mu.Unlock()
		return nil, unknownErr
	case replyLost:
		defer s.mu.Unlock()
		s.apply(data)
		return nil, unknownErr
	case slow, verySlow:
		s.mu.Unlock()
		wait := 300 * time.Millisecond
		if f == verySlow {
			wait = 2 * time.Second
		}
		select {
		case <-time.After(wait):
		case <-ctx.Done():
			s.mu.Lock()
			defer s.mu.Unlock()
			s.pending = append(s.pending, data)
			return nil, unknownErr
		}
		s.mu.Lock()
	}
	defer s.mu.Unlock()
	return s.apply(data), nil
}

func (s *fakeStore) View(fn func(*ipam.State)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	fn(s.state)
}

func (s *fakeStore) subnet() (sub ipam.Subnet) {
	s.View(func(st *ipam.State) {
		for sub = range st.SubnetsOf(testNode) {
			break
		}
	})
	return sub
}

// leases returns what the replica has.
func (s *fakeStore) leases() map[netip.Addr]ipam.Lease {
	out := make(map[netip.Addr]ipam.Lease)
	sub := s.subnet()
	s.View(func(st *ipam.State) {
		for l := range st.Leases(sub.SubnetKey) {
			out[l.Addr] = l
		}
	})
	return out
}

func (s *fakeStore) proposals() int { return len(s.sent()) }

// sent returns the request ids of all proposals.
func (s *fakeStore) sent() []ipam.RequestID {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.requests)
}

// diskFS is the real file system until it breaks.
type diskFS struct {
	journal.OS
	broken atomic.Bool
}

var errDisk = errors.New("no space left on device")

func (d *diskFS) OpenAppend(path string) (journal.File, error) {
	f, err := d.OS.OpenAppend(path)
	return diskFile{f, d}, err
}

func (d *diskFS) Create(path string) (journal.File, error) {
	if d.broken.Load() {
		return nil, errDisk
	}
	f, err := d.OS.Create(path)
	return diskFile{f, d}, err
}

type diskFile struct {
	journal.File
	d *diskFS
}

func (f diskFile) Write(b []byte) (int, error) {
	if f.d.broken.Load() {
		n, _ := f.File.Write(b[:rand.IntN(len(b)+1)])
		return n, errDisk
	}
	return f.File.Write(b)
}

// node is a holder with its Run, its disk and its kernel.
type node struct {
	*Holder
	t      testing.TB
	store  *fakeStore
	dir    string
	disk   *diskFS
	cancel context.CancelFunc
	done   chan error

	groups, gather int // Config.Flights and Gather
}

// tempDir is t.TempDir for use inside a synctest bubble.
func tempDir(t testing.TB) string {
	dir, err := os.MkdirTemp("", "holder")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	return dir
}

func newNode(t testing.TB, store *fakeStore, live ...Live) *node {
	t.Helper()
	n := &node{t: t, store: store, dir: tempDir(t)}
	if err := n.start(live...); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(n.stop)
	return n
}

func (n *node) config() Config {
	return Config{
		Node: testNode, Subnet: n.store.subnet(), JournalPath: filepath.Join(n.dir, "journal"),
		Store: n.store, FS: n.disk, Flights: n.groups, Gather: n.gather,
	}
}

// start opens, adopts and runs. The error is Adopt's.
func (n *node) start(live ...Live) error {
	n.t.Helper()
	n.disk = &diskFS{}
	h, err := Open(n.config())
	if err != nil {
		n.t.Fatal(err)
	}
	n.Holder = h
	ctx, cancel := context.WithCancel(context.Background())
	n.cancel, n.done = cancel, make(chan error, 1)
	err = h.Adopt(ctx, live)
	go func() { n.done <- h.Run(ctx) }()
	return err
}

func (n *node) stop() {
	if n.cancel == nil {
		return
	}
	n.cancel()
	n.cancel = nil
	if err := <-n.done; err != nil {
		n.t.Error(err)
	}
}

// kill ends the holder without letting anything more reach the disk.
func (n *node) kill() {
	n.disk.broken.Store(true)
	n.stop()
}

func (n *node) restart(live ...Live) {
	n.t.Helper()
	n.stop()
	if err := n.start(live...); err != nil {
		n.t.Fatal(err)
	}
}

func owner(id string) ipam.Owner {
	return ipam.Owner{Kind: ipam.OwnerContainer, Namespace: "default", ID: id, Created: 1, Interface: "eth0"}
}

func addr(s string) netip.Addr { return netip.MustParseAddr(s) }

func (n *node) mustBind(id, want string) Held {
	n.t.Helper()
	r := BindRequest{Owner: owner(id)}
	if want != "" {
		r.Want = addr(want)
	}
	h, err := n.Bind(context.Background(), r)
	if err != nil {
		n.t.Fatal(err)
	}
	return h
}

func (n *node) mustRelease(id string) {
	n.t.Helper()
	if err := n.Release(context.Background(), owner(id)); err != nil {
		n.t.Fatal(err)
	}
}

func (n *node) bindErr(id, want string) error {
	r := BindRequest{Owner: owner(id)}
	if want != "" {
		r.Want = addr(want)
	}
	_, err := n.Bind(context.Background(), r)
	return err
}

// lives returns the live interfaces of the given owners.
func (n *node) lives(ids ...string) (out []Live) {
	for _, h := range n.All() {
		if slices.Contains(ids, h.Owner.ID) {
			out = append(out, Live{h.Addr, h.Owner})
		}
	}
	return out
}

func netipPrefix(s string) netip.Prefix { return netip.MustParsePrefix(s) }
