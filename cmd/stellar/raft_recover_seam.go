package main

import (
	"context"

	"stellar.io/stellar/api"
	"stellar.io/stellar/internal/config"
)

// recoverOptions are the options of recoverNode.
type recoverOptions struct {
	DryRun bool // look, and change nothing
}

// recoverNode makes the stopped node of cfg.DataDir, whose lock the caller holds,
// the start of the cluster's next life: its one voter, in a new generation.
func recoverNode(context.Context, config.Config, recoverOptions) (api.Recovery, error) {
	return api.Recovery{}, api.Errorf(api.CodeInternal, "this build cannot recover a node")
}
