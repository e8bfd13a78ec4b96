package journal

import (
	"crypto/rand"
	"encoding/binary"
	"fmt"
	"hash/crc32"

	"google.golang.org/protobuf/encoding/protowire"

	"stellar.io/stellar/ipam"
)

// The form of the file. Numbers are little-endian, CRCs are CRC-32C.
//
//	header   magic (8) version (4) length (4) payload crc of all of these (4)
//	frame    length (4) crc of nonce, offset, length (4) crc of nonce, offset, payload (4) payload
//	…
//
// A frame holds what one fsync made durable; its payload is a run of records.
// The next frame is written only after that fsync, so behind a torn frame there
// is never a good one. The nonce is random and new with each file, and the offset
// is the frame's place: old blocks of the disk, or texts that look like frames,
// are not taken for any.
const (
	magic        = "STLRJRNL"
	version      = 1
	nonceSize    = 16
	frameHead    = 12
	maxHeader    = 4 << 10
	headerFixed  = 16
	fieldNode    = 1
	fieldCluster = 2
	fieldNonce   = 3
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// Header says whose journal a file is.
type Header struct {
	Node    ipam.NodeID
	Cluster string // cluster id
}

// codec makes and reads the frames of one file.
type codec struct {
	nonce [nonceSize]byte
}

func newCodec() codec {
	var c codec
	rand.Read(c.nonce[:]) // never fails
	return c
}

func (c codec) header(h Header) []byte {
	w := &writer{}
	w.text(fieldNode, string(h.Node))
	w.text(fieldCluster, h.Cluster)
	w.text(fieldNonce, string(c.nonce[:]))
	b := append(make([]byte, 0, headerFixed+len(w.b)+4), magic...)
	b = binary.LittleEndian.AppendUint32(b, version)
	b = binary.LittleEndian.AppendUint32(b, uint32(len(w.b)))
	b = append(b, w.b...)
	return binary.LittleEndian.AppendUint32(b, crc32.Checksum(b, castagnoli))
}

// readHeader returns the header of a file, its codec and where the frames begin.
// The header was complete before the file got its name: whatever is wrong with it
// is damage.
func readHeader(b []byte) (Header, codec, int, error) {
	var h Header
	var c codec
	if len(b) < headerFixed || string(b[:len(magic)]) != magic {
		return h, c, 0, fmt.Errorf("%w: no header", ErrCorrupt)
	}
	if v := binary.LittleEndian.Uint32(b[8:]); v != version {
		return h, c, 0, fmt.Errorf("%w: version %d, known is %d", ErrVersion, v, version)
	}
	n := binary.LittleEndian.Uint32(b[12:])
	if n > maxHeader || len(b) < headerFixed+int(n)+4 {
		return h, c, 0, fmt.Errorf("%w: header length", ErrCorrupt)
	}
	end := headerFixed + int(n)
	if crc32.Checksum(b[:end], castagnoli) != binary.LittleEndian.Uint32(b[end:]) {
		return h, c, 0, fmt.Errorf("%w: header checksum", ErrCorrupt)
	}
	for p := b[headerFixed:end]; len(p) > 0; {
		num, typ, n := protowire.ConsumeTag(p)
		if n < 0 || typ != protowire.BytesType {
			return h, c, 0, fmt.Errorf("%w: header field", ErrVersion)
		}
		v, m := protowire.ConsumeString(p[n:])
		if m < 0 {
			return h, c, 0, fmt.Errorf("%w: header field %d", ErrCorrupt, num)
		}
		switch p = p[n+m:]; num {
		case fieldNode:
			h.Node = ipam.NodeID(v)
		case fieldCluster:
			h.Cluster = v
		case fieldNonce:
			copy(c.nonce[:], v)
		default:
			return h, c, 0, fmt.Errorf("%w: header field %d", ErrVersion, num)
		}
	}
	return h, c, end + 4, nil
}

func (c codec) sum(offset int64, b []byte) uint32 {
	var place [nonceSize + 8]byte
	copy(place[:], c.nonce[:])
	binary.LittleEndian.PutUint64(place[nonceSize:], uint64(offset))
	return crc32.Update(crc32.Checksum(place[:], castagnoli), castagnoli, b)
}

// frame completes a frame that stands at offset in the file. b begins with
// frameHead bytes of room for its head.
func (c codec) frame(offset int64, b []byte) {
	payload := b[frameHead:]
	binary.LittleEndian.PutUint32(b, uint32(len(payload)))
	binary.LittleEndian.PutUint32(b[4:], c.sum(offset, b[:4]))
	binary.LittleEndian.PutUint32(b[8:], c.sum(offset, payload))
}

// payload returns the payload of the frame at offset in the file, false if there
// is no good one.
func (c codec) payload(file []byte, offset int) ([]byte, bool) {
	if len(file)-offset < frameHead {
		return nil, false
	}
	head := file[offset:]
	n := binary.LittleEndian.Uint32(head)
	if n == 0 || int64(n) > int64(len(head)-frameHead) ||
		c.sum(int64(offset), head[:4]) != binary.LittleEndian.Uint32(head[4:]) {
		return nil, false
	}
	p := head[frameHead : frameHead+int(n)]
	return p, c.sum(int64(offset), p) == binary.LittleEndian.Uint32(head[8:])
}

// scan reads the frames from offset on and hands out their records. It returns
// the end of the last good frame: what follows is a torn write. A bad frame with
// a good one anywhere behind it is ErrCorrupt.
func (c codec) scan(file []byte, offset int, each func(Record)) (end int, err error) {
	for offset < len(file) {
		p, ok := c.payload(file, offset)
		if !ok {
			for next := offset + 1; next < len(file)-frameHead; next++ {
				if _, ok := c.payload(file, next); ok {
					return offset, fmt.Errorf("%w: bad frame at byte %d, a good one at %d", ErrCorrupt, offset, next)
				}
			}
			return offset, nil
		}
		records, err := decodeRecords(p)
		if err != nil {
			return offset, fmt.Errorf("frame at byte %d: %w", offset, err)
		}
		for _, r := range records {
			each(r)
		}
		offset += frameHead + len(p)
	}
	return offset, nil
}
