package raftstore

import (
	"errors"
	"strconv"
	"sync/atomic"

	"github.com/hashicorp/raft"

	"stellar.io/stellar/internal/failpoint"
)

// logStore is the log as the library sees it. The problems that it answers:
//
//   - A follower that was given a snapshot has no entry at its index, and refuses
//     entries that follow on that index when it has others after it (an answer that
//     was lost, a restart). The leader then goes back and sends the snapshot again,
//     for ever (hashicorp/raft#205, #697): standIn is that entry.
//   - Below such a snapshot the follower keeps entries that may never have been
//     committed, and as a leader would pass them on: forget removes them.
//   - The library panics when it cannot read an entry that it is about to apply. The
//     damage stops the state first, and what the library gets for such an entry is
//     neither applied nor sent.
type logStore struct {
	raft.LogStore
	raft    atomic.Pointer[raft.Raft] // nil until the library has been started
	damaged func(error)               // stops the state; nil before the start
}

// StoreLog implements raft.LogStore.
func (s *logStore) StoreLog(l *raft.Log) error { return s.StoreLogs([]*raft.Log{l}) }

// StoreLogs implements raft.LogStore.
func (s *logStore) StoreLogs(l []*raft.Log) error {
	failpoint.Hit(failpoint.RaftLog)
	err := s.LogStore.StoreLogs(l)
	failpoint.Hit(failpoint.RaftLogged)
	return err
}

// GetLog implements raft.LogStore.
func (s *logStore) GetLog(index uint64, l *raft.Log) error {
	err := s.LogStore.GetLog(index, l)
	switch {
	case errors.Is(err, raft.ErrLogNotFound) && s.standIn(index, l):
		return nil
	case errors.Is(err, ErrCorrupt) && s.damaged != nil:
		s.damaged(err)
		if r := s.raft.Load(); r != nil && index > r.AppliedIndex() && index <= r.CommitIndex() {
			*l = raft.Log{Index: index, Term: r.CurrentTerm(), Type: raft.LogNoop, Extensions: []byte(standInMark)}
			return nil
		}
	}
	return err
}

// standInMark is in the entry that stands for a snapshot. It is never stored, and
// never sent: what was at its index may have been a command.
const standInMark = "snapshot"

// standIn fills in the entry at the last snapshot's index for a node that does not
// lead. Its term is the snapshot's, and that is all a follower compares.
func (s *logStore) standIn(index uint64, l *raft.Log) bool {
	r := s.raft.Load()
	if r == nil || r.State() == raft.Leader {
		return false
	}
	at, term := lastSnapshot(r)
	if at != index {
		return false
	}
	*l = raft.Log{Index: index, Term: term, Type: raft.LogNoop, Extensions: []byte(standInMark)}
	return true
}

var errStandIn = errors.New("log entry is only known from a snapshot")

// sendable returns errStandIn for entries that must not be sent: the library may
// still be sending when this node has just ceased to lead.
func sendable(entries []*raft.Log) error {
	for _, l := range entries {
		if string(l.Extensions) == standInMark {
			return errStandIn
		}
	}
	return nil
}

func lastSnapshot(r *raft.Raft) (index, term uint64) {
	st := r.Stats()
	index, _ = strconv.ParseUint(st["last_snapshot_index"], 10, 64)
	term, _ = strconv.ParseUint(st["last_snapshot_term"], 10, 64)
	return index, term
}

// forget removes the entries up to a snapshot that the log does not lead to: it has no
// entry at the snapshot's index, or another one. An entry that is the same there, and
// with it all before it, is what the cluster has committed, and stays.
func forget(log raft.LogStore, index, term uint64) error {
	first, err := log.FirstIndex()
	if err != nil || first == 0 || first > index {
		return err
	}
	var l raft.Log
	err = log.GetLog(index, &l)
	if err == nil && l.Term == term || err != nil && !errors.Is(err, raft.ErrLogNotFound) {
		return err
	}
	return log.DeleteRange(first, index)
}
