package node

import (
	"net/netip"
	"testing"

	"github.com/google/go-cmp/cmp"

	"stellar.io/stellar/agent"
	"stellar.io/stellar/ipam"
	"stellar.io/stellar/netsetup"
	"stellar.io/stellar/raftstore/holder"
)

func TestComparison(t *testing.T) {
	t.Parallel()
	ip := netip.MustParseAddr("172.16.0.2")
	own := func(id string) ipam.Owner {
		return ipam.Owner{Kind: ipam.OwnerContainer, Namespace: "default", ID: id, Created: 1, Interface: "eth0"}
	}
	held := func(o ipam.Owner) []holder.Held { return []holder.Held{{Addr: ip, Owner: o}} }
	replicated := func(o ipam.Owner, s ipam.LeaseState) map[netip.Addr]ipam.Lease {
		return map[netip.Addr]ipam.Lease{ip: {Addr: ip, Owner: o, State: s}}
	}
	links := func(os ...ipam.Owner) (out []netsetup.Endpoint) {
		for _, o := range os {
			out = append(out, netsetup.Endpoint{Owner: o, Addr: ip, HostIfname: "veth" + o.ID})
		}
		return out
	}
	a, b := own("a"), own("b")
	type finding struct {
		Kind       string
		Releasable bool
	}
	tests := []struct {
		name    string
		held    []holder.Held
		replica map[netip.Addr]ipam.Lease
		links   []netsetup.Endpoint
		exists  bool
		doubt   error
		want    []finding
	}{
		{"nothing", nil, nil, nil, false, nil, nil},
		{"bound", held(a), replicated(a, ipam.Bound), nil, true, nil, nil},
		{"attached", held(a), replicated(a, ipam.Attached), links(a), true, nil, nil},
		{"record deleted, still carried", held(a), replicated(a, ipam.Attached), links(a), false, nil, nil},
		{"cooling", nil, replicated(a, ipam.Cooling), nil, false, nil, nil},
		{"provisional", []holder.Held{{Addr: ip, Owner: a, Provisional: true}}, nil, links(a), true, nil, nil},
		{"release not replicated yet", held(b), replicated(a, ipam.Cooling), nil, true, nil, nil},
		{"leaked", held(a), replicated(a, ipam.Bound), nil, false, nil, []finding{{"leaked", true}}},
		{"carried by another", held(a), replicated(a, ipam.Attached), links(b), true, nil, []finding{{"doubled", false}}},
		{"carried twice", held(a), replicated(a, ipam.Attached), links(b, a), true, nil, []finding{{"doubled", false}}},
		{"not replicated", held(a), nil, nil, true, nil, []finding{{"unreplicated", false}}},
		{"disputed", held(a), replicated(b, ipam.Bound), nil, true, nil, []finding{{"disputed", false}}},
		{"leaked, perhaps", held(a), replicated(a, ipam.Bound), nil, false, agent.ErrUnproven, []finding{{"unproven", false}}},
		{"carried, and nobody can tell", held(a), replicated(a, ipam.Attached), links(a), false, agent.ErrUnproven, nil},
		{"orphaned", nil, nil, links(a), false, nil, []finding{{"orphaned", false}}},
		{"forgotten", nil, replicated(a, ipam.Bound), nil, false, nil, []finding{{"forgotten", true}}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			var c comparison
			c.run(tt.held, tt.replica, tt.links, func(ipam.Owner) (bool, error) { return tt.exists, tt.doubt })
			var got []finding
			for _, p := range c.report.Problems {
				got = append(got, finding{p.Kind, p.Releasable})
			}
			if d := cmp.Diff(tt.want, got); d != "" {
				t.Errorf("findings (-want +got):\n%s", d)
			}
		})
	}
}
