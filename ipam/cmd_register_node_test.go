package ipam

import "testing"

func TestRegisterNode(t *testing.T) {
	t.Parallel()
	s := New()
	ok(t, s, initCmd())
	out := ok(t, s, registerCmd(1))
	equal(t, "deltas", deltaKinds(out.Deltas), "node")
	want := Node{
		ID: nodeID(1), Name: "nodeb", MachineID: "machineb", Address: "192.0.2.1:9640",
		Version: "1.0", Mode: ModeBridge, Role: RoleServer, Joined: 2, Changed: 2,
	}
	got, _ := s.NodeByName("nodeb")
	equal(t, "node", got, want)
	unchanged(t, s, registerCmd(1))

	again := registerCmd(1)
	again.Address, again.Version = "192.0.2.7:9640", "1.1"
	ok(t, s, again)
	want.Address, want.Version, want.Changed = "192.0.2.7:9640", "1.1", 4
	got, _ = s.Node(nodeID(1))
	equal(t, "node after an upgrade", got, want)
}

func TestRegisterNodeRefused(t *testing.T) {
	t.Parallel()
	s := cluster(t, 2)
	ok(t, s, RemoveNode{Node: nodeID(2)})
	for _, tt := range []struct {
		name string
		cmd  func(*RegisterNode)
		want error
	}{
		{"another incarnation", func(c *RegisterNode) { c.Node = nodeID(3) }, ErrNodeExists},
		{"another name", func(c *RegisterNode) { c.Name = "other" }, ErrNodeExists},
		{"another machine", func(c *RegisterNode) { c.MachineID = "other" }, ErrMachineMismatch},
		{"tombstone", func(c *RegisterNode) { *c = registerCmd(2) }, ErrNodeRemoved},
		{"tombstone, new name", func(c *RegisterNode) { *c = registerCmd(2); c.Name = "other" }, ErrNodeRemoved},
		{"id", func(c *RegisterNode) { c.Node = "node" }, ErrInvalid},
		{"no name", func(c *RegisterNode) { c.Name = "" }, ErrInvalid},
		{"name with a space", func(c *RegisterNode) { c.Name = "a b" }, ErrInvalid},
		{"name with a dash in front", func(c *RegisterNode) { c.Name = "-a" }, ErrInvalid},
		{"mode", func(c *RegisterNode) { c.Mode = 0 }, ErrInvalid},
		{"address", func(c *RegisterNode) { c.Address = "a\nb" }, ErrInvalid},
	} {
		t.Run(tt.name, func(t *testing.T) {
			c := registerCmd(1)
			tt.cmd(&c)
			refused(t, s, tt.want, c)
		})
	}
	// The name of a removed node is free again, for a new incarnation.
	back := registerCmd(3)
	back.Name = registerCmd(2).Name
	ok(t, s, back)
	got, _ := s.NodeByName(back.Name)
	equal(t, "id behind the name", got.ID, nodeID(3))
}
