package raftstore

import (
	"encoding/binary"
	"errors"
	"fmt"
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
//   - After a write that failed, bbolt's own notes of which pages are free may be wrong,
//     and a later write panics: the file is opened anew before anything else is done to it.
//
// In a store of the first format entries and values may be without a checksum, until
// upgrade has given them one; from then on one that has none is damage.
type sumStore struct {
	open func() (*raftboltdb.BoltStore, error)

	using sync.RWMutex // held for writing while bolt is replaced
	bolt  *raftboltdb.BoltStore

	mark *mark
	old  bool // of the first format
	log  *slog.Logger
	busy busySince

	written written

	mu        sync.Mutex // guards the block
	failing   error      // of the last write; nil: it succeeded
	reopening bool
}

var (
	_ raft.LogStore    = (*sumStore)(nil)
	_ raft.StableStore = (*sumStore)(nil)
)

// The library's names of the stable values.
const (
	keyCurrentTerm  = "CurrentTerm"
	keyLastVoteTerm = "LastVoteTerm"
	keyLastVoteCand = "LastVoteCand"
)

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
		s.written.add(logs)
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
