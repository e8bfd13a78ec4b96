package integration

import (
	"context"
	"crypto/sha256"
	"fmt"
	"io"
	"log/slog"
	"net/netip"
	"os"
	"path/filepath"
	"sync"
	"time"

	"stellar.io/stellar/api/peerapi"
	"stellar.io/stellar/internal/peer"
	"stellar.io/stellar/internal/pki"
	"stellar.io/stellar/ipam"
	"stellar.io/stellar/raftstore"
)

// manyServer is a process with one member of Raft. Its methods are called by the test.
type manyServer struct {
	node *storeNode
	seen *changes
}

// ServerArgs are the arguments of Server.Start.
type ServerArgs struct {
	Node   int // its number
	Dir    string
	Listen netip.AddrPort
	CA     []byte // nil: it was there before
	CAKey  []byte
	Made   bool // the store is there
}

// manyID is the identity of a node, and manyName its name; they count from 0.
func manyID(i int) ipam.NodeID { return ipam.NodeID(fmt.Sprintf("%032x", i+1)) }
func manyName(i int) string    { return fmt.Sprint("n", i) }

// manyAddress is what the state says of where a node is. Nobody calls it there.
func manyAddress(i int) string { return fmt.Sprintf("192.168.%d.%d:9640", i/250, i%250+1) }

// Start runs the server; its store is made if it is not there yet.
func (m *manyServer) Start(a ServerArgs, _ *None) error {
	n := &storeNode{id: manyID(a.Node), dir: a.Dir}
	m.node, m.seen = n, &changes{}
	identity := pki.Identity{Cluster: storeCluster, Node: n.id, Name: manyName(a.Node), Role: pki.RoleServer, Raft: true}
	if err := openPort(n, identity, a.CA, a.CAKey, a.Listen); err != nil {
		return err
	}
	cfg := n.config(m.seen)
	cfg.Streams = n.port.Raft()
	cfg.StabilizeTime = 200 * time.Millisecond
	ctx := context.Background()
	var err error
	switch {
	case a.Made:
	case a.Node == 0:
		network := ipam.InitCluster{ClusterID: storeCluster, Network: ipam.DefaultNetwork, Prefix: netip.MustParsePrefix("10.0.0.0/8"), SubnetBits: 22}
		err = raftstore.Init(ctx, cfg, ipam.Envelope{Commands: append([]ipam.Command{network}, registered(0, ipam.RoleServer, n.port.Advertise().String())...)})
	default:
		err = raftstore.InitJoin(ctx, cfg)
	}
	if err != nil {
		return err
	}
	if n.store, err = raftstore.Open(cfg); err != nil {
		return err
	}
	n.runInProcess()
	return nil
}

// registered makes node i a member with a subnet.
func registered(i int, role ipam.Role, address string) []ipam.Command {
	return []ipam.Command{
		ipam.RegisterNode{Node: manyID(i), Name: manyName(i), MachineID: string(manyID(i)), Address: address, Version: "1", Mode: ipam.ModeBridge, Role: role},
		ipam.ClaimSubnet{Node: manyID(i), Network: ipam.DefaultNetwork},
	}
}

// openPort gives a node its certificate, if it has none yet, and its port. All nodes are
// on one address, each of them as eager as one that has its own: the port's limit for an
// address is its limit for all.
func openPort(n *storeNode, identity pki.Identity, caCert, caKey []byte, listen netip.AddrPort) error {
	certs, err := pki.Open(filepath.Join(n.dir, "tls"), pki.Options{})
	if err != nil {
		return err
	}
	if _, ok := certs.Identity(); !ok {
		if err := certify(certs, identity, caCert, caKey); err != nil {
			return err
		}
	}
	n.port, err = peer.New(peer.Config{
		Listen: listen, TLS: certs, Logger: processLog, MaxPendingPerIP: peer.DefaultConfig().MaxPending,
	})
	if err != nil {
		return err
	}
	n.port.HandleAPI(peerapi.Handler(peerapi.Config{Backend: storeBackend{node: n}, Caller: func(ctx context.Context) (peerapi.Caller, bool) {
		id, ok := peer.Caller(ctx)
		return peerapi.Caller{Node: id.Node, Name: id.Name, Role: id.Role.String(), Raft: id.Raft}, ok
	}}))
	return nil
}

// certify gets a certificate for a new key from the CA.
func certify(certs *pki.Store, identity pki.Identity, caCert, caKey []byte) error {
	ca, err := pki.LoadCA(caCert, caKey)
	if err != nil {
		return err
	}
	request, err := certs.Request(identity)
	if err != nil {
		return err
	}
	der, err := ca.Sign(request, identity, time.Now(), time.Hour)
	if err != nil {
		return err
	}
	roots, err := pki.ParseCerts(caCert)
	if err != nil {
		return err
	}
	return certs.Install(der, roots)
}

// processLog is for what a process has to say; the test shows its end when it fails.
var processLog = slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelWarn}))

// config is what servers and followers have in common.
func (n *storeNode) config(seen *changes) raftstore.Config {
	return raftstore.Config{
		Dir: filepath.Join(n.dir, "raft"), NodeID: n.id, Address: peer.RaftAddress(n.id, n.port.Advertise().String()),
		Followers: n.port.Followers(), OnApply: seen.applied, Logger: processLog,
		Forward: func(ctx context.Context, leader ipam.NodeID, at string, request []byte) ([]byte, error) {
			return n.client(leader, at).Forward(ctx, request)
		},
		FetchState: func(ctx context.Context, leader ipam.NodeID, at string) (io.ReadCloser, error) {
			return n.client(leader, at).FetchState(ctx)
		},
	}
}

// runInProcess runs the node until the process ends.
func (n *storeNode) runInProcess() {
	for _, run := range []func(context.Context) error{n.port.Run, n.store.Run} {
		go func() {
			if err := run(context.Background()); err != nil {
				processLog.Error("a part of a node ended", "node", n.id, "error", err)
				os.Exit(1)
			}
		}()
	}
}

// Add takes another server into Raft.
func (m *manyServer) Add(a ServerArgs, _ *None) error {
	ctx, cancel := context.WithTimeout(context.Background(), quiet)
	defer cancel()
	address := peer.RaftAddress(manyID(a.Node), a.Listen.String())
	if err := raftstore.Retry(ctx, func(ctx context.Context) error { return m.node.store.AddServer(ctx, manyID(a.Node), address) }); err != nil {
		return err
	}
	_, err := m.node.propose(ctx, registered(a.Node, ipam.RoleServer, a.Listen.String()))
	return err
}

// Fill registers nodes and gives each a subnet, so that the state has its real size.
func (m *manyServer) Fill(nodes []int, _ *None) error {
	ctx, cancel := context.WithTimeout(context.Background(), 2*quiet)
	defer cancel()
	for len(nodes) > 0 {
		n := min(len(nodes), 100)
		var commands []ipam.Command
		for _, i := range nodes[:n] {
			commands = append(commands, registered(i, ipam.RoleNode, manyAddress(i))...)
		}
		if _, err := m.node.propose(ctx, commands); err != nil {
			return err
		}
		nodes = nodes[n:]
	}
	return nil
}

// ServerStats is what a server says of itself.
type ServerStats struct {
	State     string
	Voters    int
	Index     uint64
	Followers int
	Hash      string
}

// Stats answers what the server knows.
func (m *manyServer) Stats(_ None, r *ServerStats) error {
	st := m.node.store.Stats()
	r.State, r.Voters, r.Index, r.Followers = st.State, st.Voters, st.AppliedIndex, len(m.node.store.FollowedBy())
	_, sum, err := m.node.store.Hash(context.Background(), 0)
	r.Hash = fmt.Sprintf("%x", sum)
	return err
}

// ChangeArgs are the arguments of Crowd.Change: a node joins and gets a subnet, or it is
// removed, whose subnet this was.
type ChangeArgs struct {
	Node   int
	Subnet netip.Prefix // zero: it joins
}

// Change is a subnet that has changed.
type Change struct {
	Subnet netip.Prefix
	Index  uint64
	Began  int64 // when it was proposed
}

// Change proposes a change of a subnet, as a server does for a machine that joins.
func (m *manyServer) Change(a ChangeArgs, r *Change) error {
	ctx, cancel := context.WithTimeout(context.Background(), quiet)
	defer cancel()
	state, commands := ipam.Held, joined(a.Node)
	if a.Subnet.IsValid() {
		state, commands = ipam.SubnetFree, []ipam.Command{ipam.RemoveNode{Node: manyID(a.Node)}}
	}
	r.Subnet, r.Began = a.Subnet, monotonic()
	results, err := m.node.propose(ctx, commands)
	if err != nil {
		return err
	}
	if !r.Subnet.IsValid() {
		r.Subnet = results[len(results)-1].Subnet
	}
	for r.Index == 0 { // OnApply is called after Propose was answered
		if r.Index = m.seen.of(r.Subnet, state); r.Index == 0 {
			time.Sleep(time.Millisecond)
		}
		if ctx.Err() != nil {
			return fmt.Errorf("%s is not %s by what %s has applied", r.Subnet, state, m.node.id.Short())
		}
	}
	return nil
}

// joined is a token for a machine and its join with that.
func joined(i int) []ipam.Command {
	now := time.Now().Unix()
	token := ipam.CreateToken{ID: fmt.Sprintf("%016x", i), SecretHash: sha256.Sum256([]byte("secret")), Role: ipam.RoleNode, Expires: now + 3600, Now: now}
	register, ok := registered(i, ipam.RoleNode, manyAddress(i))[0].(ipam.RegisterNode)
	if !ok {
		panic("a node is not registered first")
	}
	return []ipam.Command{token, ipam.JoinNode{
		RegisterNode: register, TokenID: token.ID, SecretHash: token.SecretHash,
		KeyHash: sha256.Sum256([]byte("key")), Now: now, Network: ipam.DefaultNetwork,
	}}
}

// Seen answers when the server had applied a change.
func (m *manyServer) Seen(index uint64, at *int64) error {
	*at = m.seen.at(index)
	return nil
}

// changes notes when a node's state showed that subnets had changed.
type changes struct {
	mu   sync.Mutex // guards list
	list []seenChange
}

type seenChange struct {
	index  uint64
	at     int64 // monotonic
	whole  bool  // the whole state was replaced
	prefix netip.Prefix
	state  ipam.SubnetState
}

// applied is the store's OnApply, which is called when View shows it.
func (c *changes) applied(index uint64, deltas []ipam.Delta) {
	seen := seenChange{index: index, whole: deltas == nil}
	for _, d := range deltas {
		if put, ok := d.(ipam.SubnetPut); ok {
			seen.prefix, seen.state = put.Subnet.Prefix, put.Subnet.State
		}
	}
	if !seen.whole && !seen.prefix.IsValid() {
		return
	}
	seen.at = monotonic()
	c.mu.Lock()
	defer c.mu.Unlock()
	c.list = append(c.list, seen)
}

// at returns when the state was at an index of such a change, or past it; 0: it is not.
func (c *changes) at(index uint64) int64 {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, s := range c.list {
		if s.index >= index {
			return s.at
		}
	}
	return 0
}

// of returns the index of the latest change of a subnet to a state; 0: there was none.
func (c *changes) of(prefix netip.Prefix, state ipam.SubnetState) uint64 {
	c.mu.Lock()
	defer c.mu.Unlock()
	for i := len(c.list) - 1; i >= 0; i-- {
		if s := c.list[i]; s.prefix == prefix && s.state == state {
			return s.index
		}
	}
	return 0
}
