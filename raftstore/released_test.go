package raftstore

import (
	"context"
	"encoding/hex"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"stellar.io/stellar/ipam"
)

// released holds a store of each version, as that version left it, and in
// state.sha256 the hash of its state. None is ever changed or removed.
const released = "../testdata/raft"

// makeReleased, set to a directory's name, makes one: once for each version.
const makeReleased = "STELLAR_MAKE_STORE"

func TestReleasedStores(t *testing.T) {
	if name := os.Getenv(makeReleased); name != "" {
		makeReleasedStore(t, filepath.Join(released, name))
	}
	dirs, err := filepath.Glob(filepath.Join(released, "*"))
	if err != nil || len(dirs) == 0 {
		t.Fatalf("no released stores: %v", err)
	}
	for _, dir := range dirs {
		t.Run(filepath.Base(dir), func(t *testing.T) {
			t.Parallel()
			want, err := os.ReadFile(filepath.Join(dir, "state.sha256"))
			if err != nil {
				t.Fatal(err)
			}
			copied := filepath.Join(t.TempDir(), "raft")
			if err := os.CopyFS(copied, os.DirFS(filepath.Join(dir, "raft"))); err != nil {
				t.Fatal(err)
			}
			if got := stateOf(t, copied); got != strings.TrimSpace(string(want)) {
				t.Errorf("state has hash %s, want %s", got, want)
			}
		})
	}
}

// stateOf runs the store and returns the hash of its state, which it checks.
func stateOf(t *testing.T, dir string) string {
	t.Helper()
	id, err := readIdentity(dir)
	if err != nil {
		t.Fatal(err)
	}
	cfg := DefaultConfig()
	cfg.Dir, cfg.NodeID, cfg.TickEvery = dir, id.Node, 10*time.Second
	s, err := Open(cfg)
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithTimeout(t.Context(), 30*time.Second)
	defer stop()
	run, end := context.WithCancel(ctx)
	ended := make(chan error, 1)
	go func() { ended <- s.Run(run) }()
	if err := s.WaitLeader(ctx); err != nil {
		t.Fatal(err)
	}
	var sum [32]byte
	s.View(func(st *ipam.State) {
		sum, err = st.Hash(), st.Check()
	})
	if err != nil {
		t.Error(err)
	}
	end()
	if err := <-ended; err != nil {
		t.Error(err)
	}
	return hex.EncodeToString(sum[:])
}

// makeReleasedStore makes a store with some of everything.
func makeReleasedStore(t *testing.T, dir string) {
	t.Helper()
	if err := os.MkdirAll(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	root, err := filepath.Abs(dir)
	if err != nil {
		t.Fatal(err)
	}
	node := ipam.NodeID(strings.Repeat("0a", 16))
	cfg := DefaultConfig()
	cfg.Dir, cfg.NodeID = filepath.Join(root, "raft"), node
	ctx, stop := context.WithTimeout(t.Context(), 30*time.Second)
	defer stop()
	err = Init(ctx, cfg, ipam.Envelope{Commands: []ipam.Command{
		ipam.InitCluster{ClusterID: strings.Repeat("0c", 16), Network: ipam.DefaultNetwork, Prefix: netip.MustParsePrefix("172.16.0.0/12"), SubnetBits: 22},
	}})
	if err != nil {
		t.Fatal(err)
	}
	s, err := Open(cfg)
	if err != nil {
		t.Fatal(err)
	}
	run, end := context.WithCancel(ctx)
	ended := make(chan error, 1)
	go func() { ended <- s.Run(run) }()
	if err := s.WaitLeader(ctx); err != nil {
		t.Fatal(err)
	}
	fence := ipam.Fence{Subnet: ipam.SubnetKey{Network: ipam.DefaultNetwork, Prefix: netip.MustParsePrefix("172.16.0.0/22")}, Node: node, Epoch: ipam.Epoch{Generation: 1, Counter: 1}}
	owner := ipam.Owner{Kind: ipam.OwnerContainer, Namespace: "default", ID: "web", Created: 1, Interface: "eth0"}
	addr := netip.MustParseAddr("172.16.0.2")
	for i, c := range []ipam.Command{
		ipam.RegisterNode{Node: node, Name: "a", Version: "v0", Mode: ipam.ModeBridge, Address: "192.0.2.1:9640"},
		ipam.ClaimSubnet{Node: node, Network: ipam.DefaultNetwork},
		ipam.BindLease{Fence: fence, Addr: addr, Owner: owner, Hostname: "web"},
		ipam.MarkLease{Fence: fence, Addr: addr, Owner: owner, State: ipam.Attached},
		ipam.BindLease{Fence: fence, Addr: addr.Next(), Owner: ipam.Owner{Kind: ipam.OwnerManual, Namespace: "default", ID: "x", Interface: "eth0"}, Static: true},
		ipam.ReleaseLease{Fence: fence, Addr: addr.Next(), Owner: ipam.Owner{Kind: ipam.OwnerManual, Namespace: "default", ID: "x", Interface: "eth0"}},
		ipam.ReserveAddress{Network: ipam.DefaultNetwork, Prefix: netip.MustParsePrefix("172.17.0.0/16"), Reason: "docker"},
		ipam.CreateToken{ID: "0123456789abcdef", SecretHash: [32]byte{1}, Role: ipam.RoleServer, Expires: 2_000_000_000, Now: 1_900_000_000},
	} {
		results, err := s.Propose(ctx, ipam.Envelope{Request: ipam.RequestID{Node: node, Seq: uint64(i + 1)}, Commands: []ipam.Command{c}})
		if err != nil || results[0].Err != nil {
			t.Fatalf("%T: %v, %v", c, err, results)
		}
	}
	var sum [32]byte
	s.View(func(st *ipam.State) { sum = st.Hash() })
	end()
	if err := <-ended; err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(root, "state.sha256"), []byte(hex.EncodeToString(sum[:])+"\n"), 0o644); err != nil {
		t.Fatal(err)
	}
}
