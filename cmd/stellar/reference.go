package main

import (
	"cmp"
	"context"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"stellar.io/stellar/internal/config"
)

// The pages that are made from the code.
const (
	cliPage       = "cli.md"
	configMDPage  = "config.md"
	generatedNote = "<!-- Made by `make generate-docs`; do not edit. -->\n\n"
)

// referenceCmd writes the pages of docs that follow from the code: the commands
// and the configuration. A test fails while they are not what it would write.
type referenceCmd struct{ root *cobra.Command }

func (a *app) referenceCommand(root *cobra.Command) *cobra.Command {
	cmd := &cobra.Command{
		Use: "reference DIR", Short: "Write the pages of the documentation that are made from the code", Args: cobra.ExactArgs(1), Hidden: true,
	}
	return a.attach(cmd, &referenceCmd{root}, noTimeout)
}

func (c *referenceCmd) Run(_ context.Context, args []string, _, _ io.Writer) error {
	pages, err := referencePages(c.root)
	if err != nil {
		return err
	}
	for name, text := range pages {
		if err := os.WriteFile(filepath.Join(args[0], name), []byte(text), 0o644); err != nil {
			return err
		}
	}
	return nil
}

// referencePages returns the pages by file name.
func referencePages(root *cobra.Command) (map[string]string, error) {
	keys, err := config.Keys()
	if err != nil {
		return nil, err
	}
	return map[string]string{cliPage: cliMarkdown(root), configMDPage: configMarkdown(keys)}, nil
}

func cliMarkdown(root *cobra.Command) string {
	var b strings.Builder
	b.WriteString("# Commands\n\n" + generatedNote)
	b.WriteString("`stellar COMMAND --help` says the same. Exit codes: 0 done; 1 error; 2 wrong usage; 3 the agent cannot be\n" +
		"reached; 4 not found; 5 unhealthy, or problems found; 6 no leader; 7 conflict; 8 denied; 124 timed out.\n\n")
	b.WriteString("With `-o json` lists are `{\"apiVersion\": \"stellar/v1\", \"kind\": …, \"items\": […]}`, and an error is\n" +
		"`{\"error\": {\"code\", \"message\", \"hint\"}}` on standard error.\n\n")
	commandMarkdown(&b, root)
	return b.String()
}

// commandMarkdown adds the section of cmd and of all below it.
func commandMarkdown(b *strings.Builder, cmd *cobra.Command) {
	cmd.InitDefaultHelpFlag()
	fmt.Fprintf(b, "## %s\n\n%s\n\n", cmd.CommandPath(), escape(cmp.Or(cmd.Long, cmd.Short+".")))
	var subs []*cobra.Command
	for _, sub := range cmd.Commands() {
		// The completions for shells are cobra's own, and the package installs them.
		if documented(sub) && sub.Name() != "completion" {
			subs = append(subs, sub)
		}
	}
	if len(subs) > 0 {
		b.WriteString("| command | |\n|---|---|\n")
		for _, sub := range subs {
			fmt.Fprintf(b, "| [`%s`](#%s) | %s |\n", sub.CommandPath(), strings.ReplaceAll(sub.CommandPath(), " ", "-"), cell(sub.Short))
		}
		b.WriteString("\n")
	}
	// `stellar agent` holds others and runs, too.
	if len(subs) == 0 || cmd.HasParent() && len(ownFlags(cmd)) > 0 {
		fmt.Fprintf(b, "```\n%s\n```\n\n", cmd.UseLine())
	}
	if len(cmd.Aliases) > 0 {
		fmt.Fprintf(b, "Also: `%s`.\n\n", strings.Join(cmd.Aliases, "`, `"))
	}
	flagsMarkdown(b, cmd.NonInheritedFlags())
	for _, sub := range subs {
		commandMarkdown(b, sub)
	}
}

// ownFlags are the names of a command's flags besides those that every command has.
func ownFlags(cmd *cobra.Command) (names []string) {
	cmd.NonInheritedFlags().VisitAll(func(f *pflag.Flag) {
		if f.Name != "help" {
			names = append(names, f.Name)
		}
	})
	return names
}

func flagsMarkdown(b *strings.Builder, flags *pflag.FlagSet) {
	var rows strings.Builder
	flags.VisitAll(func(f *pflag.Flag) {
		if f.Hidden || f.Name == "help" {
			return
		}
		kind, usage := pflag.UnquoteUsage(f)
		name := "--" + f.Name
		if f.Shorthand != "" {
			name = "-" + f.Shorthand + ", " + name
		}
		if kind != "" {
			name += " " + kind
		}
		// The defaults that cobra itself would print; those of the agent's flags stand in their usage.
		if f.DefValue != "" && f.DefValue != "false" && f.DefValue != "0" && f.DefValue != "0s" && f.DefValue != "[]" {
			usage += " (default " + f.DefValue + ")"
		}
		fmt.Fprintf(&rows, "| `%s` | %s |\n", name, cell(usage))
	})
	if rows.Len() > 0 {
		b.WriteString("| flag | |\n|---|---|\n" + rows.String() + "\n")
	}
}

// byFlag and byEnvironment say what sets a key besides the file. A test tries each.
var (
	byFlag = map[string]string{
		"address": "address", "data-dir": "data-dir", "run-dir": "run-dir", "node-name": "node-name", "listen": "listen",
		"advertise": "advertise", "metrics-listen": "metrics-listen", "mode": "mode", "containerd.address": "containerd-address", "log.level": "debug",
	}
	byEnvironment = map[string]string{"address": "STELLAR_ADDRESS", "containerd.address": "CONTAINERD_ADDRESS"}
)

func configMarkdown(keys []config.Key) string {
	var b strings.Builder
	b.WriteString("# Configuration\n\n" + generatedNote)
	b.WriteString("The agent reads `" + config.DefaultPath + "`, or what `stellar agent --config FILE` names. A key that is left out has its\n" +
		"default, a key that does not exist is an error with its line. Flags go before the environment, the environment before\n" +
		"the file. The commands read the file too, for the agent's socket alone. Changes take effect when the agent is restarted,\n" +
		"which drops no packet.\n\n" +
		"`stellar agent config default` prints the file with every default, `stellar agent config validate` checks one.\n")
	table := "-"
	for _, k := range keys {
		if k.Table != table {
			table = k.Table
			if table != "" {
				fmt.Fprintf(&b, "\n## [%s]\n", table)
			} else {
				b.WriteString("\n## Before the first table\n")
			}
			b.WriteString("\n| key | meaning | default | flag | environment |\n|---|---|---|---|---|\n")
		}
		fmt.Fprintf(&b, "| `%s` | %s | `%s` | %s | %s |\n", k.Name, cell(k.Text), k.Default,
			code("--", byFlag[k.Path()]), code("", byEnvironment[k.Path()]))
	}
	return b.String()
}

func code(prefix, s string) string {
	if s == "" {
		return ""
	}
	return "`" + prefix + s + "`"
}

// cell is text that may stand in a table.
func cell(s string) string { return strings.ReplaceAll(escape(s), "|", `\|`) }

// escape keeps Markdown from taking plain words as its own.
func escape(s string) string { return strings.NewReplacer("<", "&lt;", "*", `\*`).Replace(s) }
