package ipam

import "testing"

func TestUnreserveAddress(t *testing.T) {
	t.Parallel()
	s := cluster(t, 1)
	key := fence(t, s, 1).Subnet
	reserve := ReserveAddress{Network: DefaultNetwork, Prefix: mustPrefix("172.16.0.0/28"), Node: nodeID(1), Epoch: Epoch{1, 1}}
	ok(t, s, reserve)
	c := UnreserveAddress{Network: DefaultNetwork, Prefix: reserve.Prefix, Node: nodeID(1), Epoch: Epoch{1, 1}}
	stale := c
	stale.Epoch.Counter = 5
	refused(t, s, ErrStaleEpoch, stale)
	part := c
	part.Prefix = mustPrefix("172.16.0.8/29")
	refused(t, s, ErrReservationNotFound, part)
	own := c
	own.Prefix = mustPrefix("172.16.0.1/32")
	refused(t, s, ErrReservationNotFound, own)
	out := ok(t, s, c)
	equal(t, "deltas", deltaKinds(out.Deltas), "-reservation")
	equal(t, "usage", s.Usage(key), Usage{Total: 1024, Reserved: 3, Free: 1021})
	refused(t, s, ErrReservationNotFound, c)
}
