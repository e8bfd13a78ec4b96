package raftstore

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"

	"stellar.io/stellar/internal/failpoint"
	"stellar.io/stellar/ipam"
)

// The form of a snapshot file. All numbers are big-endian.
//
//	header   magic (8) version (4) cluster id (32) index (8) term (8)
//	         generation (8) size (8) SHA-256 of the payload (32)
//	         CRC-32C of these (4)
//	payload  the state as ipam writes it
const (
	backupMagic   = "STLRBKUP"
	backupVersion = 1
	backupHeader  = 8 + 4 + 32 + 8 + 8 + 8 + 8 + 32 + 4
	maxBackup     = 4 << 30
)

// SnapshotInfo is what a snapshot file says of itself.
type SnapshotInfo struct {
	Format     uint32
	Cluster    string // cluster id
	Index      uint64 // of the last command in it
	Term       uint64 // of the node that made it
	Generation uint64 // of the cluster
	Size       int64  // of the payload
	SHA256     [32]byte
}

// SnapshotSave writes the state of this node: all that was applied here, which is all
// that was acknowledged when LinearizableRead was called before. It needs neither
// leader nor a new entry, and does not hold up Raft.
func (s *Store) SnapshotSave(ctx context.Context, w io.Writer) (SnapshotInfo, error) {
	if err := context.Cause(ctx); err != nil {
		return SnapshotInfo{}, fmt.Errorf("save snapshot: %w", err)
	}
	if err := s.fsm.err(); err != nil {
		return SnapshotInfo{}, fmt.Errorf("save snapshot: %w", err)
	}
	term, ok := s.term()
	if !ok {
		return SnapshotInfo{}, fmt.Errorf("save snapshot: %w", ErrNotStarted)
	}
	info, err := s.writeBackup(w, term)
	if err != nil {
		return info, fmt.Errorf("save snapshot: %w", err)
	}
	return info, nil
}

func (s *Store) writeBackup(w io.Writer, term uint64) (SnapshotInfo, error) {
	if err := failpoint.Err(failpoint.BackupSave); err != nil {
		return SnapshotInfo{}, err
	}
	s.fsm.mu.Lock() // State.Snapshot writes
	sn := s.fsm.state.Snapshot()
	c, ok := s.fsm.state.Cluster()
	s.fsm.mu.Unlock()
	if !ok {
		return SnapshotInfo{}, ipam.ErrNotInitialized
	}
	return writeSnapshotFile(w, sn, c, term)
}

// writeSnapshotFile writes a snapshot of a state whose cluster is c.
func writeSnapshotFile(w io.Writer, sn *ipam.Snapshot, c ipam.Cluster, term uint64) (SnapshotInfo, error) {
	info := SnapshotInfo{
		Format: backupVersion, Cluster: c.ID, Index: sn.Index(), Term: term, Generation: c.Generation,
	}
	sum := sha256.New()
	var err error
	if info.Size, err = sn.WriteTo(sum); err != nil {
		return info, err
	}
	info.SHA256 = [32]byte(sum.Sum(nil))
	if _, err := w.Write(info.header()); err != nil {
		return info, err
	}
	_, err = sn.WriteTo(w)
	return info, err
}

func (i SnapshotInfo) header() []byte {
	b := append(make([]byte, 0, backupHeader), backupMagic...)
	b = binary.BigEndian.AppendUint32(b, i.Format)
	b = append(b, (i.Cluster + string(make([]byte, 32)))[:32]...)
	for _, v := range [...]uint64{i.Index, i.Term, i.Generation, uint64(i.Size)} {
		b = binary.BigEndian.AppendUint64(b, v)
	}
	b = append(b, i.SHA256[:]...)
	return binary.BigEndian.AppendUint32(b, crc32.Checksum(b, castagnoli))
}

// SnapshotInspect reads a whole snapshot file and says what it is. It returns
// ipam.ErrSnapshotTruncated, -Format, -Version (a newer one), -Checksum or -Invalid
// for a file that SnapshotRestore would not take.
func SnapshotInspect(r io.Reader) (SnapshotInfo, error) {
	_, info, err := readBackup(r)
	if err != nil {
		return info, fmt.Errorf("inspect snapshot: %w", err)
	}
	return info, nil
}

// readBackup reads and checks a snapshot file on a state of its own.
func readBackup(r io.Reader) (*ipam.State, SnapshotInfo, error) {
	info, err := readBackupHeader(r)
	if err != nil {
		return nil, info, err
	}
	sum := sha256.New()
	body := io.LimitReader(r, info.Size)
	st, err := ipam.Restore(io.TeeReader(body, sum))
	if err != nil {
		return nil, info, err
	}
	if [32]byte(sum.Sum(nil)) != info.SHA256 {
		return nil, info, fmt.Errorf("%w: payload", ipam.ErrSnapshotChecksum)
	}
	if n, err := io.ReadFull(r, make([]byte, 1)); n != 0 {
		return nil, info, fmt.Errorf("%w: data after its end", ipam.ErrSnapshotFormat)
	} else if !errors.Is(err, io.EOF) {
		return nil, info, fmt.Errorf("read snapshot: %w", err)
	}
	c, ok := st.Cluster()
	if !ok || c.ID != info.Cluster || c.Generation != info.Generation || st.Index() != info.Index {
		return nil, info, fmt.Errorf("%w: header and payload differ", ipam.ErrSnapshotInvalid)
	}
	return st, info, nil
}

func readBackupHeader(r io.Reader) (SnapshotInfo, error) {
	var info SnapshotInfo
	b := make([]byte, backupHeader)
	n, err := io.ReadFull(r, b)
	if n >= len(backupMagic) && string(b[:len(backupMagic)]) != backupMagic {
		return info, ipam.ErrSnapshotFormat
	}
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		return info, fmt.Errorf("%w: in header", ipam.ErrSnapshotTruncated)
	}
	if err != nil {
		return info, fmt.Errorf("read snapshot: %w", err)
	}
	end := backupHeader - 4
	if crc32.Checksum(b[:end], castagnoli) != binary.BigEndian.Uint32(b[end:]) {
		return info, fmt.Errorf("%w: header", ipam.ErrSnapshotChecksum)
	}
	info.Format = binary.BigEndian.Uint32(b[8:])
	if info.Format != backupVersion {
		return info, fmt.Errorf("%w: version %d, known is %d", ipam.ErrSnapshotVersion, info.Format, backupVersion)
	}
	info.Cluster = string(b[12:44])
	info.Index = binary.BigEndian.Uint64(b[44:])
	info.Term = binary.BigEndian.Uint64(b[52:])
	info.Generation = binary.BigEndian.Uint64(b[60:])
	size := binary.BigEndian.Uint64(b[68:])
	copy(info.SHA256[:], b[76:])
	if size > maxBackup {
		return info, fmt.Errorf("%w: %d bytes", ipam.ErrSnapshotInvalid, size)
	}
	info.Size = int64(size)
	return info, nil
}
