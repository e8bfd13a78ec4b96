package raftstore

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hashicorp/raft"

	"stellar.io/stellar/ipam"
)

const (
	// beatEvery is how often a server tells its followers that it is there; followSilence
	// is for how long a follower waits for that before it goes to another server.
	beatEvery     = time.Second
	followSilence = 3 * time.Second
	// writePatience is how long a follower may take to read one frame. One that takes
	// longer is cut off; it comes back by its index, or to a snapshot.
	writePatience = 5 * time.Second
	// helloPatience is how long a follower may take to say where it is.
	helloPatience = 5 * time.Second
	// standingPoll is how often a server looks whether Raft has changed.
	standingPoll = 50 * time.Millisecond
	// snapshotsAtOnce is how many followers are sent a snapshot at the same time.
	snapshotsAtOnce = 4
	// snapshotKept is for how long an encoded snapshot is kept for the next follower.
	snapshotKept = 10 * time.Second
)

// followed serves the followers of this node, a member of Raft. One goroutine for each
// of them writes and nothing reads: a connection that is gone shows at the next beat.
type followed struct {
	s    *Store
	raft *raft.Raft
	ring *ring

	standing atomic.Pointer[encodedStanding]
	slots    chan struct{} // held while a snapshot is sent
	cut      atomic.Uint64 // followers that read too slowly
	sent     atomic.Uint64 // snapshots

	snapMu sync.Mutex // serialises the encoding; guards what follows
	snap   *sharedSnapshot
}

// encodedStanding is a standing as it is sent.
type encodedStanding struct {
	standing
	frame []byte
}

// sharedSnapshot is a snapshot file that several followers are sent.
type sharedSnapshot struct {
	at   place
	data []byte
}

// stream is one follower, as its server sees it.
type stream struct {
	f     *followed
	conn  net.Conn
	hello hello
	woken chan struct{} // holds one
	at    atomic.Uint64 // index of the last command that was sent

	// What follows is the goroutine's.
	place    place
	standing *encodedStanding // that was sent
	buf      []byte
}

// nudge lets the stream look for what is new. It does not block.
func (s *stream) nudge() {
	select {
	case s.woken <- struct{}{}:
	default:
	}
}

// serveFollowers serves followers until ctx ends.
func (s *Store) serveFollowers(ctx context.Context, r *raft.Raft) {
	f := &followed{s: s, raft: r, ring: s.fsm.ring, slots: make(chan struct{}, snapshotsAtOnce)}
	s.followed.Store(f)
	f.look()
	var tasks sync.WaitGroup
	var mu sync.Mutex // guards conns
	conns := map[net.Conn]struct{}{}
	tasks.Go(func() { f.watch(ctx) })
	stop := context.AfterFunc(ctx, func() {
		s.cfg.Followers.Close()
		mu.Lock()
		defer mu.Unlock()
		for c := range conns {
			c.Close()
		}
	})
	defer stop()
	for {
		c, err := s.cfg.Followers.Accept()
		if err != nil {
			break // closed
		}
		mu.Lock()
		conns[c] = struct{}{}
		mu.Unlock()
		tasks.Go(func() {
			f.serve(ctx, c)
			mu.Lock()
			delete(conns, c)
			mu.Unlock()
			c.Close()
		})
		if ctx.Err() != nil {
			c.Close()
		}
	}
	tasks.Wait()
	s.followed.Store(nil)
}

// watch tells the followers when what this node knows of Raft changes.
func (f *followed) watch(ctx context.Context) {
	t := time.NewTicker(standingPoll)
	defer t.Stop()
	for {
		select {
		case <-t.C:
			if f.look() {
				f.ring.wakeAll()
			}
		case <-ctx.Done():
			return
		}
	}
}

// look brings the standing up to date and reports whether it has changed. A node that
// has stopped, or whose disk hangs, has nothing to tell: its followers leave it.
func (f *followed) look() bool {
	now := standing{term: f.raft.CurrentTerm(), members: f.s.membersNow(f.raft)}
	if f.s.fsm.err() == nil && !f.s.files.bolt.hung() && !f.s.removed(f.raft) {
		_, now.leader = f.raft.LeaderWithID()
		if lastContact(f.raft, time.Now()) > f.s.cfg.HeartbeatTimeout*2 {
			now.leader = ""
		}
	}
	if was := f.standing.Load(); was != nil && now.equal(&was.standing) {
		return false
	}
	f.standing.Store(&encodedStanding{now, now.encode()})
	return true
}

// membersNow returns Raft's members, where they are reached now.
func (s *Store) membersNow(r *raft.Raft) []raft.Server {
	list := servers(r)
	out := make([]raft.Server, len(list))
	for i, m := range list {
		if a := s.addressOf(nodeID(m.ID)); a != "" {
			m.Address = raft.ServerAddress(a)
		}
		out[i] = m
	}
	return out
}

// serve serves one follower until it, or ctx, ends.
func (f *followed) serve(ctx context.Context, c net.Conn) {
	s := &stream{f: f, conn: c, woken: make(chan struct{}, 1)}
	log := f.s.cfg.Logger
	err := s.welcome()
	if err == nil {
		f.ring.enter(s)
		log.Info("a node follows this one", "follower", s.hello.node.Short(), "index", s.hello.index)
		err = s.run(ctx)
		f.ring.leave(s)
	}
	var timeout net.Error
	switch {
	case ctx.Err() != nil:
	case errors.As(err, &timeout) && timeout.Timeout():
		f.cut.Add(1)
		log.Warn("a follower reads too slowly and was cut off, it comes back", "follower", s.hello.node.Short(), "index", s.place.index)
	default:
		log.Info("a follower has gone", "follower", s.hello.node.Short(), "error", err)
	}
}

// welcome reads where the follower is and says whether it can be served.
func (s *stream) welcome() (err error) {
	if err := s.conn.SetReadDeadline(time.Now().Add(helloPatience)); err != nil {
		return err
	}
	if s.hello, err = readHello(s.conn); err != nil {
		return err
	}
	known, ok := s.conn.(interface{ PeerNode() ipam.NodeID })
	if ok && known.PeerNode() != s.hello.node {
		return s.refuse(fmt.Errorf("%w: it is %s by its certificate", ErrRequest, known.PeerNode().Short()))
	}
	now, at, err := s.f.s.fsm.era()
	switch {
	case err != nil:
		return s.refuse(err)
	case s.hello.cluster != "" && now.ID != s.hello.cluster:
		return s.refuse(fmt.Errorf("%w: %s", ErrOtherCluster, now.ID))
	case s.hello.cluster != "" && !follows(now, s.hello.generation, s.hello.life):
		return s.refuse(fmt.Errorf("%w: this server is at generation %d, the follower at %d", ErrOtherCluster, now.Generation, s.hello.generation))
	case s.hello.cluster != "" && now.Generation == s.hello.generation:
		s.place = place{s.hello.index, at.life}
	default:
		s.place = place{0, at.life - 1} // nowhere: a snapshot comes first
	}
	s.at.Store(s.place.index)
	return nil
}

// follows reports whether a node with a state of generation and life may go on with
// that of now: a later generation, or the same life. Two survivors that were recovered
// separately have the same generation and different lives; the operator ends one.
func follows(now ipam.Cluster, generation uint64, life uint32) bool {
	return now.Generation > generation || now.Generation == generation && now.Life == life
}

// era returns the cluster as this node's state has it, and the place in the ring that
// the state is at.
func (f *fsm) era() (ipam.Cluster, place, error) {
	f.mu.RLock()
	defer f.mu.RUnlock()
	c, ok := f.state.Cluster()
	switch {
	case f.failed != nil:
		return c, place{}, f.failed
	case !ok:
		return c, place{}, ipam.ErrNotInitialized
	}
	return c, f.ring.now(), nil
}

// refuse tells the follower why it is not served.
func (s *stream) refuse(why error) error {
	b := endFrame(append(beginFrame(nil, frameRefused), why.Error()...), 0)
	return errors.Join(why, s.write(b))
}

func (s *stream) write(b []byte) error {
	if err := s.conn.SetWriteDeadline(time.Now().Add(writePatience)); err != nil {
		return err
	}
	_, err := s.conn.Write(b)
	return err
}

// run sends what is new until the connection breaks, or ctx ends.
func (s *stream) run(ctx context.Context) error {
	beat := time.NewTicker(beatEvery)
	defer beat.Stop()
	s.buf = s.beat(s.buf[:0])
	for {
		wake, err := s.send(ctx, beat.C)
		if err != nil {
			return err
		}
		if len(s.buf) > 0 {
			err := s.write(s.buf)
			s.at.Store(s.place.index)
			if s.buf = s.buf[:0]; cap(s.buf) > 2*maxEntries {
				s.buf = nil
			}
			if err != nil {
				return err
			}
			continue
		}
		select {
		case <-wake:
		case <-s.woken:
		case <-beat.C:
			s.buf = s.beat(s.buf)
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// send puts into the buffer what the follower lacks, or sends it a snapshot. wake is
// closed when there is more.
func (s *stream) send(ctx context.Context, beat <-chan time.Time) (wake <-chan struct{}, err error) {
	if now := s.f.standing.Load(); now != s.standing {
		s.buf, s.standing = append(s.buf, now.frame...), now
	}
	from := len(s.buf)
	s.buf = beginFrame(s.buf, frameEntries)
	var ok bool
	before := s.place.index
	s.buf, s.place, wake, ok = s.f.ring.next(s.buf, s.place, maxEntries)
	if s.place.index == before {
		s.buf = s.buf[:from]
	} else {
		endFrame(s.buf, from)
	}
	if !ok {
		err = s.sendSnapshot(ctx, beat)
	}
	return wake, err
}

// beat appends a sign of life to b.
func (s *stream) beat(b []byte) []byte {
	at := len(b)
	b = beginFrame(b, frameBeat)
	b = binary.BigEndian.AppendUint64(b, s.f.s.fsm.index())
	ago := max(0, lastContact(s.f.raft, time.Now()))
	b = binary.BigEndian.AppendUint32(b, uint32(min(ago.Milliseconds(), 1<<31)))
	return endFrame(b, at)
}

// sendSnapshot brings the follower to a place in the ring. While others are being sent
// one it waits, with signs of life.
func (s *stream) sendSnapshot(ctx context.Context, beat <-chan time.Time) error {
	for waiting := true; waiting; {
		select {
		case s.f.slots <- struct{}{}:
			waiting = false
		case <-beat:
			s.buf = s.beat(s.buf)
			if err := s.write(s.buf); err != nil {
				return err
			}
			s.buf = s.buf[:0]
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	defer func() { <-s.f.slots }()
	sn, err := s.f.snapshot()
	if err != nil {
		return err
	}
	b := binary.BigEndian.AppendUint64(beginFrame(s.buf, frameSnapshot), uint64(len(sn.data)))
	s.buf = s.buf[:0]
	if err := s.write(endFrame(b, len(b)-8-frameHead)); err != nil {
		return err
	}
	for data := sn.data; len(data) > 0; {
		n := min(len(data), chunkSize)
		b = endFrame(append(beginFrame(b[:0], frameChunk), data[:n]...), 0)
		if err := s.write(b); err != nil {
			return err
		}
		data = data[n:]
	}
	s.place = sn.at
	s.at.Store(sn.at.index)
	s.f.sent.Add(1)
	return nil
}

// snapshot returns a snapshot file of a state whose successors are in the ring: the
// one that another follower got, or a new one. It is forgotten after a while.
func (f *followed) snapshot() (*sharedSnapshot, error) {
	f.snapMu.Lock()
	defer f.snapMu.Unlock()
	if f.snap != nil && f.ring.holds(f.snap.at) {
		return f.snap, nil
	}
	f.s.fsm.mu.Lock() // State.Snapshot writes
	sn := f.s.fsm.state.Snapshot()
	c, ok := f.s.fsm.state.Cluster()
	at := f.ring.now()
	f.s.fsm.mu.Unlock()
	if !ok {
		return nil, ipam.ErrNotInitialized
	}
	var b bytes.Buffer
	if _, err := writeSnapshotFile(&b, sn, c, f.raft.CurrentTerm()); err != nil {
		return nil, err
	}
	f.snap = &sharedSnapshot{at, b.Bytes()}
	forget := f.snap
	time.AfterFunc(snapshotKept, func() {
		f.snapMu.Lock()
		defer f.snapMu.Unlock()
		if f.snap == forget {
			f.snap = nil
		}
	})
	return f.snap, nil
}
