package main

import (
	"context"
	"io"
	"time"

	"github.com/spf13/cobra"

	"stellar.io/stellar/api/client"
)

// calling is a command that asks the agent and prints the answer.
type calling struct {
	app *app
	do  func(ctx context.Context, cl *client.Client, args []string, stdout io.Writer) error
}

func (c calling) Run(ctx context.Context, args []string, stdout, _ io.Writer) error {
	cl, err := c.app.dial()
	if err != nil {
		return err
	}
	defer cl.Close()
	return c.do(ctx, cl, args, stdout)
}

// freshness is the flag of reads of the replicated state.
type freshness struct{ linearizable bool }

func (f *freshness) add(cmd *cobra.Command) {
	cmd.Flags().BoolVar(&f.linearizable, "linearizable", false, "with everything that was committed before; fails without a leader")
}

// of returns the client that reads as fresh as was asked for.
func (f *freshness) of(cl *client.Client) *client.Client {
	if f.linearizable {
		return cl.Linearizable()
	}
	return cl
}

// completeNodes offers the names of the nodes to the shell.
func (a *app) completeNodes(cmd *cobra.Command, args []string, _ string) ([]string, cobra.ShellCompDirective) {
	ctx, cancel := context.WithTimeout(cmd.Context(), time.Second)
	defer cancel()
	cl, err := a.dial()
	if err != nil || len(args) > 0 {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	defer cl.Close()
	items, err := cl.Nodes(ctx)
	if err != nil {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	var out []string
	for _, n := range items {
		out = append(out, n.Name)
	}
	return out, cobra.ShellCompDirectiveNoFileComp
}
