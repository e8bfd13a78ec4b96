package ipam

import (
	"fmt"

	"stellar.io/stellar/ipam/ipampb"
)

const (
	// maxClaimed bounds the counter of a claimed epoch, so that there is always a
	// next one; Check allows maxCounter.
	maxClaimed = 1 << 32
	maxCounter = 1 << 48
	// maxGap is how many unknown subnets one claim may put into quarantine.
	maxGap = 8192
)

// ClaimHeld says that a live node holds the subnet at the epoch, from its own
// records, and answers Subnet and Epoch. When that is what the state has, nothing
// changes. A subnet that a restore put into quarantine goes back to its node.
//
// During a re-claim the higher epoch wins: a subnet that the state knows at a
// lower epoch, or not at all, becomes the node's, and the leases of another
// holder go. Subnets in front of it that the state has lost every record of were
// handed out too and become quarantined, without a node.
//
// It is refused with ErrWrongNode when another node has the subnet at this epoch
// or a later one, ErrStaleEpoch when it was freed since or the node itself has a
// newer epoch, ErrStaleGeneration when the node has seen a later generation than
// this cluster, ErrSubnetInUse when the node holds another subnet, and, but for a
// re-claim, with ErrWrongNode or ErrSubnetNotFound when the state has it otherwise.
type ClaimHeld struct {
	Fence
}

func (c ClaimHeld) apply(t *tx) Result {
	n, err := t.inNetwork(c.Subnet.Network)
	if err != nil {
		return Result{Err: err}
	}
	node, err := t.member(c.Node)
	if err != nil {
		return Result{Err: err}
	}
	if err := c.validate(t, n); err != nil {
		return Result{Err: err}
	}
	old, _ := t.subnets.get(c.Subnet)
	answer := Result{Subnet: c.Subnet.Prefix, Epoch: c.Epoch}
	if old.State == Held && old.Node == c.Node && old.Epoch == c.Epoch {
		return answer
	}
	if err := c.decide(t, old); err != nil {
		return Result{Err: err}
	}
	gap, err := c.gap(t, n)
	if err != nil {
		return Result{Err: err}
	}
	if old.Node != c.Node || old.Mode != node.Mode {
		t.dropLeases(n, old)
	}
	t.quarantineUnknown(gap)
	t.holdSubnet(Subnet{
		SubnetKey: c.Subnet, State: Held, Node: node.ID, Mode: node.Mode, Epoch: c.Epoch,
		Since: t.index, SinceTime: t.cluster.Time,
	})
	return answer
}

func (c ClaimHeld) validate(t *tx, n Network) error {
	switch {
	case !n.hasSubnet(c.Subnet.Prefix):
		return fmt.Errorf("%s in %s: %w", c.Subnet.Prefix, n.Prefix, ErrSubnetNotFound)
	case c.Epoch.Generation == 0 || c.Epoch.Counter == 0 || c.Epoch.Counter > maxClaimed:
		return fmt.Errorf("%w: epoch %s", ErrInvalid, c.Epoch)
	case c.Epoch.Generation > t.cluster.Generation:
		return fmt.Errorf("epoch %s, cluster is at %d: %w", c.Epoch, t.cluster.Generation, ErrStaleGeneration)
	}
	return nil
}

// decide tells whether the claim wins over what the state has.
func (c ClaimHeld) decide(t *tx, old Subnet) error {
	order := c.Epoch.Compare(old.Epoch)
	switch {
	case old.State == Quarantined && old.Node == c.Node && order == 0:
	case old.State == Quarantined && old.Node == "":
	case t.cluster.Reclaim && order > 0:
	case old.State == 0:
		return fmt.Errorf("%s: %w", c.Subnet.Prefix, ErrSubnetNotFound)
	case old.Node == c.Node || old.State == SubnetFree:
		return fmt.Errorf("%s is %s at %s, claimed at %s: %w", c.Subnet.Prefix, old.State, old.Epoch, c.Epoch, ErrStaleEpoch)
	default:
		return fmt.Errorf("%s is %s by %s at %s, claimed at %s: %w",
			c.Subnet.Prefix, old.State, old.Node.Short(), old.Epoch, c.Epoch, ErrWrongNode)
	}
	if r, ok := t.reserved(c.Subnet.Network, c.Subnet.Prefix); ok {
		return fmt.Errorf("%s (%s): %w", r.Prefix, r.Reason, ErrAddressReserved)
	}
	if sub, ok := t.holding(c.Node, c.Subnet.Network); ok && sub.SubnetKey != c.Subnet {
		return fmt.Errorf("%s already holds %s: %w", c.Node.Short(), sub.Prefix, ErrSubnetInUse)
	}
	return nil
}

// gap collects the subnets between the mark and the claimed one.
func (c ClaimHeld) gap(t *tx, n Network) ([]SubnetKey, error) {
	var gap []SubnetKey
	for i, end := n.NextSubnet, n.subnetIndex(c.Subnet.Prefix.Addr()); i < end; {
		k := n.Subnet(i)
		if p, ok := t.blocked(k, nil); ok {
			i = n.subnetIndex(lastAddr(p)) + 1
			continue
		}
		if len(gap) == maxGap {
			return nil, fmt.Errorf("%w: %s is more than %d subnets beyond those handed out", ErrInvalid, c.Subnet.Prefix, maxGap)
		}
		gap = append(gap, k)
		i++
	}
	return gap, nil
}

// quarantineUnknown stores subnets that somebody unknown may hold.
func (t *tx) quarantineUnknown(keys []SubnetKey) {
	if len(keys) == 0 {
		return
	}
	n, _ := t.networks.get(keys[0].Network)
	n.NextSubnet = n.subnetIndex(keys[len(keys)-1].Prefix.Addr()) + 1
	t.putNetwork(n)
	for _, k := range keys {
		t.putSubnet(Subnet{SubnetKey: k, State: Quarantined, Since: t.index, SinceTime: t.cluster.Time})
	}
}

func (c ClaimHeld) pb() (*ipampb.Command, error) {
	return &ipampb.Command{Kind: &ipampb.Command_ClaimHeld{ClaimHeld: &ipampb.ClaimHeld{Fence: fenceToPB(c.Fence)}}}, nil
}

func claimHeldFromPB(m *ipampb.ClaimHeld) Command { return ClaimHeld{fenceFromPB(m.GetFence())} }
