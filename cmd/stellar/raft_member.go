package main

import (
	"context"
	"fmt"
	"io"

	"github.com/spf13/cobra"

	"stellar.io/stellar/api"
	"stellar.io/stellar/api/client"
)

func (a *app) raftTransferCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use: "transfer-leader [NAME]", Short: "Let another voter lead", Args: cobra.MaximumNArgs(1), ValidArgsFunction: a.completeNodes,
		Long: "Without a name it is the voter that is most up to date. Returns when it leads.",
	}
	return a.attach(cmd, calling{a, func(ctx context.Context, cl *client.Client, args []string, stdout io.Writer) error {
		var to string
		if len(args) > 0 {
			to = args[0]
		}
		leader, err := cl.TransferLeader(ctx, to)
		if err != nil {
			return err
		}
		body := struct {
			Leader string `json:"leader"`
		}{leader}
		return printObject(a, stdout, "Leader", body, leader, []field{{"Leader", leader}})
	}}, waitTimeout)
}

// memberVerb is a change of one server of Raft.
type memberVerb struct {
	name, short, long string
	asks              bool // also unless it is forced
	action            string
	call              func(*client.Client, context.Context, api.RaftChange) (api.RaftPeer, error)
}

var (
	promote = memberVerb{
		name: "promote", short: "Let a server vote",
		long: "It must answer and have caught up. Servers are promoted by themselves, in pairs, as\n" +
			"voters are missing; this is for those who cannot wait.",
		action: "let %s vote although a quorum will just be met", call: (*client.Client).PromotePeer,
	}
	demote = memberVerb{
		name: "demote", short: "Take a server's vote",
		long: "A leader hands over first. Refused when the voters that are left would have no\n" +
			"quorum.",
		action: "take the vote of %s although the quorum may be lost", call: (*client.Client).DemotePeer,
	}
	remove = memberVerb{
		name: "remove", short: "Take a server out of Raft",
		long: "The node stays a member of the cluster and learns of no later change; to end its\n" +
			"membership, `stellar node rm`. A leader hands over first. Refused when the voters that\n" +
			"are left would have no quorum.",
		asks: true, action: "take %s out of raft", call: (*client.Client).RemovePeer,
	}
)

type raftMember struct {
	app *app
	memberVerb
	force bool
}

func (a *app) raftMemberCommand(v memberVerb) *cobra.Command {
	c := &raftMember{app: a, memberVerb: v}
	cmd := &cobra.Command{
		Use: v.name + " NAME", Short: v.short, Long: v.long, Args: cobra.ExactArgs(1), ValidArgsFunction: a.completeNodes,
	}
	cmd.Flags().BoolVar(&c.force, "force", false, "although a quorum would be lost, or just be met, where that is possible at all")
	return a.attach(cmd, c, waitTimeout)
}

func (c *raftMember) Run(ctx context.Context, args []string, stdout, _ io.Writer) error {
	cl, err := c.app.dial()
	if err != nil {
		return err
	}
	defer cl.Close()
	if c.asks || c.force {
		if err := c.app.confirm(fmt.Sprintf(c.action, args[0])); err != nil {
			return err
		}
	}
	p, err := c.call(cl, ctx, api.RaftChange{Node: args[0], Force: c.force})
	if err != nil {
		return err
	}
	return printPeer(c.app, stdout, p)
}
