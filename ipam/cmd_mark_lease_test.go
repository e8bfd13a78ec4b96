package ipam

import "testing"

func TestMarkLease(t *testing.T) {
	t.Parallel()
	s := cluster(t, 1)
	c := bind(t, s, 1, "172.16.0.2", "a")
	mark := func(state LeaseState) MarkLease { return MarkLease{c.Fence, c.Addr, c.Owner, state} }
	unchanged(t, s, mark(Bound))
	out := ok(t, s, mark(Attached))
	equal(t, "deltas", deltaKinds(out.Deltas), "lease")
	unchanged(t, s, mark(Attached))
	equal(t, "usage", s.Usage(c.Subnet), Usage{Total: 1024, Used: 1, Reserved: 3, Free: 1020})
	ok(t, s, mark(Bound))

	refused(t, s, ErrInvalid, mark(Cooling))
	refused(t, s, ErrInvalid, mark(0))
	other := mark(Attached)
	other.Owner = owner("b")
	refused(t, s, ErrLeaseNotFound, other)
	other = mark(Attached)
	other.Addr = mustAddr("172.16.0.3")
	refused(t, s, ErrLeaseNotFound, other)
	other = mark(Attached)
	other.Epoch.Counter++
	refused(t, s, ErrStaleEpoch, other)
	ok(t, s, ReleaseLease{c.Fence, c.Addr, c.Owner})
	refused(t, s, ErrLeaseNotFound, mark(Attached))
}
