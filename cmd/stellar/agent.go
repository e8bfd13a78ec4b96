package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"os"

	"github.com/spf13/cobra"

	"stellar.io/stellar/api"
	"stellar.io/stellar/internal/config"
	"stellar.io/stellar/internal/node"
)

// agentFlags are the flags from which the configuration of an agent is resolved.
type agentFlags struct {
	file string
	set  map[string]*string // flag → value, "" not given
	init bool
}

// add defines those of the flags that are named, --config always.
func (g *agentFlags) add(cmd *cobra.Command, names ...string) {
	usages := map[string]string{
		"data-dir":           "identity and store of this node (default /var/lib/stellar)",
		"run-dir":            "the socket (default /run/stellar)",
		"containerd-address": "containerd's socket (default /run/containerd/containerd.sock, env CONTAINERD_ADDRESS)",
		"node-name":          "name of this node (default: the host name)",
		"listen":             "IP:PORT between nodes (default: port 9640 of the default route's interface)",
		"advertise":          "IP:PORT that other nodes are told (default: as --listen)",
		"metrics-listen":     "IP:PORT of metrics and health, or off (default 127.0.0.1:9642)",
		"mode":               "how containers are attached: bridge or routed (default: bridge, routed where subnets are larger than /22)",
	}
	f := cmd.Flags()
	f.StringVar(&g.file, "config", "", "configuration file (default "+config.DefaultPath+")")
	g.set = map[string]*string{}
	for _, name := range names {
		g.set[name] = f.String(name, "", usages[name])
	}
}

// apply puts what was given over cfg. A value that cannot be read is usage.
func (g *agentFlags) apply(cfg *config.Config, address string) error {
	text := func(name string, to *string) {
		if v := g.set[name]; v != nil && *v != "" {
			*to = *v
		}
	}
	var errs []error
	port := func(name string, to *netip.AddrPort) {
		v := g.set[name]
		if v == nil || *v == "" {
			return
		}
		p, err := netip.ParseAddrPort(*v)
		if err != nil {
			errs = append(errs, api.Errorf(api.CodeInvalid, "--%s %q is not IP:PORT", name, *v))
		}
		*to = p
	}
	text("data-dir", &cfg.DataDir)
	text("run-dir", &cfg.RunDir)
	text("containerd-address", &cfg.Containerd.Address)
	text("node-name", &cfg.NodeName)
	text("mode", &cfg.Mode)
	port("listen", &cfg.Listen)
	port("advertise", &cfg.Advertise)
	if v := g.set["metrics-listen"]; v != nil && *v == "off" {
		cfg.MetricsListen = netip.AddrPort{}
	} else {
		port("metrics-listen", &cfg.MetricsListen)
	}
	if address != "" {
		cfg.Address = address
	}
	cfg.Init = g.init
	return errors.Join(errs...)
}

// resolve returns the configuration that flags, environment and file make.
func (g *agentFlags) resolve(a *app) (config.Config, error) {
	var bad error
	cfg, err := config.Load(config.Source{File: g.file, Getenv: a.getenv, Flags: func(c *config.Config) {
		bad = g.apply(c, a.address)
	}})
	if bad != nil {
		return config.Config{}, bad
	}
	if err != nil {
		return config.Config{}, err
	}
	if cfg.NodeName == "" {
		if cfg.NodeName, err = os.Hostname(); err != nil {
			return config.Config{}, fmt.Errorf("node name: %w", err)
		}
		if err := cfg.Validate(); err != nil {
			return config.Config{}, fmt.Errorf("the host name does not do, give --node-name: %w", err)
		}
	}
	if a.debug {
		cfg.Log.Level = "debug"
	}
	return cfg, nil
}

type agentCmd struct {
	app *app
	agentFlags
}

func (a *app) agentCommand() *cobra.Command {
	c := &agentCmd{app: a}
	cmd := &cobra.Command{
		Use: "agent", Short: "Run the agent of this node",
		Long: "Runs until SIGTERM or SIGINT. Stopping it removes nothing: containers keep their\n" +
			"networks, and the next start adopts them. Without a cluster the agent waits, its\n" +
			"socket open, for `stellar cluster init` or `stellar cluster join`. Only `stellar agent cleanup` tears down.\n" +
			"At SIGHUP the agent takes the log level from its configuration anew, and nothing else.",
		Args: cobra.NoArgs,
	}
	c.add(cmd, "data-dir", "containerd-address", "node-name", "listen", "advertise", "metrics-listen", "run-dir", "mode")
	cmd.Flags().BoolVar(&c.init, "init", false, "make a new cluster if the data directory is empty")
	cmd.AddCommand(a.agentCleanupCommand(), a.agentConfigCommand(), a.agentLogLevelCommand())
	return a.attach(cmd, c, noTimeout)
}

func (c *agentCmd) Run(ctx context.Context, _ []string, _, stderr io.Writer) error {
	cfg, err := c.resolve(c.app)
	if err != nil {
		return err
	}
	logger, kept := newLogger(stderr, cfg, c.app.getenv)
	defer c.rereadOnHangup(logger, kept)()
	return runAgent(ctx, node.Options{Config: cfg, Version: buildInfo(), Logger: logger, Logs: kept})
}

type agentCleanup struct {
	app *app
	agentFlags
	force bool
}

func (a *app) agentCleanupCommand() *cobra.Command {
	c := &agentCleanup{app: a}
	cmd := &cobra.Command{
		Use: "cleanup", Short: "Remove every trace of Stellar from the network of this machine",
		Long: "Removes endpoints, bridge, routes and rules, while no agent runs. Containers lose\n" +
			"their networks. The data directory stays, and an agent that starts attaches again.",
		Args: cobra.NoArgs,
	}
	c.add(cmd, "data-dir", "run-dir")
	cmd.Flags().BoolVar(&c.force, "force", false, "even while an agent holds the data directory")
	return a.attach(cmd, c, waitTimeout)
}

func (c *agentCleanup) Run(ctx context.Context, _ []string, stdout, _ io.Writer) error {
	cfg, err := c.resolve(c.app)
	if err != nil {
		return err
	}
	if !c.force {
		lock, err := lockExisting(cfg.DataDir)
		if err != nil {
			return err
		}
		defer lock.Close()
	}
	if err := c.app.confirm("take the network from all containers of this node"); err != nil {
		return err
	}
	if err := cleanupNode(ctx, cfg); err != nil {
		return err
	}
	if c.app.output == formatTable || c.app.output == formatWide {
		_, err = fmt.Fprintln(stdout, "clean")
	}
	return err
}
