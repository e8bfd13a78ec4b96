package integration

import (
	"context"
	"errors"
	"net/netip"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"stellar.io/stellar/ipam"
	"stellar.io/stellar/raftstore"
	"stellar.io/stellar/raftstore/holder"
)

const benchNode = ipam.NodeID("0123456789abcdef0123456789abcdef")

// leaseBench is the lease side of one node: a Raft of one, the journal, the
// holder, all on a real disk.
type leaseBench struct {
	b      *testing.B
	store  *raftstore.Store
	holder *holder.Holder
	file   *os.File
	made   int
}

func newLeaseBench(b *testing.B) *leaseBench {
	b.Helper()
	l := &leaseBench{b: b}
	dir := scratch(b)
	cfg := raftstore.Config{Dir: filepath.Join(dir, "raft"), NodeID: benchNode, Address: "127.0.0.1:9640"}
	l.check(raftstore.Init(b.Context(), cfg, ipam.Envelope{Commands: []ipam.Command{
		ipam.InitCluster{ClusterID: strings.Repeat("ab", 16), Network: ipam.DefaultNetwork, Prefix: netip.MustParsePrefix("172.16.0.0/12"), SubnetBits: 22},
		ipam.RegisterNode{Node: benchNode, Name: "a", MachineID: strings.Repeat("1", 32), Address: cfg.Address, Version: "1", Mode: ipam.ModeBridge},
		ipam.ClaimSubnet{Node: benchNode, Network: ipam.DefaultNetwork},
	}}))
	var err error
	l.store, err = raftstore.Open(cfg)
	l.check(err)
	l.background(l.store.Run)
	ctx, cancel := context.WithTimeout(b.Context(), quiet)
	defer cancel()
	l.check(l.store.WaitLeader(ctx))
	var subnet ipam.Subnet
	l.store.View(func(s *ipam.State) {
		for subnet = range s.SubnetsOf(benchNode) {
			break
		}
	})
	l.holder, err = holder.Open(holder.Config{Node: benchNode, Subnet: subnet, JournalPath: filepath.Join(dir, "journal"), Store: l.store})
	l.check(err)
	l.check(l.holder.Adopt(ctx, nil))
	l.background(l.holder.Run)
	l.file, err = os.Create(filepath.Join(dir, "floor"))
	l.check(err)
	b.Cleanup(func() { l.file.Close() })
	return l
}

// background runs fn until the benchmark ends; the last one begun ends first.
func (l *leaseBench) background(fn func(context.Context) error) {
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- fn(ctx) }()
	l.b.Cleanup(func() {
		cancel()
		if err := <-done; err != nil && !errors.Is(err, context.Canceled) {
			l.b.Error(err)
		}
	})
}

func (l *leaseBench) check(err error) {
	l.b.Helper()
	if err != nil {
		l.b.Fatal(err)
	}
}

// bind takes one address: in the journal and committed when it returns.
func (l *leaseBench) bind() time.Duration {
	l.made++
	o := ipam.Owner{Kind: ipam.OwnerContainer, Namespace: "default", ID: "bench-" + strconv.Itoa(l.made), Created: 1, Interface: "eth0"}
	start := time.Now()
	held, err := l.holder.Bind(l.b.Context(), holder.BindRequest{Owner: o, Hostname: o.ID})
	took := time.Since(start)
	l.check(err)
	if held.Provisional {
		l.b.Fatalf("lease of %s is provisional", held.Addr)
	}
	return took
}

// propose commits an entry that changes nothing.
func (l *leaseBench) propose() time.Duration {
	env := ipam.Envelope{Commands: []ipam.Command{ipam.UpdateNode{Node: benchNode, Address: "127.0.0.1:9640", Version: "1", Mode: ipam.ModeBridge}}}
	start := time.Now()
	results, err := l.store.Propose(l.b.Context(), env)
	took := time.Since(start)
	l.check(err)
	l.check(results[0].Err)
	return took
}

// sync is the floor of anything durable.
func (l *leaseBench) sync() time.Duration {
	data := make([]byte, 256)
	start := time.Now()
	_, err := l.file.Write(data)
	l.check(err)
	l.check(l.file.Sync())
	return time.Since(start)
}
