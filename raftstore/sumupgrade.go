package raftstore

import (
	"errors"
	"fmt"
	"slices"

	"github.com/hashicorp/raft"
	raftboltdb "github.com/hashicorp/raft-boltdb/v2"
)

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
