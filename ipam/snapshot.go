package ipam

import (
	"crypto/sha256"
	"fmt"
	"io"
)

// Snapshot is the state as it was at one moment. It may be used by any goroutine
// while the state goes on, by one at a time.
type Snapshot struct{ tables tables }

// Snapshot returns the present state in O(1).
func (s *State) Snapshot() *Snapshot {
	return &Snapshot{tables{
		index:        s.index,
		cluster:      s.cluster,
		networks:     s.networks.snapshot(),
		nodes:        s.nodes.snapshot(),
		subnets:      s.subnets.snapshot(),
		reservations: s.reservations.snapshot(),
		leases:       s.leases.snapshot(),
		forgotten:    s.forgotten.snapshot(),
		requests:     s.requests.snapshot(),
		tokens:       s.tokens.snapshot(),
	}}
}

// Index returns the index of the last entry in the snapshot.
func (sn *Snapshot) Index() uint64 { return sn.tables.index }

// WriteTo writes the snapshot in its canonical form: equal states have equal
// bytes. See frame.go and record.go for the form.
func (sn *Snapshot) WriteTo(w io.Writer) (int64, error) {
	f := newFrameWriter(w)
	version := uint32(plainVersion)
	if sn.tables.cluster.Life != 0 {
		version = snapshotVersion
	}
	err := f.header(version, sn.tables.index)
	if err == nil {
		err = sn.tables.encode(f.frame)
	}
	if err == nil {
		err = f.end()
	}
	if err != nil {
		return f.n, fmt.Errorf("write snapshot: %w", err)
	}
	return f.n, nil
}

// Hash returns the SHA-256 of the state's canonical form, without the index of
// the last entry: states that hold the same have the same hash. It reads the
// whole state.
func (s *State) Hash() [32]byte { return s.tables.hash() }

// Hash is State.Hash of the state at the snapshot's moment.
func (sn *Snapshot) Hash() [32]byte { return sn.tables.hash() }

func (t *tables) hash() [32]byte {
	h := sha256.New()
	// Writing to a hash never fails.
	_ = t.encode(func(b []byte) error { h.Write(b); return nil })
	return [32]byte(h.Sum(nil))
}

// encode hands out the records in their canonical order, in pieces of about frameSize.
func (t *tables) encode(piece func([]byte) error) error {
	e := &encoder{buf: make([]byte, 0, frameSize+4<<10)}
	var err error
	// flush ends a record; it reports whether to go on.
	flush := func() bool {
		if len(e.buf) >= frameSize {
			err = piece(e.buf)
			e.buf = e.buf[:0]
		}
		return err == nil
	}
	e.byte(tagCluster)
	e.cluster(t.cluster)
	for _, n := range t.networks.all() {
		e.byte(tagNetwork)
		e.network(n)
		if !flush() {
			return err
		}
	}
	for _, n := range t.nodes.all() {
		e.byte(tagNode)
		e.node(n)
		if !flush() {
			return err
		}
	}
	for _, s := range t.subnets.all() {
		e.byte(tagSubnet)
		e.subnet(s)
		if !flush() {
			return err
		}
	}
	for _, r := range t.reservations.all() {
		e.byte(tagReservation)
		e.reservation(r)
		if !flush() {
			return err
		}
	}
	for k, r := range t.leases.all() {
		e.byte(tagLease)
		e.lease(k, r)
		if !flush() {
			return err
		}
	}
	for id, seq := range t.forgotten.all() {
		e.byte(tagForgotten)
		e.forgotten(id, seq)
		if !flush() {
			return err
		}
	}
	for id, r := range t.requests.all() {
		e.byte(tagRequest)
		e.request(id, r)
		if !flush() {
			return err
		}
	}
	for _, k := range t.tokens.all() {
		e.byte(tagToken)
		e.token(k)
		if !flush() {
			return err
		}
	}
	if len(e.buf) == 0 {
		return nil
	}
	return piece(e.buf)
}
