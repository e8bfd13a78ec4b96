package main

import (
	"context"
	"io"
	"strconv"

	"github.com/spf13/cobra"

	"stellar.io/stellar/api"
)

func (a *app) nodeCommand() *cobra.Command {
	return group("node", "Members of the cluster", "", a.nodeLsCommand())
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
	},
}

type nodeLs struct{ app *app }

func (a *app) nodeLsCommand() *cobra.Command {
	cmd := &cobra.Command{Use: "ls", Aliases: aliases("ls"), Short: "List nodes; * marks this one", Args: cobra.NoArgs}
	return a.attach(cmd, &nodeLs{app: a}, callTimeout)
}

func (c *nodeLs) Run(ctx context.Context, _ []string, stdout, _ io.Writer) error {
	cl, err := c.app.dial()
	if err != nil {
		return err
	}
	defer cl.Close()
	items, err := cl.Nodes(ctx)
	if err != nil {
		return err
	}
	return nodeList.print(c.app, stdout, items)
}
