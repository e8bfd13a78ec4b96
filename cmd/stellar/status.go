package main

import (
	"context"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"stellar.io/stellar/api"
)

type statusCmd struct {
	app   *app
	brief bool
	wait  bool
	watch bool
}

func (a *app) statusCommand() *cobra.Command {
	c := &statusCmd{app: a}
	cmd := &cobra.Command{
		Use: "status", Short: "Judge this node", Args: cobra.NoArgs,
		Long: "Shows what the agent says of this node. Exit code 5 when a check is ERR.\n\n" +
			"With --watch it goes on until it is interrupted: a terminal always has the present\n" +
			"state; elsewhere each check has a line at first and one when it changes, with -o json\n" +
			"an object of the whole.",
	}
	cmd.Flags().BoolVar(&c.brief, "brief", false, "one line: the worst state and what is not OK")
	cmd.Flags().BoolVar(&c.wait, "wait", false, "wait until the node is ready (60s unless --timeout says otherwise)")
	cmd.Flags().BoolVar(&c.watch, "watch", false, "go on until interrupted")
	cmd.MarkFlagsMutuallyExclusive("wait", "watch")
	return a.attach(cmd, c, noTimeout) // Run knows what it is to be
}

var checkColumns = []column[api.Check]{
	{head: "CHECK", cell: func(c api.Check) string { return c.Name }},
	{head: "STATE", cell: func(c api.Check) string { return string(c.State) }},
	{head: "REASON", cell: func(c api.Check) string { return c.Reason }},
}

func (c *statusCmd) Run(ctx context.Context, _ []string, stdout, _ io.Writer) error {
	cl, err := c.app.dial()
	if err != nil {
		return err
	}
	defer cl.Close()
	if c.watch {
		w := statusWatch{cmd: c, out: stdout, screen: isTerminal(stdout), pause: watchPause, now: time.Now}
		return w.run(ctx, cl.Status)
	}
	if c.app.timeout == 0 {
		limit := callTimeout
		if c.wait {
			limit = waitTimeout
		}
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, limit)
		defer cancel()
	}
	var r api.StatusReport
	var waited error
	if c.wait {
		waited = poll(ctx, "the node is not ready", readyNow(cl, &r))
		if r.Node == "" {
			return waited // never heard of the agent
		}
	} else if r, err = cl.Status(ctx); err != nil {
		return err
	}
	if err := c.print(stdout, r); err != nil {
		return err
	}
	if waited != nil {
		return waited
	}
	if r.Worst() == api.Err {
		return api.Errorf(api.CodeUnhealthy, "not healthy: %s", notOK(r, api.Err))
	}
	return nil
}

func (c *statusCmd) print(w io.Writer, r api.StatusReport) error {
	if c.brief && c.app.output != formatJSON {
		line := string(r.Worst())
		if rest := notOK(r, api.Warn, api.Err); rest != "" {
			line += " " + rest
		}
		_, err := fmt.Fprintln(w, printable(line))
		return err
	}
	if c.app.output == formatJSON {
		if r.Checks == nil {
			r.Checks = []api.Check{}
		}
		return printJSON(w, "Status", r)
	}
	if c.app.output != formatName && !c.app.noHeaders {
		err := printObject(c.app, w, "", nil, "", []field{{"Node", r.Node}, {"Cluster", r.Cluster}})
		if err != nil {
			return err
		}
		fmt.Fprintln(w)
	}
	l := listing[api.Check]{columns: checkColumns, name: func(c api.Check) string { return c.Name }}
	return l.print(c.app, w, r.Checks)
}

// notOK names the checks that are in one of the states, with their reasons.
func notOK(r api.StatusReport, states ...api.CheckState) string {
	var out []string
	for _, c := range r.Checks {
		for _, s := range states {
			if c.State == s {
				out = append(out, strings.TrimSuffix(c.Name+": "+c.Reason, ": "))
			}
		}
	}
	return strings.Join(out, "; ")
}
