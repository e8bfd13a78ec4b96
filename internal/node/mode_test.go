package node

import (
	"net/netip"
	"strings"
	"testing"

	"stellar.io/stellar/api"
	"stellar.io/stellar/api/peerapi"
	"stellar.io/stellar/internal/config"
	"stellar.io/stellar/ipam"
)

// TestWantedMode: configured, or by the size of the subnets; a bridge that is too small
// for them is refused, with what to do.
func TestWantedMode(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		configured string
		bits       int
		want       ipam.Mode
		refused    bool
	}{
		{"", 24, ipam.ModeBridge, false},
		{"", 22, ipam.ModeBridge, false},
		{"", 21, ipam.ModeRouted, false},
		{"", 20, ipam.ModeRouted, false},
		{"bridge", 22, ipam.ModeBridge, false},
		{"bridge", 21, ipam.ModeBridge, true},
		{"routed", 22, ipam.ModeRouted, false},
		{"routed", 16, ipam.ModeRouted, false},
	} {
		n := &Node{opts: Options{Config: config.Config{Mode: tt.configured}}}
		m, err := n.wantedMode(tt.bits)
		if m != tt.want || (err != nil) != tt.refused {
			t.Errorf("%q with /%d: %s, %v", tt.configured, tt.bits, m, err)
		}
		if err != nil && (api.CodeOf(err) != api.CodeConflict || !strings.Contains(hintOf(err), "mode = ")) {
			t.Errorf("%v, hint %s", err, hintOf(err))
		}
	}
}

// TestAdmittedMode: as a joiner asks, or as the plan implies; who has a mode keeps it.
func TestAdmittedMode(t *testing.T) {
	t.Parallel()
	n := lone(t)
	p, _ := n.runStore(t)
	other := ipam.NodeID(strings.Repeat("7", 32))
	for _, tt := range []struct {
		name string
		r    peerapi.JoinRequest
		want ipam.Mode
	}{
		{"asked", peerapi.JoinRequest{Node: other, Mode: ipam.ModeRouted}, ipam.ModeRouted},
		{"implied", peerapi.JoinRequest{Node: other, Mode: ipam.ModeRouted, ModeImplied: true}, ipam.ModeBridge},
		{"a member", peerapi.JoinRequest{Node: n.id.ID, Mode: ipam.ModeRouted}, ipam.ModeBridge},
	} {
		if m, err := p.modeOf(tt.r); m != tt.want || err != nil {
			t.Errorf("%s: %s, %v", tt.name, m, err)
		}
	}
}

// TestModeGivesWay: a member whose leases keep it in its mode is registered in that one,
// with all else that is new; without leases it changes.
func TestModeGivesWay(t *testing.T) {
	t.Parallel()
	n := lone(t)
	p, _ := n.runStore(t)
	member := n.member()
	member.Mode, member.Version = ipam.ModeRouted, "v2"
	var sub ipam.Subnet
	read := func() (m ipam.Node) {
		p.store.View(func(s *ipam.State) {
			m, _ = s.Node(n.id.ID)
			for sub = range s.SubnetsOf(n.id.ID) {
			}
		})
		return m
	}
	read()
	o := ipam.Owner{Kind: ipam.OwnerManual, Namespace: "manual", ID: "x", Interface: "eth0"}
	a := netip.MustParseAddr("172.16.0.2")
	p.mustPropose(t, ipam.BindLease{Fence: sub.Fence(), Addr: a, Owner: o})
	if _, err := p.register(t.Context(), member); err != nil {
		t.Fatal(err)
	}
	if m := read(); m.Mode != ipam.ModeBridge || m.Version != "v2" || sub.Gateway() != netip.MustParseAddr("172.16.0.1") {
		t.Errorf("with a lease: %s %s, gateway %s", m.Mode, m.Version, sub.Gateway())
	}
	p.mustPropose(t, ipam.ReleaseLease{Fence: sub.Fence(), Addr: a, Owner: o})
	p.mustPropose(t, ipam.FreeLease{Fence: sub.Fence(), Addr: a, Owner: o})
	if _, err := p.register(t.Context(), member); err != nil {
		t.Fatal(err)
	}
	if m := read(); m.Mode != ipam.ModeRouted || sub.Mode != ipam.ModeRouted || sub.Gateway().IsValid() {
		t.Errorf("without: %s, subnet %s, gateway %s", m.Mode, sub.Mode, sub.Gateway())
	}
}
