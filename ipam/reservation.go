package ipam

import (
	"cmp"
	"fmt"
	"net/netip"
)

// ReservationKind tells who keeps an address from being handed out.
type ReservationKind uint8

const (
	// ReservedNetwork is the first address of a held subnet.
	ReservedNetwork ReservationKind = iota + 1
	// ReservedGateway is the bridge's address in a held subnet.
	ReservedGateway
	// ReservedBroadcast is the last address of a held subnet.
	ReservedBroadcast
	// ReservedOperator is an address or a block that somebody asked to keep free.
	ReservedOperator
)

func (k ReservationKind) String() string {
	switch k {
	case ReservedNetwork:
		return "network"
	case ReservedGateway:
		return "gateway"
	case ReservedBroadcast:
		return "broadcast"
	case ReservedOperator:
		return "operator"
	}
	return fmt.Sprintf("ReservationKind(%d)", uint8(k))
}

// Reservation keeps an address, a block inside a subnet, or one or more whole
// subnets from being handed out. Reservations may overlap.
type Reservation struct {
	Network string
	Prefix  netip.Prefix
	Kind    ReservationKind
	Reason  string
	Since   uint64 // Raft index at which it was made
}

// reservationKey orders reservations by address, the larger block first.
type reservationKey struct {
	Network string
	Prefix  netip.Prefix
	Kind    ReservationKind
}

func (r Reservation) key() reservationKey {
	return reservationKey{Network: r.Network, Prefix: r.Prefix, Kind: r.Kind}
}

func compareReservationKeys(a, b reservationKey) int {
	c := compareSubnetKeys(SubnetKey{a.Network, a.Prefix}, SubnetKey{b.Network, b.Prefix})
	if c != 0 {
		return c
	}
	return cmp.Compare(a.Kind, b.Kind)
}

// systemReservations returns what is reserved in a subnet that is held in mode:
// the network address, the broadcast address and, for a bridge, its own.
func systemReservations(k SubnetKey, mode Mode) []Reservation {
	if !mode.known() {
		return nil
	}
	first, last := k.Prefix.Addr(), lastAddr(k.Prefix)
	all := []Reservation{
		{Network: k.Network, Prefix: addrPrefix(first), Kind: ReservedNetwork, Reason: "network address"},
		{Network: k.Network, Prefix: addrPrefix(last), Kind: ReservedBroadcast, Reason: "broadcast address"},
	}
	if mode == ModeBridge {
		all = append(all, Reservation{
			Network: k.Network, Prefix: addrPrefix(first.Next()), Kind: ReservedGateway, Reason: "gateway",
		})
	}
	return all
}
