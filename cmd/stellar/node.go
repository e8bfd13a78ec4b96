package main

import (
	"context"
	"io"
	"strconv"

	"github.com/spf13/cobra"

	"stellar.io/stellar/api"
)

func (a *app) nodeCommand() *cobra.Command {
	return group("node", "Members of the cluster", "",
		a.nodeLsCommand(), a.nodeInspectCommand(), a.nodeDrainCommand(), a.nodeRmCommand())
}

var nodeList = listing[api.Node]{
	kind: "NodeList",
	name: func(n api.Node) string { return n.Name },
	columns: []column[api.Node]{
		{head: "NODE", cell: func(n api.Node) string {
			if n.Self {
				return n.Name + "*"
			}
			return n.Name
		}},
		{head: "ADDRESS", cell: func(n api.Node) string { return n.Address }},
		{head: "SUBNET", cell: func(n api.Node) string { return prefixCell(n.Subnet) }},
		{head: "STATUS", cell: func(n api.Node) string { return n.Status }},
		{head: "ROLE", cell: func(n api.Node) string { return n.Role }},
		{head: "ENDPOINTS", cell: func(n api.Node) string { return strconv.Itoa(n.Endpoints) }},
		{head: "VERSION", cell: func(n api.Node) string { return n.Version }},
		{head: "ID", wide: true, cell: func(n api.Node) string { return n.ID }},
		{head: "EPOCH", wide: true, cell: func(n api.Node) string { return n.Epoch }},
		{head: "MODE", wide: true, cell: func(n api.Node) string { return n.Mode }},
	},
}

type nodeLs struct {
	app *app
	freshness
}

func (a *app) nodeLsCommand() *cobra.Command {
	c := &nodeLs{app: a}
	cmd := &cobra.Command{
		Use: "ls", Aliases: aliases("ls"), Short: "List nodes; * marks this one", Args: cobra.NoArgs,
		Long: "STATUS is ready, joining, draining, lost (does not answer), fenced (was removed, or is\n" +
			"of an older generation) or removed, listed while its subnet is quarantined. ROLE is\n" +
			"leader, voter, server (may become a voter) or node.",
	}
	c.add(cmd)
	return a.attach(cmd, c, callTimeout)
}

func (c *nodeLs) Run(ctx context.Context, _ []string, stdout, _ io.Writer) error {
	cl, err := c.app.dial()
	if err != nil {
		return err
	}
	defer cl.Close()
	items, err := c.of(cl).Nodes(ctx)
	if err != nil {
		return err
	}
	return nodeList.print(c.app, stdout, items)
}

type nodeInspect struct {
	app *app
	freshness
}

func (a *app) nodeInspectCommand() *cobra.Command {
	c := &nodeInspect{app: a}
	cmd := &cobra.Command{
		Use: "inspect NAME", Short: "Show one node", Args: cobra.ExactArgs(1), ValidArgsFunction: a.completeNodes,
		Long: "NAME is a node's name, its id, or the first digits of its id.",
	}
	c.add(cmd)
	return a.attach(cmd, c, callTimeout)
}

func (c *nodeInspect) Run(ctx context.Context, args []string, stdout, _ io.Writer) error {
	cl, err := c.app.dial()
	if err != nil {
		return err
	}
	defer cl.Close()
	n, err := c.of(cl).Node(ctx, args[0])
	if err != nil {
		return err
	}
	return printNode(c.app, stdout, n)
}

func printNode(a *app, stdout io.Writer, n api.Node) error {
	return printObject(a, stdout, "Node", n, n.Name, []field{
		{"Node", n.Name}, {"ID", n.ID}, {"Address", n.Address}, {"Status", n.Status}, {"Role", n.Role}, {"Subnet", prefixCell(n.Subnet)},
		{"Epoch", n.Epoch}, {"Mode", n.Mode}, {"Endpoints", strconv.Itoa(n.Endpoints)}, {"Version", n.Version}, {"This node", yesNo(n.Self)},
	})
}
