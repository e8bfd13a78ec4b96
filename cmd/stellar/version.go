package main

import (
	"context"
	"fmt"
	"io"
	"runtime"
	"runtime/debug"

	"github.com/spf13/cobra"

	"stellar.io/stellar/api"
)

// Set by the linker: -X main.version=v1.2.3 -X main.commit=abcdef.
var (
	version = "dev"
	commit  = ""
)

// buildInfo says what this binary was built from.
func buildInfo() api.VersionInfo {
	v := api.VersionInfo{Version: version, Commit: commit, GoVersion: runtime.Version(), Platform: runtime.GOOS + "/" + runtime.GOARCH}
	if info, ok := debug.ReadBuildInfo(); ok && v.Commit == "" {
		for _, s := range info.Settings {
			if s.Key == "vcs.revision" {
				v.Commit = s.Value
			}
		}
	}
	return v
}

type versionCmd struct{ app *app }

func (a *app) versionCommand() *cobra.Command {
	cmd := &cobra.Command{Use: "version", Short: "Show the version of this binary and of the running agent", Args: cobra.NoArgs}
	return a.attach(cmd, &versionCmd{app: a}, callTimeout)
}

// Run does not fail when no agent answers: the version of this binary was told.
func (c *versionCmd) Run(ctx context.Context, _ []string, stdout, _ io.Writer) error {
	out := struct {
		Client api.VersionInfo  `json:"client"`
		Agent  *api.VersionInfo `json:"agent"` // null: no agent answers
	}{Client: buildInfo()}
	agent := "no answer"
	if v, err := c.ask(ctx); err == nil {
		out.Agent = &v
		agent = versionText(v)
	} else {
		agent += ": " + err.Error()
	}
	return printObject(c.app, stdout, "Version", out, out.Client.Version, []field{
		{"Client", versionText(out.Client)}, {"Agent", agent},
	})
}

func (c *versionCmd) ask(ctx context.Context) (api.VersionInfo, error) {
	cl, err := c.app.dial()
	if err != nil {
		return api.VersionInfo{}, err
	}
	defer cl.Close()
	return cl.Version(ctx)
}

func versionText(v api.VersionInfo) string {
	s := fmt.Sprintf("%s (%s, %s", v.Version, v.GoVersion, v.Platform)
	if v.Commit != "" {
		s += ", " + v.Commit[:min(len(v.Commit), 12)]
	}
	return s + ")"
}
