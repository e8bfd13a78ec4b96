package ipam

import (
	"fmt"
	"net/netip"

	"stellar.io/stellar/ipam/ipampb"
)

// UnreserveAddress ends an operator's reservation of exactly this block; who may
// propose it is the same as for ReserveAddress. Without such a reservation it is
// refused with ErrReservationNotFound.
type UnreserveAddress struct {
	Network string
	Prefix  netip.Prefix
	Node    NodeID
	Epoch   Epoch
}

func (c UnreserveAddress) apply(t *tx) Result {
	if _, _, err := t.checkBlock(c.Network, c.Prefix, c.Node, c.Epoch); err != nil {
		return Result{Err: err}
	}
	k := reservationKey{c.Network, c.Prefix, ReservedOperator}
	if _, ok := t.reservations.get(k); !ok {
		return Result{Err: fmt.Errorf("%s: %w", c.Prefix, ErrReservationNotFound)}
	}
	t.removeReservation(k)
	return Result{}
}

func (c UnreserveAddress) pb() (*ipampb.Command, error) {
	return &ipampb.Command{Kind: &ipampb.Command_UnreserveAddress{UnreserveAddress: &ipampb.UnreserveAddress{
		Network: c.Network, Prefix: prefixToPB(c.Prefix),
		Node: string(c.Node), Epoch: epochToPB(c.Epoch),
	}}}, nil
}

func unreserveAddressFromPB(m *ipampb.UnreserveAddress) Command {
	return UnreserveAddress{
		Network: m.GetNetwork(), Prefix: prefixFromPB(m.GetPrefix()),
		Node: NodeID(m.GetNode()), Epoch: epochFromPB(m.GetEpoch()),
	}
}
