package ipam

import (
	"cmp"
	"encoding/binary"
	"net/netip"
)

// Lease is an address that an owner holds, or that still cools after one.
type Lease struct {
	Addr      netip.Addr
	Owner     Owner // of a cooling lease: the last owner
	State     LeaseState
	Subnet    SubnetKey
	Node      NodeID // holder of the subnet
	Static    bool   // the owner asked for this very address
	Hostname  string
	Since     uint64 // Raft index of the last change
	SinceTime int64  // cluster time of the last change, ns
}

// active reports whether the owner still holds the address.
func (s LeaseState) active() bool { return s == Bound || s == Attached }

// leaseKey places a lease. Leases of one subnet are neighbours.
type leaseKey struct {
	Net  uint32 // Network.ID
	Addr uint32 // IPv4
}

func compareLeaseKeys(a, b leaseKey) int {
	if c := cmp.Compare(a.Net, b.Net); c != 0 {
		return c
	}
	return cmp.Compare(a.Addr, b.Addr)
}

// leaseRecord is a lease as the state keeps it: a million of them must be cheap,
// so the texts share one string and what the subnet knows is not repeated.
type leaseRecord struct {
	Text      string // the owner's key (ownerKey), then the hostname
	OwnerLen  uint16 // length of the owner's key
	State     LeaseState
	Static    bool
	Since     uint64
	SinceTime int64
}

func newLeaseRecord(o Owner, hostname string) leaseRecord {
	key := appendOwner(make([]byte, 0, 128), o)
	return leaseRecord{Text: string(append(key, hostname...)), OwnerLen: uint16(len(key))}
}

func (r leaseRecord) ownerKey() string { return r.Text[:r.OwnerLen] }
func (r leaseRecord) hostname() string { return r.Text[r.OwnerLen:] }

// owner returns the lease's owner; a record's key is known to be an encoding.
func (r leaseRecord) owner() Owner {
	o, _ := parseOwner(r.ownerKey())
	return o
}

// appendOwner appends the one encoding of o: kind, creation time, then the texts
// with a length byte before each. Owners are equal exactly if these are.
func appendOwner(b []byte, o Owner) []byte {
	b = append(b, byte(o.Kind))
	b = binary.AppendVarint(b, o.Created)
	for _, s := range [...]string{o.Namespace, o.ID, o.Interface} {
		b = append(b, byte(len(s)))
		b = append(b, s...)
	}
	return b
}

func ownerKey(o Owner) string { return string(appendOwner(make([]byte, 0, 128), o)) }

// parseOwner is the inverse of appendOwner; false when key is not an encoding.
// The texts share key's memory.
func parseOwner(key string) (o Owner, ok bool) {
	if len(key) < 2 {
		return Owner{}, false
	}
	o.Kind = OwnerKind(key[0])
	var head [binary.MaxVarintLen64]byte
	created, n := binary.Varint(head[:copy(head[:], key[1:])])
	if n <= 0 {
		return Owner{}, false
	}
	o.Created = created
	rest := key[1+n:]
	for _, s := range [...]*string{&o.Namespace, &o.ID, &o.Interface} {
		if len(rest) == 0 || len(rest) < 1+int(rest[0]) {
			return Owner{}, false
		}
		l := 1 + int(rest[0])
		*s, rest = rest[1:l], rest[l:]
	}
	return o, rest == ""
}
