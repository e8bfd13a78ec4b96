package node

import (
	"context"
	"net/netip"
	"testing"
	"time"

	"stellar.io/stellar/api"
	"stellar.io/stellar/ipam"
	"stellar.io/stellar/raftstore/holder"
)

// TestReleaseForgotten: a lease that only the replica has is ended by its release, long
// before the next comparison would; that of another owner is not, nor is one that the
// journal has. Without a leader the operator is told that it comes later.
func TestReleaseForgotten(t *testing.T) {
	t.Parallel()
	n := lone(t)
	p, stop := n.runStore(t)
	n.withHolder(t, p)
	at := func(a netip.Addr) (l ipam.Lease) {
		p.store.View(func(s *ipam.State) { l, _ = s.Lease(a) })
		return l
	}
	forgotten := func(a netip.Addr, id string) {
		t.Helper()
		p.mustPropose(t, ipam.BindLease{Fence: p.subnet.Fence(), Addr: a, Owner: containerOwner(id)})
	}
	release := func(ctx context.Context, a netip.Addr, id string) error {
		o := owner(containerOwner(id))
		return n.releaseForgotten(ctx, p, api.Release{Prefix: netip.PrefixFrom(a, 32), Owner: o})
	}
	kept, err := p.holder.Bind(t.Context(), holder.BindRequest{Owner: containerOwner("kept")})
	if err != nil {
		t.Fatal(err)
	}
	time.Sleep(2 * time.Second) // the rounds that the bind has caused are over
	lost := p.subnet.Prefix.Addr().Next().Next().Next().Next().Next()
	forgotten(lost, "lost")
	if err := release(t.Context(), lost, "other"); api.CodeOf(err) != api.CodeConflict || at(lost).State != ipam.Bound {
		t.Errorf("as another's: %v, %+v", err, at(lost))
	}
	began := time.Now()
	for range 2 { // it may be repeated
		if err := release(t.Context(), lost, "lost"); err != nil || at(lost).State == ipam.Bound {
			t.Errorf("%v, %+v", err, at(lost))
		}
	}
	if took := time.Since(began); took > forgottenWait {
		t.Errorf("released after %s", took)
	}
	if l := at(kept.Addr); l.Owner != kept.Owner || l.State != ipam.Bound {
		t.Errorf("what the journal has: %+v", l)
	}

	forgotten(lost.Next(), "later")
	stop() // nobody proposes any more
	ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
	defer cancel()
	if err := release(ctx, lost.Next(), "later"); api.CodeOf(err) != api.CodeNoLeader || hintOf(err) == "" {
		t.Errorf("without a leader: %v", err)
	}
}
