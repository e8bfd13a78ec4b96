package integration

import (
	"fmt"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"stellar.io/stellar/internal/testx"
	"stellar.io/stellar/internal/testx/faults"
)

// TestClusterCommandsOutliveLeaders: an operator's command that meets a change of
// leadership is carried out, once, and he hears nothing of it.
func TestClusterCommandsOutliveLeaders(t *testing.T) {
	nodes := startCluster(t, 3)
	awaitVoters(t, nodes)
	var over atomic.Bool
	var commands sync.WaitGroup
	var ran atomic.Int64
	for i, n := range nodes {
		commands.Go(func() {
			for round := 0; !over.Load(); round++ {
				block := fmt.Sprintf("172.%d.%d.0/22", 20+i, 4*(round%60))
				for _, args := range [][]string{
					{"ipam", "reserve", block, "--reason", "round"},
					{"node", "drain", n.name},
					{"cluster", "token", "create"},
					{"node", "drain", n.name, "--off"},
					{"ipam", "release", "-y", block}, // executed twice it would be refused
				} {
					if _, err := n.run(args...); err != nil {
						t.Errorf("asked of %s: %v", n.name, err)
					}
					ran.Add(1)
				}
			}
		})
	}
	const changes = 8
	for i := range changes {
		leader, others := leaderIn(t, nodes, nodes[i%3])
		began := time.Now()
		// Nobody asks it for anything: its commands fail only where nobody could help.
		if _, err := leader.run("raft", "transfer-leader", others[i%2].name); err != nil {
			t.Logf("hand-over: %v", err)
		}
		t.Logf("%s handed over in %s", leader.name, time.Since(began).Round(time.Millisecond))
		time.Sleep(300 * time.Millisecond)
	}
	over.Store(true)
	commands.Wait()
	t.Logf("%d commands during %d hand-overs", ran.Load(), changes)

	// The leader's end, met by commands of the others.
	for i := range 3 {
		leader, others := leaderIn(t, nodes, nodes[i])
		over.Store(false)
		for _, n := range others {
			commands.Go(func() {
				for !over.Load() {
					if _, err := n.run("cluster", "token", "create", "--timeout", "30s"); err != nil {
						t.Errorf("asked of %s: %v", n.name, err)
					}
				}
			})
		}
		time.Sleep(300 * time.Millisecond)
		_ = leader.stopAgent(syscall.SIGKILL)
		leaderIn(t, nodes, others[0])
		others[0].committed(time.Now(), unique("new"))
		over.Store(true)
		commands.Wait()
		leader.returns()
		awaitVoters(t, nodes)
	}
	sameState(t, nodes)
}

// TestClusterJoinOutlivesLeaders: a join that meets changes of leadership is one join.
func TestClusterJoinOutlivesLeaders(t *testing.T) {
	const size, joining = 3, 2
	lan := testx.NewLAN(t, size+joining)
	var nodes []*node
	for i := range size + joining {
		nodes = append(nodes, newNode(t, lan, i, nodeOptions{}))
		if i == 0 {
			nodes[0].startAgent("--init")
			nodes[0].cli("status", "--wait", "--timeout", "30s")
			continue
		}
		nodes[i].startAgent()
		if i < size {
			nodes[i].join(nodes[0], nodes[0].token())
		}
	}
	members := nodes[:size]
	awaitVoters(t, members)
	for i, n := range nodes[size:] {
		leader, others := leaderIn(t, members, nodes[0])
		token := others[0].token()
		joined := make(chan error, 1)
		go func() {
			_, err := n.tryJoin(others[0], token)
			joined <- err
		}()
		if _, err := leader.run("raft", "transfer-leader", others[1].name); err != nil {
			t.Logf("hand-over: %v", err)
		}
		if err := <-joined; err != nil {
			t.Fatal(err)
		}
		if s, want := n.subnetOf(n.name), fmt.Sprintf("172.16.%d.0/22", 4*(size+i)); s != want {
			faults.Safety(t, "%s has %s, want %s", n.name, s, want)
		}
		members = append(members, n)
	}
	for _, n := range members {
		n.routed(members...)
		n.committed(time.Now(), unique("run"))
	}
	sameState(t, members)
}
