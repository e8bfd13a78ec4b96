package node

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"stellar.io/stellar/api"
	"stellar.io/stellar/api/peerapi"
	"stellar.io/stellar/internal/peer"
	"stellar.io/stellar/internal/pki"
	"stellar.io/stellar/ipam"
	"stellar.io/stellar/raftstore"
	"stellar.io/stellar/raftstore/holder"
)

// withHolder gives the parts the holder of the node's subnet.
func (n *Node) withHolder(t *testing.T, p *parts) {
	t.Helper()
	if later, err := n.claim(t.Context(), p); later || err != nil {
		t.Fatalf("claim: %v, %v", later, err)
	}
	h, err := holder.Open(holder.Config{
		Node: n.id.ID, Subnet: p.subnet, Store: p.store, JournalPath: filepath.Join(n.opts.Config.DataDir, "journal"),
		CommitWait: time.Second, CoolDown: time.Second,
	})
	if err != nil {
		t.Fatal(err)
	}
	if err := h.Adopt(t.Context(), nil); err != nil {
		t.Fatal(err)
	}
	p.holder = h
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- h.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		<-done
	})
}

func containerOwner(id string) ipam.Owner {
	return ipam.Owner{Kind: ipam.OwnerContainer, Namespace: "default", ID: id, Created: 1, Interface: "eth0"}
}

// membership returns the check of status.
func (n *Node) membership(p *parts) (state api.CheckState, reason string) {
	n.checkMembership(p, func(_ string, s api.CheckState, r string) { state, reason = s, r })
	return state, reason
}

// TestFencedNodeBindsNothingNew: draining passes, removal does not; an owner that has
// an address keeps it through both.
func TestFencedNodeBindsNothingNew(t *testing.T) {
	t.Parallel()
	n := lone(t)
	p, _ := n.runStore(t)
	n.withHolder(t, p)
	g := guarded{p.holder, func() error { return n.barred(p) }}
	bind := func(id string) error {
		_, err := g.Bind(t.Context(), holder.BindRequest{Owner: containerOwner(id)})
		return err
	}
	step := func(name string, check api.CheckState, text string, barred error) {
		t.Helper()
		if err := bind("old"); err != nil {
			t.Errorf("%s: the old owner: %v", name, err)
		}
		if err := bind(name); !errors.Is(err, barred) {
			t.Errorf("%s: a new owner: %v, want %v", name, err, barred)
		}
		if s, reason := n.membership(p); s != check || !strings.Contains(reason, text) {
			t.Errorf("%s: membership is %s: %s", name, s, reason)
		}
	}
	step("member", api.OK, "", nil)
	p.mustPropose(t, ipam.DrainNode{Node: n.id.ID, Drain: true})
	step("draining", api.Warn, "draining", errDrained)
	p.mustPropose(t, ipam.DrainNode{Node: n.id.ID})
	step("again", api.OK, "", nil)
	p.mustPropose(t, ipam.RaiseGeneration{Generation: 2})
	step("reclaiming", api.OK, "", nil)
	p.mustPropose(t, ipam.EndReclaim{})
	n.fence.set(errOutdated, era{generation: 9})
	step("outdated", api.Err, "without this node", errOutdated)
	n.fence.explain(ipam.ErrWrongNode)
	step("refused", api.Err, "not taken back: "+ipam.ErrWrongNode.Error(), errOutdated)
	n.fence.set(nil, era{})
	p.mustPropose(t, ipam.RemoveNode{Node: n.id.ID, Force: true})
	step("removed", api.Err, "removed", errRemoved)
}

// TestRemovedNodeGoesOn: its process starts again with the subnet that it remembers.
func TestRemovedNodeGoesOn(t *testing.T) {
	t.Parallel()
	n := lone(t)
	p, stop := n.runStore(t)
	if later, err := n.claim(t.Context(), p); later || err != nil {
		t.Fatalf("claim: %v, %v", later, err)
	}
	subnet := p.subnet
	p.mustPropose(t, ipam.RemoveNode{Node: n.id.ID, Force: true, Dead: true})
	stop()
	again, err := New(n.opts)
	if err != nil {
		t.Fatal(err)
	}
	p, _ = again.runStore(t)
	n2 := again
	n2.setParts(nil) // not up yet
	later, err := n2.claim(t.Context(), p)
	if err != nil || !later || p.subnet != subnet || p.network.Prefix != netip.MustParsePrefix("172.16.0.0/12") {
		t.Fatalf("claim: %v, %v, %+v", later, err, p.subnet)
	}
	if err := n2.barred(p); !errors.Is(err, errRemoved) {
		t.Errorf("barred: %v", err)
	}
	if err := n2.keepClaiming(t.Context(), p); err != nil { // ends, for it is in vain
		t.Error(err)
	}
	n2.setParts(p)
	n2.wantSelf(t, api.NodeFenced, subnet.Prefix) // `cluster leave` asks for it
	n2.setParts(nil)
	report, err := n2.Status(t.Context())
	if c, ok := report.Check(membershipCheck); err != nil || !ok || c.State != api.Err {
		t.Errorf("status %+v, %v", report, err)
	}
}

// wantSelf fails the test unless the node lists itself, once.
func (n *Node) wantSelf(t *testing.T, status string, subnet netip.Prefix) {
	t.Helper()
	all, err := n.Nodes(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	var self []api.Node
	for _, m := range all {
		if m.Self {
			self = append(self, m)
		}
	}
	if len(self) != 1 || self[0].Name != n.id.Name || self[0].Status != status || self[0].Subnet != subnet {
		t.Errorf("the node itself is listed as %+v, want it %s with %s", self, status, subnet)
	}
}

// TestNodeWithoutAReplicaListsItself: killed after its removal, a node that nobody speaks
// to any more has nothing of the state, and knows who it is.
func TestNodeWithoutAReplicaListsItself(t *testing.T) {
	t.Parallel()
	n := lone(t)
	store, err := raftstore.Open(n.storeConfig())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { store.Close() })
	subnet := netip.MustParsePrefix("172.16.4.0/22")
	n.setParts(&parts{store: store, subnet: ipam.Subnet{SubnetKey: ipam.SubnetKey{Network: ipam.DefaultNetwork, Prefix: subnet}}})
	n.wantSelf(t, api.NodeJoining, subnet)
	n.fence.set(errRemoved, era{})
	n.wantSelf(t, api.NodeFenced, subnet)
}

func TestJudge(t *testing.T) {
	t.Parallel()
	refused := func(err error, generation uint64) error {
		return fmt.Errorf("dial: %w", errors.Join(err, &peer.RefusedError{Generation: generation}))
	}
	tests := []struct {
		name     string
		standing peerapi.Standing
		err      error
		want     error
		since    era
	}{
		{"member", peerapi.Standing{Membership: peerapi.Member, Generation: 2}, nil, nil, era{}},
		{"member of a later generation, restored", peerapi.Standing{Membership: peerapi.Member, Generation: 3}, nil, nil, era{}},
		{"removed", peerapi.Standing{Membership: peerapi.Removed}, nil, errRemoved, era{}},
		{"refused as removed", peerapi.Standing{}, fmt.Errorf("dial: %w", ipam.ErrNodeRemoved), errRemoved, era{}},
		{"refused as outdated", peerapi.Standing{}, refused(peer.ErrGeneration, era{3, 7}.wire()), errOutdated, era{3, 7}},
		{"unknown to one that lags", peerapi.Standing{Membership: peerapi.Unknown, Generation: 2, Life: 5}, nil, nil, era{}},
		{"unknown to a later generation", peerapi.Standing{Membership: peerapi.Unknown, Generation: 3}, nil, errOutdated, era{3, 0}},
		{"unknown to another survivor, a later one", peerapi.Standing{Membership: peerapi.Unknown, Generation: 2, Life: 6}, nil, errOutdated, era{2, 6}},
		{"unknown to another survivor, an earlier one", peerapi.Standing{Membership: peerapi.Unknown, Generation: 2, Life: 4}, nil, nil, era{}},
		{"no answer", peerapi.Standing{}, context.DeadlineExceeded, nil, era{}},
	}
	for _, tt := range tests {
		since, got := judge(tt.standing, tt.err, era{2, 5})
		if !errors.Is(got, tt.want) || (got == nil) != (tt.want == nil) || since != tt.since {
			t.Errorf("%s: %v since %s, want %v since %s", tt.name, got, since, tt.want, tt.since)
		}
	}
	later := peerapi.Standing{Membership: peerapi.Unknown, Generation: 3}
	if _, got := judge(later, nil, era{}); got != nil {
		t.Errorf("a node that has just joined: %v", got)
	}
}

// TestEraOnTheWire: a greeting of before there were lives says the same as ever.
func TestEraOnTheWire(t *testing.T) {
	t.Parallel()
	for _, e := range []era{{}, {1, 0}, {7, 1}, {1<<32 - 1, 1<<32 - 1}} {
		if got := eraOf(e.wire()); got != e {
			t.Errorf("%v arrives as %v", e, got)
		}
	}
	if w := (era{generation: 7}).wire(); w != 7 {
		t.Errorf("generation 7 is sent as %d", w)
	}
	if (era{2, 9}).compare(era{3, 1}) >= 0 || (era{2, 9}).compare(era{2, 1}) <= 0 {
		t.Error("the generation goes before the life")
	}
}

// TestFenceIsForEver: nothing undoes a removal; a restore may take a node back.
func TestFenceIsForEver(t *testing.T) {
	t.Parallel()
	var f fence
	steps := []struct {
		err   error
		fresh bool
		after error
	}{
		{nil, false, nil}, {errOutdated, true, errOutdated}, {errOutdated, false, errOutdated}, {nil, true, nil},
		{errRemoved, true, errRemoved}, {nil, false, errRemoved}, {errOutdated, false, errRemoved},
	}
	for i, s := range steps {
		if fresh := f.set(s.err, era{generation: 2}); fresh != s.fresh || !errors.Is(f.get(), s.after) {
			t.Errorf("step %d: %v, then %v", i, fresh, f.get())
		}
	}
}

// TestAdmission: a node of an ended life that Raft does not know is refused; one that
// Raft knows only lags behind.
func TestAdmission(t *testing.T) {
	t.Parallel()
	n := lone(t)
	p, _ := n.runStore(t)
	p.mustPropose(t, ipam.RaiseGeneration{Generation: 3})
	stranger := ipam.NodeID("00000000000000000000000000000001")
	tests := []struct {
		name       string
		node       ipam.NodeID
		generation uint64
		protocol   peer.Protocol
		inbound    bool
		want       error
		fenced     error // when this node was itself left behind
	}{
		{"present generation", stranger, 3, peer.Raft, true, nil, errOutdated},
		{"present generation, another life", stranger, era{3, 1}.wire(), peer.API, true, nil, nil},
		{"joining, without a state", stranger, 0, peer.API, true, nil, nil},
		{"without a state, unknown, and calls for raft", stranger, 0, peer.Raft, true, peer.ErrGeneration, errOutdated},
		{"member without a state", n.id.ID, 0, peer.Raft, true, nil, errOutdated},
		{"ended life", stranger, 2, peer.API, true, peer.ErrGeneration, peer.ErrGeneration},
		{"called by us", stranger, 2, peer.API, false, nil, nil},
		{"called by us for raft", stranger, 3, peer.Raft, false, nil, errOutdated},
		{"member that lags", n.id.ID, 2, peer.Raft, true, nil, errOutdated},
		{"a follower of an ended life", stranger, 2, peer.Follow, true, nil, nil},
		{"a later life takes it back", stranger, 4, peer.Raft, true, nil, nil},
	}
	for _, tt := range tests {
		other := peer.Peer{Identity: pki.Identity{Node: tt.node, Raft: tt.protocol != peer.Follow}, Generation: tt.generation, Protocol: tt.protocol, Inbound: tt.inbound}
		for verdict, want := range map[error]error{nil: tt.want, errOutdated: tt.fenced} {
			n.fence.set(verdict, era{generation: 4})
			if err := n.admit(p, other); !errors.Is(err, want) || (err == nil) != (want == nil) {
				t.Errorf("%s, fence %v: %v, want %v", tt.name, verdict, err, want)
			}
		}
	}
}

// TestFenceOutlivesTheProcess: a node that was left behind knows it when it starts
// again, tells nobody that it has a state, and speaks Raft only with the era that it
// was left behind by; one that has that era is a member again.
func TestFenceOutlivesTheProcess(t *testing.T) {
	t.Parallel()
	n := lone(t)
	p, stop := n.runStore(t)
	since := era{2, 7}
	n.standing(p, errOutdated, since)
	stop()
	again, err := New(n.opts)
	if err != nil {
		t.Fatal(err)
	}
	p, _ = again.runStore(t)
	if at, left := again.fence.left(); !left || at != since || again.greeting(p) != 0 {
		t.Fatalf("left behind: %t since %s, greets with %d", left, at, again.greeting(p))
	}
	for _, tt := range []struct {
		era  era
		want error
	}{{era{1, 0}, errOutdated}, {era{}, errOutdated}, {era{2, 6}, errOutdated}, {since, nil}, {era{3, 1}, nil}} {
		other := peer.Peer{Identity: pki.Identity{Node: n.id.ID}, Generation: tt.era.wire(), Protocol: peer.Raft, Inbound: true}
		if err := again.admit(p, other); !errors.Is(err, tt.want) || (err == nil) != (tt.want == nil) {
			t.Errorf("raft of era %s: %v", tt.era, err)
		}
	}
	again.outlive(p)
	if !errors.Is(again.fence.get(), errOutdated) {
		t.Error("the old era has taken the fence away")
	}
	p.mustPropose(t, ipam.RaiseGeneration{Generation: 3})
	again.outlive(p)
	if err := again.fence.get(); err != nil || eraOf(again.greeting(p)) != (era{generation: 3}) {
		t.Errorf("in the new era: %v", err)
	}
	if last, err := New(n.opts); err != nil || last.fence.get() != nil {
		t.Errorf("after another start: %v, %v", err, last)
	}
	if err := os.WriteFile(filepath.Join(n.opts.Config.DataDir, fenceFile), []byte("{"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := New(n.opts); !errors.Is(err, errFenceFile) {
		t.Errorf("with a damaged file: %v", err)
	}
}
