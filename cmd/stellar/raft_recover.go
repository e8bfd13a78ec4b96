package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"strconv"

	"github.com/spf13/cobra"

	"stellar.io/stellar/api"
)

type raftRecover struct {
	app *app
	agentFlags
	dryRun bool
}

func (a *app) raftRecoverCommand() *cobra.Command {
	c := &raftRecover{app: a}
	cmd := &cobra.Command{
		Use: "recover", Short: "Start a cluster anew from this node when its quorum is lost for good",
		Long: "For a cluster whose voters are mostly gone and will not come back. Stop the agents, run\n" +
			"`stellar raft recover --dry-run` on every node that is left and choose, of those that\n" +
			"voted, the one with the highest term and, of those, the highest index. Recovered, it is\n" +
			"the only voter, in a new generation. The other nodes are fenced until they reach it; then\n" +
			"they come back by themselves and claim what they hold, and no subnet is handed out until\n" +
			"`stellar cluster end-reclaim`. Running containers keep their networks. The store is\n" +
			"copied first. A node that follows a server has no log to recover; its agent may go on.",
		Args: cobra.NoArgs,
	}
	c.add(cmd, "data-dir", "node-name", "listen", "advertise", "run-dir")
	cmd.Flags().BoolVar(&c.dryRun, "dry-run", false, "show what this node has, and change nothing")
	return a.attach(cmd, c, noTimeout)
}

func (c *raftRecover) Run(ctx context.Context, _ []string, stdout, _ io.Writer) error {
	cfg, err := c.resolve(c.app)
	if err != nil {
		return err
	}
	if _, err := os.Stat(cfg.DataDir); errors.Is(err, fs.ErrNotExist) {
		return api.Errorf(api.CodeNotFound, "no node was ever here: %w", err).WithHint("name its directory with --data-dir")
	}
	lock, err := lockExisting(cfg.DataDir)
	if err != nil {
		return err
	}
	defer lock.Close()
	do := c.app.recover
	if do == nil {
		do = recoverNode
	}
	found, err := do(ctx, cfg, recoverOptions{DryRun: true})
	if err != nil {
		return err
	}
	if c.dryRun {
		return printRecovery(c.app, stdout, found)
	}
	err = c.app.confirm(fmt.Sprintf("make node %s, at term %d and index %d, the only voter of cluster %s: what other nodes had beyond that is lost, and they come back as members of its next generation",
		found.Node, found.Term, found.Index, found.Cluster))
	if err != nil {
		return err
	}
	done, err := do(ctx, cfg, recoverOptions{})
	if err != nil {
		return err
	}
	return printRecovery(c.app, stdout, done)
}

func printRecovery(a *app, stdout io.Writer, r api.Recovery) error {
	return printObject(a, stdout, "Recovery", r, r.Node, []field{
		{"Cluster", r.Cluster}, {"Node", r.Node}, {"Term", indexCell(r.Term)}, {"Index", indexCell(r.Index)},
		{"Servers", strconv.Itoa(r.Servers)}, {"Voters", strconv.Itoa(r.Voters)}, {"Generation", strconv.FormatUint(r.Generation, 10)},
		{"Recovered", yesNo(r.Done)}, {"Backup", r.Backup},
	})
}
