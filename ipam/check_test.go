package ipam

import (
	"errors"
	"strings"
	"testing"
)

// change applies f to the record at k.
func change[K, V any](t *testing.T, tr *tree[K, V], k K, f func(*V)) {
	t.Helper()
	v, ok := tr.get(k)
	if !ok {
		t.Fatalf("nothing at %v", k)
	}
	f(&v)
	tr.set(k, v)
}

// TestCheckFinds breaks a sound state in one place at a time.
func TestCheckFinds(t *testing.T) {
	t.Parallel()
	held := SubnetKey{DefaultNetwork, mustPrefix("172.16.0.0/22")}
	quarantined := SubnetKey{DefaultNetwork, mustPrefix("172.16.8.0/22")}
	lease := leaseKey{1, addrToUint(mustAddr("172.16.0.2"))}
	subnet := func(f func(*Subnet)) func(*testing.T, *State) {
		return func(t *testing.T, s *State) { change(t, &s.subnets, held, f) }
	}
	node := func(f func(*Node)) func(*testing.T, *State) {
		return func(t *testing.T, s *State) { change(t, &s.nodes, nodeID(1), f) }
	}
	leases := func(f func(*leaseRecord)) func(*testing.T, *State) {
		return func(t *testing.T, s *State) { change(t, &s.leases, lease, f) }
	}
	network := func(f func(*Network)) func(*testing.T, *State) {
		return func(t *testing.T, s *State) { change(t, &s.networks, DefaultNetwork, f) }
	}
	request := func(f func(*requestRecord)) func(*testing.T, *State) {
		return func(t *testing.T, s *State) { change(t, &s.requests, RequestID{nodeID(2), 100}, f) }
	}
	token := func(f func(*Token)) func(*testing.T, *State) {
		return func(t *testing.T, s *State) { change(t, &s.tokens, tokenID(1), f) }
	}
	reserve := func(r Reservation) func(*testing.T, *State) {
		return func(_ *testing.T, s *State) { s.reservations.set(r.key(), r) }
	}
	for _, tt := range []struct {
		name   string
		damage func(*testing.T, *State)
		want   string
	}{
		{"cluster id", func(_ *testing.T, s *State) { s.cluster.ID = "x" }, `cluster "x"`},
		{"no cluster", func(_ *testing.T, s *State) { s.cluster = clusterRecord{} }, "no cluster"},
		{"last generation", func(_ *testing.T, s *State) { s.cluster.Generation = maxGeneration + 1 }, "generation 4294967297"},
		{"generation", func(_ *testing.T, s *State) { s.cluster.Generation = 0 }, "generation 0"},
		{"time", func(_ *testing.T, s *State) { s.cluster.Time = -1 }, "time -1"},

		{"plan", network(func(n *Network) { n.SubnetBits = 31 }), "smaller than /29"},
		{"network number", network(func(n *Network) { n.ID = 0 }), "number of nobody"},
		{"mark", network(func(n *Network) { n.NextSubnet = 1025 }), "mark at 1025"},
		{"mark too low", network(func(n *Network) { n.NextSubnet = 1 }), "the mark is at 1"},
		{"network name", func(_ *testing.T, s *State) {
			s.networks.set("A", Network{Name: "A", ID: 2, Prefix: mustPrefix("10.0.0.0/8"), SubnetBits: 22})
		}, `name "A"`},
		{"overlap", func(_ *testing.T, s *State) {
			s.networks.set("other", Network{Name: "other", ID: 2, Prefix: mustPrefix("172.20.0.0/16"), SubnetBits: 22})
		}, "overlap"},

		{"node id", func(_ *testing.T, s *State) { s.nodes.set("x", Node{ID: "x", Name: "x", Mode: ModeBridge}) }, "node id"},
		{"node name", node(func(n *Node) { n.Name = "" }), "node name"},
		{"node mode", node(func(n *Node) { n.Mode = 0 }), "mode"},
		{"node role", node(func(n *Node) { n.Role = 9 }), "role"},
		{"node without a role", node(func(n *Node) { n.Role = 0 }), "has no role"},
		{"draining tombstone", func(t *testing.T, s *State) {
			change(t, &s.nodes, nodeID(3), func(n *Node) { n.Draining = true })
		}, "tombstone"},
		{"node of the future", node(func(n *Node) { n.Changed = 1 << 40 }), "changed at entry"},
		{"node joined late", node(func(n *Node) { n.Joined = n.Changed + 1 }), "changed at entry"},
		{"tombstone", func(t *testing.T, s *State) {
			change(t, &s.nodes, nodeID(3), func(n *Node) { n.Address = "a" })
		}, "tombstone"},
		{"same name", node(func(n *Node) { n.Name = registerCmd(2).Name }), "two nodes are called nodec"},
		{"node gone", func(_ *testing.T, s *State) { s.nodes.delete(nodeID(1)) }, "unknown holder"},
		{"name index", func(_ *testing.T, s *State) { s.byName["ghost"] = nodeID(1) }, "4 names"},

		{"subnet state", subnet(func(s *Subnet) { s.State = 9 }), "SubnetState(9)"},
		{"holder removed", subnet(func(s *Subnet) { s.Node = nodeID(3) }), "removed"},
		{"subnet mode", subnet(func(s *Subnet) { s.Mode = ModeRouted }), "not in that mode"},
		{"epoch", subnet(func(s *Subnet) { s.Epoch.Counter = 0 }), "epoch 1.0"},
		{"generation ahead", subnet(func(s *Subnet) { s.Epoch.Generation = 3 }), "epoch 3.1"},
		{"epoch without end", subnet(func(s *Subnet) { s.Epoch.Counter = maxCounter + 1 }), "epoch 1.281"},
		{"held by nobody", subnet(func(s *Subnet) { s.Node, s.Epoch, s.Mode = "", Epoch{}, 0 }), "Mode(0)"},
		{"subnet of the future", subnet(func(s *Subnet) { s.Since = 1 << 40 }), "future"},
		{"subnet of a later time", subnet(func(s *Subnet) { s.SinceTime = 1 << 60 }), "future"},
		{"odd subnet", func(_ *testing.T, s *State) {
			k := SubnetKey{DefaultNetwork, mustPrefix("172.16.0.0/23")}
			s.subnets.set(k, Subnet{SubnetKey: k})
		}, "no subnet of its network"},
		{"freed with leases", func(t *testing.T, s *State) {
			change(t, &s.subnets, quarantined, func(s *Subnet) { s.State = SubnetFree })
		}, "of its own"},
		{"freed, leases left", subnet(func(s *Subnet) { s.State = SubnetFree }), "of its own"},

		{"reservation lost", func(_ *testing.T, s *State) {
			s.reservations.delete(reservationKey{DefaultNetwork, mustPrefix("172.16.0.1/32"), ReservedGateway})
		}, "lacks 1"},
		{"reservation at the wrong place", reserve(Reservation{DefaultNetwork, mustPrefix("172.16.0.9/32"), ReservedGateway, "", 1}), "of its own"},
		{"reservation of nobody", reserve(Reservation{DefaultNetwork, mustPrefix("172.31.0.1/32"), ReservedGateway, "", 1}), "never held"},
		{"held and reserved", reserve(Reservation{DefaultNetwork, mustPrefix("172.16.0.0/16"), ReservedOperator, "", 1}), "is held and reserved"},
		{"lease and reserved", reserve(Reservation{DefaultNetwork, mustPrefix("172.16.0.2/32"), ReservedOperator, "", 1}), "lease of 172.16.0.2, which is reserved"},
		{"reservation outside", reserve(Reservation{DefaultNetwork, mustPrefix("10.0.0.0/16"), ReservedOperator, "", 1}), "reservation of 10.0.0.0/16"},
		{"reservation in no network", reserve(Reservation{"x", mustPrefix("10.0.0.0/16"), ReservedOperator, "", 1}), `network "x"`},
		{"reservation kind", reserve(Reservation{DefaultNetwork, mustPrefix("172.30.0.0/16"), 9, "", 1}), "malformed"},
		{"reservation counts", func(_ *testing.T, s *State) { delete(s.blocks, DefaultNetwork) }, "miscounted"},

		{"lease state", leases(func(r *leaseRecord) { r.State = 0 }), "LeaseState(0)"},
		{"lease of the future", leases(func(r *leaseRecord) { r.Since = 1 << 40 }), "future"},
		{"lease owner", leases(func(r *leaseRecord) { r.OwnerLen-- }), "malformed owner"},
		{"lease owner's end", leases(func(r *leaseRecord) { r.OwnerLen = 0 }), "malformed owner"},
		{"lease owner's kind", leases(func(r *leaseRecord) { r.Text = "\x00" + r.Text[1:] }), "owner has no kind"},
		{"host name", leases(func(r *leaseRecord) { r.Text += " " }), "host name"},
		{"owner twice", leases(func(r *leaseRecord) { *r = newLeaseRecord(owner("c1"), ""); r.State = Bound }), "two addresses"},
		{"owner index", func(_ *testing.T, s *State) { s.byOwner["ghost"] = lease }, "held, by"},
		{"subnets of a node", func(_ *testing.T, s *State) { s.byNode.delete(nodeSubnet{nodeID(1), held}) }, "are listed"},
		{"subnets of another node", func(_ *testing.T, s *State) {
			s.byNode.delete(nodeSubnet{nodeID(1), held})
			s.byNode.set(nodeSubnet{nodeID(2), held}, struct{}{})
		}, "is listed as a subnet of"},
		{"usage", func(_ *testing.T, s *State) { s.countLease(held, Bound, 1) }, "usage"},
		{"lease of no subnet", func(_ *testing.T, s *State) {
			r := newLeaseRecord(owner("z"), "")
			r.State = Bound
			s.leases.set(leaseKey{1, addrToUint(mustAddr("172.31.0.2"))}, r)
		}, "whose subnet nobody holds"},
		{"lease of no network", func(_ *testing.T, s *State) { s.leases.set(leaseKey{7, 7}, leaseRecord{}) }, "network number 7"},

		{"request of nobody", func(_ *testing.T, s *State) { s.requests.set(RequestID{nodeID(9), 1}, requestRecord{}) }, "no member"},
		{"seq of nobody", func(_ *testing.T, s *State) { s.forgotten.set(nodeID(9), 1) }, "no member"},
		{"forgotten, yet there", func(_ *testing.T, s *State) { s.forgotten.set(nodeID(2), 100) }, "remembered and forgotten"},
		{"results", request(func(r *requestRecord) { r.Results += "x" }), "malformed"},
		{"too many results", request(func(r *requestRecord) { r.Count = MaxCommands + 1 }), "too many"},
		{"token id", func(_ *testing.T, s *State) { s.tokens.set("x", Token{ID: "x"}) }, "token id"},
		{"token without a secret", token(func(k *Token) { k.SecretHash = [32]byte{} }), "without a secret"},
		{"token without a role", token(func(k *Token) { k.Role = 0 }), "without a role"},
		{"token of no time", token(func(k *Token) { k.Expires = 0 }), "expires at 0"},
		{"token used by nobody", token(func(k *Token) { k.UsedBy = "x" }), `used by "x"`},
		{"token used without a key", token(func(k *Token) { k.UsedBy = nodeID(1) }), "without a key"},
		{"token not used, yet with a key", token(func(k *Token) { k.KeyHash = hashOf(1) }), "without a key"},
		{"token of the future", token(func(k *Token) { k.Changed = 1 << 40 }), "changed at entry"},

		{"window", func(_ *testing.T, s *State) { delete(s.windows, nodeID(2)) }, "miscounted"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			s := fullState(t)
			if err := s.Check(); err != nil {
				t.Fatal(err)
			}
			tt.damage(t, s)
			if err := s.Check(); !errors.Is(err, ErrInvariant) || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("got %v, want %q", err, tt.want)
			}
		})
	}
}
