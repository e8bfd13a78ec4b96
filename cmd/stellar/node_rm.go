package main

import (
	"context"
	"errors"
	"fmt"
	"io"

	"github.com/spf13/cobra"

	"stellar.io/stellar/api"
)

type nodeDrain struct {
	app *app
	off bool
}

func (a *app) nodeDrainCommand() *cobra.Command {
	c := &nodeDrain{app: a}
	cmd := &cobra.Command{
		Use: "drain NAME", Short: "Keep new endpoints off a node", Args: cobra.ExactArgs(1), ValidArgsFunction: a.completeNodes,
		Long: "Containers that run there keep their networks; new ones get none until --off.",
	}
	cmd.Flags().BoolVar(&c.off, "off", false, "let the node have new endpoints again")
	return a.attach(cmd, c, callTimeout)
}

func (c *nodeDrain) Run(ctx context.Context, args []string, stdout, _ io.Writer) error {
	cl, err := c.app.dial()
	if err != nil {
		return err
	}
	defer cl.Close()
	n, err := cl.DrainNode(ctx, args[0], !c.off)
	if err != nil {
		return err
	}
	return printNode(c.app, stdout, n)
}

type nodeRm struct {
	app         *app
	force, dead bool
}

func (a *app) nodeRmCommand() *cobra.Command {
	c := &nodeRm{app: a}
	cmd := &cobra.Command{
		Use: "rm NAME", Aliases: []string{"remove"}, Short: "End the membership of a node, for good",
		Long: "Refused while endpoints run there. With --force they may: the node's routes are\n" +
			"withdrawn, and its subnet is quarantined, since its containers may still use it. With\n" +
			"--force --dead you vouch that it is switched off: its subnet may be handed out again.\n" +
			"Removal of a node that is removed already and --force --dead end its quarantine.",
		Args: func(cmd *cobra.Command, args []string) error {
			if c.dead && !c.force {
				return errors.New("--dead needs --force")
			}
			return cobra.ExactArgs(1)(cmd, args)
		},
		ValidArgsFunction: a.completeNodes,
	}
	cmd.Flags().BoolVar(&c.force, "force", false, "even while endpoints run there or the node does not answer; quarantines its subnet")
	cmd.Flags().BoolVar(&c.dead, "dead", false, "with --force: the node is dead for certain; frees its subnet")
	return a.attach(cmd, c, waitTimeout)
}

func (c *nodeRm) Run(ctx context.Context, args []string, stdout, _ io.Writer) error {
	cl, err := c.app.dial()
	if err != nil {
		return err
	}
	defer cl.Close()
	n, err := cl.Node(ctx, args[0])
	if err != nil {
		return err
	}
	if err := c.app.confirm(c.action(n)); err != nil {
		return err
	}
	got, err := cl.RemoveNode(ctx, api.NodeRemoval{Node: n.ID, Force: c.force, Dead: c.dead})
	if err != nil {
		return err
	}
	return printRemoval(c.app, stdout, got)
}

// action says what the removal will do.
func (c *nodeRm) action(n api.Node) string {
	switch {
	case c.dead:
		return fmt.Sprintf("remove node %s for good, which you vouch is dead: %s", n.Name, subnetFate(n, "becomes free at once, with all its addresses"))
	case c.force:
		return fmt.Sprintf("remove node %s for good, although it may still run containers: %s", n.Name, subnetFate(n, "is quarantined, and handed to nobody"))
	}
	return fmt.Sprintf("remove node %s for good: %s", n.Name, subnetFate(n, "becomes free"))
}

// subnetFate says what will happen to a node's subnet.
func subnetFate(n api.Node, fate string) string {
	if !n.Subnet.IsValid() {
		return "it has no subnet"
	}
	endpoints := "endpoints"
	if n.Endpoints == 1 {
		endpoints = "endpoint"
	}
	return fmt.Sprintf("its subnet %s (%d %s) %s", n.Subnet, n.Endpoints, endpoints, fate)
}

func printRemoval(a *app, stdout io.Writer, r api.Removal) error {
	return printObject(a, stdout, "Removal", r, r.Node, []field{
		{"Removed", r.Node}, {"ID", r.ID}, {"Subnet", prefixCell(r.Subnet)}, {"Subnet state", r.SubnetState},
	})
}
