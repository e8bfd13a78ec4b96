package raftstore

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"sync"

	"github.com/hashicorp/raft"

	"stellar.io/stellar/internal/failpoint"
	"stellar.io/stellar/ipam"
)

// Every entry carries the CRC-32C of its data beside it (raft.Log.Extensions):
// neither the library nor bbolt would notice a bit that flipped on the disk. A
// forwarded one also carries its proposal's tag, by which the node that waits for it
// knows it again; the CRC covers both.
var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// tag names a forwarded proposal: random for each open store, then counted.
type tag [16]byte

func newEntry(data []byte) raft.Log { return taggedEntry(data, nil) }

func taggedEntry(data, tag []byte) raft.Log {
	return raft.Log{
		Type: raft.LogCommand, Data: data,
		Extensions: append(binary.BigEndian.AppendUint32(nil, entrySum(data, tag)), tag...),
	}
}

func entrySum(data, tag []byte) uint32 {
	return crc32.Update(crc32.Checksum(data, castagnoli), castagnoli, tag)
}

// checkEntry returns ErrCorrupt when the data is not what was proposed.
func checkEntry(l *raft.Log) error {
	e := l.Extensions
	if n := len(e); n != 4 && n != 4+len(tag{}) || binary.BigEndian.Uint32(e) != entrySum(l.Data, e[4:]) {
		return fmt.Errorf("%w: checksum of entry %d", ErrCorrupt, l.Index)
	}
	return nil
}

// entryTag returns the tag of an entry that checkEntry has passed.
func entryTag(l *raft.Log) (t tag, ok bool) {
	return t, copy(t[:], l.Extensions[4:]) == len(t)
}

// fsm is the library's view of ipam.State. The library calls Apply, Snapshot,
// Restore and StoreConfiguration one at a time.
type fsm struct {
	onApply func(uint64, []ipam.Delta)
	// hint is called after an entry that all nodes should hear of. It must not block.
	hint func(index, term uint64)
	// restored is called when a snapshot that the library was given has been restored.
	restored func() error

	// ring is what followers are told of; nil: nobody can follow this node.
	ring *ring

	telling sync.Mutex // serialises onApply; taken before mu

	mu      sync.RWMutex // guards the block
	state   *ipam.State
	ahead   *ipam.State   // the leader's, while state is behind it; else nil
	changed chan struct{} // closed and replaced when what view shows has changed
	failed  error         // why nothing is applied any more
	config  uint64        // index of the last configuration entry seen
	waiters []waiter
	pending map[tag]chan<- applied // forwarded proposals of this node

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
		onApply: onApply, hint: func(uint64, uint64) {}, restored: func() error { return nil }, state: ipam.New(),
		changed: make(chan struct{}), pending: make(map[tag]chan<- applied), stopped: make(chan struct{}),
	}
}

// applied is what Apply answers to the proposer.
type applied struct {
	index   uint64
	results []ipam.Result
	err     error // ErrStopped: the entry was not applied
}

// Apply applies a committed entry. The first that cannot be applied stops the
// state for good: no later entry is applied either.
func (f *fsm) Apply(l *raft.Log) any {
	f.telling.Lock()
	defer f.telling.Unlock()
	f.mu.Lock()
	if f.failed != nil {
		defer f.mu.Unlock()
		return applied{err: f.failed}
	}
	f.passing(l.Index)
	failpoint.Hit(failpoint.RaftApply)
	prev := f.state.Index()
	out, err := apply(f.state, l)
	failpoint.Hit(failpoint.RaftApplied)
	if err != nil {
		defer f.mu.Unlock()
		f.halt(err)
		return applied{err: f.failed}
	}
	a := applied{index: l.Index, results: out.Results}
	if t, ok := entryTag(l); ok {
		f.answer(t, a)
	}
	f.release()
	all := wide(out.Deltas)
	if f.ring != nil {
		f.ring.add(prev, l, all)
	}
	shown := f.overtake() && len(out.Deltas) > 0
	if shown {
		f.wake()
	}
	f.mu.Unlock()
	if all {
		f.hint(l.Index, l.Term)
	}
	if shown {
		f.onApply(l.Index, out.Deltas)
	}
	return a
}

// stop stops the state for good, for a reason other than an entry. It does nothing to
// one that has stopped.
func (f *fsm) stop(err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.failed == nil {
		f.halt(err)
	}
}

// halt is stop. The caller holds f.mu, and has seen that the state has not stopped.
func (f *fsm) halt(err error) {
	f.failed = fmt.Errorf("%w: %w", ErrStopped, err)
	close(f.stopped)
	f.release()
	f.wake()
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
func (f *fsm) StoreConfiguration(index uint64, _ raft.Configuration) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.config = max(f.config, index)
}

// configAt returns the index of the last configuration entry seen since the start.
func (f *fsm) configAt() uint64 {
	f.mu.RLock()
	defer f.mu.RUnlock()
	return f.config
}

// Snapshot takes O(1). It fails once the state has stopped: the snapshot would
// claim entries that were not applied.
func (f *fsm) Snapshot() (raft.FSMSnapshot, error) {
	f.mu.Lock() // State.Snapshot writes
	defer f.mu.Unlock()
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
	failpoint.Hit(failpoint.SnapshotRead)
	if err := f.restored(); err != nil {
		return fmt.Errorf("restore snapshot: %w", err)
	}
	f.replace(state)
	return nil
}

// replace puts another state in place of this one.
func (f *fsm) replace(state *ipam.State) {
	f.telling.Lock()
	defer f.telling.Unlock()
	f.mu.Lock()
	f.skipping(state.Index())
	f.state = state
	if f.ring != nil {
		f.ring.reset(state.Index())
	}
	f.release()
	shown := f.overtake()
	if shown {
		f.wake()
	}
	f.mu.Unlock()
	failpoint.Hit(failpoint.SnapshotRestored)
	if shown {
		f.onApply(state.Index(), nil)
	}
}

// view calls fn with the state and returns the channel that is closed at its next change.
func (f *fsm) view(fn func(*ipam.State)) <-chan struct{} {
	f.mu.RLock()
	defer f.mu.RUnlock()
	if f.ahead != nil {
		fn(f.ahead)
	} else {
		fn(f.state)
	}
	return f.changed
}

// index returns the index of the last command that was applied.
func (f *fsm) index() uint64 {
	f.mu.RLock()
	defer f.mu.RUnlock()
	return f.state.Index()
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
	if err := failpoint.Err(failpoint.SnapshotPersist); err != nil {
		return err
	}
	if _, err := s.s.WriteTo(sink); err != nil {
		return err
	}
	return failpoint.Err(failpoint.SnapshotPersisted)
}

// Release implements raft.FSMSnapshot.
func (s *snapshot) Release() {}
