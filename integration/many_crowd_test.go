package integration

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"sync"
	"time"

	"stellar.io/stellar/internal/pki"
	"stellar.io/stellar/ipam"
	"stellar.io/stellar/raftstore"
)

// manyCrowd is a process with many followers. Each has a directory, a key and a
// certificate of its own, a port, a connection to its server and a state. Its methods
// are called by the test.
type manyCrowd struct {
	list  []*crowdNode
	first int
}

// crowdNode is one follower.
type crowdNode struct {
	*storeNode
	number int
	seen   *changes
	made   int // leases so far
}

// CrowdArgs are the arguments of Crowd.Make.
type CrowdArgs struct {
	First, Count int
	Dir          string
	CA, CAKey    []byte
	Servers      map[ipam.NodeID]string
}

// Make makes the followers, which know no state yet.
func (m *manyCrowd) Make(a CrowdArgs, _ *None) error {
	m.first, m.list = a.First, make([]*crowdNode, a.Count)
	errs := make([]error, a.Count)
	inParallel(a.Count, 8, func(i int) { m.list[i], errs[i] = makeFollower(a, a.First+i) })
	return errors.Join(errs...)
}

func makeFollower(a CrowdArgs, number int) (*crowdNode, error) {
	n := &crowdNode{
		storeNode: &storeNode{id: manyID(number), dir: filepath.Join(a.Dir, manyName(number))},
		number:    number, seen: &changes{},
	}
	if err := os.MkdirAll(n.dir, 0o700); err != nil {
		return nil, err
	}
	identity := pki.Identity{Cluster: storeCluster, Node: n.id, Name: manyName(number), Role: pki.RoleNode}
	if err := openPort(n.storeNode, identity, a.CA, a.CAKey, netip.MustParseAddrPort("127.0.0.1:0")); err != nil {
		return nil, err
	}
	cfg := n.config(n.seen)
	if err := raftstore.InitFollow(context.Background(), cfg, a.Servers); err != nil {
		return nil, err
	}
	var err error
	n.store, err = raftstore.Open(cfg)
	return n, err
}

// Run starts all followers, so many at a time: the next one when one has its state. It
// answers how long each took, in ms.
func (m *manyCrowd) Run(atOnce int, took *[]float64) error {
	*took = make([]float64, len(m.list))
	errs := make([]error, len(m.list))
	inParallel(len(m.list), atOnce, func(i int) {
		n := m.list[i]
		began := monotonic()
		n.runInProcess()
		at := int64(0)
		for end := time.Now().Add(seenPatience); at == 0; at = n.seen.at(1) {
			if time.Now().After(end) {
				errs[i] = fmt.Errorf("%s has no state: %+v", n.id.Short(), n.store.Stats())
				return
			}
			time.Sleep(time.Millisecond)
		}
		(*took)[i] = sinceMS(began, at)
	})
	return errors.Join(errs...)
}

// SeenArgs are the arguments of Crowd.Seen.
type SeenArgs struct {
	Index uint64
	For   time.Duration
}

// Seen waits until all followers' states are at an index, or the time is over, and
// answers when each of them was, 0 for one that is not.
func (m *manyCrowd) Seen(a SeenArgs, at *[]int64) error {
	*at = make([]int64, len(m.list))
	for end := time.Now().Add(a.For); ; time.Sleep(5 * time.Millisecond) {
		missing := false
		for i, n := range m.list {
			if (*at)[i] == 0 {
				(*at)[i] = n.seen.at(a.Index)
				missing = missing || (*at)[i] == 0
			}
		}
		if !missing || time.Now().After(end) {
			return nil
		}
	}
}

// propose does so until it is committed or refused.
func (n *storeNode) propose(ctx context.Context, commands []ipam.Command) (results []ipam.Result, err error) {
	err = raftstore.Retry(ctx, func(ctx context.Context) (err error) {
		results, err = n.store.Propose(ctx, ipam.Envelope{Commands: commands})
		for _, r := range results {
			err = errors.Join(err, r.Err)
		}
		return err
	})
	return results, err
}

// BurstArgs are the arguments of Crowd.Burst.
type BurstArgs struct {
	Nodes     []int
	PerSecond int
	For       time.Duration
}

// Burst is what came of a burst of leases.
type Burst struct {
	Leases int
	Took   []float64 // ms, of each
}

// Burst has some followers bind leases for a while, so many in a second together.
func (m *manyCrowd) Burst(a BurstArgs, r *Burst) error {
	var mu sync.Mutex // guards r and errs
	var errs []error
	var wait sync.WaitGroup
	end := time.Now().Add(a.For)
	pause := time.Second * time.Duration(len(a.Nodes)) / time.Duration(a.PerSecond)
	for k, number := range a.Nodes {
		n := m.list[number-m.first]
		wait.Go(func() {
			time.Sleep(pause * time.Duration(k) / time.Duration(len(a.Nodes)))
			t := time.NewTicker(pause)
			defer t.Stop()
			for ; time.Now().Before(end); <-t.C {
				begin := time.Now()
				err := n.bind()
				mu.Lock()
				if r.Leases++; err != nil {
					errs = append(errs, err)
				} else {
					r.Took = append(r.Took, ms(time.Since(begin)))
				}
				mu.Unlock()
			}
		})
	}
	wait.Wait()
	return errors.Join(errs...)
}

// bind gives an address of the node's subnet to an owner that there was not before.
func (n *crowdNode) bind() error {
	var fence ipam.Fence
	n.store.View(func(st *ipam.State) {
		for sub := range st.SubnetsOf(n.id) {
			fence = ipam.Fence{Subnet: sub.SubnetKey, Node: n.id, Epoch: sub.Epoch}
		}
	})
	n.made++
	addr := fence.Subnet.Prefix.Addr()
	for range n.made + 1 { // the network's own and the gateway are reserved
		addr = addr.Next()
	}
	owner := ipam.Owner{
		Kind: ipam.OwnerContainer, Namespace: "default", ID: fmt.Sprintf("%032x%032x", n.number, n.made), Created: 1, Interface: "eth0",
	}
	ctx, cancel := context.WithTimeout(context.Background(), quiet)
	defer cancel()
	_, err := n.propose(ctx, []ipam.Command{ipam.BindLease{Fence: fence, Addr: addr, Owner: owner}})
	return err
}

// CrowdStats is what the followers of a process know.
type CrowdStats struct {
	Following map[ipam.NodeID]int // how many follow which server
	Snapshots uint64              // received by all of them
}

// Stats answers it.
func (m *manyCrowd) Stats(_ None, r *CrowdStats) error {
	r.Following = map[ipam.NodeID]int{}
	for _, n := range m.list {
		st := n.store.Stats()
		r.Following[st.Following]++
		r.Snapshots += st.Received
	}
	return nil
}

// Hashes answers how many followers have a state of which hash.
func (m *manyCrowd) Hashes(_ None, r *map[string]int) error {
	*r = map[string]int{}
	for _, n := range m.list {
		_, sum, err := n.store.Hash(context.Background(), 0)
		if err != nil {
			return fmt.Errorf("%s: %w", n.id.Short(), err)
		}
		(*r)[fmt.Sprintf("%x", sum)]++
	}
	return nil
}
