package main

import (
	"context"

	"stellar.io/stellar/api"
	"stellar.io/stellar/internal/config"
	"stellar.io/stellar/internal/node"
)

// recoverOptions are the options of recoverNode.
type recoverOptions struct {
	DryRun bool // look, and change nothing
}

// recoverNode makes the stopped node of cfg.DataDir, whose lock the caller holds,
// the start of the cluster's next life: its one voter, in a new generation.
func recoverNode(ctx context.Context, cfg config.Config, o recoverOptions) (api.Recovery, error) {
	return node.Recover(ctx, node.Options{Config: cfg}, o.DryRun)
}
