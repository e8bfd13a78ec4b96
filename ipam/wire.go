package ipam

import (
	"fmt"
	"net/netip"

	"stellar.io/stellar/ipam/ipampb"
)

// The conversions between the words of this package and those of the wire. A
// value that is malformed on the wire (an address of five bytes) becomes the zero
// value, which the command then refuses.

func addrToPB(a netip.Addr) []byte { return a.AsSlice() }

func addrFromPB(b []byte) netip.Addr {
	a, _ := netip.AddrFromSlice(b)
	return a
}

func prefixToPB(p netip.Prefix) *ipampb.Prefix {
	if !p.IsValid() {
		return nil
	}
	return &ipampb.Prefix{Addr: p.Addr().AsSlice(), Bits: uint32(p.Bits())}
}

func prefixFromPB(p *ipampb.Prefix) netip.Prefix {
	a, ok := netip.AddrFromSlice(p.GetAddr())
	if !ok || p.GetBits() > uint32(a.BitLen()) {
		return netip.Prefix{}
	}
	return netip.PrefixFrom(a, int(p.GetBits()))
}

func epochToPB(e Epoch) *ipampb.Epoch {
	return &ipampb.Epoch{Generation: e.Generation, Counter: e.Counter}
}

func epochFromPB(e *ipampb.Epoch) Epoch {
	return Epoch{Generation: e.GetGeneration(), Counter: e.GetCounter()}
}

func fenceToPB(f Fence) *ipampb.Fence {
	return &ipampb.Fence{
		Network: f.Subnet.Network, Prefix: prefixToPB(f.Subnet.Prefix),
		Node: string(f.Node), Epoch: epochToPB(f.Epoch),
	}
}

func fenceFromPB(f *ipampb.Fence) Fence {
	return Fence{
		Subnet: SubnetKey{Network: f.GetNetwork(), Prefix: prefixFromPB(f.GetPrefix())},
		Node:   NodeID(f.GetNode()), Epoch: epochFromPB(f.GetEpoch()),
	}
}

func ownerToPB(o Owner) (*ipampb.Owner, error) {
	if o.Kind > OwnerManual {
		return nil, fmt.Errorf("%w: %s", ErrInvalid, o.Kind)
	}
	return &ipampb.Owner{
		Kind: ipampb.OwnerKind(o.Kind), Namespace: o.Namespace, Id: o.ID,
		Created: o.Created, Interface: o.Interface,
	}, nil
}

func ownerFromPB(o *ipampb.Owner) Owner {
	return Owner{
		Kind: OwnerKind(o.GetKind()), Namespace: o.GetNamespace(), ID: o.GetId(),
		Created: o.GetCreated(), Interface: o.GetInterface(),
	}
}

// hashFromPB returns zero for anything but 32 bytes.
func hashFromPB(b []byte) (h [32]byte) {
	if len(b) == len(h) {
		copy(h[:], b)
	}
	return h
}

// hashToPB leaves a missing hash out.
func hashToPB(h [32]byte) []byte {
	if h == ([32]byte{}) {
		return nil
	}
	return h[:]
}

func roleToPB(r Role) (ipampb.Role, error) {
	if r > RoleNode {
		return 0, fmt.Errorf("%w: %s", ErrInvalid, r)
	}
	return ipampb.Role(r), nil
}

func modeToPB(m Mode) (ipampb.Mode, error) {
	if m > ModeRouted {
		return 0, fmt.Errorf("%w: %s", ErrInvalid, m)
	}
	return ipampb.Mode(m), nil
}
