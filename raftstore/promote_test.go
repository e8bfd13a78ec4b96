package raftstore

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/hashicorp/raft"
	"pgregory.net/rapid"
)

// seatsOf reads a line such as "L V V- d c u": the leader, a voter, one that was lost
// a moment ago, one lost for good, a candidate, an unstable one. A trailing "!" marks
// one that is not eligible.
func seatsOf(line string) []seat {
	var seats []seat
	for i, w := range strings.Fields(line) {
		s := seat{id: raft.ServerID(fmt.Sprint(i)), eligible: !strings.HasSuffix(w, "!"), healthy: true, since: time.Hour}
		switch strings.TrimSuffix(w, "!") {
		case "L":
			s.voter, s.leader = true, true
		case "V":
			s.voter = true
		case "V-":
			s.voter, s.healthy, s.since = true, false, time.Second
		case "d":
			s.voter, s.healthy = true, false
		case "u":
			s.since = time.Second
		case "x":
			s.healthy = false
		}
		seats = append(seats, s)
	}
	return seats
}

func TestPlanVoters(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		target  int
		seats   string
		promote string
		demote  string
		leader  string
	}{
		{3, "L", "", "", ""},
		{3, "L c", "", "", ""},        // never two
		{3, "L c c", "1 2", "", ""},   // in pairs
		{3, "L u c", "", "", ""},      // not yet stable
		{3, "L x c", "", "", ""},      // not well
		{3, "L c! c", "", "", ""},     // may not
		{3, "L c c c", "1 2", "", ""}, // the target, no more
		{3, "L V V c", "", "", ""},    // enough
		{3, "L V", "", "", ""},        // an even number is left
		{3, "L V c", "2", "", ""},     // and repaired
		{5, "L V V c", "", "", ""},    // one is no pair
		{5, "L V V c c", "3 4", "", ""},
		{7, "L V V c c c", "3 4", "", ""},
		{1, "L c c", "", "", ""},
		{3, "L V V V", "", "", ""},      // somebody wanted four
		{3, "L V V d", "", "3", ""},     // the dead one of four
		{3, "L V d", "", "", ""},        // nobody to replace it
		{3, "L V d c", "3", "2", ""},    // changes places
		{3, "L V V- c", "", "", ""},     // it may come back
		{5, "L V V d d", "", "3 4", ""}, // three stand one more loss
		{5, "L V V V d", "", "", ""},
		{5, "L V V V d c", "5", "4", ""},
		{3, "L V V! c", "3", "2", ""}, // draining
		{3, "L V V!", "", "", ""},     // votes on until there is another
		{3, "L! V V c", "", "", "1"},  // hands over first
		{3, "L!", "", "", ""},         // to nobody
		{3, "L V V! V", "", "2", ""},  // out of four
		{3, "L V! d c", "3", "2", ""}, // the dead one first
	} {
		seats := seatsOf(tt.seats)
		got := planVoters(tt.target, 10*time.Second, time.Minute, seats)
		text := func(list []raft.ServerID) string {
			var s []string
			for _, id := range list {
				s = append(s, string(id))
			}
			return strings.Join(s, " ")
		}
		if text(got.promote) != tt.promote || text(got.demote) != tt.demote || string(got.leader) != tt.leader {
			t.Errorf("%d, %s: promote %q demote %q leader %q, want %q %q %q", tt.target, tt.seats,
				text(got.promote), text(got.demote), got.leader, tt.promote, tt.demote, tt.leader)
		}
	}
}

// TestPlanVotersConverges: whatever the members are, the plans end, in an odd number
// where that is possible, and nobody who is well and wanted has lost its vote.
func TestPlanVotersConverges(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		words := rapid.SliceOfN(rapid.SampledFrom([]string{"V", "V-", "d", "c", "c!", "u", "x", "V!"}), 0, 9).Draw(t, "members")
		target := rapid.SampledFrom([]int{1, 3, 5, 7}).Draw(t, "target")
		seats := seatsOf(strings.Join(append([]string{"L"}, words...), " "))
		for round := 0; ; round++ {
			v := planVoters(target, 10*time.Second, time.Minute, seats)
			if len(v.promote)+len(v.demote) == 0 {
				break
			}
			if round > 20 {
				t.Fatal("no end")
			}
			before := count(seats)
			for i, s := range seats {
				if slices.Contains(v.demote, s.id) {
					if s.leader || s.healthy && s.eligible || !s.voter {
						t.Fatalf("demotes %+v", s)
					}
					seats[i].voter = false
				}
				if slices.Contains(v.promote, s.id) {
					if !s.healthy || !s.eligible || s.voter {
						t.Fatalf("promotes %+v", s)
					}
					seats[i].voter = true
				}
			}
			if after := count(seats); after%2 == 0 && (before%2 != 0 || after > before) {
				t.Fatalf("from %d voters to %d", before, after)
			}
		}
	})
}

func count(seats []seat) (n int) {
	for _, s := range seats {
		if s.voter {
			n++
		}
	}
	return n
}
