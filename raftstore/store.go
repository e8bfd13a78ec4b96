package raftstore

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hashicorp/raft"

	"stellar.io/stellar/ipam"
)

// Store is an open store. Run makes it take part in the cluster. All methods are
// safe for concurrent use.
type Store struct {
	cfg   Config
	fsm   *fsm
	files files

	log   *raft.LogCache // what files.log holds; nil before Run
	trans *transport     // nil when there are no peers; set by Run

	following *follower                // nil: a member of Raft
	followed  atomic.Pointer[followed] // nil: it is not served at present

	tagBase  [8]byte // of this process's tags
	tagCount atomic.Uint64

	mu        sync.Mutex // guards the block
	raft      *raft.Raft // nil before Run has started it
	stopping  bool       // no proposal may begin
	restoring bool       // no proposal may begin for now
	ran       bool
	proposals sync.WaitGroup // proposals that have begun; Add only under mu

	started chan struct{} // closed when raft is set or never will be
	ended   chan struct{} // closed when Raft has been told to end
	endOnce sync.Once
}

// Open opens the store in cfg.Dir. It returns ErrNotFound, ErrForeign, ErrVersion,
// ErrCorrupt, or, after cfg.LockTimeout, ErrLocked. It starts nothing. Call Run or
// Close afterwards.
func Open(cfg Config) (*Store, error) {
	cfg = cfg.withDefaults()
	if err := cfg.Validate(); err != nil {
		return nil, fmt.Errorf("open store: %w", err)
	}
	there, err := Initialized(cfg.Dir)
	if err != nil {
		return nil, fmt.Errorf("open store: %w", err)
	}
	if !there {
		return nil, fmt.Errorf("open store: %s: %w", cfg.Dir, ErrNotFound)
	}
	id, err := readIdentity(cfg.Dir)
	if err != nil {
		return nil, fmt.Errorf("open store: %w", err)
	}
	if id.Node != cfg.NodeID {
		return nil, fmt.Errorf("open store: %s: %w: it belongs to node %s, this is %s",
			cfg.Dir, ErrForeign, id.Node.Short(), cfg.NodeID.Short())
	}
	if id.Follows {
		return openFollower(cfg, id)
	}
	f, err := openFiles(cfg, cfg.Dir, false)
	if err != nil {
		return nil, fmt.Errorf("open store: %w", err)
	}
	if err := errors.Join(finish(f, cfg.Dir, id), sweep(cfg.Dir)); err != nil {
		return nil, fmt.Errorf("open store: %w", errors.Join(err, f.bolt.Close()))
	}
	s := &Store{
		cfg: cfg, fsm: newFSM(cfg.OnApply), files: f,
		started: make(chan struct{}), ended: make(chan struct{}),
	}
	if cfg.Followers != nil {
		s.fsm.ring = newRing(cfg.FollowLog, cfg.FollowLogBytes)
	}
	if _, err := rand.Read(s.tagBase[:]); err != nil {
		return nil, fmt.Errorf("open store: %w", errors.Join(err, f.bolt.Close()))
	}
	return s, nil
}

// Close closes a store that was never run. After Run it does nothing.
func (s *Store) Close() error {
	if !s.claim() {
		return nil
	}
	s.stop()
	close(s.started)
	return s.closeFiles()
}

func (s *Store) closeFiles() error {
	var err error
	if s.cfg.Streams != nil {
		err = s.cfg.Streams.Close()
	}
	if s.cfg.Followers != nil {
		err = errors.Join(err, s.cfg.Followers.Close())
	}
	if s.following != nil {
		return errors.Join(err, s.following.unlock())
	}
	return errors.Join(err, s.files.bolt.Close())
}

// claim reports whether the caller is the first to run or close the store.
func (s *Store) claim() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	first := !s.ran
	s.ran = true
	return first
}

// stop lets no further proposal begin.
func (s *Store) stop() {
	s.mu.Lock()
	s.stopping = true
	s.mu.Unlock()
}

// Run takes part in the cluster until ctx ends, and then stops and closes the
// store. It returns early only when Raft cannot be started. It may be called once.
func (s *Store) Run(ctx context.Context) error {
	if !s.claim() {
		return ErrShutdown
	}
	if s.following != nil {
		return s.runFollower(ctx)
	}
	r, err := s.start()
	if err != nil {
		s.stop()
		close(s.started)
		return fmt.Errorf("run store: %w", errors.Join(err, s.closeFiles()))
	}
	var tasks sync.WaitGroup
	tctx, cancel := context.WithCancel(ctx)
	tasks.Go(func() { s.tick(tctx, r) })
	tasks.Go(func() { s.boundLog(tctx, r) })
	tasks.Go(func() { s.lead(tctx, r) })
	tasks.Go(func() { s.follow(tctx, r) })
	if s.cfg.Followers != nil {
		tasks.Go(func() { s.serveFollowers(tctx, r) })
	}
	defer cancel()
	select {
	case <-ctx.Done():
	case <-s.fsm.stopped:
		s.cfg.Logger.Error("a committed entry cannot be applied, raft is stopped on this node", "error", s.fsm.err())
		s.stop()
		s.drain()
		if err := s.shutdown(r); err != nil {
			return err
		}
		<-ctx.Done()
	}
	// Order: nothing new begins; what has begun ends (the library forgets to answer
	// what it has committed but not applied when it is stopped); leadership goes to
	// a peer; Raft ends; only then its files are closed, for it panics otherwise.
	s.stop()
	cancel()
	tasks.Wait()
	s.drain()
	s.handOver(r)
	if err := s.shutdown(r); err != nil {
		return err
	}
	s.drain()
	if err := s.files.bolt.Close(); err != nil {
		return fmt.Errorf("close store: %w", err)
	}
	return nil
}

// start starts the library. The latest snapshot has been restored when it returns.
func (s *Store) start() (*raft.Raft, error) {
	var trans raft.Transport
	if s.cfg.Streams == nil {
		_, trans = raft.NewInmemTransport(raft.ServerAddress(s.cfg.Address))
	} else {
		s.trans = newTransport(s.cfg, s.files.bolt.hung)
		s.fsm.hint = s.trans.hintAll
		trans = s.trans
	}
	cache, err := raft.NewLogCache(512, s.files.log)
	if err != nil {
		return nil, err
	}
	s.log = cache
	s.fsm.restored = s.forgetLog
	s.files.log.damaged = s.fsm.stop
	r, err := raft.NewRaft(s.cfg.raft(), s.fsm, cache, s.files.bolt, s.files.snapshots, trans)
	if err != nil {
		if s.trans != nil {
			err = errors.Join(err, s.trans.Close())
		}
		return nil, err
	}
	s.files.log.raft.Store(r)
	if s.trans != nil {
		s.trans.raft.Store(r)
	}
	s.hasten(r)
	s.mu.Lock()
	s.raft = r
	s.mu.Unlock()
	close(s.started)
	return r, nil
}

// forgetLog removes from the log what a snapshot that came from elsewhere replaces.
// The library waits meanwhile and does nothing to the log.
func (s *Store) forgetLog() error {
	at := s.files.snapshots.last.Load()
	if at == nil {
		return nil // at the start: see finish
	}
	return forget(s.log, at.index, at.term)
}

// hasten lets a lone voter elect itself at once: nobody's heartbeat will come, and
// the first attach after a start should not wait for it. The library looks at its
// timer anew when the timeout shrinks.
func (s *Store) hasten(r *raft.Raft) {
	voters := 0
	own := false
	for _, srv := range r.GetConfiguration().Configuration().Servers {
		if srv.Suffrage == raft.Voter {
			voters++
			own = own || srv.ID == raft.ServerID(s.cfg.NodeID)
		}
	}
	if voters != 1 || !own {
		return
	}
	rc := r.ReloadableConfig()
	rc.HeartbeatTimeout -= time.Millisecond
	if err := r.ReloadConfig(rc); err != nil {
		s.cfg.Logger.Debug("the election waits for its timeout", "error", err)
	}
}

// drainTimeout bounds how long proposals without a quorum hold up the end.
const drainTimeout = 500 * time.Millisecond

// drain waits until the proposals that have begun have ended, or for drainTimeout.
func (s *Store) drain() {
	done := make(chan struct{})
	go func() {
		s.proposals.Wait()
		close(done)
	}()
	select {
	case <-done:
	case <-time.After(drainTimeout):
	}
}

// shutdown stops the library and its transport. It may be called twice.
func (s *Store) shutdown(r *raft.Raft) error {
	s.endOnce.Do(func() { close(s.ended) })
	f := r.Shutdown()
	if s.trans != nil {
		s.trans.abort() // the library waits for answers that it has asked for
	}
	done := make(chan error, 1)
	go func() { done <- f.Error() }()
	t := time.NewTimer(s.cfg.ShutdownTimeout)
	defer t.Stop()
	select {
	case err := <-done:
		return err
	case <-t.C:
		return fmt.Errorf("%w within %s, is the disk hanging?", ErrStuck, s.cfg.ShutdownTimeout)
	}
}

// View calls fn with the state. fn must be short, for it holds up Apply, must only
// read (State.Snapshot writes: use SnapshotSave), and must not keep the state. Before Run the state is empty; after a start it is complete
// once WaitLeader has returned.
func (s *Store) View(fn func(*ipam.State)) { s.fsm.view(fn) }

// ViewAndWatch is View; the channel it returns is closed by the first change after
// what fn saw, and no change between the two is missed.
func (s *Store) ViewAndWatch(fn func(*ipam.State)) <-chan struct{} { return s.fsm.view(fn) }

// Changed returns a channel that is closed at the next change of the state. Take
// it before View.
func (s *Store) Changed() <-chan struct{} { return s.fsm.view(func(*ipam.State) {}) }
