package main

import (
	"context"
	"io"

	"github.com/spf13/cobra"

	"stellar.io/stellar/api"
)

func (a *app) routeCommand() *cobra.Command {
	return group("route", "Routes that Stellar keeps on this node", "", a.routeLsCommand())
}

var routeList = listing[api.Route]{
	kind: "RouteList",
	name: func(r api.Route) string { return prefixCell(r.Destination) },
	columns: []column[api.Route]{
		{head: "DESTINATION", cell: func(r api.Route) string { return prefixCell(r.Destination) }},
		{head: "VIA", cell: func(r api.Route) string { return addrCell(r.Via) }},
		{head: "DEV", cell: func(r api.Route) string { return r.Dev }},
		{head: "NODE", cell: func(r api.Route) string { return r.Node }},
		{head: "STATE", cell: func(r api.Route) string { return r.State }},
	},
}

type routeLs struct{ app *app }

func (a *app) routeLsCommand() *cobra.Command {
	cmd := &cobra.Command{Use: "ls", Aliases: aliases("ls"), Short: "List routes", Args: cobra.NoArgs}
	return a.attach(cmd, &routeLs{app: a}, callTimeout)
}

func (c *routeLs) Run(ctx context.Context, _ []string, stdout, _ io.Writer) error {
	cl, err := c.app.dial()
	if err != nil {
		return err
	}
	defer cl.Close()
	items, err := cl.Routes(ctx)
	if err != nil {
		return err
	}
	return routeList.print(c.app, stdout, items)
}
