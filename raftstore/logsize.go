package raftstore

import (
	"context"
	"sync/atomic"
	"time"

	"github.com/hashicorp/raft"
)

// The library bounds its log by the number of entries, and looks at it every few
// minutes. An entry may hold one lease or hundreds, a few bytes or half a megabyte, and
// hundreds may come in a second: so the log is bounded by its size as well.

const (
	sizeLook = time.Second // between two looks at the size
	// entryCost is what an entry takes besides its data.
	entryCost = 128
	// leastTrailing is how many entries stay at least for followers that are behind.
	leastTrailing = 128
)

// written counts what was appended to the log since the start.
type written struct{ bytes, entries atomic.Uint64 }

func (w *written) add(logs []*raft.Log) {
	n := 0
	for _, l := range logs {
		n += len(l.Data) + entryCost
	}
	w.bytes.Add(uint64(n))
	w.entries.Add(uint64(len(logs)))
}

// boundLog takes a snapshot when more has been appended since the last one than the log
// may have, and lets fewer entries stay when they are large.
func (s *Store) boundLog(ctx context.Context, r *raft.Raft) {
	t := time.NewTicker(min(sizeLook, s.cfg.SnapshotInterval))
	defer t.Stop()
	var last, bytes, entries uint64 // the last snapshot, and what had been written by then
	for {
		select {
		case <-t.C:
		case <-ctx.Done():
			return
		}
		w := &s.files.bolt.written
		if at, _ := lastSnapshot(r); at != last {
			last, bytes, entries = at, w.bytes.Load(), w.entries.Load()
		}
		grown, more := w.bytes.Load()-bytes, w.entries.Load()-entries
		if grown < s.cfg.LogBytes || grown < 2*s.snapshotSize() {
			continue
		}
		s.keepTrailing(r, min(s.cfg.TrailingLogs, max(leastTrailing, s.cfg.LogBytes/(grown/more))))
		if err := snapshotNow(ctx, r); err != nil {
			s.cfg.Logger.Debug("the log is large, and no snapshot could be taken", "bytes", grown, "error", err)
		}
		// The library's next snapshots are for small entries again.
		s.keepTrailing(r, s.cfg.TrailingLogs)
		last, _ = lastSnapshot(r)
		bytes, entries = w.bytes.Load(), w.entries.Load()
	}
}

// snapshotNow takes a snapshot. It does not wait for a disk that hangs when ctx ends.
func snapshotNow(ctx context.Context, r *raft.Raft) error {
	done := make(chan error, 1)
	go func() { done <- r.Snapshot().Error() }()
	select {
	case err := <-done:
		return err
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// keepTrailing says how many entries the next snapshot leaves in the log.
func (s *Store) keepTrailing(r *raft.Raft, entries uint64) {
	rc := r.ReloadableConfig()
	if rc.TrailingLogs == entries {
		return
	}
	rc.TrailingLogs = entries
	if err := r.ReloadConfig(rc); err != nil {
		s.cfg.Logger.Debug("the log keeps its length", "entries", entries, "error", err)
	}
}

// snapshotSize returns the size of the last snapshot, 0 if there is none: writing one
// for less of the log than that would cost more than it saves.
func (s *Store) snapshotSize() uint64 {
	list, err := s.files.snapshots.List()
	if err != nil || len(list) == 0 {
		return 0
	}
	return uint64(list[0].Size)
}
