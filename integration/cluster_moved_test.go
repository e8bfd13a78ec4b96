package integration

import (
	"fmt"
	"strings"
	"syscall"
	"testing"
	"time"

	"stellar.io/stellar/internal/testx"
)

// lanAddress is the host's first on the LAN.
func (n *node) lanAddress() string { return fmt.Sprintf("192.0.2.%d", n.name[0]-'a'+1) }

// getsAddress takes the host's address away and gives it another one, under whatever runs.
func (n *node) getsAddress(address string) {
	n.t.Helper()
	n.host.Run(n.t, "ip", "address", "del", n.lanAddress()+"/24", "dev", "eth0")
	n.host.Run(n.t, "ip", "address", "add", address+"/24", "dev", "eth0")
	n.host.Run(n.t, "ip", "route", "replace", "default", "via", "192.0.2.254")
}

// pairs starts two containers on each node, of which one pings the other.
func pairs(nodes []*node) (eps map[*node]endpoint, lost map[*node]func() (int, int)) {
	eps, lost = map[*node]endpoint{}, map[*node]func() (int, int){}
	for _, n := range nodes {
		eps[n] = n.start(unique("run-" + n.name))
		lost[n] = n.pinging(eps[n].Container, n.start(unique("mate-"+n.name)).Address)
	}
	return eps, lost
}

// wantMoved waits until all of nodes know the address of moved, and lead packets there.
func wantMoved(t *testing.T, nodes []*node, moved *node, address string) {
	t.Helper()
	for _, n := range nodes {
		if n == moved {
			continue
		}
		leadsTo(t, []*node{n}, n.subnetOf(moved.name), address)
		n.eventually(quiet, n.name+" shows the new address of "+moved.name, func() error {
			out, err := n.run("raft", "peers")
			if err == nil && !strings.Contains(out, address+":9640") {
				err = errorText(out)
			}
			return err
		})
	}
}

// TestClusterAddressChangeUnderAgent: a host gets another address while its agent runs,
// the leader's, too. The agent listens there by itself, in the same process; Raft reaches
// it, and the others' routes lead there. What runs loses no packet within the host.
func TestClusterAddressChangeUnderAgent(t *testing.T) {
	nodes := startCluster(t, 3)
	awaitVoters(t, nodes)
	for _, n := range nodes {
		n.routed(nodes...)
	}
	watchAddresses(t, nodes...)
	eps, lost := pairs(nodes)
	leader, others := leaderIn(t, nodes, nodes[0])
	for i, moved := range []*node{others[0], leader} {
		address := fmt.Sprintf("192.0.2.%d", 101+i)
		began := time.Now()
		moved.getsAddress(address)
		wantMoved(t, nodes, moved, address)
		t.Logf("%s moved: routes of the others lead to it after %s", moved.name, time.Since(began).Round(time.Millisecond))
		select {
		case err := <-moved.ended:
			t.Fatalf("the agent of %s has ended: %v\n%s", moved.name, err, moved.tail())
		default:
		}
		moved.cli("status", "--wait", "--timeout", "60s")
		awaitVoters(t, nodes)
		for _, n := range nodes {
			n.reaches(eps[n].Container, eps[moved].Address)
			moved.reaches(eps[moved].Container, eps[n].Address)
		}
		moved.committed(time.Now(), unique("moved"))
		sameState(t, nodes)
	}
	for n, l := range lost {
		wantNoLoss(t, "within "+n.name, l)
	}
}

// TestClusterAddressChangeOfAll: all three hosts get other addresses at once, so that no
// node finds another. What runs goes on, and new containers are attached. Given their old
// addresses beside the new ones for a while, the nodes meet there, agree on the new ones,
// and do without the old ones (docs/operations/nodes.md).
func TestClusterAddressChangeOfAll(t *testing.T) {
	nodes := startCluster(t, 3)
	awaitVoters(t, nodes)
	for _, n := range nodes {
		n.routed(nodes...)
	}
	watchAddresses(t, nodes...)
	eps, lost := pairs(nodes)
	moved := func(n *node) string { return fmt.Sprintf("192.0.2.%d", 100+int(n.name[0]-'a'+1)) }
	for _, n := range nodes {
		n.getsAddress(moved(n))
	}
	for _, n := range nodes {
		n.eventually(quiet, n.name+" listens at its new address", func() error {
			if out := n.host.Run(t, "ss", "-Hltn", "src", moved(n)); !strings.Contains(out, ":9640") {
				return errorText(n.host.Run(t, "ss", "-ltn"))
			}
			return nil
		})
		id := unique("alone")
		n.runContainer(testx.Run{ID: id, Labels: networked()})
		n.awaitLong(id, "provisional")
	}

	for _, n := range nodes {
		n.host.Run(t, "ip", "address", "add", n.lanAddress()+"/24", "dev", "eth0")
		if err := n.stopAgent(syscall.SIGTERM); err != nil {
			t.Error(err)
		}
	}
	for _, n := range nodes {
		n.startAgent("--listen", "0.0.0.0:9640", "--advertise", moved(n)+":9640")
	}
	for _, n := range nodes {
		n.cli("status", "--wait", "--timeout", "60s")
		wantMoved(t, nodes, n, moved(n))
	}
	for _, n := range nodes {
		n.host.Run(t, "ip", "address", "del", n.lanAddress()+"/24", "dev", "eth0")
	}
	for _, n := range nodes { // one after the other
		if err := n.stopAgent(syscall.SIGTERM); err != nil {
			t.Error(err)
		}
		n.startAgent()
		n.cli("status", "--wait", "--timeout", "60s")
	}
	awaitVoters(t, nodes)
	for _, n := range nodes {
		for _, o := range nodes {
			n.reaches(eps[n].Container, eps[o].Address)
		}
		n.committed(time.Now(), unique("moved"))
		wantNoLoss(t, "within "+n.name, lost[n])
	}
	nodes[0].checked()
	sameState(t, nodes)
}
