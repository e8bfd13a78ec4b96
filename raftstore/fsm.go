package raftstore

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"sync"

	"github.com/hashicorp/raft"

	"stellar.io/stellar/ipam"
)

// Every entry carries the CRC-32C of its data beside it (raft.Log.Extensions):
// neither the library nor bbolt would notice a bit that flipped on the disk.
var castagnoli = crc32.MakeTable(crc32.Castagnoli)

func newEntry(data []byte) raft.Log {
	return raft.Log{
		Type: raft.LogCommand, Data: data,
		Extensions: binary.BigEndian.AppendUint32(nil, crc32.Checksum(data, castagnoli)),
	}
}

// checkEntry returns ErrCorrupt when the data is not what was proposed.
func checkEntry(l *raft.Log) error {
	if len(l.Extensions) != 4 || binary.BigEndian.Uint32(l.Extensions) != crc32.Checksum(l.Data, castagnoli) {
		return fmt.Errorf("%w: checksum of entry %d", ErrCorrupt, l.Index)
	}
	return nil
}

// fsm is the library's view of ipam.State. The library calls Apply, Snapshot and
// Restore one at a time.
type fsm struct {
	onApply func(uint64, []ipam.Delta)

	mu      sync.RWMutex // guards the block
	state   *ipam.State
	changed chan struct{} // closed and replaced when the state has changed
	failed  error         // why nothing is applied any more

	stopped chan struct{} // closed when failed is set
}

var (
	_ raft.FSM                = (*fsm)(nil)
	_ raft.ConfigurationStore = (*fsm)(nil)
)

func newFSM(onApply func(uint64, []ipam.Delta)) *fsm {
	if onApply == nil {
		onApply = func(uint64, []ipam.Delta) {}
	}
	return &fsm{
		onApply: onApply, state: ipam.New(),
		changed: make(chan struct{}), stopped: make(chan struct{}),
	}
}

// applied is what Apply answers to the proposer.
type applied struct {
	results []ipam.Result
	err     error // ErrStopped: the entry was not applied
}

// Apply applies a committed entry. The first that cannot be applied stops the
// state for good: no later entry is applied either.
func (f *fsm) Apply(l *raft.Log) any {
	f.mu.Lock()
	if f.failed != nil {
		defer f.mu.Unlock()
		return applied{err: f.failed}
	}
	out, err := apply(f.state, l)
	if err != nil {
		defer f.mu.Unlock()
		f.failed = fmt.Errorf("%w: %w", ErrStopped, err)
		close(f.stopped)
		f.wake()
		return applied{err: f.failed}
	}
	if len(out.Deltas) > 0 {
		f.wake()
	}
	f.mu.Unlock()
	if len(out.Deltas) > 0 {
		f.onApply(l.Index, out.Deltas)
	}
	return applied{results: out.Results}
}

// apply turns a panic into an error: it would come again with every start.
func apply(s *ipam.State, l *raft.Log) (out ipam.Outcome, err error) {
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("entry %d: panic: %v", l.Index, p)
		}
	}()
	if err := checkEntry(l); err != nil {
		return out, err
	}
	return s.Apply(l.Index, l.Data)
}

// wake tells the watchers. The caller holds f.mu.
func (f *fsm) wake() {
	close(f.changed)
	f.changed = make(chan struct{})
}

// StoreConfiguration lets the library count configuration entries as applied;
// without it a membership change blocks snapshots until the next command.
func (f *fsm) StoreConfiguration(uint64, raft.Configuration) {}

// Snapshot takes O(1). It fails once the state has stopped: the snapshot would
// claim entries that were not applied.
func (f *fsm) Snapshot() (raft.FSMSnapshot, error) {
	f.mu.RLock()
	defer f.mu.RUnlock()
	if f.failed != nil {
		return nil, f.failed
	}
	return &snapshot{f.state.Snapshot()}, nil
}

// Restore replaces the state by the snapshot's, whole or not at all.
func (f *fsm) Restore(r io.ReadCloser) error {
	state, err := ipam.Restore(r)
	if err = errors.Join(err, r.Close()); err != nil {
		return fmt.Errorf("restore snapshot: %w", err)
	}
	f.mu.Lock()
	f.state = state
	f.wake()
	f.mu.Unlock()
	f.onApply(state.Index(), nil)
	return nil
}

// view calls fn with the state and returns the channel that is closed at its next change.
func (f *fsm) view(fn func(*ipam.State)) <-chan struct{} {
	f.mu.RLock()
	defer f.mu.RUnlock()
	fn(f.state)
	return f.changed
}

func (f *fsm) err() error {
	f.mu.RLock()
	defer f.mu.RUnlock()
	return f.failed
}

// snapshot is the state as it was when it was taken.
type snapshot struct{ s *ipam.Snapshot }

// Persist writes the snapshot. Its first error is what it returns: the library
// deletes log entries when it sees none. The library cancels or closes the sink.
func (s *snapshot) Persist(sink raft.SnapshotSink) error {
	_, err := s.s.WriteTo(sink)
	return err
}

// Release implements raft.FSMSnapshot.
func (s *snapshot) Release() {}
