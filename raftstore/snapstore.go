package raftstore

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"

	"github.com/hashicorp/raft"

	"stellar.io/stellar/internal/failpoint"
)

// snapshotStore is the library's. It remembers what it was given last, and covers by a
// checksum what the library leaves without one: what a snapshot says of itself (its
// index, its term, the members). That stands once more before the state, in the file
// whose checksum the library keeps; nobody else gets to see it.
//
//	head   magic (8) length (4) what it says of itself, JSON, crc of all of these (4)
//
// It also makes the names of a snapshot's files durable, which the library leaves to the
// file system: after a loss of power the log would be gone that the snapshot stands for,
// and the snapshot empty.
type snapshotStore struct {
	raft.SnapshotStore
	dir  string // the snapshots'
	last atomic.Pointer[snapshotAt]
}

type snapshotAt struct{ index, term uint64 }

const (
	snapMagic   = "STLRSNAP"
	maxSnapHead = 16 << 20
)

// snapHead is what a snapshot says of itself.
type snapHead struct {
	Version            raft.SnapshotVersion
	Index              uint64
	Term               uint64
	Configuration      raft.Configuration
	ConfigurationIndex uint64
}

func headOf(m *raft.SnapshotMeta) snapHead {
	return snapHead{m.Version, m.Index, m.Term, m.Configuration, m.ConfigurationIndex}
}

func (h snapHead) encode() ([]byte, error) {
	text, err := json.Marshal(h)
	if err != nil {
		return nil, err
	}
	b := binary.BigEndian.AppendUint32([]byte(snapMagic), uint32(len(text)))
	b = append(b, text...)
	return binary.BigEndian.AppendUint32(b, crc32.Checksum(b, castagnoli)), nil
}

// Create implements raft.SnapshotStore.
func (s *snapshotStore) Create(version raft.SnapshotVersion, index, term uint64, config raft.Configuration, configIndex uint64, trans raft.Transport) (raft.SnapshotSink, error) {
	head, err := snapHead{version, index, term, config, configIndex}.encode()
	if err != nil {
		return nil, err
	}
	sink, err := s.SnapshotStore.Create(version, index, term, config, configIndex, trans)
	if err != nil {
		return nil, err
	}
	if _, err := sink.Write(head); err != nil {
		return nil, errors.Join(err, sink.Cancel())
	}
	return &snapshotSink{sink, s, snapshotAt{index, term}}, nil
}

// Open implements raft.SnapshotStore. It returns ErrCorrupt when the snapshot is
// damaged. One of the first format has no head.
func (s *snapshotStore) Open(id string) (*raft.SnapshotMeta, io.ReadCloser, error) {
	meta, file, err := s.SnapshotStore.Open(id)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil, err
	}
	if err != nil {
		return nil, nil, fmt.Errorf("%w: snapshot %s: %w", ErrCorrupt, id, err)
	}
	b := bufio.NewReader(file)
	size, err := readHead(b, meta)
	if err != nil {
		return nil, nil, errors.Join(fmt.Errorf("%w: snapshot %s: %w", ErrCorrupt, id, err), file.Close())
	}
	m := *meta
	m.Size -= size
	return &m, struct {
		io.Reader
		io.Closer
	}{b, file}, nil
}

// readHead reads the head and compares it; it returns its size.
func readHead(b *bufio.Reader, meta *raft.SnapshotMeta) (int64, error) {
	start, err := b.Peek(len(snapMagic) + 4)
	if err != nil || string(start[:len(snapMagic)]) != snapMagic {
		return 0, nil // of the first format; a state is longer
	}
	n := int64(binary.BigEndian.Uint32(start[len(snapMagic):]))
	if n > maxSnapHead {
		return 0, fmt.Errorf("head of %d bytes", n)
	}
	head := make([]byte, int64(len(start))+n+4)
	if _, err := io.ReadFull(b, head); err != nil {
		return 0, err
	}
	want, err := headOf(meta).encode()
	if err != nil {
		return 0, err
	}
	if !bytes.Equal(head, want) {
		return 0, errors.New("it says of itself what it did not say when it was taken")
	}
	return int64(len(head)), nil
}

type snapshotSink struct {
	raft.SnapshotSink
	store *snapshotStore
	at    snapshotAt
}

// Close implements raft.SnapshotSink. The names come first: the library renames the
// directory, and removes from the log what the snapshot holds once this has returned.
func (s *snapshotSink) Close() error {
	if err := syncDir(filepath.Join(s.store.dir, s.ID()+".tmp")); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return errors.Join(err, s.Cancel())
	}
	if err := s.SnapshotSink.Close(); err != nil {
		return err
	}
	failpoint.Hit(failpoint.SnapshotNamed)
	// The library takes one snapshot and is given another at the same time: the one
	// with the higher index is the one that was given.
	for {
		old := s.store.last.Load()
		if old != nil && old.index >= s.at.index || s.store.last.CompareAndSwap(old, &s.at) {
			return nil
		}
	}
}

// examine reads all snapshots in dir, also those that the library would remove next. It
// returns the index of the newest that is whole, 0 if none is, and the names of those
// that are not.
func (s *snapshotStore) examine(dir string) (newest uint64, damaged []string, err error) {
	list, err := os.ReadDir(filepath.Join(dir, snapshotDir))
	if err != nil {
		return 0, nil, err
	}
	for _, e := range list {
		if !e.IsDir() || strings.HasSuffix(e.Name(), ".tmp") {
			continue
		}
		meta, file, err := s.Open(e.Name())
		if err == nil {
			err = file.Close()
		}
		// The library goes by the name in the file, which may be what is damaged.
		if err != nil || meta.ID != e.Name() {
			damaged = append(damaged, e.Name())
			continue
		}
		newest = max(newest, meta.Index)
	}
	return newest, damaged, nil
}

// damagedDir holds snapshots that could not be read, out of the library's sight.
const damagedDir = "damaged"

// setAside moves a snapshot where the library does not look.
func setAside(dir, name string) error {
	to := filepath.Join(dir, damagedDir)
	if err := os.MkdirAll(to, 0o700); err != nil {
		return err
	}
	if err := os.Rename(filepath.Join(dir, snapshotDir, name), filepath.Join(to, name)); err != nil {
		return err
	}
	return errors.Join(syncDir(to), syncDir(filepath.Join(dir, snapshotDir)))
}
