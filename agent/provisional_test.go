package agent

import (
	"net/netip"
	"testing"

	"stellar.io/stellar/ipam"
	"stellar.io/stellar/raftstore/holder"
)

// oneLease is a holder with one lease.
type oneLease struct {
	Leases
	held holder.Held
}

func (l *oneLease) Lookup(o ipam.Owner) (holder.Held, bool) { return l.held, o == l.held.Owner }

// TestProvisionalFollowsTheLease: what is shown changes with the lease, without
// a look at the container.
func TestProvisionalFollowsTheLease(t *testing.T) {
	t.Parallel()
	owner := ipam.Owner{Kind: ipam.OwnerContainer, Namespace: "default", ID: "a", Created: 1, Interface: "eth0"}
	leases := &oneLease{held: holder.Held{Addr: netip.MustParseAddr("172.16.0.2"), Owner: owner}}
	a := New(Config{Leases: leases})
	r := a.record(key("a"))
	a.show(r, Endpoint{Key: key("a"), Owner: owner, State: StateAttached}, false)
	for _, provisional := range []bool{false, true, false} {
		leases.held.Provisional = provisional
		want, reason := StateAttached, ""
		if provisional {
			want, reason = StateProvisional, reasonProvisional
		}
		if e := a.Endpoints()[0]; e.State != want || e.Reason != reason {
			t.Errorf("provisional %v: state %q, reason %q", provisional, e.State, e.Reason)
		}
	}
	// A pass while it was provisional leaves nothing behind.
	a.show(r, Endpoint{Key: key("a"), Owner: owner, State: StateProvisional, Reason: reasonProvisional}, true)
	if e := a.Endpoints()[0]; e.State != StateAttached || e.Reason != "" {
		t.Errorf("after replication: state %q, reason %q", e.State, e.Reason)
	}
}
