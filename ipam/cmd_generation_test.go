package ipam

import "testing"

func TestRaiseGeneration(t *testing.T) {
	t.Parallel()
	refused(t, New(), ErrNotInitialized, RaiseGeneration{1})
	refused(t, New(), ErrNotInitialized, EndReclaim{})
	s := cluster(t, 1)
	ok(t, s, tokenCmd(2), tokenCmd(3))
	unchanged(t, s, RaiseGeneration{1})
	unchanged(t, s, EndReclaim{1})
	out := ok(t, s, RaiseGeneration{3})
	equal(t, "deltas", out.Deltas, []Delta{ClusterPut{Cluster{ID: clusterID, Generation: 3, Reclaim: true}}})
	refused(t, s, ErrStaleGeneration, RaiseGeneration{2})
	refused(t, s, ErrInvalid, RaiseGeneration{0})
	refused(t, s, ErrInvalid, RaiseGeneration{maxGeneration + 1})
	refused(t, s, ErrStaleGeneration, EndReclaim{2})

	// Nothing is handed out; who holds a subnet goes on in it.
	ok(t, s, registerCmd(4))
	refused(t, s, ErrReclaiming, ClaimSubnet{Node: nodeID(4), Network: DefaultNetwork})
	refused(t, s, ErrReclaiming, joinCmd(2))
	replace := joinCmd(2)
	replace.Replace = registerCmd(1).Name
	refused(t, s, ErrReclaiming, replace)
	unchanged(t, s, ClaimSubnet{Node: nodeID(1), Network: DefaultNetwork})
	bind(t, s, 1, "172.16.0.2", "a")
	back := joinCmd(3)
	back.RegisterNode = registerCmd(1)
	equal(t, "a member's epoch", ok(t, s, back).Results[0].Epoch, Epoch{1, 1})

	out = ok(t, s, EndReclaim{3})
	equal(t, "deltas", out.Deltas, []Delta{ClusterPut{Cluster{ID: clusterID, Generation: 3}}})
	unchanged(t, s, EndReclaim{3})
	unchanged(t, s, RaiseGeneration{3})
	equal(t, "epoch", ok(t, s, joinCmd(2)).Results[0].Epoch, Epoch{3, 1})
}

func TestClaimHeld(t *testing.T) {
	t.Parallel()
	key := func(p string) SubnetKey { return SubnetKey{DefaultNetwork, mustPrefix(p)} }
	// Node 1 holds 172.16.0.0/22 with a lease, 2 was removed by force, 3 left; 4
	// and 5 have no subnet. The generation is 2.
	state := func(t *testing.T, reclaim bool) *State {
		s := cluster(t, 3)
		bind(t, s, 1, "172.16.0.2", "a")
		ok(t, s, RemoveNode{Node: nodeID(2), Force: true}, RemoveNode{Node: nodeID(3)},
			registerCmd(4), registerCmd(5), RaiseGeneration{2},
			ReserveAddress{Network: DefaultNetwork, Prefix: mustPrefix("172.17.0.0/16"), Reason: "docker0"})
		if !reclaim {
			ok(t, s, EndReclaim{})
		}
		return s
	}
	for _, tt := range []struct {
		name    string
		node    int
		subnet  string
		epoch   Epoch
		reclaim error // during a re-claim
		usual   error // at any other time
	}{
		{"what it has", 1, "172.16.0.0/22", Epoch{1, 1}, nil, nil},
		{"its own at an older epoch", 1, "172.16.0.0/22", Epoch{1, 0}, ErrInvalid, ErrInvalid},
		{"its own at a newer epoch", 1, "172.16.0.0/22", Epoch{1, 2}, nil, ErrStaleEpoch},
		{"another's at its epoch", 4, "172.16.0.0/22", Epoch{1, 1}, ErrWrongNode, ErrWrongNode},
		{"another's at a newer epoch", 4, "172.16.0.0/22", Epoch{1, 2}, nil, ErrWrongNode},
		{"a quarantined one", 4, "172.16.4.0/22", Epoch{1, 1}, ErrWrongNode, ErrWrongNode},
		{"a quarantined one at a newer epoch", 4, "172.16.4.0/22", Epoch{2, 1}, nil, ErrWrongNode},
		{"a free one", 4, "172.16.8.0/22", Epoch{1, 1}, ErrStaleEpoch, ErrStaleEpoch},
		{"a free one at a newer epoch", 4, "172.16.8.0/22", Epoch{1, 2}, nil, ErrStaleEpoch},
		{"an unknown one", 4, "172.16.12.0/22", Epoch{1, 1}, nil, ErrSubnetNotFound},
		{"of a later generation", 4, "172.16.12.0/22", Epoch{3, 1}, ErrStaleGeneration, ErrStaleGeneration},
		{"epoch without end", 4, "172.16.12.0/22", Epoch{1, maxClaimed + 1}, ErrInvalid, ErrInvalid},
		{"a second one", 1, "172.16.12.0/22", Epoch{1, 1}, ErrSubnetInUse, ErrSubnetNotFound},
		{"a reserved one", 4, "172.17.0.0/22", Epoch{1, 1}, ErrAddressReserved, ErrSubnetNotFound},
		{"no subnet", 4, "172.16.12.0/23", Epoch{1, 1}, ErrSubnetNotFound, ErrSubnetNotFound},
		{"a removed node", 2, "172.16.4.0/22", Epoch{1, 1}, ErrNodeRemoved, ErrNodeRemoved},
		{"a stranger", 9, "172.16.12.0/22", Epoch{1, 1}, ErrNodeNotFound, ErrNodeNotFound},
	} {
		for reclaim, want := range map[bool]error{true: tt.reclaim, false: tt.usual} {
			c := ClaimHeld{Fence{key(tt.subnet), nodeID(tt.node), tt.epoch}}
			s := state(t, reclaim)
			t.Run(tt.name, func(t *testing.T) {
				if want != nil {
					refused(t, s, want, c)
					return
				}
				answer := Result{Subnet: mustPrefix(tt.subnet), Epoch: tt.epoch}
				equal(t, "answer", ok(t, s, c).Results[0], answer)
				equal(t, "again", unchanged(t, s, c), answer)
				sub, _ := s.Subnet(key(tt.subnet))
				equal(t, "holder", sub.Fence(), c.Fence)
				if l, has := s.Lease(mustAddr("172.16.0.2")); has != (sub.Node == nodeID(1) || tt.subnet != "172.16.0.0/22") {
					t.Errorf("lease of the former holder: %v", l)
				}
			})
		}
	}
	refused(t, New(), ErrNotInitialized, ClaimHeld{Fence{key("172.16.0.0/22"), nodeID(1), Epoch{1, 1}}})
}

// TestClaimHeldGap: when the state has lost who held the subnets in front of a
// claimed one, nobody gets them until their holders or the operator have spoken.
func TestClaimHeldGap(t *testing.T) {
	t.Parallel()
	s := cluster(t, 1)
	ok(t, s, registerCmd(2), registerCmd(3), registerCmd(4), RaiseGeneration{2},
		ReserveAddress{Network: DefaultNetwork, Prefix: mustPrefix("172.16.8.0/22"), Reason: "host"})
	far := SubnetKey{DefaultNetwork, mustPrefix("172.16.16.0/22")}
	out := ok(t, s, ClaimHeld{Fence{far, nodeID(2), Epoch{1, 1}}})
	equal(t, "deltas", deltaKinds(out.Deltas), "network subnet subnet network subnet reservation reservation reservation")
	var unknown []string
	for sub := range s.Subnets() {
		if sub.Node == "" {
			unknown = append(unknown, sub.Prefix.String()+" "+sub.State.String())
		}
	}
	equal(t, "unknown", unknown, []string{"172.16.4.0/22 quarantined", "172.16.12.0/22 quarantined"})

	// A late holder comes back, also after the end of the re-claim.
	ok(t, s, EndReclaim{})
	late := SubnetKey{DefaultNetwork, mustPrefix("172.16.4.0/22")}
	ok(t, s, ClaimHeld{Fence{late, nodeID(3), Epoch{1, 1}}})
	claim := ClaimSubnet{Node: nodeID(4), Network: DefaultNetwork}
	equal(t, "handed out", ok(t, s, claim).Results[0].Subnet, mustPrefix("172.16.20.0/22"))
	ok(t, s, ReleaseSubnet{DefaultNetwork, mustPrefix("172.16.12.0/22")})
	sub, _ := s.Subnet(SubnetKey{DefaultNetwork, mustPrefix("172.16.12.0/22")})
	equal(t, "released", sub.State, SubnetFree)
}

// TestClaimHeldTooFar: one claim does not fill the state.
func TestClaimHeldTooFar(t *testing.T) {
	t.Parallel()
	s := New()
	c := initCmd()
	c.Prefix, c.SubnetBits = mustPrefix("10.0.0.0/8"), 29
	ok(t, s, c, registerCmd(1), RaiseGeneration{2})
	at := func(i uint32) ClaimHeld {
		n, _ := s.Network(DefaultNetwork)
		return ClaimHeld{Fence{n.Subnet(i), nodeID(1), Epoch{1, 1}}}
	}
	refused(t, s, ErrInvalid, at(maxGap+1))
	ok(t, s, at(maxGap))
}
