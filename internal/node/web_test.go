package node

import (
	"fmt"
	"net/netip"
	"testing"
	"time"

	"stellar.io/stellar/api"
	"stellar.io/stellar/ipam"
)

// largeState is a cluster of so many nodes, with leases in turn on each but the first.
func largeState(t *testing.T, nodes, leases int) *ipam.State {
	t.Helper()
	s := ipam.New()
	do := func(cmds ...ipam.Command) {
		t.Helper()
		data, err := ipam.Envelope{Commands: cmds}.Encode()
		if err != nil {
			t.Fatal(err)
		}
		out, err := s.Apply(s.Index()+1, data)
		if err != nil {
			t.Fatal(err)
		}
		for _, r := range out.Results {
			if r.Err != nil {
				t.Fatal(r.Err)
			}
		}
	}
	do(ipam.InitCluster{ClusterID: "c0ffee00c0ffee00c0ffee00c0ffee00", Network: ipam.DefaultNetwork, Prefix: netip.MustParsePrefix("172.16.0.0/12"), SubnetBits: 22})
	for i := range nodes {
		id := nodeOf(i)
		do(ipam.RegisterNode{Node: id, Name: fmt.Sprintf("node-%04d", i), Mode: ipam.ModeBridge}, ipam.ClaimSubnet{Node: id, Network: ipam.DefaultNetwork})
	}
	held := subnetsByNode(s)
	next := map[ipam.NodeID]netip.Addr{}
	for i := range leases {
		id := nodeOf(1 + i%(nodes-1))
		sub := held[id]
		a, ok := next[id]
		if !ok {
			a = sub.Gateway()
		}
		a = a.Next()
		next[id] = a
		o := ipam.Owner{Kind: ipam.OwnerContainer, Namespace: "default", ID: fmt.Sprintf("c%d", i), Created: 1, Interface: "eth0"}
		do(ipam.BindLease{Fence: sub.Fence(), Addr: a, Owner: o}, ipam.MarkLease{Fence: sub.Fence(), Addr: a, Owner: o, State: ipam.Attached})
	}
	return s
}

func nodeOf(i int) ipam.NodeID { return ipam.NodeID(fmt.Sprintf("%032x", i+1)) }

// TestLargeClusterIsCheapToDescribe: an open page asks for all nodes, subnets and
// endpoints every two seconds, of which 5 % are 100 ms.
func TestLargeClusterIsCheapToDescribe(t *testing.T) {
	t.Parallel()
	const nodes, leases = 1024, 10000
	s := largeState(t, nodes, leases)
	best := time.Hour
	for range 5 {
		start := time.Now()
		all, subnets, elsewhere := describeNodes(s, nodeOf(0), nodeOf(1), nil, following{}), describeSubnets(s), endpointsElsewhere(s, nodeOf(0))
		best = min(best, time.Since(start))
		if len(all) != nodes || len(subnets) != nodes || len(elsewhere) != leases {
			t.Fatalf("%d nodes, %d subnets, %d endpoints", len(all), len(subnets), len(elsewhere))
		}
		if e := elsewhere[0]; e.State != api.StateAttached || e.Node != "node-0001" || e.Container == "" || !e.Address.IsValid() {
			t.Fatalf("%+v", e)
		}
	}
	t.Logf("%d nodes and %d endpoints are described in %s", nodes, leases, best)
	if best > 100*time.Millisecond {
		t.Errorf("it takes %s, want 100ms", best)
	}
}

func TestEndpointsElsewhere(t *testing.T) {
	t.Parallel()
	s := largeState(t, 3, 4)
	if got := endpointsElsewhere(s, nodeOf(1)); len(got) != 2 {
		t.Errorf("%d endpoints on other nodes, want 2: %+v", len(got), got)
	}
	if d := describeNodes(s, nodeOf(1), nodeOf(0), map[ipam.NodeID]bool{nodeOf(2): true}, following{}); len(d) != 3 || !d[1].Self || d[1].Endpoints != 2 || d[0].Role != "leader" || d[2].Status != api.NodeLost {
		t.Errorf("%+v", d)
	}
}
