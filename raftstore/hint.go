package raftstore

import (
	"github.com/hashicorp/raft"

	"stellar.io/stellar/ipam"
)

// A follower learns that an entry is committed from the next message of the leader,
// which on an idle cluster comes one to two CommitTimeouts later. Routes to a new
// subnet should not wait for that, nor should a node whose proposal the leader has
// already answered. So the leader sends the message that the library would send
// later: entries none, "you match me up to this entry, which is committed", as soon
// as the entry is committed and the peer has acknowledged it.
//
// It is an ordinary AppendEntries of Raft: the term is the one this node leads in,
// the peer checks that it holds the named entry, and the commit index is that
// entry's own, never more. A barrier entry would tell the same at the price of one
// more fsync on every node; a shorter CommitTimeout at the price of idle messages.
// A hint that is lost costs one CommitTimeout.

// hint is what a peer is to be told.
type hint struct {
	index, term uint64 // of the committed entry; 0: nothing
	busy        bool   // a goroutine is sending
}

// take reports whether the hint may be sent now, and by the caller.
func (h *hint) take(match uint64) bool {
	if h.index == 0 || h.busy || match < h.index {
		return false
	}
	h.busy = true
	return true
}

// wide reports whether all nodes should hear of an entry at once. What concerns
// single addresses matters to the holder of their subnet alone.
func wide(deltas []ipam.Delta) bool {
	for _, d := range deltas {
		switch d.(type) {
		case ipam.TimePut, ipam.LeasePut, ipam.LeaseRemoved, ipam.ReservationPut, ipam.ReservationRemoved:
		default:
			return true
		}
	}
	return false
}

// hintAll tells all peers that an entry is committed, if this node leads. It does
// not block.
func (t *transport) hintAll(index, term uint64) {
	r := t.raft.Load()
	if r == nil {
		return
	}
	now := leadTerm(r)
	if now == 0 {
		return
	}
	for _, s := range servers(r) {
		if s.ID != t.contacts.self {
			t.hint(s.ID, now, index, term)
		}
	}
}

// hint tells one peer.
func (t *transport) hint(id raft.ServerID, now, index, term uint64) {
	t.contacts.mu.Lock()
	p := t.contacts.of(id, now)
	if index > p.hint.index {
		p.hint.index, p.hint.term = index, term
	}
	due := p.hint.take(p.match)
	t.contacts.mu.Unlock()
	if due {
		t.sendHint(id)
	}
}

// sendHint sends the peer's hint in the background. The caller has taken it.
func (t *transport) sendHint(id raft.ServerID) {
	t.start(func() {
		for {
			t.contacts.mu.Lock()
			h := t.contacts.peers[id].hint
			t.contacts.mu.Unlock()
			ok := t.tell(id, h)
			t.contacts.mu.Lock()
			p := t.contacts.peers[id]
			p.hint.busy = false
			if p.hint.index == h.index || !ok {
				p.hint = hint{}
			}
			again := p.hint.take(p.match)
			t.contacts.mu.Unlock()
			if !again {
				return
			}
		}
	})
}

// tell sends one hint and waits for the answer.
func (t *transport) tell(id raft.ServerID, h hint) bool {
	r := t.raft.Load()
	now := leadTerm(r)
	s, ok := findServer(servers(r), id)
	if now == 0 || !ok || t.hung() {
		return false
	}
	addr := t.EncodePeer(t.contacts.self, t.local)
	req := &raft.AppendEntriesRequest{
		RPCHeader:    raft.RPCHeader{ProtocolVersion: raft.ProtocolVersionMax, ID: []byte(t.contacts.self), Addr: addr},
		Term:         now,
		PrevLogEntry: h.index, PrevLogTerm: h.term, LeaderCommitIndex: h.index,
	}
	var resp raft.AppendEntriesResponse
	err := t.NetworkTransport.AppendEntries(id, s.Address, req, &resp)
	return err == nil && resp.Success
}
