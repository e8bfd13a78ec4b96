package node

import (
	"context"
	"errors"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"stellar.io/stellar/api"
	"stellar.io/stellar/api/peerapi"
	"stellar.io/stellar/ipam"
	"stellar.io/stellar/raftstore"
)

// TestClaims: after a recovery the leader takes in what live nodes hold, also those
// that its state has never heard of; what two nodes claim is refused to the second and
// shown. Nobody unknown is taken in when the re-claim has ended.
func TestClaims(t *testing.T) {
	t.Parallel()
	n := lone(t)
	p, _ := n.runStore(t)
	if later, err := n.claim(t.Context(), p); later || err != nil {
		t.Fatalf("claim: %v, %v", later, err)
	}
	p.mustPropose(t, ipam.RaiseGeneration{Generation: 2})
	claim := func(id, name, subnet string, counter uint64) error {
		t.Helper()
		a, err := peerBackend{n, p}.Claim(t.Context(), peerapi.Caller{Node: ipam.NodeID(strings.Repeat(id, 32)), Name: name, Role: api.RoleServer}, peerapi.Claim{
			Name: name, MachineID: "m-" + name, Address: "192.0.2.9:9640", Version: "1", Mode: ipam.ModeBridge,
			Subnet: netip.MustParsePrefix(subnet), Epoch: ipam.Epoch{Generation: 1, Counter: counter},
		})
		if a.Accepted != (err == nil) {
			t.Errorf("%s: %+v, %v", name, a, err)
		}
		return err
	}
	check := func() (state api.CheckState, reason string) {
		n.checkReclaim(context.Background(), p, func(_ string, s api.CheckState, r string) { state, reason = s, r })
		return state, reason
	}
	if s, r := check(); s != api.Warn || !strings.Contains(r, "0 of 1") || !strings.Contains(r, "missing: "+n.id.Name) {
		t.Errorf("%s: %s", s, r)
	}
	n.report(t.Context(), p)
	if s, r := check(); s != api.Warn || !strings.Contains(r, "all 1") {
		t.Errorf("%s: %s", s, r)
	}
	for range 2 { // it may be repeated
		if err := claim("b", "beta", "172.16.12.0/22", 1); err != nil {
			t.Fatal(err)
		}
	}
	if err := claim("c", "gamma", "172.16.12.0/22", 1); !errors.Is(err, ipam.ErrWrongNode) {
		t.Errorf("a second claim of one subnet: %v", err)
	}
	if err := claim("d", "beta", "172.16.16.0/22", 1); !errors.Is(err, ipam.ErrNodeExists) {
		t.Errorf("a name that another has: %v", err)
	}
	if s, r := check(); s != api.Err || !strings.Contains(r, "gamma") || !strings.Contains(r, "172.16.12.0/22") || !strings.Contains(r, "node rm") {
		t.Errorf("%s: %s", s, r)
	}
	p.store.View(func(s *ipam.State) {
		sub, _ := s.Subnet(ipam.SubnetKey{Network: ipam.DefaultNetwork, Prefix: netip.MustParsePrefix("172.16.12.0/22")})
		if sub.Node != ipam.NodeID(strings.Repeat("b", 32)) || sub.State != ipam.Held {
			t.Errorf("%+v", sub)
		}
	})
	p.mustPropose(t, ipam.RemoveNode{Node: ipam.NodeID(strings.Repeat("b", 32)), Force: true}, ipam.EndReclaim{})
	if err := claim("b", "beta", "172.16.12.0/22", 1); !errors.Is(err, ipam.ErrNodeRemoved) {
		t.Errorf("a removed node: %v", err)
	}
	if err := claim("e", "epsilon", "172.16.24.0/22", 1); api.CodeOf(err) != api.CodeConflict {
		t.Errorf("a stranger after the re-claim: %v", err)
	}
}

// TestEmptyForReturn: however often it is killed, a node that comes back has an empty
// store, and what it had stays beside it.
func TestEmptyForReturn(t *testing.T) {
	t.Parallel()
	n := lone(t)
	_, stop := n.runStore(t)
	stop()
	dir := n.opts.Config.DataDir
	before, err := os.ReadFile(filepath.Join(dir, "raft", "store.json"))
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(n.returnPath(), []byte(`{"aside":"raft.left-behind-1"}`), 0o600); err != nil {
		t.Fatal(err)
	}
	for i, kill := range []func() error{
		func() error { return nil },
		func() error { return nil },                                      // after the empty store was made
		func() error { return os.RemoveAll(filepath.Join(dir, "raft")) }, // before
	} {
		if err := kill(); err != nil {
			t.Fatal(err)
		}
		again, err := New(n.opts)
		if err != nil {
			t.Fatalf("start %d: %v", i, err)
		}
		after, err := os.ReadFile(filepath.Join(dir, "raft.left-behind-1", "store.json"))
		if err != nil || string(after) != string(before) {
			t.Errorf("start %d: set aside: %v %s", i, err, after)
		}
		store, err := raftstore.Open(again.storeConfig())
		if err != nil {
			t.Fatalf("start %d: %v", i, err)
		}
		if e := (&parts{store: store}).era(); e != (era{}) {
			t.Errorf("start %d: the store has era %s", i, e)
		}
		if err := store.Close(); err != nil {
			t.Error(err)
		}
	}
	for name, text := range map[string]string{"damaged": "{", "elsewhere": `{"aside":"../x"}`, "nowhere": `{}`} {
		if err := os.WriteFile(n.returnPath(), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := New(n.opts); err == nil {
			t.Errorf("%s marker: no error", name)
		}
	}
}
