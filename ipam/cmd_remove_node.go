package ipam

import (
	"fmt"
	"slices"

	"stellar.io/stellar/ipam/ipampb"
)

// RemoveNode turns a member into a tombstone. Without Force it is refused with
// ErrNodeInUse while addresses are bound or attached, and its subnets become
// free. With Force they are quarantined, since the node may still run
// containers; with Force and Dead the operator vouches that it does not, and
// they become free. Removing a tombstone with Dead frees what is quarantined;
// else it does nothing.
type RemoveNode struct {
	Node  NodeID
	Force bool
	Dead  bool
}

func (c RemoveNode) apply(t *tx) Result {
	if c.Dead && !c.Force {
		return Result{Err: fmt.Errorf("%w: dead without force", ErrInvalid)}
	}
	n, ok := t.nodes.get(c.Node)
	if !ok {
		return Result{Err: fmt.Errorf("%s: %w", c.Node.Short(), ErrNodeNotFound)}
	}
	subnets := slices.Collect(t.subnetsAfter(c.Node))
	if !c.Force {
		for _, sub := range subnets {
			if u := t.Usage(sub.SubnetKey); sub.State == Held && u.Used > 0 {
				return Result{Err: fmt.Errorf("%s has %d leases in %s: %w", n.Name, u.Used, sub.Prefix, ErrNodeInUse)}
			}
		}
	}
	for _, sub := range subnets {
		switch {
		case c.Dead || !c.Force && sub.State == Held:
			t.freeSubnet(sub)
		case sub.State == Held:
			sub.State, sub.Since, sub.SinceTime = Quarantined, t.index, t.cluster.Time
			t.putSubnet(sub)
		}
	}
	if !n.Removed {
		t.bury(n)
	}
	return Result{}
}

// bury turns a member into a tombstone.
func (t *tx) bury(n Node) {
	t.putNode(Node{ID: n.ID, Name: n.Name, Removed: true, Joined: n.Joined})
	t.forgetNode(n.ID)
}

// freeSubnet empties a subnet and puts it back among those to be handed out.
func (t *tx) freeSubnet(sub Subnet) {
	n, _ := t.networks.get(sub.Network)
	t.dropLeases(n, sub)
	t.setSystemReservations(sub.SubnetKey, 0)
	sub.State, sub.Since, sub.SinceTime = SubnetFree, t.index, t.cluster.Time
	t.putSubnet(sub)
}

func (c RemoveNode) pb() (*ipampb.Command, error) {
	return &ipampb.Command{Kind: &ipampb.Command_RemoveNode{RemoveNode: &ipampb.RemoveNode{
		Node: string(c.Node), Force: c.Force, Dead: c.Dead,
	}}}, nil
}

func removeNodeFromPB(m *ipampb.RemoveNode) Command {
	return RemoveNode{Node: NodeID(m.GetNode()), Force: m.GetForce(), Dead: m.GetDead()}
}
