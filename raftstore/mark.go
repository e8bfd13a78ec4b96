package raftstore

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"sync"
)

// marked is how far a store has come. What is found in it must not be less.
type marked struct {
	seq  uint64 // of the mark's writes
	last uint64 // index of the last entry
	term uint64 // the present term
	vote uint64 // the term of the last vote
}

// mark is the file that says so. It is written after what it speaks of, and not made
// durable each time, for that would cost a commit a second fsync: after a loss of power
// it may say less than there is, never more. Its two slots, a page apart, are written
// in turn: at least one is whole at any moment.
//
//	slot   magic (8) sequence (8) last (8) term (8) vote (8) crc of all of these (4)
type mark struct {
	mu   sync.Mutex // guards the block
	file *os.File
	now  marked
}

const (
	markFile  = "mark"
	markMagic = "STLRMARK"
	markSize  = 8 + 4*8 + 4
	markSlot  = 4096
)

func (m marked) encode() []byte {
	b := append(make([]byte, 0, markSize), markMagic...)
	for _, v := range []uint64{m.seq, m.last, m.term, m.vote} {
		b = binary.BigEndian.AppendUint64(b, v)
	}
	return binary.BigEndian.AppendUint32(b, crc32.Checksum(b, castagnoli))
}

func decodeMark(b []byte) (m marked, ok bool) {
	n := markSize - 4
	if len(b) < markSize || string(b[:8]) != markMagic || crc32.Checksum(b[:n], castagnoli) != binary.BigEndian.Uint32(b[n:]) {
		return m, false
	}
	return marked{
		seq: binary.BigEndian.Uint64(b[8:]), last: binary.BigEndian.Uint64(b[16:]),
		term: binary.BigEndian.Uint64(b[24:]), vote: binary.BigEndian.Uint64(b[32:]),
	}, true
}

// createMark makes the file, durably, in place of any that is there. Both slots have
// their place on the disk from then on: a full one does not matter to them.
func createMark(dir string, m marked) (*mark, error) {
	f, err := os.OpenFile(filepath.Join(dir, markFile), os.O_RDWR|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return nil, err
	}
	k := &mark{file: f}
	for range 2 {
		if err := k.put(m); err != nil {
			return nil, errors.Join(err, f.Close())
		}
	}
	if err := errors.Join(f.Sync(), syncDir(dir)); err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return k, nil
}

// openMark reads the file. It returns ErrCorrupt when neither slot is whole.
func openMark(dir string) (*mark, error) {
	path := filepath.Join(dir, markFile)
	f, err := os.OpenFile(path, os.O_RDWR, 0o600)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("%w: %w", ErrCorrupt, err)
	}
	if err != nil {
		return nil, err
	}
	k := &mark{file: f}
	found := false
	for slot := range int64(2) {
		var b [markSize]byte
		if _, err := f.ReadAt(b[:], slot*markSlot); err != nil && !errors.Is(err, io.EOF) {
			return nil, errors.Join(err, f.Close())
		}
		if m, ok := decodeMark(b[:]); ok && (!found || m.seq > k.now.seq) {
			k.now, found = m, true
		}
	}
	if !found {
		return nil, errors.Join(fmt.Errorf("%s: %w: neither slot is whole", path, ErrCorrupt), f.Close())
	}
	return k, nil
}

// put writes m into the older slot. The caller holds mu, or is alone.
func (k *mark) put(m marked) error {
	m.seq = k.now.seq + 1
	if _, err := k.file.WriteAt(m.encode(), int64(m.seq%2)*markSlot); err != nil {
		return err
	}
	k.now = m
	return nil
}

func (k *mark) change(fn func(*marked)) error {
	k.mu.Lock()
	defer k.mu.Unlock()
	m := k.now
	if fn(&m); m == k.now {
		return nil
	}
	return k.put(m)
}

func (k *mark) reached(last uint64) error { return k.change(func(m *marked) { m.last = last }) }
func (k *mark) termIs(term uint64) error  { return k.change(func(m *marked) { m.term = term }) }
func (k *mark) voteIs(term uint64) error  { return k.change(func(m *marked) { m.vote = term }) }

// lower makes durable that the log may end at last from now on.
func (k *mark) lower(last uint64) error {
	k.mu.Lock()
	defer k.mu.Unlock()
	if last >= k.now.last {
		return nil
	}
	m := k.now
	m.last = last
	if err := k.put(m); err != nil {
		return err
	}
	return k.file.Sync()
}

func (k *mark) get() marked {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.now
}

func (k *mark) close() error { return k.file.Close() }
