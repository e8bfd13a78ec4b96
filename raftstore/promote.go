package raftstore

import (
	"slices"
	"time"

	"github.com/hashicorp/raft"
)

// seat is one member, as the plan for the voters sees it.
type seat struct {
	id       raft.ServerID
	voter    bool
	leader   bool
	eligible bool          // may become or stay a voter
	healthy  bool          // answers, is in our term and close behind
	since    time.Duration // for how long it has been healthy, or unwell
}

// votes is what should change.
type votes struct {
	promote, demote []raft.ServerID
	leader          raft.ServerID // that should lead; "": whoever does
}

// planVoters says who should vote. The number of voters is odd: one more than an odd
// number stands no more failures but can lose one more vote. So
//
//   - an even number, which a removal or an operator has left, is made odd: without a
//     dead voter, without one that should not vote, or with one more up to the target;
//   - below the target two are promoted together, or none;
//   - a dead voter, and one that should not vote, changes places with a candidate;
//   - two dead ones of five or seven are demoted together: the rest then stands the
//     loss of one more;
//   - nothing is done about voters beyond the target, which somebody wanted.
//
// It never demotes a healthy, eligible voter and never removes a member.
func planVoters(target int, stable, dead time.Duration, seats []seat) votes {
	var all, lost, unwanted, candidates []seat
	for _, s := range seats {
		switch {
		case !s.voter:
			if s.eligible && s.healthy && s.since >= stable {
				candidates = append(candidates, s)
			}
			continue
		case !s.healthy && s.since >= dead && !s.leader:
			lost = append(lost, s)
		case !s.eligible:
			unwanted = append(unwanted, s)
		}
		all = append(all, s)
	}
	slices.SortFunc(candidates, longest)
	slices.SortFunc(lost, longest)
	slices.SortFunc(unwanted, longest)

	if to := successorOf(all, unwanted); to != "" {
		return votes{leader: to}
	}
	going := append(lost, unwanted...)
	n := len(all)
	switch {
	case n%2 == 0 && len(going) > 0:
		return votes{demote: ids(going[:1])}
	case n%2 == 0 && n < target && len(candidates) > 0:
		return votes{promote: ids(candidates[:1])}
	case n%2 == 0:
		return votes{}
	case n+2 <= target && len(candidates) >= 2:
		return votes{promote: ids(candidates[:2])}
	case len(going) > 0 && len(candidates) > 0:
		return votes{promote: ids(candidates[:1]), demote: ids(going[:1])}
	case len(lost) >= 2 && n >= 5:
		return votes{demote: ids(lost[:2])}
	}
	return votes{}
}

// successorOf returns who should take over from a leader that should not vote.
func successorOf(voters, unwanted []seat) raft.ServerID {
	if !slices.ContainsFunc(unwanted, func(s seat) bool { return s.leader }) {
		return ""
	}
	best := seat{since: -1}
	for _, s := range voters {
		if s.eligible && s.healthy && !s.leader && s.since > best.since {
			best = s
		}
	}
	return best.id
}

// longest orders seats by how long they have been what they are, then by id.
func longest(a, b seat) int {
	switch {
	case a.since > b.since, a.since == b.since && a.id < b.id:
		return -1
	}
	return 1
}

func ids(seats []seat) []raft.ServerID {
	var list []raft.ServerID
	for _, s := range seats {
		list = append(list, s.id)
	}
	return list
}
