package main

import (
	"context"
	"fmt"
	"io"
	"strconv"
	"time"

	"github.com/spf13/cobra"

	"stellar.io/stellar/api"
	"stellar.io/stellar/api/client"
)

func (a *app) clusterTokenCommand() *cobra.Command {
	return group("token", "Rights to join, each for one node", "",
		a.tokenCreateCommand(), a.tokenLsCommand(), a.tokenRevokeCommand())
}

type tokenCreate struct {
	app  *app
	role string
	ttl  time.Duration
}

func (a *app) tokenCreateCommand() *cobra.Command {
	c := &tokenCreate{app: a}
	cmd := &cobra.Command{
		Use: "create", Short: "Make a token for one node, and print it alone",
		Long: "Prints the token and nothing else; it is shown only this once. Who has it can make\n" +
			"one machine a member of the cluster until it expires.",
		Args: cobra.NoArgs,
	}
	cmd.Flags().StringVar(&c.role, "role", api.RoleServer, "server (may become a voter) or node (never votes)")
	cmd.Flags().DurationVar(&c.ttl, "ttl", time.Hour, "how long it can be used")
	return a.attach(cmd, c, callTimeout)
}

func (c *tokenCreate) Run(ctx context.Context, _ []string, stdout, _ io.Writer) error {
	if c.role != api.RoleServer && c.role != api.RoleNode {
		return api.Errorf(api.CodeInvalid, "--role %q is neither server nor node", c.role)
	}
	if c.ttl <= 0 {
		return api.Errorf(api.CodeInvalid, "--ttl %s is not a time to live", c.ttl)
	}
	cl, err := c.app.dial()
	if err != nil {
		return err
	}
	defer cl.Close()
	t, err := cl.CreateToken(ctx, api.TokenSpec{Role: c.role, TTL: c.ttl})
	if err != nil {
		return err
	}
	if c.app.output == formatJSON {
		return printJSON(stdout, "Token", struct {
			api.Token
			Secret string `json:"token"`
		}{t.Token, t.Secret.Reveal()})
	}
	_, err = fmt.Fprintln(stdout, t.Secret.Reveal())
	return err
}

var tokenList = listing[api.Token]{
	kind: "TokenList",
	name: func(t api.Token) string { return t.ID },
	columns: []column[api.Token]{
		{head: "ID", cell: func(t api.Token) string { return t.ID }},
		{head: "ROLE", cell: func(t api.Token) string { return t.Role }},
		{head: "EXPIRES", cell: func(t api.Token) string { return timeCell(t.Expires) }},
		{head: "USES", cell: func(t api.Token) string { return strconv.Itoa(t.Uses) }},
		{head: "STATE", cell: func(t api.Token) string { return t.State }},
		{head: "NODE", cell: func(t api.Token) string { return t.Node }},
	},
}

func (a *app) tokenLsCommand() *cobra.Command {
	cmd := &cobra.Command{Use: "ls", Aliases: aliases("ls"), Short: "List tokens, without their secrets", Args: cobra.NoArgs}
	return a.attach(cmd, calling{a, func(ctx context.Context, cl *client.Client, _ []string, stdout io.Writer) error {
		items, err := cl.Tokens(ctx)
		if err != nil {
			return err
		}
		return tokenList.print(a, stdout, items)
	}}, callTimeout)
}

func (a *app) tokenRevokeCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use: "revoke ID", Short: "End a token before its time", Args: cobra.ExactArgs(1),
		Long: "ID is what `stellar cluster token ls` shows. A node that has joined stays a member.",
	}
	return a.attach(cmd, calling{a, func(ctx context.Context, cl *client.Client, args []string, stdout io.Writer) error {
		if looksLikeToken(args[0]) {
			return api.Errorf(api.CodeInvalid, "that is a token, not its id").WithHint("`stellar cluster token ls` shows the ids")
		}
		t, err := cl.RevokeToken(ctx, args[0])
		if err != nil {
			return err
		}
		return printObject(a, stdout, "Token", t, t.ID, []field{
			{"ID", t.ID}, {"Role", t.Role}, {"Expires", timeCell(t.Expires)}, {"Uses", strconv.Itoa(t.Uses)}, {"State", t.State}, {"Node", t.Node},
		})
	}}, callTimeout)
}
