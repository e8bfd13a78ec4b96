package main

import (
	"context"
	"io"
	"net/netip"

	"github.com/spf13/cobra"

	"stellar.io/stellar/api"
)

func (a *app) clusterCommand() *cobra.Command {
	return group("cluster", "Make, join and leave a cluster", "",
		a.clusterInitCommand(), a.clusterJoinCommand(), a.clusterLeaveCommand(), a.clusterTokenCommand(), a.clusterEndReclaimCommand())
}

type clusterInit struct {
	app          *app
	network      string
	subnetPrefix int
}

func (a *app) clusterInitCommand() *cobra.Command {
	c := &clusterInit{app: a}
	cmd := &cobra.Command{
		Use: "init", Short: "Make a new cluster with this node as its first member", Args: cobra.NoArgs,
		Long: "Makes a new cluster, once. What is chosen here holds for the life of the cluster.",
	}
	f := cmd.Flags()
	f.StringVar(&c.network, "network", "172.16.0.0/12", "address space of all containers")
	f.IntVar(&c.subnetPrefix, "subnet-prefix", 22, "prefix length of the subnet of each node")
	return a.attach(cmd, c, waitTimeout)
}

func (c *clusterInit) Run(ctx context.Context, _ []string, stdout, _ io.Writer) error {
	network, err := netip.ParsePrefix(c.network)
	if err != nil || network != network.Masked() {
		return api.Errorf(api.CodeInvalid, "--network %s is not a block like 172.16.0.0/12", c.network)
	}
	if c.subnetPrefix <= 0 || c.subnetPrefix > network.Addr().BitLen() {
		return api.Errorf(api.CodeInvalid, "--subnet-prefix %d is not the length of a prefix", c.subnetPrefix)
	}
	cl, err := c.app.dial()
	if err != nil {
		return err
	}
	defer cl.Close()
	got, err := cl.InitCluster(ctx, api.ClusterSpec{Network: network, SubnetPrefix: c.subnetPrefix})
	if err != nil {
		return err
	}
	return printObject(c.app, stdout, "Cluster", got, got.Cluster, []field{
		{"Cluster", got.Cluster}, {"Node", got.Node}, {"Network", got.Network.String()}, {"Subnet", prefixCell(got.Subnet)},
	})
}
