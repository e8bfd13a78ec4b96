package main

import (
	"context"
	"errors"
	"log/slog"

	"stellar.io/stellar/internal/config"
)

func runAgent(context.Context, config.Config, *slog.Logger) error {
	return errors.New("the agent is not part of this build")
}

func cleanupNode(context.Context, config.Config) error {
	return errors.New("the agent is not part of this build")
}
