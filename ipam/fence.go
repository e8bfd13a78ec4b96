package ipam

import (
	"fmt"
	"net/netip"
)

// Fence names the subnet that a command changes and proves that the sender holds
// it: only the holder, at the present epoch, changes what is inside a subnet.
type Fence struct {
	Subnet SubnetKey
	Node   NodeID
	Epoch  Epoch
}

// check returns the subnet if the fence is right.
func (f Fence) check(t *tx) (Network, Subnet, error) {
	n, err := t.inNetwork(f.Subnet.Network)
	if err != nil {
		return Network{}, Subnet{}, err
	}
	if _, err := t.member(f.Node); err != nil {
		return Network{}, Subnet{}, err
	}
	_, sub, ok := t.find(f.Subnet)
	switch {
	case !ok || sub.State != Held:
		return Network{}, Subnet{}, fmt.Errorf("%s: %w", f.Subnet.Prefix, ErrSubnetNotFound)
	case sub.Node != f.Node:
		return Network{}, Subnet{}, fmt.Errorf("%s, %s: %w", f.Subnet.Prefix, sub.Node.Short(), ErrWrongNode)
	case sub.Epoch != f.Epoch:
		return Network{}, Subnet{}, fmt.Errorf("%s: command has %s, subnet %s: %w", f.Subnet.Prefix, f.Epoch, sub.Epoch, ErrStaleEpoch)
	}
	return n, sub, nil
}

// checkLease returns what a command about one lease needs: its key, its record
// if there is one, and the subnet.
func (f Fence) checkLease(t *tx, a netip.Addr, o Owner) (k leaseKey, r leaseRecord, sub Subnet, err error) {
	if err := o.validate(); err != nil {
		return k, r, sub, err
	}
	n, sub, err := f.check(t)
	if err != nil {
		return k, r, sub, err
	}
	if !sub.Prefix.Contains(a) {
		return k, r, sub, fmt.Errorf("%s is not in %s: %w", a, sub.Prefix, ErrOutOfSubnet)
	}
	k = leaseKey{Net: n.ID, Addr: addrToUint(a)}
	r, _ = t.leases.get(k) // State is 0 when the address is free
	return k, r, sub, nil
}
