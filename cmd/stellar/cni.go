package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"

	"github.com/spf13/cobra"

	"stellar.io/stellar/api"
	"stellar.io/stellar/internal/cniinstall"
	"stellar.io/stellar/internal/config"
)

// packagedPlugins is where a package has the plugins.
const packagedPlugins = "/usr/lib/stellar"

func (a *app) cniCommand() *cobra.Command {
	return group("cni", "Stellar as a network for CNI's clients: nerdctl, ctr, CRI",
		"With the plugins installed, `nerdctl run --net stellar` and `ctr run --cni` start\n"+
			"containers whose first instruction finds its network. This is the machine's own\n"+
			"business: no agent is called.",
		a.cniInstallCommand(), a.cniUninstallCommand(), a.cniStatusCommand())
}

// cniFlags say where things are.
type cniFlags struct {
	app     *app
	name    string
	binDirs []string
	confDir string
	from    string
}

const auto = "auto"

func (f *cniFlags) add(cmd *cobra.Command) {
	cmd.Flags().StringVar(&f.name, "name", "stellar", "of the network")
	cmd.Flags().StringSliceVar(&f.binDirs, "bin-dir", []string{auto}, "where runtimes look for plugins; auto: /opt/cni/bin, and those of the distribution and containerd")
	cmd.Flags().StringVar(&f.confDir, "conf-dir", "/etc/cni/net.d", "where runtimes look for networks")
	cmd.Flags().StringVar(&f.from, "from", auto, "where the plugins are copied from; auto: beside this program, or "+packagedPlugins)
}

// config fills in what the flags leave open. Without mustHave it does not matter
// whether there are plugins to copy.
func (f *cniFlags) config(mustHave bool) (cniinstall.Config, error) {
	c := cniinstall.Config{BinDirs: f.binDirs, ConfDir: f.confDir, Name: f.name, From: f.from}
	address, err := config.LoadAddress(config.Source{Getenv: f.app.getenv, Flags: func(c *config.Config) {
		if f.app.address != "" {
			c.Address = f.app.address
		}
	}})
	if err != nil {
		return c, api.Errorf(api.CodeInvalid, "%w", err)
	}
	if address != api.DefaultAddress {
		c.Address = address
	}
	if slices.Contains(c.BinDirs, auto) {
		dirs, err := config.CNIBinDirs(config.ContainerdFile)
		if err != nil {
			return c, api.Errorf(api.CodeInvalid, "containerd's configuration: %w", err).WithHint("name the directories with --bin-dir")
		}
		c.BinDirs = cniinstall.BinDirs("/", dirs)
	}
	for _, dir := range append(slices.Clone(c.BinDirs), c.ConfDir) {
		if !filepath.IsAbs(dir) {
			return c, api.Errorf(api.CodeInvalid, "directory %q is not an absolute path", dir)
		}
	}
	if f.from != auto {
		_, err = cniinstall.From(f.from)
		return c, from(err, mustHave)
	}
	self, err := os.Executable()
	if err != nil {
		return c, err
	}
	c.From, err = cniinstall.From(filepath.Dir(self), packagedPlugins)
	return c, from(err, mustHave)
}

func from(err error, mustHave bool) error {
	if err == nil || !mustHave {
		return nil
	}
	return api.Errorf(api.CodeNotFound, "%w", err).WithHint("`make build` makes them; --from DIRECTORY says where they are")
}

// cniError gives a failure its code.
func cniError(err error) error {
	switch {
	case err == nil:
		return nil
	case errors.Is(err, cniinstall.ErrForeign):
		return api.Errorf(api.CodeConflict, "%w", err).WithHint("nothing of others is replaced: move it away, or choose another --name or directory")
	case errors.Is(err, cniinstall.ErrName):
		return api.Errorf(api.CodeInvalid, "%w", err)
	case errors.Is(err, fs.ErrPermission):
		return api.Errorf(api.CodeDenied, "%w", err).WithHint("run it as root")
	}
	return err
}

var cniFileList = listing[cniinstall.File]{
	kind: "CNIFileList",
	name: func(f cniinstall.File) string { return f.Path },
	columns: []column[cniinstall.File]{
		{head: "FILE", cell: func(f cniinstall.File) string { return f.Path }},
		{head: "STATE", cell: func(f cniinstall.File) string { return string(f.State) }},
		{head: "REASON", cell: func(f cniinstall.File) string { return f.Reason }},
	},
}

type cniInstall struct{ cniFlags }

func (a *app) cniInstallCommand() *cobra.Command {
	c := &cniInstall{cniFlags{app: a}}
	cmd := &cobra.Command{
		Use: "install", Short: "Install the CNI plugins and a network that uses them", Args: cobra.NoArgs,
		Long: "Copies stellar-cni and stellar-cni-ipam and writes 90-NAME.conflist. What is there\n" +
			"already and ours is brought up to date; what is somebody else's is left alone, and\n" +
			"then nothing is changed. An --address other than the default becomes part of the network.",
	}
	c.add(cmd)
	return a.attach(cmd, c, noTimeout)
}

func (c *cniInstall) Run(_ context.Context, _ []string, stdout, stderr io.Writer) error {
	conf, err := c.config(true)
	if err != nil {
		return err
	}
	files, err := cniinstall.Install(conf)
	if err != nil {
		return cniError(err)
	}
	if err := cniFileList.print(c.app, stdout, files); err != nil {
		return err
	}
	return c.warn(conf, stderr)
}

// warn tells of what nerdctl will miss.
func (f *cniFlags) warn(conf cniinstall.Config, stderr io.Writer) error {
	files, err := cniinstall.Status(conf)
	if err != nil {
		return cniError(err)
	}
	for _, file := range files {
		if filepath.Base(file.Path) == cniinstall.Needed && file.State == cniinstall.Missing {
			fmt.Fprintf(stderr, "stellar: warning: %s is missing: %s\n", file.Path, file.Reason)
		}
	}
	return nil
}

type cniUninstall struct{ cniFlags }

func (a *app) cniUninstallCommand() *cobra.Command {
	c := &cniUninstall{cniFlags{app: a}}
	cmd := &cobra.Command{
		Use: "uninstall", Short: "Remove what `stellar cni install` installed", Args: cobra.NoArgs,
		Long: "Containers that have their network by CNI keep it, but their runtime cannot take it\n" +
			"away any more. What is not ours or was edited is listed and stays.",
	}
	c.add(cmd)
	return a.attach(cmd, c, noTimeout)
}

func (c *cniUninstall) Run(_ context.Context, _ []string, stdout, _ io.Writer) error {
	conf, err := c.config(false)
	if err != nil {
		return err
	}
	if err := c.app.confirm("remove the CNI plugins and the network " + conf.Name); err != nil {
		return err
	}
	files, err := cniinstall.Uninstall(conf)
	if err != nil {
		return cniError(err)
	}
	return cniFileList.print(c.app, stdout, files)
}

type cniStatus struct{ cniFlags }

func (a *app) cniStatusCommand() *cobra.Command {
	c := &cniStatus{cniFlags{app: a}}
	cmd := &cobra.Command{
		Use: "status", Short: "Show what is installed for CNI", Args: cobra.NoArgs,
		Long: "STATE is ok, missing, outdated (of another version, or with other options), edited\n" +
			"or foreign. Exit code 5 when the network is there and something it needs is not.",
	}
	c.add(cmd)
	return a.attach(cmd, c, noTimeout)
}

func (c *cniStatus) Run(_ context.Context, _ []string, stdout, stderr io.Writer) error {
	conf, err := c.config(false)
	if err != nil {
		return err
	}
	files, err := cniinstall.Status(conf)
	if err != nil {
		return cniError(err)
	}
	if err := cniFileList.print(c.app, stdout, files); err != nil {
		return err
	}
	if err := c.warn(conf, stderr); err != nil {
		return err
	}
	if files[len(files)-1].State == cniinstall.Missing {
		return nil // it is opt-in
	}
	for _, f := range files {
		if f.State != cniinstall.OK && filepath.Base(f.Path) != cniinstall.Needed {
			return api.Errorf(api.CodeUnhealthy, "%s is %s", f.Path, f.State).WithHint("`stellar cni install` repairs what is ours")
		}
	}
	return nil
}
