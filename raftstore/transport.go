package raftstore

import (
	"errors"
	"io"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hashicorp/raft"
)

// rpcTimeout bounds one message and its answer; that of a snapshot grows with its
// size. A follower's slow disk has so long for one batch of entries.
const rpcTimeout = 3 * time.Second

// transport is the library's network transport. The problems that it answers:
//
//   - The library does not say what its leader knows of the followers: contacts
//     listens to their answers.
//   - A leader that cannot reach a follower waits longer after each failure, 10 s in
//     the end, although its heartbeats have long got through again: replication here
//     waits for the heartbeats instead.
//   - Followers hear of a commit with the next message only: see hint.go.
//   - It does not end what waits for an answer when Raft is shut down.
//   - A leader whose disk hangs goes on with its heartbeats, which never touch the disk,
//     and nobody else is elected (hashicorp/raft#503): it sends nothing any more.
type transport struct {
	*raft.NetworkTransport
	local    raft.ServerAddress
	streams  *streams
	contacts *contacts
	raft     atomic.Pointer[raft.Raft] // nil until the library has been started
	hung     func() bool               // the disk hangs

	mu    sync.Mutex    // guards the closing of ended and the growth of tasks
	ended chan struct{} // closed by abort
	tasks sync.WaitGroup
}

// newTransport makes a transport; hung says whether the disk hangs.
func newTransport(cfg Config, hung func() bool) *transport {
	t := &transport{
		local: raft.ServerAddress(cfg.Address), streams: newStreams(cfg.Streams), ended: make(chan struct{}), hung: hung,
	}
	t.contacts = newContacts(raft.ServerID(cfg.NodeID), cfg.Logger)
	t.NetworkTransport = raft.NewNetworkTransportWithConfig(&raft.NetworkTransportConfig{
		Stream: t.streams, Logger: newHCLog(cfg.Logger), ServerAddressProvider: addresses{cfg, t},
		MaxPool: 3, Timeout: rpcTimeout, MsgpackUseNewTimeFormat: true,
	})
	return t
}

// abort ends all that waits for an answer of a peer. The library's Close follows.
func (t *transport) abort() {
	t.mu.Lock()
	if !t.over() {
		close(t.ended)
	}
	t.mu.Unlock()
	t.streams.abort()
}

func (t *transport) over() bool {
	select {
	case <-t.ended:
		return true
	default:
		return false
	}
}

// start runs fn in the background; Close waits for it.
func (t *transport) start(fn func()) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if !t.over() {
		t.tasks.Go(fn)
	}
}

// Close implements raft.WithClose.
func (t *transport) Close() error {
	t.abort()
	err := t.NetworkTransport.Close()
	t.tasks.Wait()
	return err
}

// LocalAddr implements raft.Transport: what the others know this node by, also when
// it listens elsewhere.
func (t *transport) LocalAddr() raft.ServerAddress { return t.local }

// errUnreachable ends a replication that waited for a peer to answer.
var errUnreachable = errors.New("peer does not answer")

// hangAfter is for how long the disk may take for a write before this node is taken for
// one that cannot lead: longer than a slow disk stalls, short enough for a new leader
// within 20 s.
const hangAfter = 5 * time.Second

// errHung is returned instead of sending when the disk hangs.
var errHung = errors.New("the disk hangs")

// AppendEntries implements raft.Transport. A heartbeat is sent at once; entries
// wait until the peer answers.
func (t *transport) AppendEntries(id raft.ServerID, target raft.ServerAddress, req *raft.AppendEntriesRequest, resp *raft.AppendEntriesResponse) error {
	if err := t.maySend(req); err != nil {
		return err
	}
	if !isHeartbeat(req) {
		if err := t.waitAnswering(id, req.Term); err != nil {
			return err
		}
	}
	acked, sent := t.contacts.matched(id, req.Term), time.Now()
	err := t.NetworkTransport.AppendEntries(id, target, req, resp)
	t.record(id, req, resp, acked, sent, err)
	return err
}

// maySend says why a message of a leader must not be sent.
func (t *transport) maySend(req *raft.AppendEntriesRequest) error {
	if t.hung() {
		return errHung
	}
	return sendable(req.Entries)
}

func isHeartbeat(req *raft.AppendEntriesRequest) bool {
	return req.PrevLogEntry == 0 && req.PrevLogTerm == 0 && len(req.Entries) == 0 && req.LeaderCommitIndex == 0
}

// InstallSnapshot implements raft.Transport.
func (t *transport) InstallSnapshot(id raft.ServerID, target raft.ServerAddress, req *raft.InstallSnapshotRequest, resp *raft.InstallSnapshotResponse, data io.Reader) error {
	if t.hung() {
		return errHung
	}
	if err := t.waitAnswering(id, req.Term); err != nil {
		return err
	}
	err := t.NetworkTransport.InstallSnapshot(id, target, req, resp, data)
	if err != nil {
		t.contacts.failed(id, err)
	} else {
		t.contacts.answered(id, answer{term: req.Term, match: matchIf(resp.Success, req.LastLogIndex)})
	}
	return err
}

func matchIf(ok bool, index uint64) uint64 {
	if ok {
		return index
	}
	return 0
}

// record notes what an answer, or its absence, tells.
func (t *transport) record(id raft.ServerID, req *raft.AppendEntriesRequest, resp *raft.AppendEntriesResponse, acked uint64, sent time.Time, err error) {
	if err != nil {
		t.contacts.failed(id, err)
		return
	}
	a := answer{term: req.Term, peerTerm: resp.Term, lastLog: resp.LastLog, acked: acked}
	if resp.Success {
		a.confirmed = sent
	}
	if resp.Success && !isHeartbeat(req) {
		a.match = req.PrevLogEntry
		if n := len(req.Entries); n > 0 {
			a.match = req.Entries[n-1].Index
		}
	}
	if t.contacts.answered(id, a) {
		t.sendHint(id)
	}
}

// waitPeer is how often a waiting replication looks whether it still has a purpose.
const waitPeer = 100 * time.Millisecond

// waitAnswering waits until the peer answers, as long as this node leads in that
// term and the peer is a member.
func (t *transport) waitAnswering(id raft.ServerID, term uint64) error {
	timer := time.NewTimer(waitPeer)
	defer timer.Stop()
	for {
		back := t.contacts.silent(id)
		if back == nil {
			return nil
		}
		select {
		case <-back:
			return nil
		case <-t.ended:
			return raft.ErrTransportShutdown
		case <-timer.C:
			r := t.raft.Load()
			if r == nil || leadTerm(r) != term || !member(r, id) {
				return errUnreachable
			}
			timer.Reset(waitPeer)
		}
	}
}

// leadTerm returns the term that this node leads in, 0 when it does not.
func leadTerm(r *raft.Raft) uint64 {
	if r == nil {
		return 0 // a follower
	}
	term := r.CurrentTerm()
	// The library leaves its state before it changes its term, so a leader between
	// two equal terms leads in that term.
	if r.State() != raft.Leader || r.CurrentTerm() != term {
		return 0
	}
	return term
}

func member(r *raft.Raft, id raft.ServerID) bool {
	_, ok := findServer(servers(r), id)
	return ok
}

// addresses tells the library where a node is reached.
type addresses struct {
	cfg Config
	t   *transport
}

// ServerAddr implements raft.ServerAddressProvider.
func (a addresses) ServerAddr(id raft.ServerID) (raft.ServerAddress, error) {
	if id == raft.ServerID(a.cfg.NodeID) {
		return a.t.local, nil
	}
	if a.cfg.AddressOf != nil {
		if addr, ok := a.cfg.AddressOf(nodeID(id)); ok && addr != "" {
			return raft.ServerAddress(addr), nil
		}
	}
	if r := a.t.raft.Load(); r != nil {
		if s, ok := findServer(servers(r), id); ok {
			return s.Address, nil
		}
	}
	return "", ErrNotMember // the library takes the address that it has
}
