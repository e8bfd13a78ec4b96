package ipam

import "testing"

func TestRemoveNodeEmpty(t *testing.T) {
	t.Parallel()
	s := cluster(t, 1)
	key := fence(t, s, 1).Subnet
	c := bind(t, s, 1, "172.16.0.2", "a")
	refused(t, s, ErrNodeInUse, RemoveNode{Node: nodeID(1)})
	refused(t, s, ErrInvalid, RemoveNode{Node: nodeID(1), Dead: true})
	refused(t, s, ErrNodeNotFound, RemoveNode{Node: nodeID(2)})
	ok(t, s, ReleaseLease{c.Fence, c.Addr, c.Owner})

	out := ok(t, s, RemoveNode{Node: nodeID(1)})
	equal(t, "deltas", deltaKinds(out.Deltas), "-lease -reservation -reservation -reservation subnet node")
	n, _ := s.Node(nodeID(1))
	equal(t, "tombstone", n, Node{ID: nodeID(1), Name: "nodeb", Removed: true, Joined: 2, Changed: s.Index()})
	sub, _ := s.Subnet(key)
	equal(t, "state", sub.State, SubnetFree)
	unchanged(t, s, RemoveNode{Node: nodeID(1)})
	refused(t, s, ErrNodeRemoved, BindLease{Fence: c.Fence, Addr: c.Addr, Owner: c.Owner})
	refused(t, s, ErrNodeRemoved, ClaimSubnet{Node: nodeID(1), Network: DefaultNetwork})
	refused(t, s, ErrNodeRemoved, UpdateNode{Node: nodeID(1), Version: "2"})
}

func TestRemoveNodeByForce(t *testing.T) {
	t.Parallel()
	s := cluster(t, 2)
	c := bind(t, s, 1, "172.16.0.2", "a")
	ok(t, s, RemoveNode{Node: nodeID(1), Force: true})
	sub, _ := s.Subnet(c.Subnet)
	equal(t, "state", sub.State, Quarantined)
	l, found := s.Lease(c.Addr)
	equal(t, "lease is still shown", found, true)
	equal(t, "its node", l.Node, nodeID(1))
	refused(t, s, ErrNodeRemoved, ReleaseLease{c.Fence, c.Addr, c.Owner})
	unchanged(t, s, RemoveNode{Node: nodeID(1), Force: true})

	ok(t, s, RemoveNode{Node: nodeID(1), Force: true, Dead: true})
	sub, _ = s.Subnet(c.Subnet)
	equal(t, "state", sub.State, SubnetFree)
	_, found = s.Lease(c.Addr)
	equal(t, "lease is gone", found, false)
}

func TestRemoveNodeDead(t *testing.T) {
	t.Parallel()
	s := cluster(t, 1)
	c := bind(t, s, 1, "172.16.0.2", "a")
	ok(t, s, RemoveNode{Node: nodeID(1), Force: true, Dead: true})
	sub, _ := s.Subnet(c.Subnet)
	equal(t, "state", sub.State, SubnetFree)
	equal(t, "usage", s.Usage(c.Subnet), Usage{})
}
