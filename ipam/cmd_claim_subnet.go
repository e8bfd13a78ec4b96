package ipam

import (
	"fmt"

	"stellar.io/stellar/ipam/ipampb"
)

// ClaimSubnet gives a member a subnet of the network and answers Subnet and
// Epoch. A member that holds one already gets that. Subnets are handed out in
// the order of their addresses, never-held ones before any other, then those that
// have been free for longest; reserved and quarantined ones are passed over. It is
// refused with ErrNoAvailableSubnets when none is left.
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
	for sub := range t.SubnetsOf(c.Node) {
		if sub.Network == c.Network {
			return Result{Subnet: sub.Prefix, Epoch: sub.Epoch}
		}
	}
	key, ok := t.nextSubnet(n)
	if !ok {
		return Result{Err: fmt.Errorf("network %s, %d subnets of /%d: %w",
			n.Name, n.SubnetCount(), n.SubnetBits, ErrNoAvailableSubnets)}
	}
	if i := n.subnetIndex(key.Prefix.Addr()); i >= n.NextSubnet {
		n.NextSubnet = i + 1
		t.putNetwork(n)
	}
	old, _ := t.subnets.get(key)
	sub := Subnet{
		SubnetKey: key, State: Held, Node: node.ID, Mode: node.Mode,
		Epoch: Epoch{Generation: t.cluster.Generation, Counter: old.Epoch.Counter + 1},
		Since: t.index, SinceTime: t.cluster.Time,
	}
	t.putSubnet(sub)
	t.setSystemReservations(key, sub.Mode)
	return Result{Subnet: key.Prefix, Epoch: sub.Epoch}
}

// nextSubnet returns the subnet that is to be handed out next.
func (t *tx) nextSubnet(n Network) (SubnetKey, bool) {
	if k, ok := t.firstNeverHeld(n, n.NextSubnet, n.SubnetCount()); ok {
		return k, true
	}
	// Below the mark only those were never held that were reserved when it passed.
	if k, ok := t.firstNeverHeld(n, 0, n.NextSubnet); ok {
		return k, true
	}
	var best Subnet
	for _, sub := range t.subnets.all() {
		if sub.Network != n.Name || sub.State != SubnetFree || best.State != 0 && sub.Since >= best.Since {
			continue
		}
		if _, reserved := t.reserved(n.Name, sub.Prefix); !reserved {
			best = sub
		}
	}
	return best.SubnetKey, best.State != 0
}

// firstNeverHeld returns the first subnet from number i up to end that has no
// record and is not reserved. It passes over a reserved block in one step.
func (t *tx) firstNeverHeld(n Network, i, end uint32) (SubnetKey, bool) {
	for i < end {
		k := n.Subnet(i)
		if r, ok := t.reserved(n.Name, k.Prefix); ok {
			i = n.subnetIndex(lastAddr(r.Prefix)) + 1
			continue
		}
		if _, held := t.subnets.get(k); !held {
			return k, true
		}
		i++
	}
	return SubnetKey{}, false
}

func (c ClaimSubnet) pb() (*ipampb.Command, error) {
	return &ipampb.Command{Kind: &ipampb.Command_ClaimSubnet{ClaimSubnet: &ipampb.ClaimSubnet{
		Node: string(c.Node), Network: c.Network,
	}}}, nil
}

func claimSubnetFromPB(m *ipampb.ClaimSubnet) Command {
	return ClaimSubnet{Node: NodeID(m.GetNode()), Network: m.GetNetwork()}
}
