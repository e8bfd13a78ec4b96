package main

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"

	"stellar.io/stellar/api"
	"stellar.io/stellar/api/client"
	"stellar.io/stellar/internal/config"
)

// Timeouts of commands unless --timeout is given.
const (
	callTimeout = 10 * time.Second // one question to the agent
	waitTimeout = 60 * time.Second // commands that wait for something
	noTimeout   = 0
)

// app is one invocation: its streams and the global flags.
type app struct {
	stdin          *os.File
	stdout, stderr io.Writer
	getenv         func(string) string

	address   string
	output    string
	timeout   time.Duration
	yes       bool
	noHeaders bool
	debug     bool

	// recover makes this node the start of the cluster's next life; nil: recoverNode.
	recover func(context.Context, config.Config, recoverOptions) (api.Recovery, error)

	started bool // a command's Run was reached: what fails now is no wrong usage
}

// command is what every command implements. args are what is left of the
// command line; results go to stdout, all else to stderr.
type command interface {
	Run(ctx context.Context, args []string, stdout, stderr io.Writer) error
}

// main runs one command line and returns the exit code.
func (a *app) main(ctx context.Context, args []string) int {
	root := a.root()
	root.SetArgs(args)
	err := root.ExecuteContext(ctx)
	if err == nil {
		return exitOK
	}
	if !a.started {
		err = usage(err)
		if a.output == "" || a.output == formatTable {
			a.output = requestedOutput(args)
		}
	}
	return a.fail(err)
}

func (a *app) root() *cobra.Command {
	root := group("stellar", "Networks for containerd's containers",
		"Stellar gives every container with the label stellar.io/network an interface, an\n"+
			"address and routes to all the others. `stellar agent` runs on each node; every\n"+
			"other command calls the agent of this node over its socket.")
	root.SetOut(a.stdout)
	root.SetErr(a.stderr)
	root.SilenceErrors, root.SilenceUsage = true, true
	root.Version = version
	f := root.PersistentFlags()
	f.StringVarP(&a.address, "address", "a", "", "where the agent serves (default unix:///run/stellar/stellar.sock, env STELLAR_ADDRESS)")
	f.StringVarP(&a.output, "output", "o", formatTable, "table, wide, json or name")
	f.DurationVar(&a.timeout, "timeout", 0, "give up after this time (default 10s; 60s for what waits)")
	f.BoolVarP(&a.yes, "yes", "y", false, "do not ask before destructive actions")
	f.BoolVar(&a.noHeaders, "no-headers", false, "tables without their first line")
	f.BoolVar(&a.debug, "debug", false, "say more on stderr")
	root.AddCommand(
		a.agentCommand(), a.clusterCommand(), a.statusCommand(), a.checkCommand(), a.waitCommand(),
		a.endpointCommand(), a.psCommand(), a.nodeCommand(), a.ipamCommand(), a.routeCommand(), a.raftCommand(), a.cniCommand(),
		a.pingCommand(), a.connectivityCommand(),
		a.eventsCommand(), a.bugreportCommand(), a.webCommand(), a.versionCommand(), a.manCommand(root), a.referenceCommand(root),
		a.traceCommand(),
	)
	return root
}

// group makes a command that only holds others.
func group(use, short, long string, subs ...*cobra.Command) *cobra.Command {
	c := &cobra.Command{
		Use: use, Short: short, Long: long, Args: cobra.ArbitraryArgs,
		RunE: func(c *cobra.Command, args []string) error {
			if len(args) == 0 {
				return c.Help()
			}
			e := api.Errorf(api.CodeInvalid, "unknown command %q for %q", args[0], c.CommandPath())
			c.SuggestionsMinimumDistance = 2
			if near := c.SuggestionsFor(args[0]); len(near) > 0 {
				return e.WithHint(fmt.Sprintf("did you mean `%s %s`?", c.CommandPath(), near[0]))
			}
			return e.WithHint(fmt.Sprintf("`%s --help` lists the commands", c.CommandPath()))
		},
	}
	c.AddCommand(subs...)
	return c
}

// attach makes cmd run c within the timeout: the given one unless the user set
// another.
func (a *app) attach(cmd *cobra.Command, c command, timeout time.Duration) *cobra.Command {
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		if !slices.Contains([]string{formatTable, formatWide, formatJSON, formatName}, a.output) {
			return api.Errorf(api.CodeInvalid, "output format %q is not table, wide, json or name", a.output)
		}
		if a.timeout < 0 {
			return api.Errorf(api.CodeInvalid, "--timeout %s is negative", a.timeout)
		}
		ctx := cmd.Context()
		if a.timeout > 0 {
			timeout = a.timeout
		}
		if timeout > 0 {
			var cancel context.CancelFunc
			ctx, cancel = context.WithTimeout(ctx, timeout)
			defer cancel()
		}
		a.started = true
		return c.Run(ctx, args, a.stdout, a.stderr)
	}
	return cmd
}

// dial returns a client for the agent that flags, environment and file name.
func (a *app) dial() (*client.Client, error) {
	address, err := config.LoadAddress(config.Source{Getenv: a.getenv, Flags: func(c *config.Config) {
		if a.address != "" {
			c.Address = a.address
		}
	}})
	if err != nil {
		return nil, api.Errorf(api.CodeInvalid, "%w", err)
	}
	a.debugLog().Debug("calling the agent", "address", address)
	return client.New(address)
}

// debugLog tells what a command does when --debug is given.
func (a *app) debugLog() *slog.Logger {
	if !a.debug {
		return slog.New(slog.DiscardHandler)
	}
	return slog.New(slog.NewTextHandler(a.stderr, &slog.HandlerOptions{Level: slog.LevelDebug}))
}

// confirm asks before something is destroyed; action completes "Really …?". --yes
// answers it; where nobody can be asked, it is wrong usage to leave --yes out.
func (a *app) confirm(action string) error {
	if a.yes {
		return nil
	}
	if _, err := unix.IoctlGetTermios(int(a.stdin.Fd()), unix.TCGETS); err != nil {
		return api.Errorf(api.CodeInvalid, "to %s needs --yes where nobody can be asked", action)
	}
	fmt.Fprintf(a.stderr, "Really %s? [y/N] ", action)
	var answer string
	// An empty line and the end of input are both a no.
	_, _ = fmt.Fscanln(a.stdin, &answer)
	if !slices.Contains([]string{"y", "yes"}, strings.ToLower(answer)) {
		return api.Errorf(api.CodeInternal, "nothing was done")
	}
	return nil
}
