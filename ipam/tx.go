package ipam

import (
	"fmt"
	"slices"
)

// tx is one entry being applied. Every change to the state goes through its
// methods: they keep the derived part right and write the deltas down.
type tx struct {
	*State
	deltas []Delta
}

func (t *tx) emit(d Delta) { t.deltas = append(t.deltas, d) }

func (t *tx) putCluster(c clusterRecord) {
	t.cluster = c
	t.emit(ClusterPut{c.outside()})
}

// putToken stores a token with a new index of change.
func (t *tx) putToken(k Token) {
	k.Changed = t.index
	t.tokens.set(k.ID, k)
	t.emit(TokenPut{k})
}

func (t *tx) putNetwork(n Network) {
	t.networks.set(n.Name, n)
	t.netNames[n.ID] = n.Name
	t.emit(NetworkPut{n})
}

// putNode stores a node with a new index of change.
func (t *tx) putNode(n Node) {
	if old, ok := t.nodes.get(n.ID); ok && !old.Removed {
		delete(t.byName, old.Name)
	}
	if !n.Removed {
		t.byName[n.Name] = n.ID
	}
	n.Changed = t.index
	t.nodes.set(n.ID, n)
	t.emit(NodePut{n})
}

func (t *tx) putSubnet(sub Subnet) {
	if old, ok := t.subnets.get(sub.SubnetKey); ok && old.State != SubnetFree {
		t.byNode.delete(nodeSubnet{old.Node, old.SubnetKey})
	}
	if sub.State != SubnetFree {
		t.byNode.set(nodeSubnet{sub.Node, sub.SubnetKey}, struct{}{})
	}
	t.subnets.set(sub.SubnetKey, sub)
	if sub.State == SubnetFree {
		delete(t.usage, sub.SubnetKey)
	} else if _, ok := t.usage[sub.SubnetKey]; !ok {
		t.usage[sub.SubnetKey] = t.emptyUsage(sub.SubnetKey)
	}
	t.emit(SubnetPut{sub})
}

// putReservation stores a reservation unless the same one is there.
func (t *tx) putReservation(r Reservation) {
	k := r.key()
	r.Since = t.index
	if old, ok := t.reservations.get(k); ok {
		if old.Reason == r.Reason {
			return
		}
	} else {
		t.countBlock(k, 1)
	}
	t.reservations.set(k, r)
	t.recountAround(k)
	t.emit(ReservationPut{r})
}

func (t *tx) removeReservation(k reservationKey) {
	r, ok := t.reservations.get(k)
	if !ok {
		return
	}
	t.reservations.delete(k)
	t.countBlock(k, -1)
	t.recountAround(k)
	t.emit(ReservationRemoved{r})
}

// recountAround renews the usage of the subnet that a block inside it changes.
// Larger blocks never touch a subnet that has a usage.
func (t *tx) recountAround(k reservationKey) {
	n, ok := t.networks.get(k.Network)
	if !ok || k.Prefix.Bits() < n.SubnetBits {
		return
	}
	if sub, ok := n.SubnetOf(k.Prefix.Addr()); ok {
		t.recount(sub)
	}
}

// putLease stores a lease with a new index and time of change.
func (t *tx) putLease(k leaseKey, r leaseRecord, sub Subnet) {
	if old, ok := t.leases.get(k); ok {
		t.forgetLease(k, old, sub.SubnetKey)
	}
	r.Since, r.SinceTime = t.index, t.cluster.Time
	t.leases.set(k, r)
	t.countLease(sub.SubnetKey, r.State, 1)
	if r.State.active() {
		t.byOwner[r.ownerKey()] = k
	}
	t.emit(LeasePut{r.lease(k, sub)})
}

func (t *tx) removeLease(k leaseKey, sub Subnet) {
	r, ok := t.leases.get(k)
	if !ok {
		return
	}
	t.forgetLease(k, r, sub.SubnetKey)
	t.leases.delete(k)
	t.emit(LeaseRemoved{r.lease(k, sub)})
}

// forgetLease takes a lease out of the derived part.
func (t *tx) forgetLease(k leaseKey, r leaseRecord, sub SubnetKey) {
	t.countLease(sub, r.State, -1)
	if r.State.active() {
		delete(t.byOwner, r.ownerKey())
	}
}

// leasesOf collects the keys of a subnet's leases, so that they may be removed.
func (t *tx) leasesOf(n Network, k SubnetKey) []leaseKey {
	var keys []leaseKey
	last := leaseKey{Net: n.ID, Addr: addrToUint(lastAddr(k.Prefix))}
	for lk := range t.leases.from(leaseKey{Net: n.ID, Addr: addrToUint(k.Prefix.Addr())}) {
		if compareLeaseKeys(lk, last) > 0 {
			break
		}
		keys = append(keys, lk)
	}
	return keys
}

// dropLeases removes all leases of a subnet.
func (t *tx) dropLeases(n Network, sub Subnet) {
	if sub.State == 0 {
		return
	}
	for _, k := range t.leasesOf(n, sub.SubnetKey) {
		t.removeLease(k, sub)
	}
}

// member returns a node that is not removed.
func (t *tx) member(id NodeID) (Node, error) {
	n, ok := t.nodes.get(id)
	switch {
	case !ok:
		return Node{}, fmt.Errorf("%s: %w", id.Short(), ErrNodeNotFound)
	case n.Removed:
		return Node{}, fmt.Errorf("%s (%s): %w", n.Name, id.Short(), ErrNodeRemoved)
	}
	return n, nil
}

// inNetwork returns the network if the cluster exists and has it.
func (t *tx) inNetwork(name string) (Network, error) {
	if t.cluster.ID == "" {
		return Network{}, ErrNotInitialized
	}
	n, ok := t.networks.get(name)
	if !ok {
		return Network{}, fmt.Errorf("%q: %w", name, ErrNetworkNotFound)
	}
	return n, nil
}

// setSystemReservations makes the reservations of a held subnet those of mode;
// a mode of 0 removes them all.
func (t *tx) setSystemReservations(k SubnetKey, mode Mode) {
	want := systemReservations(k, mode)
	for _, r := range systemReservations(k, ModeBridge) { // the most there can be
		if !slices.Contains(want, r) {
			t.removeReservation(r.key())
		}
	}
	for _, r := range want {
		t.putReservation(r)
	}
}
