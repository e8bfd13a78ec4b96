package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"time"

	"github.com/spf13/cobra"

	"stellar.io/stellar/api"
	"stellar.io/stellar/api/client"
	"stellar.io/stellar/internal/node"
)

const (
	checkReportKind = "CheckReport"
	// agentPatience is how long a check waits for a sign of life of the agent before it
	// goes on without.
	agentPatience = 3 * time.Second
)

var findingList = listing[api.CheckFinding]{
	kind: checkReportKind,
	name: func(f api.CheckFinding) string { return f.Code },
	columns: []column[api.CheckFinding]{
		{head: "SEVERITY", cell: func(f api.CheckFinding) string { return f.Severity }},
		{head: "CODE", cell: func(f api.CheckFinding) string { return f.Code }},
		{head: "NODE", cell: func(f api.CheckFinding) string { return f.Node }},
		{head: "SUBJECT", cell: func(f api.CheckFinding) string { return f.Subject }},
		{head: "MESSAGE", wide: true, cell: func(f api.CheckFinding) string { return f.Message }},
		{head: "MEND", wide: true, cell: func(f api.CheckFinding) string { return f.Mend }},
	},
}

type checkCmd struct {
	app *app
	agentFlags
	allNodes bool
}

func (a *app) checkCommand() *cobra.Command {
	c := &checkCmd{app: a}
	cmd := &cobra.Command{
		Use: "check", Short: "Find what keeps packets from containers on this machine", Args: cobra.NoArgs,
		Long: "Looks at the kernel, links, routes, policy rules, firewalls, neighbours, clocks, ports,\n" +
			"containerd and the data directory, and names each cause with what was seen and what\n" +
			"to type against it; the root causes come first. Nothing is changed. Exit code 5 when\n" +
			"something was found.\n\n" +
			"Where the agent does not answer, the command looks for itself: run it as root then,\n" +
			"with the flags that the agent has.",
	}
	cmd.Flags().BoolVar(&c.allNodes, "all-nodes", false, "have every node of the cluster check itself")
	c.add(cmd, "data-dir", "containerd-address", "run-dir", "listen", "metrics-listen")
	return a.attach(cmd, c, waitTimeout)
}

func (c *checkCmd) Run(ctx context.Context, _ []string, stdout, stderr io.Writer) error {
	cl, err := c.app.dial()
	if err != nil {
		return err
	}
	defer cl.Close()
	done := saying(stderr, checkSilence, "checking")
	r, err := c.check(ctx, cl, stderr)
	done()
	if err != nil {
		return err
	}
	if err := c.print(stdout, r); err != nil {
		return err
	}
	for _, note := range r.Notes {
		fmt.Fprintln(stderr, printable("not judged: "+note))
	}
	var silent []string
	for _, n := range r.Nodes {
		if n.Error != "" {
			silent = append(silent, n.Node+" ("+n.Error+")")
		}
	}
	switch {
	case len(r.Items) > 0 && len(silent) > 0:
		return api.Errorf(api.CodeUnhealthy, "%s; not checked: %v", findings(len(r.Items)), silent)
	case len(r.Items) > 0:
		return api.Errorf(api.CodeUnhealthy, "%s", findings(len(r.Items)))
	case len(silent) > 0:
		return api.Errorf(api.CodeUnhealthy, "not checked: %v", silent)
	}
	return nil
}

func findings(n int) string {
	if n == 1 {
		return "1 finding"
	}
	return fmt.Sprintf("%d findings", n)
}

// check asks the agent, and looks for itself where none answers.
func (c *checkCmd) check(ctx context.Context, cl *client.Client, stderr io.Writer) (api.CheckReport, error) {
	alive, cancel := context.WithTimeout(ctx, agentPatience)
	_, why := cl.Version(alive)
	cancel()
	if why == nil {
		return cl.CheckHost(ctx, c.allNodes)
	}
	if code := api.CodeOf(why); code != api.CodeUnreachable && code != api.CodeTimeout || ctx.Err() != nil {
		return api.CheckReport{}, why
	}
	if os.Geteuid() != 0 {
		return api.CheckReport{}, api.Errorf(api.CodeUnreachable, "%w", why).WithHint("run it as root: then it looks for itself")
	}
	cfg, err := c.resolve(c.app)
	if err != nil {
		return api.CheckReport{}, err
	}
	if e, ok := errors.AsType[*api.Error](why); ok && e.Code == api.CodeTimeout {
		why = fmt.Errorf("no answer within %s", agentPatience)
	}
	fmt.Fprintln(stderr, printable(fmt.Sprintf("the agent does not answer (%v): this is what the machine shows", why)))
	return node.CheckOffline(ctx, cfg, why)
}

func (c *checkCmd) print(w io.Writer, r api.CheckReport) error {
	if r.Items == nil {
		r.Items = []api.CheckFinding{}
	}
	if r.Notes == nil {
		r.Notes = []string{}
	}
	switch {
	case c.app.output == formatJSON:
		return printJSON(w, checkReportKind, r)
	case c.app.output != formatTable:
		return findingList.print(c.app, w, r.Items)
	case len(r.Items) == 0:
		_, err := fmt.Fprintln(w, "no findings")
		return err
	}
	for i, f := range r.Items {
		if i > 0 {
			fmt.Fprintln(w)
		}
		text := fmt.Sprintf("%s %s on %s: %s", f.Severity, f.Code, f.Node, f.Message)
		if _, err := fmt.Fprintf(w, "%s\n  mend: %s\n", printable(text), printable(f.Mend)); err != nil {
			return err
		}
	}
	return nil
}
