package ipam

import "testing"

func TestCreateToken(t *testing.T) {
	t.Parallel()
	refused(t, New(), ErrNotInitialized, tokenCmd(1))
	s := cluster(t, 1)
	out := ok(t, s, tokenCmd(1))
	equal(t, "deltas", deltaKinds(out.Deltas), "token")
	got, _ := s.Token(tokenID(1))
	equal(t, "token", got, Token{
		ID: tokenID(1), SecretHash: hashOf(1), Role: RoleServer, Expires: tokenNow + 3600,
		Created: s.Index(), Changed: s.Index(),
	})
	later := tokenCmd(1)
	later.Now += 60
	unchanged(t, s, later)
	for _, tt := range []struct {
		name string
		cmd  func(*CreateToken)
		want error
	}{
		{"id of another secret", func(c *CreateToken) { c.SecretHash = hashOf(9) }, ErrTokenExists},
		{"id of another role", func(c *CreateToken) { c.Role = RoleNode }, ErrTokenExists},
		{"id of another expiry", func(c *CreateToken) { c.Expires++ }, ErrTokenExists},
		{"expired", func(c *CreateToken) { c.ID, c.Now = tokenID(2), c.Expires }, ErrInvalid},
		{"no clock", func(c *CreateToken) { c.ID, c.Now = tokenID(2), 0 }, ErrInvalid},
		{"no secret", func(c *CreateToken) { c.ID, c.SecretHash = tokenID(2), [32]byte{} }, ErrInvalid},
		{"no role", func(c *CreateToken) { c.ID, c.Role = tokenID(2), 0 }, ErrInvalid},
		{"long id", func(c *CreateToken) { c.ID = string(nodeID(1)) }, ErrInvalid},
		{"upper-case id", func(c *CreateToken) { c.ID = "AAAAAAAAAAAAAAAA" }, ErrInvalid},
		{"never expires", func(c *CreateToken) { c.ID, c.Expires = tokenID(2), 0 }, ErrInvalid},
	} {
		t.Run(tt.name, func(t *testing.T) {
			c := tokenCmd(1)
			tt.cmd(&c)
			refused(t, s, tt.want, c)
		})
	}
}

// TestCreateTokenPrunes: whatever became of a token, it can be seen for a day
// after it has expired, and not longer.
func TestCreateTokenPrunes(t *testing.T) {
	t.Parallel()
	s := cluster(t, 1)
	ok(t, s, tokenCmd(1), tokenCmd(2), RevokeToken{tokenID(1)})
	next := tokenCmd(3)
	next.Now += 3600 + tokenKept - 1
	next.Expires += 3600 + tokenKept
	equal(t, "deltas", deltaKinds(ok(t, s, next).Deltas), "token")
	last := next
	last.ID, last.Now = tokenID(4), next.Now+1
	equal(t, "deltas a second later", deltaKinds(ok(t, s, last).Deltas), "-token -token token")
	var ids []string
	for k := range s.Tokens() {
		ids = append(ids, k.ID)
	}
	equal(t, "tokens", ids, []string{tokenID(3), tokenID(4)})
}

func TestRevokeToken(t *testing.T) {
	t.Parallel()
	refused(t, New(), ErrNotInitialized, RevokeToken{tokenID(1)})
	s := cluster(t, 1)
	ok(t, s, tokenCmd(1), tokenCmd(2), joinCmd(2))
	refused(t, s, ErrTokenNotFound, RevokeToken{tokenID(3)})
	equal(t, "deltas", deltaKinds(ok(t, s, RevokeToken{tokenID(1)}).Deltas), "token")
	unchanged(t, s, RevokeToken{tokenID(1)})
	unchanged(t, s, tokenCmd(1))
	refused(t, s, ErrTokenRevoked, joinCmd(1))

	ok(t, s, RevokeToken{tokenID(2)})
	refused(t, s, ErrTokenRevoked, joinCmd(2))
	n, _ := s.Node(nodeID(2))
	equal(t, "the node that has joined stays", n.Removed, false)
}

func TestDrainNode(t *testing.T) {
	t.Parallel()
	s := cluster(t, 2)
	equal(t, "deltas", deltaKinds(ok(t, s, DrainNode{nodeID(1), true}).Deltas), "node")
	n, _ := s.Node(nodeID(1))
	equal(t, "draining", n.Draining, true)
	unchanged(t, s, DrainNode{nodeID(1), true})
	unchanged(t, s, registerCmd(1))  // a restart does not end it
	bind(t, s, 1, "172.16.0.9", "a") // attached before it heard
	ok(t, s, DrainNode{Node: nodeID(1)})
	n, _ = s.Node(nodeID(1))
	equal(t, "draining", n.Draining, false)
	ok(t, s, DrainNode{nodeID(2), true}, RemoveNode{Node: nodeID(2)})
	refused(t, s, ErrNodeRemoved, DrainNode{nodeID(2), false})
	refused(t, s, ErrNodeNotFound, DrainNode{nodeID(3), true})
}
