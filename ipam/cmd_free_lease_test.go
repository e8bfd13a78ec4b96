package ipam

import "testing"

func TestFreeLease(t *testing.T) {
	t.Parallel()
	s := cluster(t, 1)
	c := bind(t, s, 1, "172.16.0.2", "a")
	free := FreeLease{c.Fence, c.Addr, c.Owner}
	refused(t, s, ErrLeaseInUse, free)
	ok(t, s, ReleaseLease{c.Fence, c.Addr, c.Owner})
	other := free
	other.Owner = owner("b")
	unchanged(t, s, other)
	out := ok(t, s, free)
	equal(t, "deltas", deltaKinds(out.Deltas), "-lease")
	equal(t, "what it was", out.Deltas[0].(LeaseRemoved).Lease.Owner, c.Owner)
	_, found := s.Lease(c.Addr)
	equal(t, "lease found", found, false)
	unchanged(t, s, free)
	equal(t, "usage", s.Usage(c.Subnet), Usage{Total: 1024, Reserved: 3, Free: 1021})
	// A late one does not touch the next owner.
	bind(t, s, 1, "172.16.0.2", "b")
	unchanged(t, s, free)
}
