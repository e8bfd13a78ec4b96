package ipam

import (
	"fmt"
	"net/netip"

	"stellar.io/stellar/ipam/ipampb"
)

// InitCluster gives the cluster its identity and its first network, once. The
// same command again does nothing; another one is refused with ErrAlreadyInitialized.
type InitCluster struct {
	ClusterID  string // 32 lower-case hexadecimal digits
	Network    string
	Prefix     netip.Prefix
	SubnetBits int
}

func (c InitCluster) apply(t *tx) Result {
	if !NodeID(c.ClusterID).Valid() {
		return Result{Err: fmt.Errorf("%w: cluster id %q", ErrInvalid, c.ClusterID)}
	}
	if !validNetworkName(c.Network) {
		return Result{Err: fmt.Errorf("%w: network name %q", ErrInvalid, c.Network)}
	}
	if err := ValidatePlan(c.Prefix, c.SubnetBits); err != nil {
		return Result{Err: err}
	}
	if t.cluster.ID != "" {
		n, ok := t.networks.get(c.Network)
		if t.cluster.ID == c.ClusterID && ok && n.Prefix == c.Prefix && n.SubnetBits == c.SubnetBits {
			return Result{}
		}
		return Result{Err: fmt.Errorf("cluster %s: %w", t.cluster.ID, ErrAlreadyInitialized)}
	}
	t.putCluster(clusterRecord{ID: c.ClusterID, Generation: 1})
	t.putNetwork(Network{Name: c.Network, ID: 1, Prefix: c.Prefix, SubnetBits: c.SubnetBits})
	return Result{}
}

func (c InitCluster) pb() (*ipampb.Command, error) {
	if c.SubnetBits < 0 || c.SubnetBits > 128 {
		return nil, fmt.Errorf("%w: subnet prefix /%d", ErrInvalid, c.SubnetBits)
	}
	return &ipampb.Command{Kind: &ipampb.Command_InitCluster{InitCluster: &ipampb.InitCluster{
		ClusterId: c.ClusterID, Network: c.Network,
		Prefix: prefixToPB(c.Prefix), SubnetBits: uint32(c.SubnetBits),
	}}}, nil
}

func initClusterFromPB(m *ipampb.InitCluster) Command {
	return InitCluster{
		ClusterID: m.GetClusterId(), Network: m.GetNetwork(),
		Prefix: prefixFromPB(m.GetPrefix()), SubnetBits: int(m.GetSubnetBits()),
	}
}
