package raftstore

import (
	"encoding/binary"
	"hash/crc32"

	"github.com/hashicorp/raft"
)

// A checksum is stored behind what it covers, with sumMagic behind it.
const (
	sumMagic = "SUM1"
	sumSize  = 4 + len(sumMagic)
)

func appendSum(b []byte, sum uint32) []byte {
	return append(binary.BigEndian.AppendUint32(b, sum), sumMagic...)
}

// cutSum returns what stands before a checksum, and the checksum; false: there is none.
func cutSum(b []byte) (rest []byte, sum uint32, ok bool) {
	n := len(b) - sumSize
	if n < 0 || string(b[n+4:]) != sumMagic {
		return b, 0, false
	}
	return b[:n:n], binary.BigEndian.Uint32(b[n:]), true
}

// logSum is the checksum of all that an entry says.
func logSum(l *raft.Log) uint32 {
	b := make([]byte, 0, 64)
	b = binary.BigEndian.AppendUint64(b, l.Index)
	b = binary.BigEndian.AppendUint64(b, l.Term)
	b = append(b, byte(l.Type))
	b = binary.BigEndian.AppendUint64(b, uint64(len(l.Data)))
	b = binary.BigEndian.AppendUint64(b, uint64(len(l.Extensions)))
	if !l.AppendedAt.IsZero() {
		b = binary.BigEndian.AppendUint64(b, uint64(l.AppendedAt.Unix()))
		b = binary.BigEndian.AppendUint32(b, uint32(l.AppendedAt.Nanosecond()))
	}
	sum := crc32.Checksum(b, castagnoli)
	sum = crc32.Update(sum, castagnoli, l.Data)
	return crc32.Update(sum, castagnoli, l.Extensions)
}

func valueSum(key, value []byte) uint32 {
	b := binary.BigEndian.AppendUint64(nil, uint64(len(key)))
	return crc32.Update(crc32.Update(crc32.Checksum(b, castagnoli), castagnoli, key), castagnoli, value)
}
