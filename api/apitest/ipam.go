package apitest

import (
	"context"
	"net/netip"
	"time"

	"stellar.io/stellar/api"
	"stellar.io/stellar/ipam"
)

// Subnets implements server.Ipam.
func (b *Backend) Subnets(context.Context) ([]api.Subnet, error) {
	unlock, err := b.begin("Subnets")
	defer unlock()
	if err != nil {
		return nil, err
	}
	if _, err := b.subnet(); err != nil {
		return nil, err
	}
	var out []api.Subnet
	for s := range b.state.Subnets() {
		u := b.state.Usage(s.SubnetKey)
		n, _ := b.state.Node(s.Node)
		out = append(out, api.Subnet{
			Network: s.Network, Subnet: s.Prefix, Node: n.Name, Epoch: s.Epoch.String(), State: s.State.String(),
			Used: u.Used, Free: u.Free, Cooling: u.Cooling, Reserved: u.Reserved,
		})
	}
	return out, nil
}

func owner(o ipam.Owner) *api.Owner {
	out := &api.Owner{Kind: o.Kind.String(), Namespace: o.Namespace, Container: o.ID, Ifname: o.Interface}
	if o.Created != 0 {
		out.Created = time.Unix(0, o.Created).UTC()
	}
	return out
}

// Address implements server.Ipam.
func (b *Backend) Address(_ context.Context, a netip.Addr) (api.Address, error) {
	unlock, err := b.begin("Address")
	defer unlock()
	if err != nil {
		return api.Address{}, err
	}
	s, err := b.subnet()
	if err != nil {
		return api.Address{}, err
	}
	n, _ := b.state.Network(ipam.DefaultNetwork)
	if !n.Prefix.Contains(a) {
		return api.Address{}, ipam.ErrSubnetNotFound
	}
	out := api.Address{Address: a, State: api.AddressFree}
	if s.Prefix.Contains(a) {
		out.Subnet, out.Node = s.Prefix, NodeName
	}
	if r, ok := b.state.ReservedBy(a); ok {
		out.State, out.Reason = api.AddressReserved, r.Reason
		if r.Kind != ipam.ReservedOperator {
			out.Reason = r.Kind.String()
		}
	}
	if l, ok := b.state.Lease(a); ok {
		out.State, out.Owner, out.Static, out.Hostname = l.State.String(), owner(l.Owner), l.Static, l.Hostname
	}
	return out, nil
}

// fence returns who must propose a change of p: this node inside its subnet,
// nobody outside of it.
func (b *Backend) fence(p netip.Prefix) (ipam.NodeID, ipam.Epoch, error) {
	s, err := b.subnet()
	if err != nil {
		return "", ipam.Epoch{}, err
	}
	if s.Prefix.Contains(p.Addr()) && p.Bits() >= s.Prefix.Bits() {
		return NodeID, s.Epoch, nil
	}
	return "", ipam.Epoch{}, nil
}

// Reserve implements server.Ipam.
func (b *Backend) Reserve(_ context.Context, r api.Reservation) error {
	unlock, err := b.begin("Reserve")
	defer unlock()
	if err != nil {
		return err
	}
	node, epoch, err := b.fence(r.Prefix)
	if err != nil {
		return err
	}
	return b.apply(ipam.ReserveAddress{Network: ipam.DefaultNetwork, Prefix: r.Prefix, Reason: r.Reason, Node: node, Epoch: epoch})
}

// Release implements server.Ipam.
func (b *Backend) Release(_ context.Context, r api.Release) (string, error) {
	unlock, err := b.begin("Release")
	defer unlock()
	if err != nil {
		return "", err
	}
	node, epoch, err := b.fence(r.Prefix)
	if err != nil {
		return "", err
	}
	for s := range b.state.Subnets() {
		if s.Prefix == r.Prefix && s.State == ipam.Quarantined {
			return "quarantine", b.apply(ipam.ReleaseSubnet{Network: s.Network, Prefix: s.Prefix})
		}
	}
	l, ok := b.state.Lease(r.Prefix.Addr())
	if !ok || !r.Prefix.IsSingleIP() {
		return "reservation", b.apply(ipam.UnreserveAddress{Network: ipam.DefaultNetwork, Prefix: r.Prefix, Node: node, Epoch: epoch})
	}
	if b.carried(l.Addr) {
		return "", api.Errorf(api.CodeConflict, "%s is carried by an interface of %s", l.Addr, l.Owner)
	}
	if r.Owner != nil && !r.Owner.Equal(*owner(l.Owner)) {
		return "", api.Errorf(api.CodeConflict, "%s has another owner now, %s", l.Addr, l.Owner)
	}
	s, err := b.subnet()
	if err != nil {
		return "", err
	}
	return "lease", b.apply(
		ipam.ReleaseLease{Fence: s.Fence(), Addr: l.Addr, Owner: l.Owner},
		ipam.FreeLease{Fence: s.Fence(), Addr: l.Addr, Owner: l.Owner})
}

// carried reports whether an endpoint has the address.
func (b *Backend) carried(a netip.Addr) bool {
	for _, d := range b.endpoints {
		if d.Address == a && d.Up() {
			return true
		}
	}
	return false
}

// Check implements server.Ipam: a lease without an endpoint is a leak.
func (b *Backend) Check(context.Context, bool) (api.IpamReport, error) {
	unlock, err := b.begin("Check")
	defer unlock()
	if err != nil {
		return api.IpamReport{}, err
	}
	s, err := b.subnet()
	if err != nil {
		return api.IpamReport{}, err
	}
	r := api.IpamReport{Time: b.now(), Node: NodeName}
	for l := range b.state.Leases(s.SubnetKey) {
		r.Checked++
		if !b.carried(l.Addr) {
			r.Problems = append(r.Problems, api.IpamProblem{
				Kind: "leaked", Node: NodeName, Address: l.Addr, Owner: owner(l.Owner), Message: "no such container", Releasable: true,
			})
		}
	}
	r.Nodes = []api.IpamNodeCheck{{Node: NodeName, Checked: r.Checked}}
	return r, nil
}
