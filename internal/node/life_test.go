package node

import (
	"bytes"
	"context"
	"errors"
	"net/netip"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"stellar.io/stellar/api"
	"stellar.io/stellar/api/peerapi"
	"stellar.io/stellar/internal/config"
	"stellar.io/stellar/internal/pki"
	"stellar.io/stellar/ipam"
	"stellar.io/stellar/raftstore"
)

// lone is a node with a store of its own and nothing else: no port, no kernel.
func lone(t *testing.T) *Node {
	t.Helper()
	cfg := config.DefaultConfig()
	cfg.DataDir, cfg.NodeName = t.TempDir(), "a"
	cfg.Listen = netip.MustParseAddrPort("192.0.2.1:9640")
	n, err := New(Options{Config: cfg})
	if err != nil {
		t.Fatal(err)
	}
	sc := n.storeConfig()
	sc.Address = "127.0.0.1:0"
	member := n.member()
	member.Mode = ipam.ModeBridge
	err = raftstore.Init(t.Context(), sc, ipam.Envelope{Commands: []ipam.Command{
		ipam.InitCluster{
			ClusterID: "0123456789abcdef0123456789abcdef", Network: ipam.DefaultNetwork,
			Prefix: netip.MustParsePrefix("172.16.0.0/12"), SubnetBits: 22,
		},
		member, ipam.ClaimSubnet{Node: n.id.ID, Network: ipam.DefaultNetwork},
	}})
	if err != nil {
		t.Fatal(err)
	}
	return n
}

// runStore has the node's store work until stop is called, at the latest when the
// test ends.
func (n *Node) runStore(t *testing.T, change ...func(*raftstore.Config)) (p *parts, stop func()) {
	t.Helper()
	cfg := n.storeConfig()
	for _, c := range change {
		c(&cfg)
	}
	store, err := raftstore.Open(cfg)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- store.Run(ctx) }()
	stopped := false
	stop = func() {
		if stopped {
			return
		}
		stopped = true
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	}
	t.Cleanup(stop)
	within, end := context.WithTimeout(t.Context(), 10*time.Second)
	defer end()
	if err := store.WaitLeader(within); err != nil {
		t.Fatal(err)
	}
	p = &parts{store: store}
	n.setParts(p)
	return p, stop
}

func (p *parts) mustPropose(t *testing.T, commands ...ipam.Command) {
	t.Helper()
	results, err := p.store.Propose(t.Context(), ipam.Envelope{Commands: commands})
	if err != nil {
		t.Fatal(err)
	}
	for _, r := range results {
		if r.Err != nil {
			t.Fatal(r.Err)
		}
	}
}

// cluster returns the replicated identity and the subnet's holder.
func (p *parts) cluster() (c ipam.Cluster) {
	p.store.View(func(s *ipam.State) { c, _ = s.Cluster() })
	return c
}

// TestRestoreKeepsWhatIsOut: a node that came after the backup keeps its subnet, and
// its removal is not undone.
func TestRestoreKeepsWhatIsOut(t *testing.T) {
	t.Parallel()
	n := lone(t)
	p, _ := n.runStore(t)
	var backup bytes.Buffer
	if _, err := n.SaveSnapshot(t.Context(), &backup); err != nil {
		t.Fatal(err)
	}
	later := ipam.NodeID("00000000000000000000000000000001")
	gone := ipam.NodeID("00000000000000000000000000000002")
	p.mustPropose(t,
		ipam.RegisterNode{Node: later, Name: "b", Mode: ipam.ModeBridge}, ipam.ClaimSubnet{Node: later, Network: ipam.DefaultNetwork},
		ipam.RegisterNode{Node: gone, Name: "c", Mode: ipam.ModeBridge}, ipam.RemoveNode{Node: gone})
	file := backup.Bytes()

	for name, bad := range map[string][]byte{"truncated": file[:len(file)-3], "empty": nil, "foreign format": []byte("not a snapshot at all, whatever its name says, and long enough to be read as a header, which it is not: see the magic number")} {
		if _, err := n.RestoreSnapshot(t.Context(), bytes.NewReader(bad)); err == nil || p.cluster().Generation != 1 {
			t.Errorf("%s: %v, generation %d", name, err, p.cluster().Generation)
		}
	}

	done, err := n.RestoreSnapshot(t.Context(), bytes.NewReader(file))
	if err != nil {
		t.Fatal(err)
	}
	if c := p.cluster(); done.Generation != 2 || c.Generation != 2 || !c.Reclaim || len(c.Networks) != 1 {
		t.Errorf("restored %+v, cluster %+v", done, c)
	}
	p.store.View(func(s *ipam.State) {
		sub, ok := s.Subnet(ipam.SubnetKey{Network: ipam.DefaultNetwork, Prefix: netip.MustParsePrefix("172.16.4.0/22")})
		if !ok || sub.Node != later || sub.State != ipam.Held {
			t.Errorf("the later node's subnet: %+v", sub)
		}
		if m, ok := s.Node(gone); !ok || !m.Removed {
			t.Errorf("the removed node: %+v, %v", m, ok)
		}
	})
	results, err := p.store.Propose(t.Context(), ipam.Envelope{Commands: []ipam.Command{
		ipam.RegisterNode{Node: "00000000000000000000000000000003", Name: "d", Mode: ipam.ModeBridge},
		ipam.ClaimSubnet{Node: "00000000000000000000000000000003", Network: ipam.DefaultNetwork},
	}})
	if err != nil || !errors.Is(results[1].Err, ipam.ErrReclaiming) {
		t.Errorf("a subnet during the re-claim: %+v, %v", results, err)
	}
}

// TestRecoverRaisesTheGeneration: offline, after a look that changes nothing.
func TestRecoverRaisesTheGeneration(t *testing.T) {
	t.Parallel()
	n := lone(t)
	_, stop := n.runStore(t)
	stop()
	opts := n.opts
	for _, dryRun := range []bool{true, false} {
		if r, err := Recover(t.Context(), opts, dryRun); api.CodeOf(err) != api.CodeConflict || !strings.Contains(err.Error(), "never voted") {
			t.Errorf("without the CA's key: %+v, %v", r, err)
		}
	}
	if err := n.makeCA("0123456789abcdef0123456789abcdef"); err != nil {
		t.Fatal(err)
	}
	seen, err := Recover(t.Context(), opts, true)
	if err != nil || seen.Done || seen.Generation != 1 || seen.Node != "a" || seen.Index == 0 || seen.Voters != 1 || seen.Backup != "" {
		t.Fatalf("dry run: %+v, %v", seen, err)
	}
	done, err := Recover(t.Context(), opts, false)
	if err != nil || !done.Done || done.Generation != 2 || done.Backup == "" || done.Index != seen.Index {
		t.Fatalf("recovery: %+v, %v", done, err)
	}
	p, _ := n.runStore(t)
	if c := p.cluster(); c.Generation != 2 || !c.Reclaim {
		t.Errorf("cluster %+v", c)
	}
	if _, err := Recover(t.Context(), opts, true); api.CodeOf(err) != api.CodeConflict {
		t.Errorf("beside a running agent: %v", err)
	}
	opts.Config.DataDir = filepath.Join(t.TempDir(), "empty")
	if _, err := Recover(t.Context(), opts, false); api.CodeOf(err) != api.CodeNotFound {
		t.Errorf("without a store: %v", err)
	}
}

// TestJoinWithAWrongClock: more than ten minutes off is refused, either way, and the
// token is as good as before.
func TestJoinWithAWrongClock(t *testing.T) {
	t.Parallel()
	const cluster = "0123456789abcdef0123456789abcdef"
	n := lone(t)
	if err := n.makeCA(cluster); err != nil {
		t.Fatal(err)
	}
	p, _ := n.runStore(t)
	n.withHolder(t, p)
	var err error
	if p.tls, err = n.openTLS(); err != nil {
		t.Fatal(err)
	}
	made, err := n.CreateToken(t.Context(), api.TokenSpec{Role: api.RoleServer, TTL: time.Hour})
	if err != nil {
		t.Fatal(err)
	}
	token, err := pki.ParseToken(made.Secret.Reveal())
	if err != nil {
		t.Fatal(err)
	}
	joiner, err := pki.Open(filepath.Join(t.TempDir(), "tls"), pki.Options{})
	if err != nil {
		t.Fatal(err)
	}
	id := pki.Identity{Cluster: cluster, Node: "00000000000000000000000000000001", Name: "b", Role: pki.RoleServer, Raft: true}
	csr, err := joiner.Request(id)
	if err != nil {
		t.Fatal(err)
	}
	join := func(off time.Duration) error {
		_, err := peerBackend{n, p}.Join(t.Context(), peerapi.JoinRequest{
			TokenID: token.ID, Secret: [16]byte(token.Secret.Bytes()), CSR: csr, Node: id.Node, Name: id.Name,
			Address: "192.0.2.2:9640", Mode: ipam.ModeBridge, Time: time.Now().Add(off),
		})
		return err
	}
	for _, off := range []time.Duration{time.Hour, -time.Hour, 11 * time.Minute, -11 * time.Minute, 24 * time.Hour} {
		if err := join(off); api.CodeOf(err) != api.CodeInvalid || !strings.Contains(err.Error(), "clock is off by "+off.Abs().String()) {
			t.Errorf("off by %s: %v", off, err)
		}
	}
	p.store.View(func(s *ipam.State) {
		if k, ok := s.Token(token.ID); !ok || k.Used() {
			t.Errorf("token %+v", k)
		}
		if _, ok := s.Node(id.Node); ok {
			t.Error("the node is a member")
		}
	})
	if err := join(9 * time.Minute); err != nil {
		t.Errorf("off by nine minutes: %v", err)
	}
}
