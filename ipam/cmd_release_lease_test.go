package ipam

import "testing"

func TestReleaseLease(t *testing.T) {
	t.Parallel()
	s := cluster(t, 1)
	c := bind(t, s, 1, "172.16.0.2", "a")
	release := ReleaseLease{c.Fence, c.Addr, c.Owner}
	other := release
	other.Owner = owner("b")
	unchanged(t, s, other)
	out := ok(t, s, release)
	equal(t, "deltas", deltaKinds(out.Deltas), "lease")
	l, _ := s.Lease(c.Addr)
	equal(t, "state", l.State, Cooling)
	equal(t, "last owner", l.Owner, c.Owner)
	_, holds := s.LeaseByOwner(c.Owner)
	equal(t, "owner holds it", holds, false)
	equal(t, "usage", s.Usage(c.Subnet), Usage{Total: 1024, Cooling: 1, Reserved: 3, Free: 1020})
	unchanged(t, s, release)

	stale := release
	stale.Epoch.Counter = 7
	refused(t, s, ErrStaleEpoch, stale)
	// A release that comes late does not touch the next owner.
	bind(t, s, 1, "172.16.0.2", "b")
	unchanged(t, s, release)
}
