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
	if c.Address == "" {
		c.Address = n.Address
	}
	if c.Version == "" {
		c.Version = n.Version
	}
	if c.Mode == 0 {
		c.Mode = n.Mode
	}
	return Result{Err: t.updateNode(n, c.Address, c.Version, c.Mode)}
}

// updateNode stores what changed of a member, and with its mode that of its subnets.
func (t *tx) updateNode(n Node, address, version string, mode Mode) error {
	if n.Address == address && n.Version == version && n.Mode == mode {
		return nil
	}
	if n.Mode != mode {
		held := slices.Collect(t.SubnetsOf(n.ID))
		for _, sub := range held {
			if u := t.Usage(sub.SubnetKey); u.Used+u.Cooling > 0 {
				return fmt.Errorf("%s: %d in use, %d cooling: %w", sub.Prefix, u.Used, u.Cooling, ErrModeInUse)
			}
		}
		for _, sub := range held {
			sub.Mode = mode
			t.putSubnet(sub)
			t.setSystemReservations(sub.SubnetKey, mode)
		}
	}
	n.Address, n.Version, n.Mode = address, version, mode
	t.putNode(n)
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
