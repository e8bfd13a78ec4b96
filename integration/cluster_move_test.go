package integration

import (
	"fmt"
	"strings"
	"syscall"
	"testing"
	"time"
)

// movesTo gives the host another address on the LAN; its agent is started again.
func (n *node) movesTo(host int) {
	n.t.Helper()
	if err := n.stopAgent(syscall.SIGTERM); err != nil {
		n.t.Error(err)
	}
	old := fmt.Sprintf("192.0.2.%d/24", n.name[0]-'a'+1)
	n.host.Run(n.t, "ip", "address", "del", old, "dev", "eth0")
	n.host.Run(n.t, "ip", "address", "add", fmt.Sprintf("192.0.2.%d/24", host), "dev", "eth0")
	n.host.Run(n.t, "ip", "route", "replace", "default", "via", "192.0.2.254")
	n.startAgent()
	n.cli("status", "--wait", "--timeout", "60s")
}

// TestClusterAddressChange: a node whose host has got another address says so by
// itself. Raft reaches it there, and the others' routes lead there.
func TestClusterAddressChange(t *testing.T) {
	nodes := startCluster(t, 3)
	awaitVoters(t, nodes)
	eps := map[*node]endpoint{}
	for _, n := range nodes {
		n.routed(nodes...)
		eps[n] = n.start(unique("run-" + n.name))
	}
	leader, others := leaderIn(t, nodes, nodes[0])
	for i, moved := range []*node{others[0], leader} { // also who leads
		address := fmt.Sprintf("192.0.2.%d", 101+i)
		began := time.Now()
		moved.movesTo(101 + i)
		subnet := moved.subnetOf(moved.name)
		for _, n := range nodes {
			if n == moved {
				continue
			}
			n.eventually(quiet, n.name+" has a route to the new address of "+moved.name, func() error {
				out := n.host.Run(t, "ip", "route", "show", subnet)
				if !strings.Contains(out, "via "+address+" ") || strings.Count(out, "via") != 1 {
					return errorText(out)
				}
				return nil
			})
			n.eventually(quiet, n.name+" shows the new address", func() error {
				if out := n.cli("node", "ls"); !strings.Contains(out, address+":9640") {
					return errorText(out)
				}
				return nil
			})
			if out := n.cli("raft", "peers"); !strings.Contains(out, address+":9640") {
				t.Errorf("raft peers on %s:\n%s", n.name, out)
			}
		}
		t.Logf("%s moved: routes of the others lead to it after %s, its restart included", moved.name, time.Since(began).Round(time.Millisecond))
		awaitVoters(t, nodes)
		for _, n := range nodes {
			n.reaches(eps[n].Container, eps[moved].Address)
			moved.reaches(eps[moved].Container, eps[n].Address)
		}
		moved.committed(time.Now(), unique("moved"))
		sameState(t, nodes)
	}
}
