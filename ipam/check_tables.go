package ipam

import (
	"errors"
	"fmt"
	"net/netip"
)

// check tells whether the tables alone can be a state. It may be called on what
// a damaged or forged snapshot brought, so it trusts nothing.
func (t *tables) check() error {
	if t.cluster.ID == "" {
		if t.cluster != (clusterRecord{}) || t.networks.len()+t.nodes.len()+t.subnets.len()+t.reservations.len()+
			t.leases.len()+t.forgotten.len()+t.requests.len()+t.tokens.len() > 0 {
			return errors.New("there is no cluster, yet the state is not empty")
		}
		return nil
	}
	if !NodeID(t.cluster.ID).Valid() || t.cluster.Generation == 0 || t.cluster.Generation > maxGeneration || t.cluster.Time < 0 {
		return fmt.Errorf("cluster %q, generation %d, time %d", t.cluster.ID, t.cluster.Generation, t.cluster.Time)
	}
	for _, check := range [...]func() error{
		t.checkNetworks, t.checkNodes, t.checkReservations, t.checkSubnets, t.checkLeases, t.checkRequests, t.checkTokens,
	} {
		if err := check(); err != nil {
			return err
		}
	}
	return nil
}

func (t *tables) checkNetworks() error {
	ids := map[uint32]string{0: "nobody"}
	var seen []Network
	for name, n := range t.networks.all() {
		if err := ValidatePlan(n.Prefix, n.SubnetBits); err != nil {
			return err
		}
		switch other, taken := ids[n.ID]; {
		case !validNetworkName(name):
			return fmt.Errorf("network name %q", name)
		case taken:
			return fmt.Errorf("network %s has the number of %s", name, other)
		case n.NextSubnet > n.SubnetCount():
			return fmt.Errorf("network %s has its mark at %d of %d", name, n.NextSubnet, n.SubnetCount())
		}
		for _, o := range seen {
			if o.Prefix.Overlaps(n.Prefix) {
				return fmt.Errorf("networks %s and %s overlap", o.Name, name)
			}
		}
		ids[n.ID] = name
		seen = append(seen, n)
	}
	return nil
}

func (t *tables) checkNodes() error {
	for id, n := range t.nodes.all() {
		if n.Joined > n.Changed || n.Changed > t.index {
			return fmt.Errorf("node %s changed at entry %d of %d", id, n.Changed, t.index)
		}
		if n.Removed {
			if n != (Node{ID: id, Name: n.Name, Removed: true, Joined: n.Joined, Changed: n.Changed}) {
				return fmt.Errorf("tombstone of node %s holds more than its name", id)
			}
			continue
		}
		c := RegisterNode{
			Node: id, Name: n.Name, MachineID: n.MachineID,
			Address: n.Address, Version: n.Version, Mode: n.Mode, Role: n.Role,
		}
		if err := c.validate(); err != nil {
			return err
		}
		if n.Role == 0 {
			return fmt.Errorf("node %s has no role", id)
		}
	}
	return nil
}

func (t *tables) checkSubnets() error {
	lengths := t.reservationLengths()
	for k, s := range t.subnets.all() {
		n, ok := t.networks.get(k.Network)
		if !ok || !n.hasSubnet(k.Prefix) {
			return fmt.Errorf("%s is no subnet of its network", k)
		}
		node, ok := t.nodes.get(s.Node)
		lost := s.Node == "" && s.Epoch == (Epoch{}) && s.Mode == 0
		switch {
		case n.subnetIndex(k.Prefix.Addr()) >= n.NextSubnet:
			return fmt.Errorf("%s was held, yet the mark is at %d", k, n.NextSubnet)
		case s.Since > t.index || s.SinceTime > t.cluster.Time || s.SinceTime < 0:
			return fmt.Errorf("%s changed in the future", k)
		case lost && (s.State == Quarantined || s.State == SubnetFree):
			// Somebody held it whose record was lost.
		case s.State < Held || s.State > SubnetFree || !s.Mode.known():
			return fmt.Errorf("%s is %s in %s", k, s.State, s.Mode)
		case !ok:
			return fmt.Errorf("%s has an unknown holder, %s", k, s.Node)
		case s.State == Held && (node.Removed || node.Mode != s.Mode):
			return fmt.Errorf("%s is held in %s by a node that is removed or not in that mode", k, s.Mode)
		case s.Epoch.Counter == 0 || s.Epoch.Counter > maxCounter ||
			s.Epoch.Generation == 0 || s.Epoch.Generation > t.cluster.Generation:
			return fmt.Errorf("%s has epoch %s", k, s.Epoch)
		}
		if err := t.checkSubnetReservations(s, lengths[k.Network]); err != nil {
			return err
		}
	}
	return nil
}

// reservationLengths counts the reservations of each network by length.
func (t *tables) reservationLengths() map[string]blockCounts {
	all := map[string]blockCounts{}
	for k := range t.reservations.all() {
		counts := all[k.Network]
		counts[k.Prefix.Bits()]++ // checkReservations has seen the prefix
		all[k.Network] = counts
	}
	return all
}

// checkSubnetReservations tells whether a subnet has exactly the reservations of
// its mode and no whole one while it is in use.
func (t *tables) checkSubnetReservations(s Subnet, lengths blockCounts) error {
	want := map[reservationKey]bool{}
	if s.State != SubnetFree {
		for _, r := range systemReservations(s.SubnetKey, s.Mode) {
			want[r.key()] = true
		}
	}
	for r := range t.reservationsIn(s.SubnetKey, lengths) {
		switch {
		case r.Kind == ReservedOperator && r.Prefix.Bits() <= s.Prefix.Bits() && s.State != SubnetFree:
			return fmt.Errorf("%s is %s and reserved", s.SubnetKey, s.State)
		case r.Kind != ReservedOperator && !want[r.key()]:
			return fmt.Errorf("%s has a reservation %s of its own on %s", s.SubnetKey, r.Kind, r.Prefix)
		}
		delete(want, r.key())
	}
	if len(want) > 0 {
		return fmt.Errorf("%s lacks %d of its reservations", s.SubnetKey, len(want))
	}
	return nil
}

func (t *tables) checkReservations() error {
	for k, r := range t.reservations.all() {
		n, ok := t.networks.get(k.Network)
		switch {
		case !ok:
			return fmt.Errorf("reservation in network %q", k.Network)
		case k.Prefix != k.Prefix.Masked() || k.Prefix.Bits() < n.Prefix.Bits() || !n.Prefix.Contains(k.Prefix.Addr()):
			return fmt.Errorf("reservation of %s in network %s", k.Prefix, k.Network)
		case r.Kind < ReservedNetwork || r.Kind > ReservedOperator || !plainLine(r.Reason, maxText) || r.Since > t.index:
			return fmt.Errorf("reservation of %s is malformed", k.Prefix)
		case r.Kind == ReservedOperator:
			continue
		}
		// Those of a recorded subnet are looked at by checkSubnets.
		sub, _ := n.SubnetOf(k.Prefix.Addr())
		if _, held := t.subnets.get(sub); !held {
			return fmt.Errorf("%s was never held, yet has a reservation %s", sub, r.Kind)
		}
	}
	return nil
}

func (t *tables) checkLeases() error {
	lengths := t.reservationLengths()
	nets := make(map[uint32]Network, t.networks.len())
	for _, n := range t.networks.all() {
		nets[n.ID] = n
	}
	var (
		sub    Subnet // of the last lease
		net    uint32
		blocks []netip.Prefix // reserved in it
	)
	for k, r := range t.leases.all() {
		a := uintToAddr(k.Addr)
		if k.Net != net || !sub.Prefix.Contains(a) {
			n, ok := nets[k.Net]
			if !ok {
				return fmt.Errorf("lease of %s in network number %d", a, k.Net)
			}
			key, _ := n.SubnetOf(a)
			if sub, ok = t.subnets.get(key); !ok || sub.State == SubnetFree {
				return fmt.Errorf("lease of %s, whose subnet nobody holds", a)
			}
			net, blocks = k.Net, blocks[:0]
			for res := range t.reservationsIn(key, lengths[key.Network]) {
				blocks = append(blocks, res.Prefix)
			}
		}
		for _, b := range blocks {
			if b.Contains(a) {
				return fmt.Errorf("lease of %s, which is reserved", a)
			}
		}
		if err := t.checkLease(r); err != nil {
			return fmt.Errorf("lease of %s: %w", a, err)
		}
	}
	return nil
}

func (t *tables) checkLease(r leaseRecord) error {
	var buf [512]byte
	o, ok := parseOwner(r.ownerKey())
	switch {
	case !ok || string(appendOwner(buf[:0], o)) != r.ownerKey():
		return errors.New("malformed owner")
	case r.State < Bound || r.State > Cooling:
		return fmt.Errorf("state %s", r.State)
	case !plainText(r.hostname(), maxHostname):
		return errors.New("malformed host name")
	case r.Since > t.index || r.SinceTime > t.cluster.Time || r.SinceTime < 0:
		return errors.New("changed in the future")
	}
	return o.validate()
}

func (t *tables) checkRequests() error {
	for id := range t.forgotten.all() {
		if n, ok := t.nodes.get(id); !ok || n.Removed {
			return fmt.Errorf("requests of %s, which is no member", id)
		}
	}
	var node NodeID
	var w window
	for id, r := range t.requests.all() {
		if n, ok := t.nodes.get(id.Node); !ok || n.Removed {
			return fmt.Errorf("request of %s, which is no member", id.Node)
		}
		if last, ok := t.forgotten.get(id.Node); id.Seq == 0 || ok && id.Seq <= last {
			return fmt.Errorf("request %s/%d is remembered and forgotten", id.Node, id.Seq)
		}
		if id.Node != node {
			node, w = id.Node, window{}
		}
		w.requests++
		w.results += int(r.Count)
		if w.requests > maxRequests || r.Count > MaxCommands || w.results > maxResults {
			return fmt.Errorf("too many requests of %s are remembered", id.Node)
		}
		d := &decoder{buf: []byte(r.Results)}
		for range r.Count {
			d.result()
		}
		if d.err != nil || len(d.buf) > 0 {
			return fmt.Errorf("results of request %s/%d are malformed", id.Node, id.Seq)
		}
	}
	return nil
}

func (t *tables) checkTokens() error {
	for id, k := range t.tokens.all() {
		if err := k.validate(); err != nil {
			return err
		}
		switch {
		case k.Used() && !k.UsedBy.Valid():
			return fmt.Errorf("token %s was used by %q", id, k.UsedBy)
		case k.Used() == (k.KeyHash == [32]byte{}):
			return fmt.Errorf("token %s was used without a key, or not used with one", id)
		case k.Created > k.Changed || k.Changed > t.index:
			return fmt.Errorf("token %s changed at entry %d of %d", id, k.Changed, t.index)
		}
	}
	return nil
}
