package ipam

import (
	"fmt"

	"stellar.io/stellar/ipam/ipampb"
)

// RegisterNode makes a node a member. For a member it brings address, version,
// mode and, if it is given, the role up to date; its name and its machine never
// change. It is refused with ErrNodeExists when another member has the name,
// ErrNodeRemoved for a removed incarnation, ErrMachineMismatch for a copied
// identity, ErrModeInUse for a change of mode while there are leases.
type RegisterNode struct {
	Node      NodeID
	Name      string
	MachineID string
	Address   string
	Version   string
	Mode      Mode
	Role      Role // zero: a server if the node is new, else as it is
}

func (c RegisterNode) apply(t *tx) Result {
	if err := c.validate(); err != nil {
		return Result{Err: err}
	}
	if t.cluster.ID == "" {
		return Result{Err: ErrNotInitialized}
	}
	old, known, err := c.lookup(t, "")
	if err != nil {
		return Result{Err: err}
	}
	return Result{Err: c.register(t, old, known)}
}

// lookup returns the member that the command is about, if it is one already. A
// node that gives up its name may be the one that has it.
func (c RegisterNode) lookup(t *tx, gone NodeID) (n Node, known bool, err error) {
	if id, taken := t.byName[c.Name]; taken && id != c.Node && id != gone {
		return n, false, fmt.Errorf("%s is %s: %w", c.Name, id.Short(), ErrNodeExists)
	}
	n, known = t.nodes.get(c.Node)
	switch {
	case !known:
		return n, false, nil
	case n.Removed:
		return n, true, fmt.Errorf("%s (%s): %w", n.Name, n.ID.Short(), ErrNodeRemoved)
	case n.MachineID != c.MachineID:
		return n, true, fmt.Errorf("%s (%s): %w", n.Name, n.ID.Short(), ErrMachineMismatch)
	case n.Name != c.Name:
		return n, true, fmt.Errorf("%s is registered as %s: %w", n.ID.Short(), n.Name, ErrNodeExists)
	}
	return n, true, nil
}

// register stores the node. It fails only for a change of mode.
func (c RegisterNode) register(t *tx, old Node, known bool) error {
	n := old
	n.Address, n.Version, n.Mode = c.Address, c.Version, c.Mode
	if c.Role != 0 {
		n.Role = c.Role
	}
	if known {
		return t.updateNode(old, n)
	}
	n.ID, n.Name, n.MachineID, n.Joined = c.Node, c.Name, c.MachineID, t.index
	if n.Role == 0 {
		n.Role = RoleServer
	}
	t.putNode(n)
	return nil
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
	case c.Role != 0 && !c.Role.known():
		return fmt.Errorf("%w: role", ErrInvalid)
	}
	return nil
}

func (c RegisterNode) pb() (*ipampb.Command, error) {
	m, err := c.message()
	return &ipampb.Command{Kind: &ipampb.Command_RegisterNode{RegisterNode: m}}, err
}

func (c RegisterNode) message() (*ipampb.RegisterNode, error) {
	mode, err := modeToPB(c.Mode)
	if err != nil {
		return nil, err
	}
	role, err := roleToPB(c.Role)
	return &ipampb.RegisterNode{
		Node: string(c.Node), Name: c.Name, MachineId: c.MachineID,
		Address: c.Address, Version: c.Version, Mode: mode, Role: role,
	}, err
}

func registerNodeFromPB(m *ipampb.RegisterNode) RegisterNode {
	return RegisterNode{
		Node: NodeID(m.GetNode()), Name: m.GetName(), MachineID: m.GetMachineId(),
		Address: m.GetAddress(), Version: m.GetVersion(), Mode: Mode(m.GetMode()), Role: Role(m.GetRole()),
	}
}
