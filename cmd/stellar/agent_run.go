package main

import (
	"context"
	"errors"

	"stellar.io/stellar/internal/config"
	"stellar.io/stellar/internal/node"
	"stellar.io/stellar/netsetup"
	"stellar.io/stellar/routes"
)

// runAgent runs the node in its data directory until ctx ends or a part fails.
func runAgent(ctx context.Context, opts node.Options) (err error) {
	dir, err := openDataDir(opts.Config.DataDir)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, dir.Close()) }()
	raisePriority(opts.Logger)
	for {
		n, err := node.New(opts)
		if err != nil {
			return err
		}
		if err := n.Run(ctx); !errors.Is(err, node.ErrRestart) || ctx.Err() != nil {
			return err
		}
	}
}

// cleanupNode takes everything of ours out of the network namespace that it runs
// in. It goes on past failures and may be repeated.
func cleanupNode(ctx context.Context, cfg config.Config) error {
	n, err := netsetup.New(netsetup.Config{Bridge: cfg.Bridge})
	if err != nil {
		return err
	}
	return errors.Join(n.Cleanup(ctx), routes.Cleanup(-1), n.Close())
}
