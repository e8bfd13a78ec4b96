package ipam

import (
	"fmt"
	"slices"

	"stellar.io/stellar/ipam/ipampb"
)

// UpdateNode changes what a member says of itself; zero fields stay as they are.
// A change of mode is refused with ErrModeInUse while the node's subnets hold
// leases, cooling ones included.
type UpdateNode struct {
	Node    NodeID
	Address string
	Version string
	Mode    Mode
}

func (c UpdateNode) apply(t *tx) Result {
	if !plainText(c.Address, maxText) || !plainLine(c.Version, maxText) {
		return Result{Err: fmt.Errorf("%w: node address or version", ErrInvalid)}
	}
	n, err := t.member(c.Node)
	if err != nil {
		return Result{Err: err}
	}
	to := n
	if c.Address != "" {
		to.Address = c.Address
	}
	if c.Version != "" {
		to.Version = c.Version
	}
	if c.Mode != 0 {
		to.Mode = c.Mode
	}
	return Result{Err: t.updateNode(n, to)}
}

// updateNode stores what changed of a member, and with its mode that of its subnets.
func (t *tx) updateNode(n, to Node) error {
	if n == to {
		return nil
	}
	if n.Mode != to.Mode {
		if err := t.modeInUse(n.ID); err != nil {
			return err
		}
		for _, sub := range slices.Collect(t.SubnetsOf(n.ID)) {
			sub.Mode = to.Mode
			t.putSubnet(sub)
			t.setSystemReservations(sub.SubnetKey, to.Mode)
		}
	}
	t.putNode(to)
	return nil
}

// modeInUse tells whether leases keep the node from changing its mode.
func (t *tx) modeInUse(id NodeID) error {
	for sub := range t.SubnetsOf(id) {
		if u := t.Usage(sub.SubnetKey); u.Used+u.Cooling > 0 {
			return fmt.Errorf("%s: %d in use, %d cooling: %w", sub.Prefix, u.Used, u.Cooling, ErrModeInUse)
		}
	}
	return nil
}

func (c UpdateNode) pb() (*ipampb.Command, error) {
	mode, err := modeToPB(c.Mode)
	return &ipampb.Command{Kind: &ipampb.Command_UpdateNode{UpdateNode: &ipampb.UpdateNode{
		Node: string(c.Node), Address: c.Address, Version: c.Version, Mode: mode,
	}}}, err
}

func updateNodeFromPB(m *ipampb.UpdateNode) Command {
	return UpdateNode{
		Node: NodeID(m.GetNode()), Address: m.GetAddress(),
		Version: m.GetVersion(), Mode: Mode(m.GetMode()),
	}
}
