package main

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/signal"
	"syscall"

	"github.com/spf13/cobra"

	"stellar.io/stellar/internal/logs"
)

// agentLogLevel tells or changes the level of the running agent's log.
type agentLogLevel struct{ app *app }

func (a *app) agentLogLevelCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use: "log-level [LEVEL]", Short: "Show or change the log level of the running agent", Args: cobra.MaximumNArgs(1),
		Long: "Shows the present level, or sets debug, info, warn or error until the agent ends\n" +
			"or reads its configuration anew (SIGHUP).",
		ValidArgs: logs.Names(),
	}
	return a.attach(cmd, &agentLogLevel{app: a}, callTimeout)
}

func (c *agentLogLevel) Run(ctx context.Context, args []string, stdout, _ io.Writer) error {
	cl, err := c.app.dial()
	if err != nil {
		return err
	}
	defer cl.Close()
	var level string
	if len(args) > 0 {
		level = args[0]
	}
	now, before, err := cl.LogLevel(ctx, level)
	if err != nil {
		return err
	}
	switch {
	case c.app.output == formatJSON:
		return printJSON(stdout, "LogLevel", struct {
			Level  string `json:"level"`
			Before string `json:"before"`
		}{now, before})
	case level == "" || c.app.output == formatName:
		_, err = fmt.Fprintln(stdout, now)
	default:
		_, err = fmt.Fprintf(stdout, "%s (was %s)\n", now, before)
	}
	return err
}

// rereadOnHangup has SIGHUP take the log level from flags, environment and file
// anew, until the function that it returns is called. A configuration that cannot be
// read changes nothing.
func (c *agentCmd) rereadOnHangup(log *slog.Logger, kept *logs.Log) (stop func()) {
	hangups := make(chan os.Signal, 1)
	signal.Notify(hangups, syscall.SIGHUP)
	done := make(chan struct{})
	go func() {
		defer close(done)
		for range hangups {
			cfg, err := c.resolve(c.app)
			before := kept.Level()
			if err == nil {
				err = kept.SetLevel(cfg.Log.Level)
			}
			if err != nil {
				log.Warn("the configuration was not read anew", "err", err)
				continue
			}
			log.Info("log level taken from the configuration", "level", kept.Level(), "before", before)
		}
	}()
	return func() {
		signal.Stop(hangups)
		close(hangups)
		<-done
	}
}
