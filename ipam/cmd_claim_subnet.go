package ipam

import (
	"fmt"
	"net/netip"

	"stellar.io/stellar/ipam/ipampb"
)

// ClaimSubnet gives a member a subnet of the network and answers Subnet and
// Epoch. A member that holds one already gets that. Subnets are handed out in
// the order of their addresses, never-held ones before any other, then those that
// have been free for longest; reserved and quarantined ones are passed over. It is
// refused with ErrNoAvailableSubnets when none is left, and with ErrReclaiming
// while nodes claim theirs after a restore.
type ClaimSubnet struct {
	Node    NodeID
	Network string
}

func (c ClaimSubnet) apply(t *tx) Result {
	n, err := t.inNetwork(c.Network)
	if err != nil {
		return Result{Err: err}
	}
	node, err := t.member(c.Node)
	if err != nil {
		return Result{Err: err}
	}
	if sub, ok := t.holding(c.Node, c.Network); ok {
		return Result{Subnet: sub.Prefix, Epoch: sub.Epoch}
	}
	key, err := t.nextSubnet(n, nil)
	if err != nil {
		return Result{Err: err}
	}
	sub := t.handOut(key, node)
	return Result{Subnet: sub.Prefix, Epoch: sub.Epoch}
}

// holding returns the subnet of the network that the node holds.
func (t *tx) holding(id NodeID, network string) (Subnet, bool) {
	for sub := range t.SubnetsOf(id) {
		if sub.Network == network {
			return sub, true
		}
	}
	return Subnet{}, false
}

// handOut makes the node the holder of a subnet at its next epoch.
func (t *tx) handOut(key SubnetKey, node Node) Subnet {
	old, _ := t.subnets.get(key)
	sub := Subnet{
		SubnetKey: key, State: Held, Node: node.ID, Mode: node.Mode,
		Epoch: Epoch{Generation: t.cluster.Generation, Counter: old.Epoch.Counter + 1},
		Since: t.index, SinceTime: t.cluster.Time,
	}
	t.holdSubnet(sub)
	return sub
}

// holdSubnet stores a held subnet, with the mark past it and what its mode reserves.
func (t *tx) holdSubnet(sub Subnet) {
	n, _ := t.networks.get(sub.Network)
	if i := n.subnetIndex(sub.Prefix.Addr()); i >= n.NextSubnet {
		n.NextSubnet = i + 1
		t.putNetwork(n)
	}
	t.putSubnet(sub)
	t.setSystemReservations(sub.SubnetKey, sub.Mode)
}

// nextSubnet returns the subnet that is to be handed out next. Blocks are passed
// over as if they were reserved.
func (t *tx) nextSubnet(n Network, blocks []netip.Prefix) (SubnetKey, error) {
	if t.cluster.Reclaim {
		return SubnetKey{}, fmt.Errorf("generation %d: %w", t.cluster.Generation, ErrReclaiming)
	}
	if k, ok := t.firstNeverHeld(n, n.NextSubnet, n.SubnetCount(), blocks); ok {
		return k, nil
	}
	// Below the mark only those were never held that were reserved when it passed.
	if k, ok := t.firstNeverHeld(n, 0, n.NextSubnet, blocks); ok {
		return k, nil
	}
	var best Subnet
	for _, sub := range t.subnets.all() {
		if sub.Network != n.Name || sub.State != SubnetFree || best.State != 0 && sub.Since >= best.Since {
			continue
		}
		if _, blocked := t.blocked(sub.SubnetKey, blocks); !blocked {
			best = sub
		}
	}
	if best.State == 0 {
		return SubnetKey{}, fmt.Errorf("network %s, %d subnets of /%d: %w",
			n.Name, n.SubnetCount(), n.SubnetBits, ErrNoAvailableSubnets)
	}
	return best.SubnetKey, nil
}

// firstNeverHeld returns the first subnet from number i up to end that has no
// record and is not blocked. It passes over a blocked range in one step.
func (t *tx) firstNeverHeld(n Network, i, end uint32, blocks []netip.Prefix) (SubnetKey, bool) {
	for i < end {
		k := n.Subnet(i)
		if p, ok := t.blocked(k, blocks); ok {
			i = n.subnetIndex(lastAddr(p)) + 1
			continue
		}
		if _, held := t.subnets.get(k); !held {
			return k, true
		}
		i++
	}
	return SubnetKey{}, false
}

// blocked returns the reservation, or else one of blocks, that covers the subnet.
func (t *tx) blocked(k SubnetKey, blocks []netip.Prefix) (netip.Prefix, bool) {
	if r, ok := t.reserved(k.Network, k.Prefix); ok {
		return r.Prefix, true
	}
	for _, p := range blocks {
		if p.Bits() <= k.Prefix.Bits() && p.Contains(k.Prefix.Addr()) {
			return p, true
		}
	}
	return netip.Prefix{}, false
}

func (c ClaimSubnet) pb() (*ipampb.Command, error) {
	return &ipampb.Command{Kind: &ipampb.Command_ClaimSubnet{ClaimSubnet: &ipampb.ClaimSubnet{
		Node: string(c.Node), Network: c.Network,
	}}}, nil
}

func claimSubnetFromPB(m *ipampb.ClaimSubnet) Command {
	return ClaimSubnet{Node: NodeID(m.GetNode()), Network: m.GetNetwork()}
}
