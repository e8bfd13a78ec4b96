package raftstore

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/hashicorp/raft"
)

// maxTrail is how many entries a node may be behind and still count as up to date.
const maxTrail = 250

// answersWithin is how recent a peer's last answer must be to count it among those
// that can be reached: several heartbeats.
func (s *Store) answersWithin() time.Duration { return s.cfg.HeartbeatTimeout }

// answers reports whether a server was heard a moment ago. This node leads.
func (s *Store) answers(id raft.ServerID) bool {
	if id == raft.ServerID(s.cfg.NodeID) {
		return true
	}
	if s.trans == nil {
		return false
	}
	c := s.trans.contacts.get(id)
	return !c.last.IsZero() && time.Since(c.last) <= s.answersWithin() && !c.regressed
}

// trails returns how many of our entries a server lacked when it was last heard;
// false when it was not heard in this term. This node leads.
func (s *Store) trails(r *raft.Raft, id raft.ServerID) (uint64, bool) {
	if id == raft.ServerID(s.cfg.NodeID) {
		return 0, true
	}
	if s.trans == nil {
		return 0, false
	}
	c := s.trans.contacts.get(id)
	has := max(c.lastLog, c.match)
	if has == 0 || c.term != r.CurrentTerm() {
		return 0, false
	}
	last := r.LastIndex()
	return last - min(last, has), true
}

// hear waits a moment until a leader that has just been elected has heard from all
// members, or has seen that they do not answer: before, it would count nobody.
func (s *Store) hear(ctx context.Context, r *raft.Raft) {
	if s.trans == nil {
		return
	}
	for end := time.Now().Add(s.cfg.HeartbeatTimeout); time.Now().Before(end); {
		term, all := leadTerm(r), true
		for _, srv := range servers(r) {
			if srv.ID == raft.ServerID(s.cfg.NodeID) {
				continue
			}
			c := s.trans.contacts.get(srv.ID)
			all = all && (c.silent != nil || c.term == term && c.match > 0)
		}
		if all || term == 0 || !sleep(ctx, readPoll) {
			return
		}
	}
}

// permitted returns why a change must not be made.
func (s *Store) permitted(r *raft.Raft, next []raft.Server, c Change, pair bool) error {
	if c.Op == ChangeAdd {
		return nil // does not change who votes
	}
	if len(voters(next)) == 0 {
		return fmt.Errorf("%w: it is the last voter", ErrQuorum) // forced or not: the library refuses it too
	}
	if c.Force {
		return nil
	}
	if c.Op == ChangePromote {
		if err := s.ready(r, raft.ServerID(c.Node)); err != nil {
			return err
		}
		if len(voters(next)) == 2 && !pair {
			return fmt.Errorf("%w: of 2 voters both must answer, so that the loss of either stops the cluster; a third node lets the leader promote two at once", ErrQuorum)
		}
	}
	return quorumOf(next, s.answers)
}

// ready returns ErrNotReady when a node does not answer or is too far behind.
func (s *Store) ready(r *raft.Raft, id raft.ServerID) error {
	if !s.answers(id) {
		return fmt.Errorf("%w: %s has not answered for %s", ErrNotReady, nodeID(id).Short(), s.answersWithin())
	}
	if behind, known := s.trails(r, id); !known || behind > maxTrail {
		return fmt.Errorf("%w: %s is %d entries behind, at most %d are allowed", ErrNotReady, nodeID(id).Short(), behind, maxTrail)
	}
	return nil
}

// quorumOf returns ErrQuorum with its arithmetic when the voters of a configuration
// that answer are no majority.
func quorumOf(list []raft.Server, answers func(raft.ServerID) bool) error {
	var up, down []string
	for _, v := range voters(list) {
		if answers(v.ID) {
			up = append(up, nodeID(v.ID).Short())
		} else {
			down = append(down, nodeID(v.ID).Short())
		}
	}
	all := len(up) + len(down)
	need := all/2 + 1
	if len(up) >= need {
		return nil
	}
	slices.Sort(up)
	slices.Sort(down)
	return fmt.Errorf("%w: of %d voters %d must answer, and only %d would (%s answers, %s does not)",
		ErrQuorum, all, need, len(up), orNone(up), orNone(down))
}

func orNone(names []string) string {
	if len(names) == 0 {
		return "none"
	}
	return strings.Join(names, ", ")
}
