package peer

import (
	"fmt"
	"io"
	"net"
	"sync"
	"testing"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/hashicorp/raft"

	"stellar.io/stellar/internal/pki"
	"stellar.io/stellar/ipam"
)

// counter is a state machine that keeps what was applied.
type counter struct {
	mu      sync.Mutex
	entries []string
}

func (c *counter) Apply(l *raft.Log) any {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.entries = append(c.entries, string(l.Data))
	return len(c.entries)
}

func (c *counter) len() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return len(c.entries)
}

func (c *counter) Snapshot() (raft.FSMSnapshot, error) { return nil, fmt.Errorf("not in this test") }
func (c *counter) Restore(io.ReadCloser) error         { return fmt.Errorf("not in this test") }

// byID resolves a server id as raftstore is to do it: the id becomes a part of
// the address, so that Dial can insist on it.
type byID map[raft.ServerID]*Port

func (m byID) ServerAddr(id raft.ServerID) (raft.ServerAddress, error) {
	p, ok := m[id]
	if !ok {
		return "", fmt.Errorf("no server %s", id)
	}
	return raft.ServerAddress(RaftAddress(ipam.NodeID(id), p.Addr().String())), nil
}

// streams gives Dial the type that Raft wants, as raftstore does.
type streams struct{ *StreamLayer }

func (s streams) Dial(address raft.ServerAddress, timeout time.Duration) (net.Conn, error) {
	return s.StreamLayer.Dial(string(address), timeout)
}

// raftStream is raftstore.StreamLayer.
type raftStream interface {
	net.Listener
	Dial(address string, timeout time.Duration) (net.Conn, error)
}

var _ raftStream = (*StreamLayer)(nil)

type raftNode struct {
	id    pki.Identity
	port  *Port
	raft  *raft.Raft
	trans *raft.NetworkTransport
	fsm   *counter
}

// startRaft opens three rafts over three ports.
func startRaft(t *testing.T, ca *pki.CA) []*raftNode {
	t.Helper()
	addresses := byID{}
	var nodes []*raftNode
	var servers []raft.Server
	for i := range 3 {
		id := member(i)
		n := &raftNode{id: id, fsm: &counter{}, port: start(t, Config{TLS: newStore(t, ca, id)})}
		addresses[raft.ServerID(id.Node)] = n.port
		servers = append(servers, raft.Server{ID: raft.ServerID(id.Node), Address: raft.ServerAddress(n.port.Addr().String())})
		nodes = append(nodes, n)
	}
	var log logs
	logger := hclog.New(&hclog.LoggerOptions{Level: hclog.Error, Output: &log})
	t.Cleanup(func() { // registered first, it runs after the shutdown of the rafts
		if s := log.String(); s != "" {
			t.Errorf("the transport complains: %s", s)
		}
	})
	for _, n := range nodes {
		n.trans = raft.NewNetworkTransportWithConfig(&raft.NetworkTransportConfig{
			Stream: streams{n.port.Raft()}, MaxPool: 3, Timeout: 5 * time.Second, ServerAddressProvider: addresses,
			MsgpackUseNewTimeFormat: true, Logger: logger,
		})
		cfg := raft.DefaultConfig()
		cfg.LocalID = raft.ServerID(n.id.Node)
		cfg.HeartbeatTimeout, cfg.ElectionTimeout, cfg.LeaderLeaseTimeout = 500*time.Millisecond, 500*time.Millisecond, 250*time.Millisecond
		cfg.LogOutput = io.Discard
		cfg.NoLegacyTelemetry = true
		store := raft.NewInmemStore()
		n.raft = must(raft.NewRaft(cfg, n.fsm, store, store, raft.NewInmemSnapshotStore(), n.trans))
		t.Cleanup(func() {
			if err := n.raft.Shutdown().Error(); err != nil {
				t.Error(err)
			}
			n.trans.Close()
		})
	}
	if err := nodes[0].raft.BootstrapCluster(raft.Configuration{Servers: servers}).Error(); err != nil {
		t.Fatal(err)
	}
	return nodes
}

func leader(t *testing.T, nodes []*raftNode) *raftNode {
	t.Helper()
	var found *raftNode
	waitFor(t, "a leader", func() bool {
		for _, n := range nodes {
			if n.raft.State() == raft.Leader {
				found = n
				return true
			}
		}
		return false
	})
	return found
}

// TestRaftReplicates runs hashicorp/raft over the ports: entries arrive
// everywhere, connections that are cut come back, and leadership moves.
func TestRaftReplicates(t *testing.T) {
	t.Parallel()
	nodes := startRaft(t, newCA(clusterA))
	want := 0
	apply := func(n int) {
		t.Helper()
		for range n {
			for end := time.Now().Add(10 * time.Second); ; {
				err := leader(t, nodes).raft.Apply(fmt.Appendf(nil, "entry %d", want), 5*time.Second).Error()
				if err == nil {
					break
				}
				if time.Now().After(end) {
					t.Fatal(err)
				}
			}
			want++
		}
		waitFor(t, "the entries everywhere", func() bool {
			for _, n := range nodes {
				if n.fsm.len() < want {
					return false
				}
			}
			return true
		})
	}
	apply(200)
	// Followers know the leader's address in a form that they can dial.
	lead := leader(t, nodes)
	for _, n := range nodes {
		address, id := n.raft.LeaderWithID()
		if node, at := splitRaftAddress(string(address)); string(id) != string(lead.id.Node) || at != lead.port.Addr().String() ||
			node != "" && node != lead.id.Node {
			t.Errorf("%s sees the leader %s at %s", n.id, id, address)
		}
	}
	// All connections of one follower are cut, in both directions.
	for _, n := range nodes {
		if n != lead {
			n.port.DropNode(lead.id.Node)
			lead.port.DropNode(n.id.Node)
		}
	}
	apply(50)
	if err := leader(t, nodes).raft.LeadershipTransfer().Error(); err != nil {
		t.Fatal(err)
	}
	apply(50)
	for _, n := range nodes {
		if got := n.fsm.len(); got < want {
			t.Errorf("%s applied %d of %d", n.id, got, want)
		}
	}
}

// TestRaftAddress: what answers at a peer's address is another node of the
// same cluster. Raft must not take it for the peer.
func TestRaftAddress(t *testing.T) {
	t.Parallel()
	ca := newCA(clusterA)
	other := start(t, Config{TLS: newStore(t, ca, member(2))})
	serveAll(other)
	p := start(t, Config{TLS: newStore(t, ca, member(0))})
	layer := p.Raft()
	for address, ok := range map[string]bool{
		RaftAddress(member(1).Node, other.Addr().String()): false,
		RaftAddress(member(2).Node, other.Addr().String()): true,
		other.Addr().String():                              true,
	} {
		c, err := layer.Dial(address, 0)
		if (err == nil) != ok {
			t.Errorf("%s: %v", address, err)
		}
		if err == nil {
			c.Close()
		}
	}
	if got := layer.Addr().String(); got != p.Advertise().String() {
		t.Errorf("address %s", got)
	}
}
