package ipam

import (
	"errors"
	"fmt"
	"io"
)

// Restore reads a snapshot to its end and returns the state, verified by its
// checksums and by Check. The error wraps ErrSnapshotTruncated,
// ErrSnapshotFormat, ErrSnapshotVersion, ErrSnapshotChecksum or
// ErrSnapshotInvalid, or is the reader's.
func Restore(r io.Reader) (*State, error) {
	f := newFrameReader(r)
	version, index, err := f.header()
	if err != nil {
		return nil, err
	}
	s := New()
	s.index = index
	l := loader{s: s, version: version}
	for {
		payload, err := f.frame()
		if err != nil {
			return nil, err
		}
		if payload == nil {
			break
		}
		if err := l.load(payload); err != nil {
			return nil, fmt.Errorf("%w: %w", ErrSnapshotInvalid, err)
		}
	}
	if l.tag == 0 {
		return nil, fmt.Errorf("%w: no records", ErrSnapshotInvalid)
	}
	// What Check does, in two steps: rebuild trusts the tables.
	if err := s.tables.check(); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrSnapshotInvalid, err)
	}
	s.rebuild()
	if err := s.checkDerived(); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrSnapshotInvalid, err)
	}
	return s, nil
}

// loader puts records into a state; it demands the canonical order.
type loader struct {
	s       *State
	version uint32 // of the snapshot
	tag     byte   // of the last record
}

func (l *loader) load(payload []byte) error {
	d := &decoder{buf: payload, version: l.version}
	for len(d.buf) > 0 {
		tag := d.byte()
		if tag < l.tag || tag == tagCluster && l.tag == tagCluster || l.tag == 0 && tag != tagCluster {
			return errors.New("tables are out of order")
		}
		l.tag = tag
		if err := l.record(tag, d); err != nil {
			return err
		}
		if d.err != nil {
			return d.err
		}
	}
	return nil
}

func (l *loader) record(tag byte, d *decoder) error {
	s := l.s
	switch tag {
	case tagCluster:
		s.cluster = d.cluster()
		return nil
	case tagNetwork:
		n := d.network()
		return s.networks.add(n.Name, n)
	case tagNode:
		n := d.node()
		return s.nodes.add(n.ID, n)
	case tagSubnet:
		sub := d.subnet()
		sub.Node = l.intern(sub.Node)
		return s.subnets.add(sub.SubnetKey, sub)
	case tagReservation:
		r := d.reservation()
		return s.reservations.add(r.key(), r)
	case tagLease:
		k, r := d.lease()
		return s.leases.add(k, r)
	case tagForgotten:
		id, seq := d.forgotten()
		return s.forgotten.add(l.intern(id), seq)
	case tagRequest:
		id, r := d.request()
		id.Node = l.intern(id.Node)
		return s.requests.add(id, r)
	case tagToken:
		k := d.token()
		return s.tokens.add(k.ID, k)
	}
	return fmt.Errorf("record of unknown kind %d", tag)
}

// intern returns the node's own string for its id, so that it is stored once.
func (l *loader) intern(id NodeID) NodeID {
	if n, ok := l.s.nodes.get(id); ok {
		return n.ID
	}
	return id
}

// add is set for entries that come in order; it refuses any other.
func (t *tree[K, V]) add(k K, v V) error {
	if last, ok := t.last(); ok && t.cmp(last, k) >= 0 {
		return errors.New("records are out of order")
	}
	t.set(k, v)
	return nil
}

// last returns the highest key.
func (t *tree[K, V]) last() (k K, ok bool) {
	for n := t.root; n != nil; {
		k, ok = n.entries[len(n.entries)-1].key, true
		if n.children == nil {
			break
		}
		n = n.children[len(n.children)-1]
	}
	return k, ok
}
