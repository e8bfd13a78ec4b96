package ipam

import (
	"net/netip"
	"testing"
)

func TestJoinNode(t *testing.T) {
	t.Parallel()
	s := cluster(t, 1)
	token := tokenCmd(2)
	token.Role = RoleNode
	ok(t, s, token)
	c := joinCmd(2)
	c.HostRanges = []netip.Prefix{mustPrefix("172.17.0.0/16"), mustPrefix("10.0.0.0/8"), mustPrefix("fd00::/8")}
	out := ok(t, s, c)
	want := Result{Subnet: mustPrefix("172.16.4.0/22"), Epoch: Epoch{1, 1}}
	equal(t, "answer", out.Results[0], want)
	equal(t, "deltas", deltaKinds(out.Deltas), "node reservation network subnet reservation reservation reservation token")
	n, _ := s.Node(nodeID(2))
	equal(t, "node", n, Node{
		ID: nodeID(2), Name: c.Name, MachineID: c.MachineID, Address: c.Address, Version: c.Version,
		Mode: ModeBridge, Role: RoleNode, Joined: s.Index(), Changed: s.Index(),
	})
	k, _ := s.Token(tokenID(2))
	equal(t, "used by", k.UsedBy, nodeID(2))
	r, _ := s.ReservedBy(mustAddr("172.17.0.9"))
	equal(t, "reason", r.Reason, "used by the host of nodec")

	again := c
	again.Now++
	equal(t, "the same again", unchanged(t, s, again), want)
}

// TestJoinNodeTokens: nothing changes for whoever has not the right token.
func TestJoinNodeTokens(t *testing.T) {
	t.Parallel()
	s := cluster(t, 1)
	forNodes := tokenCmd(5)
	forNodes.Role = RoleNode
	ok(t, s, tokenCmd(2), tokenCmd(3), forNodes, tokenCmd(6), joinCmd(2), RevokeToken{tokenID(3)})
	for _, tt := range []struct {
		name string
		cmd  func(*JoinNode)
		want error
	}{
		{"unknown", func(c *JoinNode) { c.TokenID = tokenID(9) }, ErrTokenInvalid},
		{"no token", func(c *JoinNode) { c.TokenID = "" }, ErrTokenInvalid},
		{"wrong secret", func(c *JoinNode) { c.SecretHash = hashOf(9) }, ErrTokenInvalid},
		{"wrong secret of a revoked one", func(c *JoinNode) { c.TokenID = tokenID(3) }, ErrTokenInvalid},
		{"revoked", func(c *JoinNode) { c.TokenID, c.SecretHash = tokenID(3), hashOf(3) }, ErrTokenRevoked},
		{"expired", func(c *JoinNode) { c.Now = tokenNow + 3600 }, ErrTokenExpired},
		{"an hour ahead", func(c *JoinNode) { c.Now += 3600 }, ErrTokenExpired},
		{"used by another", func(c *JoinNode) { c.TokenID, c.SecretHash = tokenID(2), hashOf(2) }, ErrTokenUsed},
		{"replay with another key", func(c *JoinNode) { *c = joinCmd(2); c.KeyHash = hashOf(9) }, ErrTokenUsed},
		{"more than it allows", func(c *JoinNode) {
			c.TokenID, c.SecretHash, c.Role = tokenID(5), hashOf(5), RoleServer
		}, ErrTokenInvalid},
		{"no secret", func(c *JoinNode) { c.SecretHash = [32]byte{} }, ErrInvalid},
		{"no key", func(c *JoinNode) { c.KeyHash = [32]byte{} }, ErrInvalid},
		{"no clock", func(c *JoinNode) { c.Now = 0 }, ErrInvalid},
		{"malformed range", func(c *JoinNode) { c.HostRanges = make([]netip.Prefix, 1) }, ErrInvalid},
		{"too many ranges", func(c *JoinNode) { c.HostRanges = make([]netip.Prefix, maxHostRanges+1) }, ErrInvalid},
		{"no name", func(c *JoinNode) { c.Name = "" }, ErrInvalid},
		{"network", func(c *JoinNode) { c.Network = "other" }, ErrNetworkNotFound},
	} {
		t.Run(tt.name, func(t *testing.T) {
			c := joinCmd(6)
			tt.cmd(&c)
			refused(t, s, tt.want, c)
		})
	}
	refused(t, New(), ErrNotInitialized, joinCmd(6))
}

// TestJoinNodeIdentity: names, machines and tombstones are what RegisterNode says.
func TestJoinNodeIdentity(t *testing.T) {
	t.Parallel()
	s := cluster(t, 3)
	bind(t, s, 1, "172.16.0.2", "a")
	ok(t, s, RemoveNode{Node: nodeID(3)}, tokenCmd(3), tokenCmd(4))
	as := func(f func(*JoinNode)) JoinNode { c := joinCmd(4); f(&c); return c }
	refused(t, s, ErrNodeExists, as(func(c *JoinNode) { c.Name = registerCmd(1).Name }))
	refused(t, s, ErrNodeRemoved, joinCmd(3))
	refused(t, s, ErrMachineMismatch, as(func(c *JoinNode) { c.RegisterNode = registerCmd(2); c.MachineID = "copy" }))
	refused(t, s, ErrModeInUse, as(func(c *JoinNode) { c.RegisterNode = registerCmd(1); c.Mode = ModeRouted }))
	refused(t, s, ErrNodeNotFound, as(func(c *JoinNode) { c.Replace = "ghost" }))
	refused(t, s, ErrNodeExists, as(func(c *JoinNode) { c.RegisterNode = registerCmd(1); c.Replace = "nodec" }))

	// A member with a fresh token: its certificate has expired, or its address changed.
	back := as(func(c *JoinNode) { c.RegisterNode = registerCmd(1); c.Address, c.Role = "192.0.2.9:9640", RoleNode })
	out := ok(t, s, back)
	equal(t, "subnet", out.Results[0].Subnet, mustPrefix("172.16.0.0/22"))
	equal(t, "deltas", deltaKinds(out.Deltas), "node token")
	n, _ := s.Node(nodeID(1))
	equal(t, "address", n.Address, "192.0.2.9:9640")
	equal(t, "role", n.Role, RoleNode)
}

// TestJoinNodeReplaces: the new machine has the old one's subnet at the next
// epoch, and the old one is fenced.
func TestJoinNodeReplaces(t *testing.T) {
	t.Parallel()
	s := cluster(t, 2)
	old := bind(t, s, 1, "172.16.0.2", "a")
	ok(t, s, ReserveAddress{DefaultNetwork, mustPrefix("172.16.0.40/32"), "printer", nodeID(1), old.Epoch}, tokenCmd(3))
	c := joinCmd(3)
	c.Name, c.Mode = registerCmd(1).Name, ModeRouted
	refused(t, s, ErrNodeExists, c)
	c.Replace = c.Name
	out := ok(t, s, c)
	want := Result{Subnet: mustPrefix("172.16.0.0/22"), Epoch: Epoch{1, 2}}
	equal(t, "answer", out.Results[0], want)
	equal(t, "deltas", deltaKinds(out.Deltas), "-lease node node subnet -reservation token")
	equal(t, "usage", s.Usage(old.Subnet), Usage{Total: 1024, Reserved: 3, Free: 1021})
	n, _ := s.Node(nodeID(1))
	equal(t, "tombstone", n.Removed, true)
	refused(t, s, ErrNodeRemoved, BindLease{Fence: old.Fence, Addr: old.Addr, Owner: old.Owner})
	stale := old.Fence
	stale.Node = nodeID(3)
	refused(t, s, ErrStaleEpoch, BindLease{Fence: stale, Addr: old.Addr, Owner: old.Owner})
	equal(t, "again", unchanged(t, s, c), want)
	bind(t, s, 3, "172.16.0.2", "a")
}

func TestJoinNodeHostRanges(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name    string
		ranges  []string
		replace string
		subnet  string // empty: refused
		want    error
		blocks  []string // reserved afterwards
	}{
		{name: "the next subnet", ranges: []string{"172.16.8.0/22"}, subnet: "172.16.12.0/22", blocks: []string{"172.16.8.0/22"}},
		{name: "a part of it", ranges: []string{"172.16.9.128/25"}, subnet: "172.16.12.0/22", blocks: []string{"172.16.8.0/22"}},
		{name: "host bits", ranges: []string{"172.17.0.1/16"}, subnet: "172.16.8.0/22", blocks: []string{"172.17.0.0/16"}},
		{name: "twice", ranges: []string{"172.17.0.0/16", "172.17.0.0/16"}, subnet: "172.16.8.0/22", blocks: []string{"172.17.0.0/16"}},
		{name: "reserved before", ranges: []string{"172.18.4.0/24"}, subnet: "172.16.8.0/22"},
		{name: "elsewhere", ranges: []string{"10.1.0.0/16", "192.0.2.0/24", "::/0"}, subnet: "172.16.8.0/22"},
		{name: "a peer's", ranges: []string{"172.16.5.0/24"}, want: ErrSubnetInUse},
		{name: "a removed peer's", ranges: []string{"172.16.4.0/22"}, want: ErrSubnetInUse},
		{name: "its own to be", ranges: []string{"172.16.1.0/24"}, replace: "nodeb", want: ErrSubnetInUse},
		{name: "everything", ranges: []string{"172.0.0.0/8"}, want: ErrSubnetInUse},
		{name: "what is left", ranges: []string{
			"172.16.8.0/21", "172.16.16.0/20", "172.16.32.0/19", "172.16.64.0/18", "172.16.128.0/17",
			"172.17.0.0/16", "172.19.0.0/16", "172.20.0.0/14", "172.24.0.0/13",
		}, want: ErrNoAvailableSubnets},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			s := cluster(t, 2)
			ok(t, s, RemoveNode{Node: nodeID(2), Force: true}, tokenCmd(3),
				ReserveAddress{Network: DefaultNetwork, Prefix: mustPrefix("172.18.0.0/16"), Reason: "lab"})
			c := joinCmd(3)
			c.Replace = tt.replace
			for _, r := range tt.ranges {
				c.HostRanges = append(c.HostRanges, mustPrefix(r))
			}
			if tt.want != nil {
				refused(t, s, tt.want, c)
				return
			}
			equal(t, "subnet", ok(t, s, c).Results[0].Subnet, mustPrefix(tt.subnet))
			unchanged(t, s, c)
			var blocks []string
			for r := range s.AllReservations() {
				if r.Kind == ReservedOperator && r.Reason != "lab" {
					blocks = append(blocks, r.Prefix.String())
				}
			}
			equal(t, "reserved", blocks, tt.blocks)
		})
	}
}
