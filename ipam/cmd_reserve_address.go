package ipam

import (
	"fmt"
	"net/netip"

	"stellar.io/stellar/ipam/ipampb"
)

// ReserveAddress keeps an address (a /32), a block inside a subnet, or one or
// more whole subnets from being handed out, for Reason. Inside a held subnet the
// holder proposes it and Node and Epoch are the fence; elsewhere both are zero.
// It is refused with ErrAddressTaken when an address of it is bound or attached
// (cooling ones become free), with ErrSubnetInUse when it covers a subnet that is
// held or quarantined, with ErrAddressReserved when it is a reservation of
// Stellar's own. The same reservation again only changes its reason.
type ReserveAddress struct {
	Network string
	Prefix  netip.Prefix
	Reason  string
	Node    NodeID
	Epoch   Epoch
}

func (c ReserveAddress) apply(t *tx) Result {
	if !plainLine(c.Reason, maxText) {
		return Result{Err: fmt.Errorf("%w: reason", ErrInvalid)}
	}
	n, sub, err := t.checkBlock(c.Network, c.Prefix, c.Node, c.Epoch)
	if err != nil {
		return Result{Err: err}
	}
	for _, kind := range [...]ReservationKind{ReservedNetwork, ReservedGateway, ReservedBroadcast} {
		if r, ok := t.reservations.get(reservationKey{c.Network, c.Prefix, kind}); ok {
			return Result{Err: fmt.Errorf("%s (%s): %w", c.Prefix, r.Reason, ErrAddressReserved)}
		}
	}
	if sub.State == Held || sub.State == Quarantined {
		keys := t.leasesOf(n, SubnetKey{c.Network, c.Prefix})
		for _, k := range keys {
			if r, _ := t.leases.get(k); r.State.active() {
				return Result{Err: fmt.Errorf("%s by %s: %w", uintToAddr(k.Addr), r.owner(), ErrAddressTaken)}
			}
		}
		for _, k := range keys {
			t.removeLease(k, sub)
		}
	}
	t.putReservation(Reservation{Network: c.Network, Prefix: c.Prefix, Kind: ReservedOperator, Reason: c.Reason})
	return Result{}
}

// checkBlock tells whether the sender may reserve or unreserve a block. It
// returns the subnet that the block lies in, zero if there is no record of it.
func (t *tx) checkBlock(network string, p netip.Prefix, node NodeID, epoch Epoch) (Network, Subnet, error) {
	n, err := t.inNetwork(network)
	switch {
	case err != nil:
		return n, Subnet{}, err
	case !p.IsValid() || !p.Addr().Is4() || p != p.Masked():
		return n, Subnet{}, fmt.Errorf("%w: block %s", ErrInvalid, p)
	case p.Bits() < n.Prefix.Bits() || !n.Prefix.Contains(p.Addr()):
		return n, Subnet{}, fmt.Errorf("%s is not in %s: %w", p, n.Prefix, ErrOutOfSubnet)
	}
	if p.Bits() <= n.SubnetBits {
		for k, sub := range t.subnets.from(SubnetKey{network, p}) {
			if k.Network != network || !p.Contains(k.Prefix.Addr()) {
				break
			}
			if sub.State != SubnetFree {
				return n, Subnet{}, fmt.Errorf("%s is %s by %s: %w", k.Prefix, sub.State, sub.Node.Short(), ErrSubnetInUse)
			}
		}
		if node != "" || epoch != (Epoch{}) {
			return n, Subnet{}, fmt.Errorf("%w: nobody holds %s", ErrInvalid, p)
		}
		return n, Subnet{}, nil
	}
	key, _ := n.SubnetOf(p.Addr())
	sub, _ := t.subnets.get(key)
	if sub.State == Held || node != "" || epoch != (Epoch{}) {
		_, sub, err = Fence{Subnet: key, Node: node, Epoch: epoch}.check(t)
	}
	return n, sub, err
}

func (c ReserveAddress) pb() (*ipampb.Command, error) {
	return &ipampb.Command{Kind: &ipampb.Command_ReserveAddress{ReserveAddress: &ipampb.ReserveAddress{
		Network: c.Network, Prefix: prefixToPB(c.Prefix), Reason: c.Reason,
		Node: string(c.Node), Epoch: epochToPB(c.Epoch),
	}}}, nil
}

func reserveAddressFromPB(m *ipampb.ReserveAddress) Command {
	return ReserveAddress{
		Network: m.GetNetwork(), Prefix: prefixFromPB(m.GetPrefix()), Reason: m.GetReason(),
		Node: NodeID(m.GetNode()), Epoch: epochFromPB(m.GetEpoch()),
	}
}
