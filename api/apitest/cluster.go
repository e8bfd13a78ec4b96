package apitest

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"net/netip"
	"slices"
	"time"

	"stellar.io/stellar/api"
	"stellar.io/stellar/ipam"
)

// The cluster that a backend without one can join: a server named beta at
// RemoteAddress, and one token in each state. What else looks like a token
// (begins with STELLAR1-) is unknown there.
const (
	RemoteAddress = "192.0.2.2:9640"
	GoodToken     = "STELLAR1-GOOD-0123456789ABCDEF"
	ExpiredToken  = "STELLAR1-EXPIRED-0123456789ABCDEF"
	RevokedToken  = "STELLAR1-REVOKED-0123456789ABCDEF"
	UsedToken     = "STELLAR1-USED-0123456789ABCDEF"
)

const tokenPrefix = "STELLAR1-"

// IDOf returns the id that AddNode gives a node.
func IDOf(name string) ipam.NodeID {
	if name == NodeName {
		return NodeID
	}
	sum := sha256.Sum256([]byte(name))
	return ipam.NodeID(hex.EncodeToString(sum[:16]))
}

// AddNode makes a member with a subnet; role is api.RoleServer or api.RoleNode.
// A server votes.
func (b *Backend) AddNode(name, role string) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.voters[IDOf(name)] = role == api.RoleServer
	return b.apply(register(name, role), ipam.ClaimSubnet{Node: IDOf(name), Network: ipam.DefaultNetwork})
}

func register(name, role string) ipam.RegisterNode {
	r := ipam.RegisterNode{
		Node: IDOf(name), Name: name, MachineID: "m-" + name, Address: "192.0.2.9:9640", Version: "v9.9.9", Mode: ipam.ModeBridge, Role: ipam.RoleServer,
	}
	if name == "beta" {
		r.Address = RemoteAddress
	}
	if role == api.RoleNode {
		r.Role = ipam.RoleNode
	}
	return r
}

// AddLease binds an address of a node's subnet, as a container there would.
func (b *Backend) AddLease(node string, a netip.Addr) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	for s := range b.state.SubnetsOf(IDOf(node)) {
		return b.apply(ipam.BindLease{Fence: s.Fence(), Addr: a, Owner: ipam.Owner{
			Kind: ipam.OwnerContainer, Namespace: "default", ID: a.String(), Created: 1, Interface: "eth0",
		}})
	}
	return ipam.ErrSubnetNotFound
}

// Lose makes a node silent, or heard again.
func (b *Backend) Lose(node string, lost bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.lost[IDOf(node)] = lost
}

// remote returns the state of the cluster that can be joined.
func (b *Backend) remote() (*ipam.State, error) {
	st, now := ipam.New(), b.now().Unix()
	err := applyTo(st,
		ipam.InitCluster{ClusterID: ClusterID, Network: ipam.DefaultNetwork, Prefix: netip.MustParsePrefix("172.16.0.0/12"), SubnetBits: 22},
		register("beta", api.RoleServer), ipam.ClaimSubnet{Node: IDOf("beta"), Network: ipam.DefaultNetwork},
		ipam.CreateToken{ID: "0000000000000001", SecretHash: sha256.Sum256([]byte(GoodToken)), Role: ipam.RoleServer, Expires: now + 60, Now: now},
		ipam.CreateToken{ID: "0000000000000002", SecretHash: sha256.Sum256([]byte(ExpiredToken)), Role: ipam.RoleServer, Expires: now, Now: now - 60},
		ipam.CreateToken{ID: "0000000000000003", SecretHash: sha256.Sum256([]byte(RevokedToken)), Role: ipam.RoleServer, Expires: now + 60, Now: now},
		ipam.CreateToken{ID: "0000000000000004", SecretHash: sha256.Sum256([]byte(UsedToken)), Role: ipam.RoleServer, Expires: now + 60, Now: now},
		ipam.RevokeToken{ID: "0000000000000003"},
		ipam.JoinNode{
			RegisterNode: register("gamma", api.RoleServer), TokenID: "0000000000000004", SecretHash: sha256.Sum256([]byte(UsedToken)),
			KeyHash: [32]byte{1}, Now: now, Network: ipam.DefaultNetwork,
		})
	return st, err
}

// JoinCluster implements server.Membership.
func (b *Backend) JoinCluster(_ context.Context, s api.JoinSpec) (api.Joined, error) {
	unlock, err := b.begin("JoinCluster")
	defer unlock()
	if err != nil {
		return api.Joined{}, err
	}
	if _, ok := b.state.Cluster(); ok {
		return api.Joined{}, ipam.ErrAlreadyInitialized
	}
	ids := map[string]string{
		GoodToken: "0000000000000001", ExpiredToken: "0000000000000002", RevokedToken: "0000000000000003", UsedToken: "0000000000000004",
	}
	token := s.Token.Reveal()
	id := ids[token]
	if id == "" && (len(token) < len(tokenPrefix) || token[:len(tokenPrefix)] != tokenPrefix) {
		return api.Joined{}, api.Errorf(api.CodeInvalid, "that is not a join token")
	}
	if s.Address != RemoteAddress {
		return api.Joined{}, api.Errorf(api.CodeUnreachable, "%s cannot be reached: connection refused", s.Address)
	}
	st, err := b.remote()
	if err != nil {
		return api.Joined{}, err
	}
	err = applyTo(st, ipam.JoinNode{
		RegisterNode: register(NodeName, api.RoleServer), TokenID: id, SecretHash: sha256.Sum256([]byte(token)), KeyHash: [32]byte{2},
		Now: b.now().Unix(), Network: ipam.DefaultNetwork, Replace: s.Replace, HostRanges: []netip.Prefix{netip.MustParsePrefix("172.17.0.0/16")},
	})
	if err != nil {
		return api.Joined{}, err
	}
	b.state, b.leader = st, IDOf("beta")
	b.voters = map[ipam.NodeID]bool{IDOf("beta"): true, IDOf("gamma"): true}
	sub, err := b.subnet()
	return api.Joined{
		Cluster: ClusterID, Node: NodeName, Network: netip.MustParsePrefix("172.16.0.0/12"), Subnet: sub.Prefix, Role: api.RoleServer,
		Warnings: []string{"172.17.0.0/16 is used by this host and was reserved"},
	}, err
}

// LeaveCluster implements server.Membership.
func (b *Backend) LeaveCluster(_ context.Context, force bool) (api.Removal, error) {
	unlock, err := b.begin("LeaveCluster")
	defer unlock()
	if err != nil {
		return api.Removal{}, err
	}
	out, err := b.remove(api.NodeRemoval{Node: string(NodeID), Force: force})
	if err == nil {
		b.state = ipam.New()
	}
	return out, err
}

// EndReclaim implements server.Membership.
func (b *Backend) EndReclaim(context.Context) (uint64, error) {
	unlock, err := b.begin("EndReclaim")
	defer unlock()
	if err != nil {
		return 0, err
	}
	c, _ := b.state.Cluster()
	return c.Generation, b.apply(ipam.EndReclaim{Generation: c.Generation})
}

// CreateToken implements server.Tokens. Ids and secrets count upwards.
func (b *Backend) CreateToken(_ context.Context, s api.TokenSpec) (api.NewToken, error) {
	unlock, err := b.begin("CreateToken")
	defer unlock()
	if err != nil {
		return api.NewToken{}, err
	}
	n := 1
	for range b.state.Tokens() {
		n++
	}
	id, secret := fmt.Sprintf("%016x", n), fmt.Sprintf("%s%026d", tokenPrefix, n)
	role := ipam.RoleServer
	if s.Role == api.RoleNode {
		role = ipam.RoleNode
	}
	err = b.apply(ipam.CreateToken{
		ID: id, SecretHash: sha256.Sum256([]byte(secret)), Role: role, Expires: b.now().Add(s.TTL).Unix(), Now: b.now().Unix(),
	})
	if err != nil {
		return api.NewToken{}, err
	}
	t, _ := b.state.Token(id)
	return api.NewToken{Token: b.token(t), Secret: api.Secret(secret)}, nil
}

func (b *Backend) token(t ipam.Token) api.Token {
	out := api.Token{ID: t.ID, Role: t.Role.String(), Expires: time.Unix(t.Expires, 0).UTC(), State: api.TokenValid}
	switch {
	case t.Used():
		n, _ := b.state.Node(t.UsedBy)
		out.State, out.Uses, out.Node = api.TokenUsed, 1, n.Name
	case t.Revoked:
		out.State = api.TokenRevoked
	case b.now().Unix() >= t.Expires:
		out.State = api.TokenExpired
	}
	return out
}

// Tokens implements server.Tokens.
func (b *Backend) Tokens(context.Context) ([]api.Token, error) {
	unlock, err := b.begin("Tokens")
	defer unlock()
	if err != nil {
		return nil, err
	}
	var out []api.Token
	for t := range b.state.Tokens() {
		out = append(out, b.token(t))
	}
	return out, nil
}

// RevokeToken implements server.Tokens.
func (b *Backend) RevokeToken(_ context.Context, id string) (api.Token, error) {
	unlock, err := b.begin("RevokeToken")
	defer unlock()
	if err == nil {
		err = b.apply(ipam.RevokeToken{ID: id})
	}
	if err != nil {
		return api.Token{}, err
	}
	t, _ := b.state.Token(id)
	return b.token(t), nil
}

// DrainNode implements server.NodeAdmin.
func (b *Backend) DrainNode(_ context.Context, id string, drain bool) (api.Node, error) {
	unlock, err := b.begin("DrainNode")
	defer unlock()
	if err == nil {
		err = b.apply(ipam.DrainNode{Node: ipam.NodeID(id), Drain: drain})
	}
	if err != nil {
		return api.Node{}, err
	}
	n, _ := b.state.Node(ipam.NodeID(id))
	return b.node(n), nil
}

// RemoveNode implements server.NodeAdmin.
func (b *Backend) RemoveNode(_ context.Context, r api.NodeRemoval) (api.Removal, error) {
	unlock, err := b.begin("RemoveNode")
	defer unlock()
	if err != nil {
		return api.Removal{}, err
	}
	return b.remove(r)
}

func (b *Backend) remove(r api.NodeRemoval) (api.Removal, error) {
	id := ipam.NodeID(r.Node)
	n, _ := b.state.Node(id)
	if err := b.quorumWithout(id); err != nil && !n.Removed {
		return api.Removal{}, err
	}
	subnets := slices.DeleteFunc(slices.Collect(b.state.Subnets()), func(s ipam.Subnet) bool { return s.Node != id })
	if err := b.apply(ipam.RemoveNode{Node: id, Force: r.Force, Dead: r.Dead}); err != nil {
		return api.Removal{}, err
	}
	out := api.Removal{Node: n.Name, ID: r.Node}
	for _, s := range subnets {
		s, _ = b.state.Subnet(s.SubnetKey)
		out.Subnet, out.SubnetState = s.Prefix, s.State.String()
	}
	return out, nil
}
