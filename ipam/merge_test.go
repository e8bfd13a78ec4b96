package ipam

import (
	"bytes"
	"encoding/binary"
	"errors"
	"maps"
	"testing"
	"time"

	"pgregory.net/rapid"
)

// restoredFrom returns a state as it comes out of a backup file.
func restoredFrom(t fatalizer, s *State) *State {
	t.Helper()
	got, err := Restore(bytes.NewReader(written(t, s)))
	if err != nil {
		t.Fatal(err)
	}
	return got
}

// merged returns backup.ForRestore(live, 0), which must be sound and leave both
// sides as they were.
func merged(t fatalizer, backup, live *State) *State {
	t.Helper()
	before := [2][32]byte{backup.Hash(), live.Hash()}
	out, err := backup.ForRestore(live, 77)
	if err != nil {
		t.Fatal(err)
	}
	if err := out.Check(); err != nil {
		t.Fatal(err)
	}
	if before != [2][32]byte{backup.Hash(), live.Hash()} {
		t.Fatal("a side has changed")
	}
	equal(t, "derived after a snapshot", restoredFrom(t, out).derived, out.derived)
	return out
}

// TestForRestore: backup, then more leases, a new node, a replaced one, a removed
// one and used tokens, then the restore.
func TestForRestore(t *testing.T) {
	t.Parallel()
	live := cluster(t, 3)
	ok(t, live, tokenCmd(4), tokenCmd(5), tokenCmd(6), ReserveAddress{Network: DefaultNetwork, Prefix: mustPrefix("172.16.16.0/20"), Reason: "lab"})
	first := bind(t, live, 1, "172.16.0.2", "a")
	bind(t, live, 2, "172.16.4.2", "b")
	bind(t, live, 3, "172.16.8.2", "c")
	apply(t, live, Envelope{RequestID{nodeID(1), 7}, []Command{Tick{time.Second}}})
	backup := restoredFrom(t, live)

	ok(t, live, ReleaseLease{first.Fence, first.Addr, first.Owner})
	moved := bind(t, live, 1, "172.16.0.3", "a") // the owner got another address since
	ok(t, live, joinCmd(4), RevokeToken{tokenID(5)},
		UnreserveAddress{Network: DefaultNetwork, Prefix: mustPrefix("172.16.16.0/20")},
		ReserveAddress{Network: DefaultNetwork, Prefix: mustPrefix("172.20.0.0/16"), Reason: "new host"})
	fourth := bind(t, live, 4, "172.16.12.2", "d")
	replace := joinCmd(6)
	replace.Replace = registerCmd(2).Name
	ok(t, live, replace, RemoveNode{Node: nodeID(3), Force: true}, UpdateNode{Node: nodeID(1), Address: "192.0.2.99:9640"},
		DrainNode{nodeID(4), true}, registerCmd(7), ClaimSubnet{Node: nodeID(7), Network: DefaultNetwork})
	apply(t, live, Envelope{RequestID{nodeID(1), 9}, []Command{Tick{time.Second}}})

	out := merged(t, backup, live)
	c, _ := out.Cluster()
	equal(t, "generation", [2]any{c.Generation, c.Reclaim}, [2]any{uint64(2), true})
	equal(t, "index", out.Index(), live.Index())
	n, _ := out.Network(DefaultNetwork)
	equal(t, "mark", n.NextSubnet, uint32(5))
	for node := range live.Nodes() {
		got, _ := out.Node(node.ID)
		equal(t, "node", got, node)
	}
	for sub := range live.Subnets() {
		got, _ := out.Subnet(sub.SubnetKey)
		equal(t, "subnet", got, sub)
	}
	// The leases are those of the backup where the holder is the same.
	l, _ := out.LeaseByOwner(first.Owner)
	equal(t, "lease", l.Addr, first.Addr)
	_, found := out.Lease(moved.Addr)
	equal(t, "later lease of the same holder", found, false)
	_, found = out.Lease(mustAddr("172.16.4.2"))
	equal(t, "lease of the replaced node", found, false)
	l, _ = out.Lease(fourth.Addr)
	equal(t, "lease of the new node", l.Owner, fourth.Owner)
	// One of the four reserved subnets that the backup has is in use by now.
	var blocks []string
	for r := range out.AllReservations() {
		if r.Kind == ReservedOperator {
			blocks = append(blocks, r.Prefix.String()+" "+r.Reason)
		}
	}
	equal(t, "reservations", blocks, []string{"172.16.20.0/22 lab", "172.16.24.0/21 lab", "172.20.0.0/16 new host"})
	// What was used or revoked stays so, and no request is taken for a new one.
	refused(t, out, ErrTokenRevoked, joinCmd(5))
	other := joinCmd(4)
	other.Node = nodeID(8)
	refused(t, out, ErrTokenUsed, other)
	for _, seq := range []uint64{7, 9} {
		r := apply(t, out, Envelope{RequestID{nodeID(1), seq}, []Command{Tick{time.Second}}}).Results[0]
		equal(t, "code", ErrorCode(r.Err), ErrorCode(ErrRequestForgotten))
	}
	// The holders go on; new subnets wait for the end of the re-claim.
	for sub := range live.Subnets() {
		if sub.State == Held {
			unchanged(t, out, ClaimHeld{sub.Fence()})
		}
	}
	ok(t, out, BindLease{Fence: moved.Fence, Addr: mustAddr("172.16.0.9"), Owner: owner("z")}, registerCmd(9))
	claim := ClaimSubnet{Node: nodeID(9), Network: DefaultNetwork}
	refused(t, out, ErrReclaiming, claim)
	ok(t, out, EndReclaim{2})
	equal(t, "next", ok(t, out, claim).Results[0], Result{Subnet: mustPrefix("172.16.32.0/22"), Epoch: Epoch{2, 1}})
}

// TestForRestoreAlone: without a live state nothing but the generation changes,
// and the same way as by the command.
func TestForRestoreAlone(t *testing.T) {
	t.Parallel()
	s := fullState(t)
	ok(t, s, EndReclaim{})
	for name, live := range map[string]*State{"none": nil, "empty": New()} {
		out, err := s.ForRestore(live, 0)
		if err != nil {
			t.Fatal(err)
		}
		want := restoredFrom(t, s)
		ok(t, want, RaiseGeneration{3})
		if out.Hash() != want.Hash() || out.Index() != s.Index() {
			t.Errorf("%s: another state", name)
		}
		equal(t, "derived", out.derived, want.derived)
	}
}

func TestForRestoreRefuses(t *testing.T) {
	t.Parallel()
	if _, err := New().ForRestore(cluster(t, 1), 0); !errors.Is(err, ErrNotInitialized) {
		t.Errorf("an empty backup: %v", err)
	}
	with := func(f func(*InitCluster)) *State {
		s, c := New(), initCmd()
		f(&c)
		ok(t, s, c)
		return s
	}
	last := cluster(t, 1)
	ok(t, last, RaiseGeneration{maxGeneration})
	sameName, otherHolder := cluster(t, 1), cluster(t, 1)
	c := registerCmd(2)
	c.Name = "x"
	ok(t, sameName, c)
	other := cluster(t, 1)
	c.Node = nodeID(3)
	ok(t, other, c)
	ok(t, otherHolder, registerCmd(2), ClaimSubnet{Node: nodeID(2), Network: DefaultNetwork})
	ok(t, other, ClaimSubnet{Node: nodeID(3), Network: DefaultNetwork})
	token, otherToken := cluster(t, 1), cluster(t, 1)
	secret := tokenCmd(1)
	secret.SecretHash = hashOf(9)
	ok(t, token, tokenCmd(1))
	ok(t, otherToken, secret)
	for _, tt := range []struct {
		name         string
		backup, live *State
		want         error
	}{
		{"another cluster", with(func(c *InitCluster) { c.ClusterID = string(nodeID(7)) }), cluster(t, 1), ErrSnapshotCluster},
		{"another plan", with(func(c *InitCluster) { c.SubnetBits = 24 }), cluster(t, 1), ErrSnapshotCluster},
		{"overlapping networks", with(func(c *InitCluster) { c.Network = "other" }), cluster(t, 1), ErrSnapshotCluster},
		{"one name, two nodes", sameName, other, ErrNodeExists},
		{"one epoch, two holders", otherHolder, other, ErrSnapshotCluster},
		{"one token, two secrets", token, otherToken, ErrSnapshotCluster},
		{"last generation", last, cluster(t, 1), ErrInvalid},
	} {
		if out, err := tt.backup.ForRestore(tt.live, 0); !errors.Is(err, tt.want) || out != nil {
			t.Errorf("%s: got %v", tt.name, err)
		}
	}
}

// TestForRestoreNewer: the backup may also be the newer one, when the live state
// was recovered from a node that had fallen behind.
func TestForRestoreNewer(t *testing.T) {
	t.Parallel()
	behind := cluster(t, 2)
	ahead := restoredFrom(t, behind)
	ok(t, ahead, tokenCmd(3), UpdateNode{Node: nodeID(1), Mode: ModeRouted})
	replace := joinCmd(3)
	replace.Replace = registerCmd(2).Name
	ok(t, ahead, replace, registerCmd(4), ClaimSubnet{Node: nodeID(4), Network: DefaultNetwork})
	lease := bind(t, ahead, 1, "172.16.0.1", "a") // free in routed mode

	ok(t, behind, RaiseGeneration{2}, EndReclaim{}, tokenCmd(3), registerCmd(5), ClaimSubnet{Node: nodeID(5), Network: DefaultNetwork})
	out := merged(t, ahead, behind)
	for prefix, want := range map[string]Subnet{
		"172.16.0.0/22": {State: Held, Node: nodeID(1), Epoch: Epoch{1, 1}, Mode: ModeBridge},
		"172.16.4.0/22": {State: Held, Node: nodeID(3), Epoch: Epoch{1, 2}, Mode: ModeBridge},
		"172.16.8.0/22": {State: Held, Node: nodeID(5), Epoch: Epoch{2, 1}, Mode: ModeBridge},
	} {
		got, _ := out.Subnet(SubnetKey{DefaultNetwork, mustPrefix(prefix)})
		want.SubnetKey, want.Since, want.SinceTime = got.SubnetKey, got.Since, got.SinceTime
		equal(t, prefix, got, want)
	}
	_, found := out.Lease(lease.Addr)
	equal(t, "lease of another mode", found, false)
	n, _ := out.Node(nodeID(2))
	equal(t, "tombstone", n.Removed, true)
	n, _ = out.Node(nodeID(4))
	equal(t, "a member whose subnet went to another", n.Removed, false)
	refused(t, out, ErrWrongNode, ClaimHeld{Fence{SubnetKey{DefaultNetwork, mustPrefix("172.16.8.0/22")}, nodeID(4), Epoch{1, 1}}})
	k, _ := out.Token(tokenID(3))
	equal(t, "token", k.UsedBy, nodeID(3))
}

// TestForRestoreOwnerTwice: an owner that has an address on either side keeps the
// live one; the other is kept from others all the same.
func TestForRestoreOwnerTwice(t *testing.T) {
	t.Parallel()
	backup := cluster(t, 1)
	live := restoredFrom(t, backup)
	old := bind(t, backup, 1, "172.16.0.2", "a")
	ok(t, live, registerCmd(2), ClaimSubnet{Node: nodeID(2), Network: DefaultNetwork})
	now := bind(t, live, 2, "172.16.4.2", "a")
	out := merged(t, backup, live)
	l, _ := out.LeaseByOwner(old.Owner)
	equal(t, "address", l.Addr, now.Addr)
	l, _ = out.Lease(old.Addr)
	equal(t, "state", l.State, Cooling)
}

// randomly applies random commands. Claims of what a node never held are left
// out: with them two histories may disagree on one epoch.
func randomly(t *rapid.T, s *State, label string) {
	for range rapid.IntRange(0, 40).Draw(t, label) {
		c := drawCommand(t, s)
		if claim, ok := c.(ClaimHeld); ok {
			sub, _ := s.Subnet(claim.Subnet)
			claim.Node, claim.Epoch = sub.Node, sub.Epoch
			c = claim
		}
		n := rapid.SampledFrom(propNodes).Draw(t, "proposer")
		apply(t, s, Envelope{RequestID{nodeID(n), s.Index() + 1}, []Command{c}})
	}
}

// TestForRestoreKeeps: whatever has happened since the backup, or on the side that
// a recovery gave up, the outcome keeps what must be kept.
func TestForRestoreKeeps(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		backup := New()
		do(t, backup, drawInit(t))
		randomly(t, backup, "before")
		live := restoredFrom(t, backup)
		straight := rapid.Bool().Draw(t, "straight")
		if !straight {
			randomly(t, backup, "given up")
			ok(t, live, RaiseGeneration{9}, EndReclaim{})
		}
		randomly(t, live, "since")
		a, b := backup, live
		if rapid.Bool().Draw(t, "swapped") {
			a, b = b, a
			straight = false
		}
		if _, err := a.ForRestore(b, 0); errors.Is(err, ErrNodeExists) && !straight {
			return
		}
		out := merged(t, a, b)
		for _, s := range []*State{a, b} {
			kept(t, out, s)
		}
		if straight {
			for sub := range live.Subnets() {
				got, _ := out.Subnet(sub.SubnetKey)
				equal(t, "holder", [4]any{got.State, got.Node, got.Epoch, got.Mode}, [4]any{sub.State, sub.Node, sub.Epoch, sub.Mode})
			}
			equal(t, "nodes", collect(&out.nodes), collect(&live.nodes))
		}
		ok(t, out, EndReclaim{})
		randomly(t, out, "after")
		if err := out.Check(); err != nil {
			t.Fatal(err)
		}
	})
}

// kept tells whether nothing of a side is lost in out that must not be.
func kept(t *rapid.T, out, s *State) {
	if out.cluster.Generation <= s.cluster.Generation || !out.cluster.Reclaim || out.cluster.Time < s.cluster.Time || out.index < s.index {
		t.Fatalf("cluster %+v at %d from %+v at %d", out.cluster, out.index, s.cluster, s.index)
	}
	for name, n := range s.networks.all() {
		if got, _ := out.networks.get(name); got.NextSubnet < n.NextSubnet {
			t.Fatalf("mark %d from %d", got.NextSubnet, n.NextSubnet)
		}
	}
	for id, n := range s.nodes.all() {
		if got, ok := out.nodes.get(id); !ok || n.Removed && !got.Removed {
			t.Fatalf("node %+v became %+v", n, got)
		}
	}
	for k, sub := range s.subnets.all() {
		got, _ := out.subnets.get(k)
		switch order := got.Epoch.Compare(sub.Epoch); {
		case order < 0, order == 0 && got.Node != sub.Node, order == 0 && got.State < sub.State:
			t.Fatalf("subnet %+v became %+v", sub, got)
		}
	}
	for id, k := range s.tokens.all() {
		if got, _ := out.tokens.get(id); k.Revoked && !got.Revoked || k.Used() && !got.Used() {
			t.Fatalf("token %+v became %+v", k, got)
		}
	}
	seen := maps.Collect(out.forgotten.all())
	for id := range s.requests.all() {
		if n, _ := out.nodes.get(id.Node); !n.Removed && seen[id.Node] < id.Seq {
			t.Fatalf("request %v may be executed again", id)
		}
	}
	for r := range s.AllReservations() {
		if r.Kind != ReservedOperator || r.Prefix.Bits() > 26 {
			continue
		}
		for i := range 4 {
			k := SubnetKey{DefaultNetwork, modelSubnet(i)}
			_, reserved := out.reserved(DefaultNetwork, k.Prefix)
			if sub, _ := out.subnets.get(k); r.Prefix.Contains(k.Prefix.Addr()) && !reserved && (sub.State == 0 || sub.State == SubnetFree) {
				t.Fatalf("%s is no longer reserved by %s", k.Prefix, r.Prefix)
			}
		}
	}
}

// TestLife: two survivors that are recovered separately make generations of one
// number and different lives, each of which a snapshot keeps. A state without a life
// has the bytes that it had before there were lives.
func TestLife(t *testing.T) {
	t.Parallel()
	s := fullState(t)
	var hashes [][32]byte
	for _, life := range []uint32{0, 1, 1<<32 - 1} {
		out, err := s.ForRestore(nil, life)
		if err != nil {
			t.Fatal(err)
		}
		again := restoredFrom(t, out)
		c, _ := again.Cluster()
		if c.Generation != 3 || c.Life != life || again.Hash() != out.Hash() {
			t.Errorf("life %d: %+v", life, c)
		}
		version := uint32(plainVersion)
		if life != 0 {
			version = snapshotVersion
		}
		if got := binary.BigEndian.Uint32(written(t, out)[8:]); got != version {
			t.Errorf("life %d: written as version %d", life, got)
		}
		hashes = append(hashes, out.Hash())
	}
	if hashes[0] == hashes[1] || hashes[1] == hashes[2] {
		t.Error("two lives have one hash")
	}
}
