package node

import (
	"context"
	"fmt"
	"net/netip"
	"slices"
	"time"

	"stellar.io/stellar/api"
	"stellar.io/stellar/ipam"
)

// Nodes implements server.Backend. This node is always among them, also when its replica
// does not know it, yet or any more.
func (n *Node) Nodes(ctx context.Context) ([]api.Node, error) {
	p, err := n.ready()
	if err != nil {
		return nil, err
	}
	stats := p.store.Stats()
	silent := map[ipam.NodeID]bool{}
	for _, other := range p.raftPeers(ctx) {
		silent[ipam.NodeID(other.ID)] = other.State == api.RaftSilent
	}
	follow := n.whoFollows(ctx, p)
	var out []api.Node
	p.store.View(func(s *ipam.State) { out = describeNodes(s, n.id.ID, stats.Leader, silent, follow) })
	fenced := n.cutOff(p) != nil
	own := slices.IndexFunc(out, func(d api.Node) bool { return d.Self })
	switch {
	case own < 0:
		out = append(out, n.describeSelf(p, fenced))
	case fenced:
		out[own].Status = api.NodeFenced
	}
	return out, nil
}

// describeSelf is what this node knows of itself without the state.
func (n *Node) describeSelf(p *parts, fenced bool) api.Node {
	m := n.member()
	d := api.Node{Name: m.Name, ID: string(m.Node), Address: m.Address, Version: m.Version, Self: true, Status: api.NodeJoining, Role: "-"}
	if fenced {
		d.Status = api.NodeFenced
	}
	if p.subnet.Prefix.IsValid() {
		d.Subnet, d.Epoch = p.subnet.Prefix, p.subnet.Epoch.String()
	}
	if p.holder != nil {
		d.Endpoints = p.holder.Counts().Attached
	}
	return d
}

// describeNodes tells about all members, and of those that were removed about them on
// whom something still depends.
func describeNodes(s *ipam.State, self, leader ipam.NodeID, silent map[ipam.NodeID]bool, follow following) (out []api.Node) {
	held := subnetsByNode(s)
	for m := range s.Nodes() {
		d := describeNode(s, m, held[m.ID], m.ID == self, m.ID == leader)
		if m.Removed && !d.Subnet.IsValid() {
			continue // a tombstone that nothing depends on
		}
		if follow.is(m) {
			d.Role = api.RoleFollower
		}
		if (silent[m.ID] || follow.lost(m)) && !m.Removed {
			d.Status = api.NodeLost
		}
		out = append(out, d)
	}
	return out
}

// subnetsByNode returns what each node holds, or held until it was removed.
func subnetsByNode(s *ipam.State) map[ipam.NodeID]ipam.Subnet {
	held := map[ipam.NodeID]ipam.Subnet{}
	for sub := range s.Subnets() {
		if sub.State != ipam.SubnetFree {
			held[sub.Node] = sub
		}
	}
	return held
}

// describeNode tells about a node and its subnet, the zero one if it has none.
func describeNode(s *ipam.State, m ipam.Node, sub ipam.Subnet, self, leader bool) api.Node {
	d := api.Node{Name: m.Name, ID: string(m.ID), Address: m.Address, Version: m.Version, Self: self, Status: api.NodeReady, Role: m.Role.String(), Mode: m.Mode.String()}
	if leader {
		d.Role = "leader"
	}
	switch {
	case m.Removed:
		d.Status, d.Role = api.NodeRemoved, "-" // its subnet is in quarantine
	case m.Draining:
		d.Status = api.NodeDraining
	}
	if sub.Prefix.IsValid() {
		d.Subnet, d.Epoch = sub.Prefix, sub.Epoch.String()
		for l := range s.Leases(sub.SubnetKey) {
			if l.State == ipam.Attached {
				d.Endpoints++
			}
		}
	}
	return d
}

// Routes implements server.Backend.
func (n *Node) Routes(context.Context) ([]api.Route, error) {
	p, err := n.ready()
	if err != nil {
		return nil, err
	}
	var out []api.Route
	for _, s := range p.routes.Status() {
		out = append(out, describeRoute(s))
	}
	return out, nil
}

// Subnets implements server.Backend.
func (n *Node) Subnets(context.Context) ([]api.Subnet, error) {
	p, err := n.ready()
	if err != nil {
		return nil, err
	}
	var out []api.Subnet
	p.store.View(func(s *ipam.State) { out = describeSubnets(s) })
	return out, nil
}

func describeSubnets(s *ipam.State) (out []api.Subnet) {
	for sub := range s.Subnets() {
		u := s.Usage(sub.SubnetKey)
		d := api.Subnet{
			Network: sub.Network, Subnet: sub.Prefix, Epoch: sub.Epoch.String(), State: sub.State.String(),
			Used: u.Used, Free: u.Free, Cooling: u.Cooling, Reserved: u.Reserved,
		}
		if m, ok := s.Node(sub.Node); ok {
			d.Node = m.Name
		}
		out = append(out, d)
	}
	return out
}

// Address implements server.Backend.
func (n *Node) Address(_ context.Context, a netip.Addr) (api.Address, error) {
	p, err := n.ready()
	if err != nil {
		return api.Address{}, err
	}
	out := api.Address{Address: a, State: api.AddressFree}
	if !p.network.Prefix.Contains(a) {
		return out, fmt.Errorf("%s is not in network %s: %w", a, p.network.Prefix, ipam.ErrSubnetNotFound)
	}
	p.store.View(func(s *ipam.State) {
		key, _ := p.network.SubnetOf(a)
		if sub, ok := s.Subnet(key); ok && sub.State == ipam.Held {
			out.Subnet = sub.Prefix
			if m, ok := s.Node(sub.Node); ok {
				out.Node = m.Name
			}
		}
		if r, ok := s.ReservedBy(a); ok {
			out.State, out.Reason = api.AddressReserved, r.Reason
		}
		if l, ok := s.Lease(a); ok {
			out.State, out.Static, out.Hostname = l.State.String(), l.Static, l.Hostname
			out.Owner = owner(l.Owner)
		}
	})
	if p.subnet.Prefix.Contains(a) {
		p.holderKnows(a, &out)
	}
	return out, nil
}

// holderKnows corrects out by the journal: for the own subnet it, not the
// replica, is the truth.
func (p *parts) holderKnows(a netip.Addr, out *api.Address) {
	held, ok := p.holder.LookupAddr(a)
	if !ok {
		if out.State == api.AddressBound || out.State == api.AddressAttached {
			out.State = api.AddressCooling // the replica has not heard of the release yet
		}
		return
	}
	out.State, out.Static, out.Provisional, out.Since = api.AddressBound, held.Static, held.Provisional, held.Since
	if held.Attached {
		out.State = api.AddressAttached
	}
	out.Owner, out.Hostname = owner(held.Owner), held.Hostname
}

func owner(o ipam.Owner) *api.Owner {
	out := &api.Owner{Kind: o.Kind.String(), Namespace: o.Namespace, Container: o.ID, Ifname: o.Interface}
	if o.Created != 0 {
		out.Created = time.Unix(0, o.Created).UTC()
	}
	return out
}

// Reserve implements server.Backend: single addresses, which the holder of their
// subnet reserves, and whole subnets that nobody holds.
func (n *Node) Reserve(ctx context.Context, r api.Reservation) error {
	p, err := n.ready()
	if err != nil {
		return err
	}
	own, err := p.owns(r.Prefix)
	if err != nil {
		return err
	}
	if own {
		return outcome(p.holder.Reserve(ctx, r.Prefix.Addr(), r.Reason))
	}
	if c, err := p.toHolder(ctx, r.Prefix); err != nil {
		return err
	} else if c != nil {
		return c.Reserve(ctx, r)
	}
	return n.propose(ctx, p, ipam.ReserveAddress{Network: p.network.Name, Prefix: r.Prefix, Reason: r.Reason})
}

// owns reports whether block is an address of this node's subnet. A part of it
// that is larger than one address is refused.
func (p *parts) owns(block netip.Prefix) (bool, error) {
	inside := p.subnet.Prefix.Bits() < block.Bits() && p.subnet.Prefix.Contains(block.Addr())
	if inside && !block.IsSingleIP() {
		return false, partOfSubnet(block, p.subnet.Prefix, "this node's")
	}
	return inside, nil
}

// Release implements server.Backend. An address of another node's subnet is for that
// node to release: its journal, not the replica, says who has it.
func (n *Node) Release(ctx context.Context, r api.Release) (string, error) {
	p, err := n.ready()
	if err != nil {
		return "", err
	}
	own, err := p.owns(r.Prefix)
	if err != nil {
		return "", err
	}
	if !own {
		return n.releaseElsewhere(ctx, p, r)
	}
	defer p.agent.AddressFreed()
	if held, ok := p.holder.LookupAddr(r.Prefix.Addr()); ok {
		return "lease", n.releaseLease(ctx, p, held.Owner, r)
	}
	if r.Owner != nil { // a lease is meant: the replica's alone, or none any more
		return "lease", n.releaseForgotten(ctx, p, r)
	}
	return "reservation", outcome(p.holder.Unreserve(ctx, r.Prefix.Addr()))
}

// forgottenWait is how long the release of a lease may take that only the replica has:
// it is proposed by the comparison of the two.
const forgottenWait = 5 * time.Second

// releaseForgotten ends a lease that only the replica has. It is done by the holder's
// own comparison, which this only hastens.
func (n *Node) releaseForgotten(ctx context.Context, p *parts, r api.Release) error {
	addr := r.Prefix.Addr()
	ctx, cancel := context.WithTimeout(ctx, forgottenWait)
	defer cancel()
	for {
		var l ipam.Lease
		p.store.View(func(s *ipam.State) { l, _ = s.Lease(addr) })
		switch {
		case l.State != 0 && l.State != ipam.Cooling && !r.Owner.Equal(*owner(l.Owner)):
			return api.Errorf(api.CodeConflict, "%s has another owner now: %s", addr, l.Owner)
		case l.State == 0, l.State == ipam.Cooling:
			return nil
		}
		p.holder.Audit()
		select {
		case <-ctx.Done():
			return api.Errorf(api.CodeNoLeader, "%s is not released yet: %w", addr, ctx.Err()).WithHint("it will be when a leader answers")
		case <-time.After(50 * time.Millisecond):
		}
	}
}

// releaseElsewhere is Release of what is not an address of this node's subnet: the
// holder of the address decides, or nobody holds it and the state does.
func (n *Node) releaseElsewhere(ctx context.Context, p *parts, r api.Release) (string, error) {
	c, err := p.toHolder(ctx, r.Prefix)
	switch {
	case err != nil:
		return "", err
	case c != nil:
		return c.Release(ctx, r)
	case p.quarantined(r.Prefix):
		return "quarantine", n.propose(ctx, p, ipam.ReleaseSubnet{Network: p.network.Name, Prefix: r.Prefix})
	}
	return "reservation", n.propose(ctx, p, ipam.UnreserveAddress{Network: p.network.Name, Prefix: r.Prefix})
}

// quarantined reports whether block is a subnet whose holder was removed by force.
func (p *parts) quarantined(block netip.Prefix) (yes bool) {
	p.store.View(func(s *ipam.State) {
		sub, ok := s.Subnet(ipam.SubnetKey{Network: p.network.Name, Prefix: block})
		yes = ok && sub.State == ipam.Quarantined
	})
	return yes
}

// releaseLease takes an address from an owner that is no more. What an
// interface carries is not released: its container still speaks with it.
func (n *Node) releaseLease(ctx context.Context, p *parts, o ipam.Owner, r api.Release) error {
	addr := r.Prefix.Addr()
	if r.Owner != nil && !r.Owner.Equal(*owner(o)) {
		return api.Errorf(api.CodeConflict, "%s has another owner now: %s", addr, o)
	}
	endpoints, err := p.net.List(ctx)
	if err != nil {
		return err
	}
	for _, e := range endpoints {
		if e.Addr == addr {
			return api.Errorf(api.CodeConflict, "%s is carried by %s of container %s", addr, e.HostIfname, e.Owner).
				WithHint("stop the container first")
		}
	}
	switch exists, err := p.exists(ctx, o); {
	case err != nil:
		return api.Errorf(api.CodeConflict, "%s belongs to container %s/%s: %w", addr, o.Namespace, o.ID, err).
			WithHint("`stellar status` says when containerd answers again")
	case exists:
		return api.Errorf(api.CodeConflict, "%s belongs to container %s/%s, which exists", addr, o.Namespace, o.ID).
			WithHint("delete the container; its address is released with it")
	}
	return p.holder.Release(ctx, o)
}

// propose has a command executed once, also when leaders change meanwhile. The node
// is up.
func (n *Node) propose(ctx context.Context, p *parts, c ipam.Command) error {
	results, err := p.holder.Submit(ctx, c)
	if err != nil {
		return outcome(err)
	}
	return results[0].Err
}
