package node

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"net/netip"
	"time"

	"stellar.io/stellar/api"
	"stellar.io/stellar/internal/failpoint"
	"stellar.io/stellar/internal/peer"
	"stellar.io/stellar/ipam"
	"stellar.io/stellar/raftstore"
	"stellar.io/stellar/routes"
)

// The plan of a new cluster unless one is chosen: 1,024 nodes with 1,022
// addresses each.
var (
	defaultNetwork    = netip.MustParsePrefix("172.16.0.0/12")
	defaultSubnetBits = 22
)

// makeCluster makes a one-node cluster in the data directory, once. A crash at
// any point leaves a whole cluster or none.
func (n *Node) makeCluster(ctx context.Context, s api.ClusterSpec) error {
	n.initMu.Lock()
	defer n.initMu.Unlock()
	select {
	case <-n.initialized:
		return fmt.Errorf("%w: this node has a cluster already", ipam.ErrAlreadyInitialized)
	default:
	}
	if err := n.lost(); err != nil {
		return err
	}
	if !s.Network.IsValid() {
		s.Network = defaultNetwork
	}
	if s.SubnetPrefix == 0 {
		s.SubnetPrefix = defaultSubnetBits
	}
	if err := ipam.ValidatePlan(s.Network, s.SubnetPrefix); err != nil {
		return err
	}
	if _, err := n.wantedMode(s.SubnetPrefix); err != nil {
		return err
	}
	var raw [16]byte
	rand.Read(raw[:])
	id := hex.EncodeToString(raw[:])
	env := ipam.Envelope{Commands: []ipam.Command{
		ipam.InitCluster{ClusterID: id, Network: ipam.DefaultNetwork, Prefix: s.Network, SubnetBits: s.SubnetPrefix},
	}}
	if err := n.refuseForeignEndpoints(ctx, false); err != nil {
		return err
	}
	reservations, err := n.reserveHostRanges(s)
	if err != nil {
		return err
	}
	env.Commands = append(env.Commands, reservations...)
	if err := n.makeCA(id); err != nil {
		return fmt.Errorf("make certificates: %w", err)
	}
	if err := failpoint.Err(failpoint.InitKeys); err != nil {
		return err
	}
	cfg := n.storeConfig()
	if a := n.advertised(); a.IsValid() {
		cfg.Address = peer.RaftAddress(n.id.ID, a.String())
	}
	err = raftstore.Init(ctx, cfg, env)
	if errors.Is(err, raftstore.ErrExists) {
		return fmt.Errorf("%w: this node has a cluster already", ipam.ErrAlreadyInitialized)
	}
	if err != nil {
		return fmt.Errorf("make cluster: %w", err)
	}
	n.log.Info("cluster made", "cluster", id, "network", s.Network, "subnet_prefix", s.SubnetPrefix)
	close(n.initialized)
	return nil
}

// reserveHostRanges keeps the subnets that this host itself uses from being
// handed out: Docker's 172.17.0.0/16 lies inside the default network.
func (n *Node) reserveHostRanges(s api.ClusterSpec) ([]ipam.Command, error) {
	used, err := routes.Overlaps(-1, s.Network, n.opts.Config.Bridge)
	if err != nil {
		return nil, fmt.Errorf("look for ranges in use: %w", err)
	}
	var out []ipam.Command
	seen := map[netip.Prefix]bool{}
	for _, u := range used {
		block := u.Prefix
		if block.Bits() > s.SubnetPrefix {
			block = netip.PrefixFrom(block.Addr(), s.SubnetPrefix).Masked()
		}
		if block.Bits() <= s.Network.Bits() {
			return nil, api.Errorf(api.CodeConflict, "the host uses %s (%s), which covers the whole network %s", u.Prefix, u.Device, s.Network).
				WithHint("choose another range: stellar cluster init --network 10.0.0.0/8 --subnet-prefix 20")
		}
		if seen[block] {
			continue
		}
		seen[block] = true
		n.log.Warn("range is used by this host: its subnets will not be handed out", "range", u.Prefix, "device", u.Device)
		out = append(out, ipam.ReserveAddress{Network: ipam.DefaultNetwork, Prefix: block, Reason: "used by host " + n.id.Name + " on " + u.Device})
	}
	return out, nil
}

// InitCluster implements server.Backend.
func (n *Node) InitCluster(ctx context.Context, s api.ClusterSpec) (api.Cluster, error) {
	if err := n.makeCluster(ctx, s); err != nil {
		return api.Cluster{}, err
	}
	if err := n.awaitParts(ctx); err != nil {
		return api.Cluster{}, err
	}
	p, _ := n.current()
	return api.Cluster{Cluster: p.clusterID(), Node: n.id.Name, Network: p.network.Prefix, Subnet: p.subnet.Prefix}, nil
}

// awaitParts returns when the node holds its subnet.
func (n *Node) awaitParts(ctx context.Context) error {
	for {
		if p, _ := n.current(); p != nil {
			return nil
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(5 * time.Millisecond):
		}
	}
}
