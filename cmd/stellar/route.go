package main

import (
	"context"
	"fmt"
	"io"

	"github.com/spf13/cobra"

	"stellar.io/stellar/api"
	"stellar.io/stellar/api/client"
)

func (a *app) routeCommand() *cobra.Command {
	return group("route", "Routes that Stellar keeps on this node", "", a.routeLsCommand(), a.routeSyncCommand())
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
		{head: "REASON", wide: true, cell: func(r api.Route) string { return r.Reason }},
	},
}

type routeLs struct {
	app   *app
	drift bool
}

func (a *app) routeLsCommand() *cobra.Command {
	c := &routeLs{app: a}
	cmd := &cobra.Command{
		Use: "ls", Aliases: aliases("ls"), Short: "List routes", Args: cobra.NoArgs,
		Long: "STATE is ok, missing, conflict (somebody else's route has the place and is left\n" +
			"alone), not-adjacent (the peer is not on a link of this node), stray or unreachable. With\n" +
			"--drift only those that are not as they should be, asked of the kernel now; exit code 5\n" +
			"when there are any.",
	}
	cmd.Flags().BoolVar(&c.drift, "drift", false, "only what is not as it should be; exit code 5 if there is any")
	return a.attach(cmd, c, callTimeout)
}

func (c *routeLs) Run(ctx context.Context, _ []string, stdout, _ io.Writer) error {
	cl, err := c.app.dial()
	if err != nil {
		return err
	}
	defer cl.Close()
	ask := cl.Routes
	if c.drift {
		ask = cl.RouteDrift
	}
	items, err := ask(ctx)
	if err != nil {
		return err
	}
	if err := routeList.print(c.app, stdout, items); err != nil {
		return err
	}
	if c.drift && len(items) > 0 {
		return api.Errorf(api.CodeUnhealthy, "routes that are not as they should be: %d", len(items)).
			WithHint("`stellar route ls --drift -o wide` says why; `stellar route sync` repairs what is ours")
	}
	return nil
}

var changeList = listing[api.RouteChange]{
	kind: "RouteChangeList",
	name: func(c api.RouteChange) string { return prefixCell(c.Destination) },
	columns: []column[api.RouteChange]{
		{head: "ACTION", cell: func(c api.RouteChange) string { return c.Action }},
		{head: "DESTINATION", cell: func(c api.RouteChange) string { return prefixCell(c.Destination) }},
		{head: "VIA", cell: func(c api.RouteChange) string { return addrCell(c.Via) }},
		{head: "DEV", cell: func(c api.RouteChange) string { return c.Dev }},
		{head: "NODE", cell: func(c api.RouteChange) string { return c.Node }},
		{head: "REASON", wide: true, cell: func(c api.RouteChange) string { return c.Reason }},
	},
}

func (a *app) routeSyncCommand() *cobra.Command {
	var dryRun bool
	cmd := &cobra.Command{
		Use: "sync", Short: "Make the kernel's routes right now, and show what was changed", Args: cobra.NoArgs,
		Long: "The agent does that by itself within 2 s; this does not wait. Only routes that bear\n" +
			"Stellar's mark are touched.",
	}
	cmd.Flags().BoolVar(&dryRun, "dry-run", false, "show what would be changed, and change nothing")
	return a.attach(cmd, calling{a, func(ctx context.Context, cl *client.Client, _ []string, stdout io.Writer) error {
		changes, err := cl.SyncRoutes(ctx, dryRun)
		if err != nil {
			return err
		}
		if len(changes) == 0 && (a.output == formatTable || a.output == formatWide) {
			_, err = fmt.Fprintln(stdout, "all routes are as they should be")
			return err
		}
		return changeList.print(a, stdout, changes)
	}}, callTimeout)
}
