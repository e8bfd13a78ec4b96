package ipam

import (
	"fmt"
	"net/netip"
	"slices"

	"stellar.io/stellar/ipam/ipampb"
)

// maxHostRanges bounds how many ranges a host may have that lie in the network.
const maxHostRanges = 256

// JoinNode makes a node a member and gives it a subnet, all or nothing: it uses
// the token up, registers the node (RegisterNode; the role is the token's unless
// a lesser one is given), reserves the whole subnets that the node's host uses
// for something else, and hands a subnet out. It answers Subnet and Epoch.
//
// With Replace the node takes the place of the member of that name: that one
// becomes a tombstone, its leases go, and its subnets are the new node's at their
// next epochs. The operator vouches that it is dead.
//
// The same node with the same token and key again gets the same answer, and
// nothing changes. A member that comes with a fresh token keeps its subnet and is
// brought up to date.
//
// It is refused with what RegisterNode and ClaimSubnet are refused with and
//   - ErrTokenInvalid, ErrTokenRevoked, ErrTokenExpired, ErrTokenUsed;
//   - ErrNodeNotFound when no member has the name of Replace, ErrNodeExists when a
//     member would replace another;
//   - ErrSubnetInUse when the host uses the subnet that the node would take over,
//     or one that another node has: their containers could not reach each other.
type JoinNode struct {
	RegisterNode
	TokenID    string
	SecretHash [32]byte // SHA-256 of the token's secret
	KeyHash    [32]byte // SHA-256 of the node's public key; a repeated join must have the same
	Now        int64    // the proposer's clock, seconds since the Unix epoch
	Network    string
	Replace    string // name of a member; empty: nobody is replaced
	// HostRanges are the address blocks that the host uses, without those that
	// Stellar itself put there. Those outside the network do not matter.
	HostRanges []netip.Prefix
}

// joinPlan is what a JoinNode is going to do; it is made before anything changes.
type joinPlan struct {
	again  bool // held is the answer, nothing is to be done
	token  Token
	old    Node
	known  bool           // old is what the member was before
	gone   Node           // who is replaced; its ID is empty when nobody is
	held   Subnet         // that the node holds or takes over
	next   SubnetKey      // to be handed out when held is zero
	blocks []netip.Prefix // to be reserved
}

func (c JoinNode) apply(t *tx) Result {
	p, err := c.plan(t)
	if err != nil {
		return Result{Err: err}
	}
	if p.again {
		return Result{Subnet: p.held.Prefix, Epoch: p.held.Epoch}
	}
	if c.Role == 0 {
		c.Role = p.token.Role
	}
	taken := t.unseat(p.gone)
	if err := c.register(t, p.old, p.known); err != nil {
		return Result{Err: err} // never: plan has looked
	}
	node, _ := t.nodes.get(c.Node)
	for _, b := range p.blocks {
		t.putReservation(Reservation{
			Network: c.Network, Prefix: b, Kind: ReservedOperator, Reason: "used by the host of " + c.Name,
		})
	}
	for _, k := range taken {
		t.handOut(k, node)
	}
	if p.held.State == 0 {
		t.handOut(p.next, node)
	}
	if !p.token.Used() {
		p.token.UsedBy, p.token.KeyHash = node.ID, c.KeyHash
		t.putToken(p.token)
	}
	sub, _ := t.holding(c.Node, c.Network)
	return Result{Subnet: sub.Prefix, Epoch: sub.Epoch}
}

// unseat turns a member into a tombstone and returns what it held.
func (t *tx) unseat(gone Node) []SubnetKey {
	if gone.ID == "" {
		return nil
	}
	var taken []SubnetKey
	for _, sub := range slices.Collect(t.SubnetsOf(gone.ID)) {
		n, _ := t.networks.get(sub.Network)
		t.dropLeases(n, sub)
		taken = append(taken, sub.SubnetKey)
	}
	t.bury(gone)
	return taken
}

func (c JoinNode) plan(t *tx) (p joinPlan, err error) {
	if err := c.validate(); err != nil {
		return p, err
	}
	n, err := t.inNetwork(c.Network)
	if err != nil {
		return p, err
	}
	p.token, _ = t.tokens.get(c.TokenID) // the zero one admits nobody
	again, err := p.token.admit(c.SecretHash, c.KeyHash, c.Node, c.Now)
	if err != nil {
		return p, err
	}
	if c.Role == RoleServer && p.token.Role != RoleServer {
		return p, fmt.Errorf("%s is for role %s: %w", c.TokenID, p.token.Role, ErrTokenInvalid)
	}
	p.held, _ = t.holding(c.Node, c.Network)
	if p.again = again && p.held.State != 0; p.again {
		return p, nil
	}
	if err := c.planNode(t, &p); err != nil {
		return p, err
	}
	if p.blocks, err = t.hostBlocks(n, c.HostRanges); err != nil {
		return p, err
	}
	if p.held.State == 0 {
		p.next, err = t.nextSubnet(n, p.blocks)
	}
	return p, err
}

// planNode finds out who the node was and whom it replaces.
func (c JoinNode) planNode(t *tx, p *joinPlan) (err error) {
	if c.Replace != "" {
		id, ok := t.byName[c.Replace]
		if !ok {
			return fmt.Errorf("%q, to be replaced: %w", c.Replace, ErrNodeNotFound)
		}
		if id != c.Node {
			p.gone, _ = t.nodes.get(id)
		}
	}
	if p.old, p.known, err = c.lookup(t, p.gone.ID); err != nil {
		return err
	}
	switch {
	case p.known && p.gone.ID != "":
		return fmt.Errorf("%s is a member and cannot replace %s: %w", c.Name, c.Replace, ErrNodeExists)
	case p.known && p.old.Mode != c.Mode:
		return t.modeInUse(c.Node)
	case p.gone.ID != "" && t.cluster.Reclaim:
		return fmt.Errorf("replace %s: %w", c.Replace, ErrReclaiming)
	case p.gone.ID != "":
		p.held, _ = t.holding(p.gone.ID, c.Network)
	}
	return nil
}

func (c JoinNode) validate() error {
	switch {
	case c.KeyHash == [32]byte{}:
		return fmt.Errorf("%w: join without a key", ErrInvalid)
	case c.SecretHash == [32]byte{}:
		return fmt.Errorf("%w: join without a secret", ErrInvalid)
	case c.Now <= 0:
		return fmt.Errorf("%w: join at %d", ErrInvalid, c.Now)
	case len(c.HostRanges) > maxHostRanges:
		return fmt.Errorf("%w: %d host ranges, at most %d", ErrInvalid, len(c.HostRanges), maxHostRanges)
	case slices.ContainsFunc(c.HostRanges, func(p netip.Prefix) bool { return !p.IsValid() }):
		return fmt.Errorf("%w: host range", ErrInvalid)
	}
	return c.RegisterNode.validate()
}

// hostBlocks returns what is to be reserved of the ranges that a host uses: the
// whole subnets that they touch and that are not reserved yet. A route to a part
// of a subnet would outdo the one to the subnet. It is refused with
// ErrSubnetInUse when somebody has one of them.
func (t *tx) hostBlocks(n Network, ranges []netip.Prefix) ([]netip.Prefix, error) {
	var blocks []netip.Prefix
	for _, r := range ranges {
		if !r.Overlaps(n.Prefix) {
			continue
		}
		bits := min(max(r.Bits(), n.Prefix.Bits()), n.SubnetBits)
		block := netip.PrefixFrom(r.Addr(), bits).Masked()
		if r.Bits() < n.Prefix.Bits() {
			block = n.Prefix
		}
		for k, sub := range t.subnets.from(SubnetKey{n.Name, block}) {
			if k.Network != n.Name || !block.Contains(k.Prefix.Addr()) {
				break
			}
			if sub.State != SubnetFree {
				return nil, fmt.Errorf("the host uses %s, and %s is %s by %s: %w",
					r, k.Prefix, sub.State, t.nameOf(sub.Node), ErrSubnetInUse)
			}
		}
		if _, ok := t.reserved(n.Name, block); !ok {
			blocks = append(blocks, block)
		}
	}
	return blocks, nil
}

// nameOf returns the name of a node, for people.
func (t *tx) nameOf(id NodeID) string {
	if n, ok := t.nodes.get(id); ok {
		return n.Name
	}
	return "an unknown node"
}

func (c JoinNode) pb() (*ipampb.Command, error) {
	node, err := c.message()
	m := &ipampb.JoinNode{
		Node: node, TokenId: c.TokenID, SecretHash: hashToPB(c.SecretHash), KeyHash: hashToPB(c.KeyHash),
		Now: c.Now, Network: c.Network, Replace: c.Replace,
	}
	for _, p := range c.HostRanges {
		m.HostRanges = append(m.HostRanges, prefixToPB(p))
	}
	return &ipampb.Command{Kind: &ipampb.Command_JoinNode{JoinNode: m}}, err
}

func joinNodeFromPB(m *ipampb.JoinNode) Command {
	c := JoinNode{
		RegisterNode: registerNodeFromPB(m.GetNode()),
		TokenID:      m.GetTokenId(), SecretHash: hashFromPB(m.GetSecretHash()), KeyHash: hashFromPB(m.GetKeyHash()),
		Now: m.GetNow(), Network: m.GetNetwork(), Replace: m.GetReplace(),
	}
	for _, p := range m.GetHostRanges() {
		c.HostRanges = append(c.HostRanges, prefixFromPB(p))
	}
	return c
}
