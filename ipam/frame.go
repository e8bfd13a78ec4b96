package ipam

import (
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"hash"
	"hash/crc32"
	"io"
)

// The form of a snapshot. All numbers are big-endian, all CRCs are CRC-32C.
//
//	header   magic (8) version (4) index (8) crc of these (4)
//	frame    length (4) crc of the length (4) payload crc of the payload (4)
//	…
//	end      a frame of length 0, without payload and its crc
//	trailer  SHA-256 of all the bytes before it (32)
//
// A record never spans two frames, so nothing is decoded that is not verified.
const (
	snapshotMagic   = "STLRIPAM"
	snapshotVersion = 3 // 1 is read too: without tokens, roles, draining and re-claim
	plainVersion    = 2 // written while the cluster has no life: older versions read it
	headerSize      = 24
	frameSize       = 64 << 10 // a frame is closed when it has reached this
	maxFrame        = 1 << 20  // and never grows beyond this
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// frameWriter writes a snapshot and sums what it writes.
type frameWriter struct {
	w   io.Writer
	sum hash.Hash
	n   int64
}

func newFrameWriter(w io.Writer) *frameWriter {
	return &frameWriter{w: w, sum: sha256.New()}
}

func (f *frameWriter) write(b []byte) error {
	n, err := f.w.Write(b)
	f.n += int64(n)
	f.sum.Write(b[:n])
	return err
}

func (f *frameWriter) header(version uint32, index uint64) error {
	b := append(make([]byte, 0, headerSize), snapshotMagic...)
	b = binary.BigEndian.AppendUint32(b, version)
	b = binary.BigEndian.AppendUint64(b, index)
	return f.write(binary.BigEndian.AppendUint32(b, crc32.Checksum(b, castagnoli)))
}

func (f *frameWriter) frame(payload []byte) error {
	if err := f.write(frameHead(len(payload))); err != nil {
		return err
	}
	if err := f.write(payload); err != nil {
		return err
	}
	return f.write(binary.BigEndian.AppendUint32(nil, crc32.Checksum(payload, castagnoli)))
}

// end writes the last frame and the trailer.
func (f *frameWriter) end() error {
	if err := f.write(frameHead(0)); err != nil {
		return err
	}
	return f.write(f.sum.Sum(nil))
}

func frameHead(length int) []byte {
	b := binary.BigEndian.AppendUint32(make([]byte, 0, 8), uint32(length))
	return binary.BigEndian.AppendUint32(b, crc32.Checksum(b, castagnoli))
}

// frameReader reads and verifies what a frameWriter wrote. Its errors wrap
// ErrSnapshotTruncated, -Format, -Version or -Checksum.
type frameReader struct {
	r   io.Reader
	sum hash.Hash
	buf []byte
}

func newFrameReader(r io.Reader) *frameReader {
	return &frameReader{r: r, sum: sha256.New(), buf: make([]byte, frameSize+4<<10)}
}

// read returns the next n bytes, valid until the next call.
func (f *frameReader) read(n int, what string) ([]byte, error) {
	if n > len(f.buf) {
		f.buf = make([]byte, n)
	}
	b := f.buf[:n]
	if _, err := io.ReadFull(f.r, b); err != nil {
		if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
			return nil, fmt.Errorf("%w: in %s", ErrSnapshotTruncated, what)
		}
		return nil, fmt.Errorf("read snapshot: %w", err)
	}
	f.sum.Write(b)
	return b, nil
}

func (f *frameReader) header() (version uint32, index uint64, err error) {
	b, err := f.read(len(snapshotMagic), "header")
	if err != nil {
		return 0, 0, err
	}
	if string(b) != snapshotMagic {
		return 0, 0, ErrSnapshotFormat
	}
	crc := crc32.Checksum(b, castagnoli)
	if b, err = f.read(headerSize-len(snapshotMagic), "header"); err != nil {
		return 0, 0, err
	}
	if crc32.Update(crc, castagnoli, b[:12]) != binary.BigEndian.Uint32(b[12:]) {
		return 0, 0, fmt.Errorf("%w: header", ErrSnapshotChecksum)
	}
	version = binary.BigEndian.Uint32(b)
	if version == 0 || version > snapshotVersion {
		return 0, 0, fmt.Errorf("%w: version %d, known is %d", ErrSnapshotVersion, version, snapshotVersion)
	}
	return version, binary.BigEndian.Uint64(b[4:]), nil
}

// frame returns the next payload, valid until the next call; nil at the end.
func (f *frameReader) frame() ([]byte, error) {
	b, err := f.read(8, "frame header")
	if err != nil {
		return nil, err
	}
	length := binary.BigEndian.Uint32(b)
	if crc32.Checksum(b[:4], castagnoli) != binary.BigEndian.Uint32(b[4:]) || length > maxFrame {
		return nil, fmt.Errorf("%w: frame header", ErrSnapshotChecksum)
	}
	if length == 0 {
		return nil, f.trailer()
	}
	if b, err = f.read(int(length)+4, "frame"); err != nil {
		return nil, err
	}
	payload := b[:length]
	if crc32.Checksum(payload, castagnoli) != binary.BigEndian.Uint32(b[length:]) {
		return nil, fmt.Errorf("%w: frame", ErrSnapshotChecksum)
	}
	return payload, nil
}

func (f *frameReader) trailer() error {
	want := [sha256.Size]byte(f.sum.Sum(nil))
	b, err := f.read(sha256.Size, "trailer")
	if err != nil {
		return err
	}
	if want != [sha256.Size]byte(b) {
		return fmt.Errorf("%w: trailer", ErrSnapshotChecksum)
	}
	if n, err := io.ReadFull(f.r, make([]byte, 1)); n != 0 {
		return fmt.Errorf("%w: data after its end", ErrSnapshotFormat)
	} else if !errors.Is(err, io.EOF) {
		return fmt.Errorf("read snapshot: %w", err)
	}
	return nil
}
