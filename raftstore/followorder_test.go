package raftstore

import (
	"fmt"
	"testing"

	"github.com/hashicorp/raft"

	"stellar.io/stellar/ipam"
)

// TestFollowOrder: a follower calls members of Raft first, the one that it has just left
// last of them, and only then servers that its last one did not name.
func TestFollowOrder(t *testing.T) {
	t.Parallel()
	id := func(i int) ipam.NodeID { return ipam.NodeID(fmt.Sprintf("%032x", i)) }
	f := &follower{s: &Store{cfg: Config{NodeID: id(100)}, fsm: newFSM(nil)}, told: map[ipam.NodeID]string{}}
	for i := 1; i <= 20; i++ {
		f.told[id(i)] = fmt.Sprintf("192.0.2.%d:9640", i)
	}
	place := func(left ipam.NodeID) map[ipam.NodeID]int {
		at := map[ipam.NodeID]int{}
		for i, c := range f.candidates(left) {
			at[c.id] = i
		}
		return at
	}
	if n := len(place("")); n != 20 {
		t.Fatalf("%d candidates without a word of any server, want 20", n)
	}
	f.standing = &standing{}
	for i := 5; i < 8; i++ {
		f.standing.members = append(f.standing.members, raft.Server{ID: raft.ServerID(id(i)), Address: raft.ServerAddress(f.told[id(i)])})
	}
	for i := 5; i < 8; i++ {
		at := place(id(i))
		if len(at) != 20 {
			t.Errorf("%d candidates, want 20", len(at))
		}
		if at[id(i)] != 2 {
			t.Errorf("the member that was left is at place %d, want 2", at[id(i)])
		}
		for k := 5; k < 8; k++ {
			if at[id(k)] > 2 {
				t.Errorf("member %d is at place %d, behind servers that are none", k, at[id(k)])
			}
		}
	}
}
