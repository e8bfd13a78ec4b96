package journal

import (
	"fmt"
	"math"
	"net/netip"

	"google.golang.org/protobuf/encoding/protowire"

	"stellar.io/stellar/ipam"
)

// A record is written as a length and its fields in the protobuf wire form. A
// field of zero value is left out. The numbers are part of the file format.
const (
	fieldOp           = 1
	fieldAddr         = 2
	fieldOwnerKind    = 3
	fieldOwnerNS      = 4
	fieldOwnerID      = 5
	fieldOwnerCreated = 6
	fieldOwnerIf      = 7
	fieldStatic       = 8
	fieldHostname     = 9
	fieldNetwork      = 10
	fieldSubnet       = 11
	fieldGeneration   = 12
	fieldCounter      = 13
	fieldSince        = 14
	fieldRequestNode  = 15
	fieldRequestSeq   = 16
	fieldPrefix       = 17
	fieldReason       = 18
	maxRecord         = 64 << 10
	maxAppend         = 16 << 20 // of one Append; also bounds a frame
)

type writer struct{ b []byte }

func (w *writer) num(field protowire.Number, v uint64) {
	if v != 0 {
		w.b = protowire.AppendTag(w.b, field, protowire.VarintType)
		w.b = protowire.AppendVarint(w.b, v)
	}
}

func (w *writer) text(field protowire.Number, s string) {
	if s != "" {
		w.b = protowire.AppendTag(w.b, field, protowire.BytesType)
		w.b = protowire.AppendString(w.b, s)
	}
}

func (w *writer) addr(field protowire.Number, a netip.Addr) {
	b, _ := a.MarshalBinary() // never fails
	w.text(field, string(b))
}

func (w *writer) prefix(field protowire.Number, p netip.Prefix) {
	b, _ := p.MarshalBinary() // never fails
	w.text(field, string(b))
}

// appendRecord appends r with its length. It wraps ErrInvalid.
func appendRecord(b []byte, r Record) ([]byte, error) {
	if err := r.validate(); err != nil {
		return b, err
	}
	w := &writer{b: make([]byte, 0, 256)}
	w.num(fieldOp, uint64(r.Op))
	w.addr(fieldAddr, r.Addr)
	w.num(fieldOwnerKind, uint64(r.Owner.Kind))
	w.text(fieldOwnerNS, r.Owner.Namespace)
	w.text(fieldOwnerID, r.Owner.ID)
	w.num(fieldOwnerCreated, uint64(r.Owner.Created))
	w.text(fieldOwnerIf, r.Owner.Interface)
	w.num(fieldStatic, protowire.EncodeBool(r.Static))
	w.text(fieldHostname, r.Hostname)
	w.text(fieldNetwork, r.Subnet.Network)
	w.prefix(fieldSubnet, r.Subnet.Prefix)
	w.num(fieldGeneration, r.Epoch.Generation)
	w.num(fieldCounter, r.Epoch.Counter)
	w.num(fieldSince, uint64(r.Since))
	w.text(fieldRequestNode, string(r.Request.Node))
	w.num(fieldRequestSeq, r.Request.Seq)
	w.prefix(fieldPrefix, r.Prefix)
	w.text(fieldReason, r.Reason)
	if len(w.b) > maxRecord {
		return b, fmt.Errorf("%w: %d bytes", ErrInvalid, len(w.b))
	}
	return protowire.AppendBytes(b, w.b), nil
}

// decodeRecords is the inverse of a run of appendRecord. What this version does
// not know is ErrVersion: dropping it at the next compaction would lose it.
func decodeRecords(b []byte) ([]Record, error) {
	var out []Record
	for len(b) > 0 {
		v, n := protowire.ConsumeBytes(b)
		if n < 0 {
			return nil, fmt.Errorf("%w: record length", ErrCorrupt)
		}
		r, err := decodeRecord(v)
		if err != nil {
			return nil, err
		}
		out, b = append(out, r), b[n:]
	}
	return out, nil
}

func decodeRecord(b []byte) (Record, error) {
	var r Record
	for len(b) > 0 {
		num, typ, n := protowire.ConsumeTag(b)
		if n < 0 {
			return r, fmt.Errorf("%w: field tag", ErrCorrupt)
		}
		b = b[n:]
		var err error
		switch typ {
		case protowire.VarintType:
			v, m := protowire.ConsumeVarint(b)
			if m < 0 {
				return r, fmt.Errorf("%w: field %d", ErrCorrupt, num)
			}
			b, err = b[m:], r.setNum(num, v)
		case protowire.BytesType:
			v, m := protowire.ConsumeString(b)
			if m < 0 {
				return r, fmt.Errorf("%w: field %d", ErrCorrupt, num)
			}
			b, err = b[m:], r.setText(num, v)
		default:
			err = fmt.Errorf("%w: field %d of type %d", ErrVersion, num, typ)
		}
		if err != nil {
			return r, err
		}
	}
	if r.Op > OpUnreserve {
		return r, fmt.Errorf("%w: operation %d", ErrVersion, r.Op)
	}
	if err := r.validate(); err != nil {
		return r, fmt.Errorf("%w: %w", ErrCorrupt, err)
	}
	return r, nil
}

func (r *Record) setNum(num protowire.Number, v uint64) error {
	switch num {
	case fieldOp, fieldOwnerKind:
		if v > math.MaxUint8 {
			return fmt.Errorf("%w: field %d is %d", ErrVersion, num, v)
		}
		if num == fieldOp {
			r.Op = Op(v)
		} else {
			r.Owner.Kind = ipam.OwnerKind(v)
		}
	case fieldOwnerCreated:
		r.Owner.Created = int64(v)
	case fieldStatic:
		r.Static = protowire.DecodeBool(v)
	case fieldGeneration:
		r.Epoch.Generation = v
	case fieldCounter:
		r.Epoch.Counter = v
	case fieldSince:
		r.Since = int64(v)
	case fieldRequestSeq:
		r.Request.Seq = v
	default:
		return fmt.Errorf("%w: field %d", ErrVersion, num)
	}
	return nil
}

func (r *Record) setText(num protowire.Number, s string) error {
	var err error
	switch num {
	case fieldAddr:
		err = r.Addr.UnmarshalBinary([]byte(s))
	case fieldSubnet:
		err = r.Subnet.Prefix.UnmarshalBinary([]byte(s))
	case fieldPrefix:
		err = r.Prefix.UnmarshalBinary([]byte(s))
	case fieldOwnerNS:
		r.Owner.Namespace = s
	case fieldOwnerID:
		r.Owner.ID = s
	case fieldOwnerIf:
		r.Owner.Interface = s
	case fieldHostname:
		r.Hostname = s
	case fieldNetwork:
		r.Subnet.Network = s
	case fieldRequestNode:
		r.Request.Node = ipam.NodeID(s)
	case fieldReason:
		r.Reason = s
	default:
		return fmt.Errorf("%w: field %d", ErrVersion, num)
	}
	if err != nil {
		return fmt.Errorf("%w: field %d: %w", ErrCorrupt, num, err)
	}
	return nil
}
