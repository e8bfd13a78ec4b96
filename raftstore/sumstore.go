package raftstore

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"log/slog"
	"slices"
	"sync"
	"time"

	"github.com/hashicorp/raft"
	raftboltdb "github.com/hashicorp/raft-boltdb/v2"
)

// sumStore is raft-boltdb with what it lacks. The problems that it answers:
//
//   - Neither it nor bbolt has checksums of what they store, and a bit that flips on the
//     disk would be taken for the truth: each entry and each stable value carries the
//     CRC-32C of all that it says, and of the place that it says it in.
//   - A page that has lost its last elements looks like one that never had them, and
//     when the newer meta page is damaged bbolt goes back to the older one: mark says
//     up to where the log and the terms have come.
//   - With a disk that hangs the library waits for ever and says nothing: busy knows
//     how long a write has taken, and failing why writes fail.
//   - The library panics when it cannot store the present term. A full disk is no reason
//     for that: the term is tried again until there is room, which looks like a disk
//     that hangs (see hung).
//
// In a store of the first format entries and values may be without a checksum, until
// upgrade has given them one; from then on one that has none is damage.
//
//   - After a write that failed, bbolt's own notes of which pages are free may be wrong,
//     and a later write panics: the file is opened anew before anything else is done to it.
type sumStore struct {
	open func() (*raftboltdb.BoltStore, error)

	using sync.RWMutex // held for writing while bolt is replaced
	bolt  *raftboltdb.BoltStore

	mark *mark
	old  bool // of the first format
	log  *slog.Logger
	busy busySince

	mu        sync.Mutex // guards the block
	failing   error      // of the last write; nil: it succeeded
	reopening bool
}

var (
	_ raft.LogStore    = (*sumStore)(nil)
	_ raft.StableStore = (*sumStore)(nil)
)

// A checksum is stored behind what it covers, with sumMagic behind it.
const (
	sumMagic = "SUM1"
	sumSize  = 4 + len(sumMagic)
)

// The library's names of the stable values.
const (
	keyCurrentTerm  = "CurrentTerm"
	keyLastVoteTerm = "LastVoteTerm"
	keyLastVoteCand = "LastVoteCand"
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

// Close closes the files. It waits for nothing.
func (s *sumStore) Close() error {
	err := s.bolt.Close()
	if s.mark != nil {
		err = errors.Join(err, s.mark.close())
	}
	return err
}

// FirstIndex implements raft.LogStore.
func (s *sumStore) FirstIndex() (uint64, error) {
	s.using.RLock()
	defer s.using.RUnlock()
	return s.bolt.FirstIndex()
}

// LastIndex implements raft.LogStore.
func (s *sumStore) LastIndex() (uint64, error) {
	s.using.RLock()
	defer s.using.RUnlock()
	return s.bolt.LastIndex()
}

// GetLog implements raft.LogStore. It returns ErrCorrupt for an entry that is not the
// one that was stored at index.
func (s *sumStore) GetLog(index uint64, l *raft.Log) error {
	var got raft.Log
	s.using.RLock()
	err := s.bolt.GetLog(index, &got)
	s.using.RUnlock()
	switch {
	case errors.Is(err, raft.ErrLogNotFound):
		return err
	case err != nil:
		return fmt.Errorf("%w: entry %d: %w", ErrCorrupt, index, err)
	}
	rest, sum, ok := cutSum(got.Extensions)
	switch {
	case ok:
		if got.Extensions = rest; len(rest) == 0 {
			got.Extensions = nil
		}
		if logSum(&got) != sum {
			return fmt.Errorf("%w: checksum of entry %d", ErrCorrupt, index)
		}
	case !s.old:
		return fmt.Errorf("%w: entry %d has no checksum", ErrCorrupt, index)
	}
	if got.Index != index {
		return fmt.Errorf("%w: entry %d is in the place of %d", ErrCorrupt, got.Index, index)
	}
	*l = got
	return nil
}

// StoreLog implements raft.LogStore.
func (s *sumStore) StoreLog(l *raft.Log) error { return s.StoreLogs([]*raft.Log{l}) }

// StoreLogs implements raft.LogStore. The library goes on using the entries meanwhile.
func (s *sumStore) StoreLogs(logs []*raft.Log) error {
	if len(logs) == 0 {
		return nil
	}
	summed := make([]raft.Log, len(logs))
	list := make([]*raft.Log, len(logs))
	for i, l := range logs {
		summed[i] = *l
		summed[i].Extensions = appendSum(slices.Clone(l.Extensions), logSum(l))
		list[i] = &summed[i]
	}
	return s.write(func() error {
		if err := s.bolt.StoreLogs(list); err != nil {
			return err
		}
		return s.mark.reached(logs[len(logs)-1].Index)
	})
}

// DeleteRange implements raft.LogStore.
func (s *sumStore) DeleteRange(low, high uint64) error {
	return s.write(func() error {
		first, err := s.bolt.FirstIndex()
		if err != nil {
			return err
		}
		last, err := s.bolt.LastIndex()
		if err != nil {
			return err
		}
		if high >= last {
			// The log gets shorter: the mark must not say otherwise after a crash. There
			// may be a hole below low, so what is certain to be left is the first entry.
			if low <= first {
				first = 0
			}
			if err := s.mark.lower(first); err != nil {
				return err
			}
		}
		return s.bolt.DeleteRange(low, high)
	})
}

// Set implements raft.StableStore.
func (s *sumStore) Set(key, value []byte) error {
	return s.write(func() error { return s.set(key, value) })
}

func (s *sumStore) set(key, value []byte) error {
	return s.bolt.Set(key, appendSum(slices.Clone(value), valueSum(key, value)))
}

// Get implements raft.StableStore. It returns ErrCorrupt for a value that is not the
// one that was stored. The library knows raft-boltdb's ErrKeyNotFound by its text.
func (s *sumStore) Get(key []byte) ([]byte, error) {
	s.using.RLock()
	b, err := s.bolt.Get(key)
	s.using.RUnlock()
	if err != nil {
		return nil, err
	}
	value, sum, ok := cutSum(b)
	if ok && sum != valueSum(key, value) || !ok && !s.old {
		return nil, fmt.Errorf("%w: checksum of %s", ErrCorrupt, key)
	}
	return value, nil
}

// termRetry is the pause between two attempts to store the present term.
const termRetry = 500 * time.Millisecond

// SetUint64 implements raft.StableStore. It does not return before the present term
// is stored: see sumStore.
func (s *sumStore) SetUint64(key []byte, value uint64) error {
	if string(key) != keyCurrentTerm {
		return s.write(func() error { return s.setNumber(key, value) })
	}
	defer s.busy.start(time.Now())()
	for first := true; ; first = false {
		err := s.try(func() error { return s.setNumber(key, value) })
		if err == nil {
			return nil
		}
		if first {
			s.log.Warn("the disk does not take the raft term, will retry", "term", value, "error", err)
		}
		time.Sleep(termRetry)
	}
}

func (s *sumStore) setNumber(key []byte, value uint64) error {
	if err := s.set(key, binary.BigEndian.AppendUint64(nil, value)); err != nil {
		return err
	}
	switch string(key) {
	case keyCurrentTerm:
		return s.mark.termIs(value)
	case keyLastVoteTerm:
		return s.mark.voteIs(value)
	}
	return nil
}

// GetUint64 implements raft.StableStore.
func (s *sumStore) GetUint64(key []byte) (uint64, error) {
	b, err := s.Get(key)
	if err != nil {
		return 0, err
	}
	if len(b) != 8 {
		return 0, fmt.Errorf("%w: %s has %d bytes", ErrCorrupt, key, len(b))
	}
	return binary.BigEndian.Uint64(b), nil
}

func (s *sumStore) write(fn func() error) error {
	defer s.busy.start(time.Now())()
	return s.try(fn)
}

// try writes, and returns when the file can be used again.
func (s *sumStore) try(fn func() error) error {
	s.using.RLock()
	err := fn()
	s.using.RUnlock()
	s.failed(err)
	if err != nil && s.open != nil {
		s.reopen()
	}
	return err
}

// reopen opens the file anew, as often as it takes. Opening it writes to it: when it
// has succeeded there is room. Until then this node is one whose disk hangs.
func (s *sumStore) reopen() {
	s.setReopening(true)
	defer s.setReopening(false)
	s.using.Lock()
	defer s.using.Unlock()
	if err := s.bolt.Close(); err != nil {
		s.log.Warn("raft log cannot be closed after a failed write", "error", err)
	}
	for first := true; ; first = false {
		bolt, err := s.open()
		if err == nil {
			s.bolt = bolt
			return
		}
		s.failed(err)
		if first {
			s.log.Warn("raft log cannot be opened after a failed write, will retry", "error", err)
		}
		time.Sleep(termRetry)
	}
}

func (s *sumStore) setReopening(on bool) {
	s.mu.Lock()
	s.reopening = on
	s.mu.Unlock()
}

// failed notes how a write has ended.
func (s *sumStore) failed(err error) {
	s.mu.Lock()
	s.failing = err
	s.mu.Unlock()
}

// condition returns how long the oldest write that is under way has taken, and why the
// last one failed.
func (s *sumStore) condition(now time.Time) (busy time.Duration, failing error) {
	s.mu.Lock()
	failing = s.failing
	s.mu.Unlock()
	return s.busy.age(now), failing
}

// hung reports whether the disk has not taken a write for hangAfter, or has refused one
// and takes no other.
func (s *sumStore) hung() bool {
	s.mu.Lock()
	reopening := s.reopening
	s.mu.Unlock()
	return reopening || s.busy.age(time.Now()) >= hangAfter
}

// stable returns a number of the stable store, 0 when it has none.
func (s *sumStore) stable(key string) (uint64, error) {
	v, err := s.GetUint64([]byte(key))
	if errors.Is(err, raftboltdb.ErrKeyNotFound) {
		return 0, nil
	}
	return v, err
}

// verifyMark compares the mark with what there is: the log must not be shorter, the
// terms must not be lower.
func (s *sumStore) verifyMark() error {
	last, err := s.bolt.LastIndex()
	if err != nil {
		return err
	}
	term, err := s.stable(keyCurrentTerm)
	if err != nil {
		return err
	}
	vote, err := s.stable(keyLastVoteTerm)
	if err != nil {
		return err
	}
	if _, err := s.Get([]byte(keyLastVoteCand)); err != nil && !errors.Is(err, raftboltdb.ErrKeyNotFound) {
		return err
	}
	m := s.mark.get()
	if last < m.last || term < m.term || vote < m.vote {
		return fmt.Errorf("%w: the log ends at %d, term %d, vote in %d; it had come to %d, %d, %d",
			ErrCorrupt, last, term, vote, m.last, m.term, m.vote)
	}
	return nil
}

// upgrade gives a store of the first format its checksums and its mark. It may be
// killed and called again.
func (s *sumStore) upgrade(dir string) error {
	first, err := s.bolt.FirstIndex()
	if err != nil {
		return err
	}
	last, err := s.bolt.LastIndex()
	if err != nil {
		return err
	}
	m := marked{last: last}
	if m.term, err = s.stable(keyCurrentTerm); err != nil {
		return err
	}
	if m.vote, err = s.stable(keyLastVoteTerm); err != nil {
		return err
	}
	if s.mark, err = createMark(dir, m); err != nil {
		return err
	}
	for _, key := range []string{keyCurrentTerm, keyLastVoteTerm, keyLastVoteCand} {
		v, err := s.Get([]byte(key))
		if errors.Is(err, raftboltdb.ErrKeyNotFound) {
			continue
		}
		if err == nil {
			err = s.set([]byte(key), v)
		}
		if err != nil {
			return err
		}
	}
	const batch = 512
	for i := first; i > 0 && i <= last; {
		var logs []*raft.Log
		for ; i <= last && len(logs) < batch; i++ {
			var l raft.Log
			err := s.GetLog(i, &l)
			if errors.Is(err, raft.ErrLogNotFound) {
				continue // a hole before a snapshot
			}
			if err != nil {
				return err
			}
			l.Extensions = appendSum(slices.Clone(l.Extensions), logSum(&l))
			logs = append(logs, &l)
		}
		if err := s.bolt.StoreLogs(logs); err != nil {
			return err
		}
	}
	s.old = false
	return nil
}
