package ipam

import "testing"

func TestUpdateNode(t *testing.T) {
	t.Parallel()
	s := cluster(t, 1)
	unchanged(t, s, UpdateNode{Node: nodeID(1)})
	unchanged(t, s, UpdateNode{Node: nodeID(1), Version: "1.0", Mode: ModeBridge})
	ok(t, s, UpdateNode{Node: nodeID(1), Address: "192.0.2.9:1"})
	n, _ := s.Node(nodeID(1))
	equal(t, "address", n.Address, "192.0.2.9:1")
	equal(t, "version", n.Version, "1.0")
	refused(t, s, ErrNodeNotFound, UpdateNode{Node: nodeID(2), Address: "a"})
	refused(t, s, ErrInvalid, UpdateNode{Node: nodeID(1), Version: "a\x00"})
}

func TestUpdateNodeMode(t *testing.T) {
	t.Parallel()
	s := cluster(t, 1)
	key := fence(t, s, 1).Subnet
	equal(t, "reserved on a bridge", s.Usage(key), Usage{Total: 1024, Reserved: 3, Free: 1021})

	c := bind(t, s, 1, "172.16.0.2", "a")
	refused(t, s, ErrModeInUse, UpdateNode{Node: nodeID(1), Mode: ModeRouted})
	ok(t, s, ReleaseLease{c.Fence, c.Addr, c.Owner})
	refused(t, s, ErrModeInUse, UpdateNode{Node: nodeID(1), Mode: ModeRouted})
	ok(t, s, FreeLease{c.Fence, c.Addr, c.Owner})

	out := ok(t, s, UpdateNode{Node: nodeID(1), Mode: ModeRouted})
	equal(t, "deltas", deltaKinds(out.Deltas), "subnet -reservation node")
	equal(t, "reserved when routed", s.Usage(key), Usage{Total: 1024, Reserved: 2, Free: 1022})
	sub, _ := s.Subnet(key)
	equal(t, "mode", sub.Mode, ModeRouted)
	equal(t, "gateway", sub.Gateway().IsValid(), false)
	ok(t, s, BindLease{Fence: c.Fence, Addr: mustAddr("172.16.0.1"), Owner: c.Owner})
	refused(t, s, ErrModeInUse, UpdateNode{Node: nodeID(1), Mode: ModeBridge})
}
