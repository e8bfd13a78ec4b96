package ipam

// The records of a snapshot: a tag, then the fields in the order of the struct.
// The tables follow each other in the order of the tags, each in the order of its
// keys, so equal states have equal bytes. A new field needs a new snapshotVersion,
// and goes to the end of its record; what older versions wrote stays readable.
const (
	tagCluster byte = iota + 1
	tagNetwork
	tagNode
	tagSubnet
	tagReservation
	tagLease
	tagForgotten
	tagRequest
	tagToken // since version 2
)

func (e *encoder) cluster(c clusterRecord) {
	e.text(c.ID)
	e.uint(c.Generation)
	e.int(c.Time)
	var flags byte
	if c.Reclaim {
		flags |= flagReclaim
	}
	if c.Life != 0 {
		flags |= flagLife
	}
	e.byte(flags)
	if c.Life != 0 {
		e.uint(uint64(c.Life))
	}
}

// The flags of a cluster's record. Without a life it is as version 2 wrote it.
const (
	flagReclaim byte = 1 << iota
	flagLife         // it follows
)

func (d *decoder) cluster() clusterRecord {
	c := clusterRecord{ID: d.text(), Generation: d.uint(), Time: d.int()}
	if d.version < 2 {
		return c
	}
	flags := d.byte()
	c.Reclaim = flags&flagReclaim != 0
	if flags&flagLife != 0 {
		c.Life = d.uint32()
	}
	if flags&^(flagReclaim|flagLife) != 0 || flags&flagLife != 0 && (c.Life == 0 || d.version < 3) {
		d.fail()
	}
	return c
}

func (e *encoder) network(n Network) {
	e.text(n.Name)
	e.uint(uint64(n.ID))
	e.prefix(n.Prefix)
	e.byte(byte(n.SubnetBits))
	e.uint(uint64(n.NextSubnet))
}

func (d *decoder) network() Network {
	return Network{Name: d.text(), ID: d.uint32(), Prefix: d.prefix(), SubnetBits: int(d.byte()), NextSubnet: d.uint32()}
}

func (e *encoder) node(n Node) {
	e.text(string(n.ID))
	e.text(n.Name)
	e.text(n.MachineID)
	e.text(n.Address)
	e.text(n.Version)
	e.byte(byte(n.Mode))
	e.bool(n.Removed)
	e.uint(n.Joined)
	e.uint(n.Changed)
	e.byte(byte(n.Role))
	e.bool(n.Draining)
}

func (d *decoder) node() Node {
	n := Node{
		ID: NodeID(d.text()), Name: d.text(), MachineID: d.text(), Address: d.text(), Version: d.text(),
		Mode: Mode(d.byte()), Removed: d.bool(), Joined: d.uint(), Changed: d.uint(),
	}
	switch {
	case d.version >= 2:
		n.Role, n.Draining = Role(d.byte()), d.bool()
	case !n.Removed:
		n.Role = RoleServer
	}
	return n
}

func (e *encoder) subnet(s Subnet) {
	e.subnetKey(s.SubnetKey)
	e.byte(byte(s.State))
	e.text(string(s.Node))
	e.epoch(s.Epoch)
	e.byte(byte(s.Mode))
	e.uint(s.Since)
	e.int(s.SinceTime)
}

func (d *decoder) subnet() Subnet {
	return Subnet{
		SubnetKey: d.subnetKey(), State: SubnetState(d.byte()), Node: NodeID(d.text()), Epoch: d.epoch(),
		Mode: Mode(d.byte()), Since: d.uint(), SinceTime: d.int(),
	}
}

func (e *encoder) reservation(r Reservation) {
	e.text(r.Network)
	e.prefix(r.Prefix)
	e.byte(byte(r.Kind))
	e.text(r.Reason)
	e.uint(r.Since)
}

func (d *decoder) reservation() Reservation {
	return Reservation{
		Network: d.text(), Prefix: d.prefix(), Kind: ReservationKind(d.byte()), Reason: d.text(), Since: d.uint(),
	}
}

func (e *encoder) lease(k leaseKey, r leaseRecord) {
	e.uint(uint64(k.Net))
	e.uint(uint64(k.Addr))
	e.text(r.Text)
	e.uint(uint64(r.OwnerLen))
	e.byte(byte(r.State))
	e.bool(r.Static)
	e.uint(r.Since)
	e.int(r.SinceTime)
}

func (d *decoder) lease() (leaseKey, leaseRecord) {
	k := leaseKey{Net: d.uint32(), Addr: d.uint32()}
	r := leaseRecord{Text: d.text()}
	n := d.uint()
	if n > uint64(len(r.Text)) {
		d.fail()
		return k, leaseRecord{}
	}
	r.OwnerLen = uint16(n)
	r.State, r.Static, r.Since, r.SinceTime = LeaseState(d.byte()), d.bool(), d.uint(), d.int()
	return k, r
}

func (e *encoder) forgotten(id NodeID, seq uint64) {
	e.text(string(id))
	e.uint(seq)
}

func (d *decoder) forgotten() (NodeID, uint64) { return NodeID(d.text()), d.uint() }

func (e *encoder) request(id RequestID, r requestRecord) {
	e.text(string(id.Node))
	e.uint(id.Seq)
	e.uint(r.Sum)
	e.uint(uint64(r.Count))
	e.text(r.Results)
}

func (d *decoder) request() (RequestID, requestRecord) {
	id := RequestID{Node: NodeID(d.text()), Seq: d.uint()}
	return id, requestRecord{Sum: d.uint(), Count: d.uint32(), Results: d.text()}
}

func (e *encoder) token(k Token) {
	e.text(k.ID)
	e.hash(k.SecretHash)
	e.byte(byte(k.Role))
	e.int(k.Expires)
	e.text(string(k.UsedBy))
	e.hash(k.KeyHash)
	e.bool(k.Revoked)
	e.uint(k.Created)
	e.uint(k.Changed)
}

func (d *decoder) token() Token {
	return Token{
		ID: d.text(), SecretHash: d.hash(), Role: Role(d.byte()), Expires: d.int(),
		UsedBy: NodeID(d.text()), KeyHash: d.hash(), Revoked: d.bool(), Created: d.uint(), Changed: d.uint(),
	}
}
