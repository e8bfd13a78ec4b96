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

// configPage is the manual page of the configuration file.
const configPage = "stellar.toml.5"

// manCmd writes the manual pages for a package, one per command, and that of the
// configuration file. It is for building packages, and hidden.
type manCmd struct{ root *cobra.Command }

func (a *app) manCommand(root *cobra.Command) *cobra.Command {
	cmd := &cobra.Command{
		Use: "man DIR", Short: "Write the manual pages into a directory", Args: cobra.ExactArgs(1), Hidden: true,
	}
	return a.attach(cmd, &manCmd{root}, noTimeout)
}

func (c *manCmd) Run(_ context.Context, args []string, _, _ io.Writer) error {
	pages := map[string]string{configPage: configManual()}
	addPages(pages, c.root)
	for name, text := range pages {
		if err := os.WriteFile(filepath.Join(args[0], name), []byte(text), 0o644); err != nil {
			return err
		}
	}
	return nil
}

// addPages adds the pages of cmd and all below it.
func addPages(pages map[string]string, cmd *cobra.Command) {
	cmd.InitDefaultHelpFlag()
	pages[pageName(cmd)+".1"] = manual(cmd)
	for _, sub := range cmd.Commands() {
		if documented(sub) {
			addPages(pages, sub)
		}
	}
}

func documented(cmd *cobra.Command) bool { return cmd.IsAvailableCommand() && cmd.Name() != "help" }

func pageName(cmd *cobra.Command) string { return strings.ReplaceAll(cmd.CommandPath(), " ", "-") }

// manual returns a command's page.
func manual(cmd *cobra.Command) string {
	var p page
	p.title(pageName(cmd), "1")
	p.section("NAME")
	p.text(pageName(cmd) + " \\- " + roff(cmd.Short))
	p.section("SYNOPSIS")
	p.line(".nf")
	p.text(roff(cmd.UseLine()))
	p.line(".fi")
	p.section("DESCRIPTION")
	p.prose(cmp.Or(cmd.Long, cmd.Short+"."))
	if subs := cmd.Commands(); len(subs) > 0 {
		p.commands(subs)
	}
	p.flags("OPTIONS", cmd.NonInheritedFlags())
	p.flags("GLOBAL OPTIONS", cmd.InheritedFlags())
	p.section("SEE ALSO")
	var also []string
	if cmd.HasParent() {
		also = append(also, pageName(cmd.Parent()))
	}
	for _, sub := range cmd.Commands() {
		if documented(sub) {
			also = append(also, pageName(sub))
		}
	}
	for i, name := range also {
		also[i] = "\\fB" + roff(name) + "\\fP(1)"
	}
	p.text(strings.Join(append(also, "\\fBstellar.toml\\fP(5)"), ", "))
	return p.String()
}

// configManual is the default configuration file as a page: it comments itself.
func configManual() string {
	var p page
	p.title("stellar.toml", "5")
	p.section("NAME")
	p.text("stellar.toml \\- configuration of the agent of Stellar")
	p.section("DESCRIPTION")
	p.prose("The agent reads " + config.DefaultPath + ". This is the file with the default of every key.\n" +
		"`stellar agent config validate` checks one.")
	p.line(".PP")
	p.line(".nf")
	p.text(roff(config.DefaultFile()))
	p.line(".fi")
	p.section("SEE ALSO")
	p.text("\\fBstellar\\-agent\\fP(1)")
	return p.String()
}

// page is a manual page in the making.
type page struct{ strings.Builder }

func (p *page) line(s string) { p.WriteString(s + "\n") }

func (p *page) title(name, section string) {
	fmt.Fprintf(p, ".TH \"%s\" \"%s\" \"\" \"Stellar %s\" \"Stellar\"\n", strings.ToUpper(roff(name)), section, roff(version))
}

func (p *page) section(name string) { p.line(".SH " + name) }

// text adds text that is roff already; no line of it becomes a request.
func (p *page) text(s string) {
	for line := range strings.Lines(strings.TrimRight(s, "\n") + "\n") {
		if strings.HasPrefix(line, ".") || strings.HasPrefix(line, "'") {
			line = `\&` + line
		}
		p.WriteString(line)
	}
}

// prose adds paragraphs, with `code` in bold.
func (p *page) prose(s string) {
	for i, par := range strings.Split(strings.TrimSpace(s), "\n\n") {
		if i > 0 {
			p.line(".PP")
		}
		var out strings.Builder
		for j, part := range strings.Split(roff(par), "`") {
			if j > 0 {
				out.WriteString([]string{`\fP`, `\fB`}[j%2])
			}
			out.WriteString(part)
		}
		p.text(out.String())
	}
}

func (p *page) commands(subs []*cobra.Command) {
	p.section("COMMANDS")
	for _, sub := range subs {
		if documented(sub) {
			p.line(".TP")
			p.text("\\fB" + roff(pageName(sub)) + "\\fP(1)")
			p.prose(sub.Short)
		}
	}
}

func (p *page) flags(name string, flags *pflag.FlagSet) {
	if !flags.HasAvailableFlags() {
		return
	}
	p.section(name)
	flags.VisitAll(func(f *pflag.Flag) {
		if f.Hidden {
			return
		}
		kind, usage := pflag.UnquoteUsage(f)
		p.line(".TP")
		text := "\\fB\\-\\-" + roff(f.Name) + "\\fP"
		if f.Shorthand != "" {
			text = "\\fB\\-" + f.Shorthand + "\\fP, " + text
		}
		if kind != "" {
			text += " \\fI" + roff(kind) + "\\fP"
		}
		p.text(text)
		p.prose(usage)
	})
}

// roff escapes what troff would interpret inside a line.
func roff(s string) string { return strings.NewReplacer(`\`, `\e`, "-", `\-`).Replace(s) }
