package node

import (
	"context"
	"errors"
	"fmt"

	"stellar.io/stellar/api/peerapi"
)

// ErrTwin is returned when another machine runs with this node's identity.
var ErrTwin = errors.New("another machine runs with this node's identity")

// refuseTwin keeps a copy of a data directory from running beside its original: the
// cluster would send the packets of one to the other. Where a machine has been copied
// with all that identifies it, only its address tells: so when that has changed since
// the cluster last confirmed this node, whoever has the old one is asked. A node that
// has moved finds nobody there. It is called when the store is open, and before Raft
// runs: a copy must not have a vote.
func (n *Node) refuseTwin(ctx context.Context, p *parts) error {
	before, known := n.rememberedSubnet()
	now := n.advertised()
	if !known || p.port == nil || before.Address == "" || before.Address == now.String() {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, askTimeout)
	defer cancel()
	// The port takes nobody for us whose certificate is not ours.
	c := peerapi.NewClient(p.port.HTTPClient(n.id.ID), "https://"+before.Address, n.id.Name)
	if _, err := c.WhoAmI(ctx); err != nil {
		n.log.Info("this node's address has changed", "was", before.Address, "is", now)
		return nil
	}
	return fmt.Errorf("%w: %s (%s) answers at %s, this is %s: a copy of a data directory must not run, start with an empty one",
		ErrTwin, n.id.Name, n.id.ID.Short(), before.Address, now)
}
