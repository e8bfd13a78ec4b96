package main

import (
	"context"
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/spf13/cobra"

	"stellar.io/stellar/api"
	"stellar.io/stellar/internal/config"
)

func (a *app) agentConfigCommand() *cobra.Command {
	return group("config", "The configuration file of the agent", "", a.configDefaultCommand(), a.configValidateCommand())
}

type configDefault struct{}

func (a *app) configDefaultCommand() *cobra.Command {
	cmd := &cobra.Command{Use: "default", Short: "Print a commented file with the default of every key", Args: cobra.NoArgs}
	return a.attach(cmd, configDefault{}, noTimeout)
}

func (configDefault) Run(_ context.Context, _ []string, stdout, _ io.Writer) error {
	_, err := io.WriteString(stdout, config.DefaultFile())
	return err
}

type configValidate struct{ app *app }

func (a *app) configValidateCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use: "validate [FILE]", Short: "Check a file (default " + config.DefaultPath + ")", Args: cobra.MaximumNArgs(1),
		Long: "Prints each problem on a line of its own. Exit code 5 when there is one.",
	}
	return a.attach(cmd, &configValidate{app: a}, noTimeout)
}

// Run judges the file alone, without flags and environment.
func (c *configValidate) Run(_ context.Context, args []string, stdout, _ io.Writer) error {
	file := config.DefaultPath
	if len(args) > 0 {
		file = args[0]
	}
	data, err := os.ReadFile(file)
	if err != nil {
		if os.IsNotExist(err) {
			return api.Errorf(api.CodeNotFound, "%w", err)
		}
		return err
	}
	cfg := config.DefaultConfig()
	if err = config.Decode(file, data, &cfg); err == nil {
		err = cfg.Validate()
	}
	var found []string
	if err != nil {
		found = strings.Split(err.Error(), "\n")
	}
	if c.app.output == formatJSON {
		err = printJSON(stdout, "ConfigReport", struct {
			File     string   `json:"file"`
			Problems []string `json:"problems"`
		}{file, append([]string{}, found...)})
	} else if len(found) == 0 {
		_, err = fmt.Fprintf(stdout, "%s: valid\n", file)
	} else {
		_, err = fmt.Fprintln(stdout, strings.Join(found, "\n"))
	}
	if err != nil {
		return err
	}
	switch len(found) {
	case 0:
		return nil
	case 1:
		return api.Errorf(api.CodeUnhealthy, "%s has a problem", file)
	}
	return api.Errorf(api.CodeUnhealthy, "%s has %d problems", file, len(found))
}
