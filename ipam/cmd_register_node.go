package ipam

import (
	"fmt"

	"stellar.io/stellar/ipam/ipampb"
)

// RegisterNode makes a node a member. For a member it brings address, version
// and mode up to date; its name and its machine never change. It is refused with
// ErrNodeExists when another member has the name, ErrNodeRemoved for a removed
// incarnation, ErrMachineMismatch for a copied identity, ErrModeInUse for a
// change of mode while there are leases.
type RegisterNode struct {
	Node      NodeID
	Name      string
	MachineID string
	Address   string
	Version   string
	Mode      Mode
}

func (c RegisterNode) apply(t *tx) Result {
	if err := c.validate(); err != nil {
		return Result{Err: err}
	}
	if t.cluster.ID == "" {
		return Result{Err: ErrNotInitialized}
	}
	if id, taken := t.byName[c.Name]; taken && id != c.Node {
		return Result{Err: fmt.Errorf("%s is %s: %w", c.Name, id.Short(), ErrNodeExists)}
	}
	n, known := t.nodes.get(c.Node)
	if !known {
		t.putNode(Node{
			ID: c.Node, Name: c.Name, MachineID: c.MachineID,
			Address: c.Address, Version: c.Version, Mode: c.Mode, Joined: t.index,
		})
		return Result{}
	}
	switch {
	case n.Removed:
		return Result{Err: fmt.Errorf("%s (%s): %w", n.Name, n.ID.Short(), ErrNodeRemoved)}
	case n.MachineID != c.MachineID:
		return Result{Err: fmt.Errorf("%s (%s): %w", n.Name, n.ID.Short(), ErrMachineMismatch)}
	case n.Name != c.Name:
		return Result{Err: fmt.Errorf("%s is registered as %s: %w", n.ID.Short(), n.Name, ErrNodeExists)}
	}
	return Result{Err: t.updateNode(n, c.Address, c.Version, c.Mode)}
}

func (c RegisterNode) validate() error {
	switch {
	case !c.Node.Valid():
		return fmt.Errorf("%w: node id %q", ErrInvalid, c.Node)
	case !validNodeName(c.Name):
		return fmt.Errorf("%w: node name %q", ErrInvalid, c.Name)
	case !plainText(c.MachineID, maxText):
		return fmt.Errorf("%w: machine id", ErrInvalid)
	case !plainText(c.Address, maxText):
		return fmt.Errorf("%w: node address", ErrInvalid)
	case !plainLine(c.Version, maxText):
		return fmt.Errorf("%w: version", ErrInvalid)
	case !c.Mode.known():
		return fmt.Errorf("%w: mode is missing", ErrInvalid)
	}
	return nil
}

func (c RegisterNode) pb() (*ipampb.Command, error) {
	mode, err := modeToPB(c.Mode)
	return &ipampb.Command{Kind: &ipampb.Command_RegisterNode{RegisterNode: &ipampb.RegisterNode{
		Node: string(c.Node), Name: c.Name, MachineId: c.MachineID,
		Address: c.Address, Version: c.Version, Mode: mode,
	}}}, err
}

func registerNodeFromPB(m *ipampb.RegisterNode) Command {
	return RegisterNode{
		Node: NodeID(m.GetNode()), Name: m.GetName(), MachineID: m.GetMachineId(),
		Address: m.GetAddress(), Version: m.GetVersion(), Mode: Mode(m.GetMode()),
	}
}
