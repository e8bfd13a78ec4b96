package raftstore

import (
	"time"

	"github.com/hashicorp/raft"

	"stellar.io/stellar/ipam"
)

// Peer is a member of the Raft configuration, as far as this node knows. Only the
// leader hears from all; on another node the figures of the rest are missing.
type Peer struct {
	Node    string      // name, "" when the state has none yet
	ID      ipam.NodeID // also the Raft server id
	Address string      // where it is reached now
	// State is leader, follower or candidate; "silent" when the leader gets no answer
	// from it, "regressed" when it has lost entries that it had acknowledged; "" when
	// this node does not know.
	State string
	Voter bool
	// CommitIndex is exact for this node and 0 for the others: they tell it themselves.
	CommitIndex uint64
	LastIndex   uint64 // last entry in its log, when it was last heard
	// TrailsLeaderBy is how many of the leader's entries it lacks by what was last
	// heard; negative when that is not known.
	TrailsLeaderBy int64
	LastContact    time.Duration // since it was heard; 0 for this node, negative when it never was
}

// Peers returns the members in the order of their joining. It returns nil before Run.
func (s *Store) Peers() []Peer {
	if s.following != nil {
		return s.following.peers()
	}
	s.mu.Lock()
	r := s.raft
	s.mu.Unlock()
	if r == nil {
		return nil
	}
	list := servers(r)
	peers := make([]Peer, 0, len(list))
	_, leader := r.LeaderWithID()
	leads := leadTerm(r) != 0
	for _, srv := range list {
		p := Peer{
			ID: nodeID(srv.ID), Address: string(srv.Address), Voter: srv.Suffrage == raft.Voter,
			TrailsLeaderBy: -1, LastContact: -1,
		}
		if s.cfg.AddressOf != nil {
			if a, ok := s.cfg.AddressOf(p.ID); ok {
				p.Address = a
			}
		}
		switch {
		case p.ID == s.cfg.NodeID:
			p.State, p.LastContact = stateName(r.State()), 0
			p.CommitIndex, p.LastIndex = r.CommitIndex(), r.LastIndex()
			if leads {
				p.TrailsLeaderBy = 0
			}
		case leads:
			s.heard(r, srv.ID, &p)
		case srv.ID == leader:
			p.State, p.LastContact, p.TrailsLeaderBy = "leader", lastContact(r, time.Now()), 0
		}
		peers = append(peers, p)
	}
	s.named(peers)
	return peers
}

// named fills in the names that the state has.
func (s *Store) named(peers []Peer) {
	s.View(func(st *ipam.State) {
		for i := range peers {
			if n, ok := st.Node(peers[i].ID); ok {
				peers[i].Node = n.Name
			}
		}
	})
}

// heard fills in what the leader knows of a follower.
func (s *Store) heard(r *raft.Raft, id raft.ServerID, p *Peer) {
	p.State = "silent"
	if s.trans == nil {
		return
	}
	c := s.trans.contacts.get(id)
	if !c.last.IsZero() {
		p.LastContact = time.Since(c.last)
	}
	p.LastIndex = max(c.lastLog, c.match)
	if behind, known := s.trails(r, id); known {
		p.TrailsLeaderBy = int64(behind)
	}
	switch {
	case c.regressed:
		p.State = "regressed"
	case s.answers(id):
		p.State = "follower"
	}
}
