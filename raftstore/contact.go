package raftstore

import (
	"log/slog"
	"sync"
	"time"

	"github.com/hashicorp/raft"

	"stellar.io/stellar/ipam"
)

// contacts is what this node, while it leads, has heard from each peer.
type contacts struct {
	self raft.ServerID
	log  *slog.Logger

	mu    sync.Mutex // guards peers
	peers map[raft.ServerID]*contact
}

// contact is what is known of one peer.
type contact struct {
	last   time.Time     // of its last answer; zero: none yet
	silent chan struct{} // closed when it answers again; nil while it does

	term     uint64 // of the leadership that the rest belongs to
	peerTerm uint64 // the peer's own
	match    uint64 // its log equals ours up to here
	lastLog  uint64 // its last entry, by its last answer
	// confirmed is when the latest request was sent that it took from us as its leader.
	confirmed time.Time
	regressed bool // it has lost entries that it had acknowledged

	hint hint
}

// answer is what one answer of a peer tells.
type answer struct {
	term     uint64 // of our leadership
	peerTerm uint64
	lastLog  uint64
	match    uint64 // 0: the answer does not tell
	acked    uint64 // what it had acknowledged when it was asked; 0: not known

	confirmed time.Time // when a request was sent that it took; zero: it did not
}

func newContacts(self raft.ServerID, log *slog.Logger) *contacts {
	return &contacts{self: self, log: log, peers: make(map[raft.ServerID]*contact)}
}

// of returns the contact as of the given leadership. The caller holds mu.
func (c *contacts) of(id raft.ServerID, term uint64) *contact {
	p := c.peers[id]
	if p == nil {
		p = &contact{}
		c.peers[id] = p
	}
	if term > p.term {
		*p = contact{last: p.last, silent: p.silent, term: term, hint: hint{busy: p.hint.busy}}
	}
	return p
}

// failed notes that the peer did not answer.
func (c *contacts) failed(id raft.ServerID, err error) {
	c.mu.Lock()
	p := c.of(id, 0)
	first := p.silent == nil
	if first {
		p.silent = make(chan struct{})
	}
	c.mu.Unlock()
	if first {
		c.log.Warn("raft peer does not answer", "peer", nodeID(id).Short(), "error", err)
	}
}

// answered notes an answer. It reports whether a hint waits to be sent to the peer.
func (c *contacts) answered(id raft.ServerID, a answer) bool {
	c.mu.Lock()
	p := c.of(id, a.term)
	p.last = time.Now()
	if p.silent != nil {
		close(p.silent)
		p.silent = nil
		c.log.Info("raft peer answers again", "peer", nodeID(id).Short())
	}
	if a.term < p.term {
		c.mu.Unlock()
		return false
	}
	p.match = max(p.match, a.match)
	if a.lastLog > 0 {
		p.lastLog, p.peerTerm = a.lastLog, a.peerTerm
	}
	if a.confirmed.After(p.confirmed) {
		p.confirmed = a.confirmed
	}
	lost := a.acked > 0 && a.lastLog > 0 && a.lastLog < a.acked && !p.regressed
	p.regressed = p.regressed || lost
	due := p.hint.take(p.match)
	c.mu.Unlock()
	if lost {
		c.log.Error("a raft peer has lost entries that it had acknowledged: was its disk rolled back? remove the node and let it join anew",
			"peer", nodeID(id).Short(), "acknowledged", a.acked, "has", a.lastLog)
	}
	return due
}

// matched returns up to where the peer has acknowledged our log in this term.
func (c *contacts) matched(id raft.ServerID, term uint64) uint64 {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.of(id, term).match
}

// silent returns nil when the peer answers, or a channel that is closed when it
// does again.
func (c *contacts) silent(id raft.ServerID) <-chan struct{} {
	c.mu.Lock()
	defer c.mu.Unlock()
	if p := c.peers[id]; p != nil && p.silent != nil {
		return p.silent
	}
	return nil
}

// get returns a copy of what is known of a peer.
func (c *contacts) get(id raft.ServerID) contact {
	c.mu.Lock()
	defer c.mu.Unlock()
	if p := c.peers[id]; p != nil {
		return *p
	}
	return contact{}
}

// keep forgets peers that are no members any more.
func (c *contacts) keep(members []raft.Server) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for id, p := range c.peers {
		if _, ok := findServer(members, id); !ok && !p.hint.busy {
			delete(c.peers, id)
		}
	}
}

func nodeID(id raft.ServerID) ipam.NodeID { return ipam.NodeID(id) }
