package ipam

import "stellar.io/stellar/ipam/ipampb"

// DrainNode sets or ends Node.Draining of a member.
type DrainNode struct {
	Node  NodeID
	Drain bool
}

func (c DrainNode) apply(t *tx) Result {
	n, err := t.member(c.Node)
	if err != nil {
		return Result{Err: err}
	}
	if n.Draining != c.Drain {
		n.Draining = c.Drain
		t.putNode(n)
	}
	return Result{}
}

func (c DrainNode) pb() (*ipampb.Command, error) {
	return &ipampb.Command{Kind: &ipampb.Command_DrainNode{DrainNode: &ipampb.DrainNode{
		Node: string(c.Node), Drain: c.Drain,
	}}}, nil
}

func drainNodeFromPB(m *ipampb.DrainNode) Command {
	return DrainNode{Node: NodeID(m.GetNode()), Drain: m.GetDrain()}
}
