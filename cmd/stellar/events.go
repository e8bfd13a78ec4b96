package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/spf13/cobra"

	"stellar.io/stellar/api"
)

type eventsCmd struct {
	app    *app
	follow bool
	since  string
}

func (a *app) eventsCommand() *cobra.Command {
	c := &eventsCmd{app: a}
	cmd := &cobra.Command{
		Use: "events", Short: "Show what happened on this node", Args: cobra.NoArgs,
		Long: "Shows the events that the agent remembers, oldest first. With -f and -o json, one\n" +
			"object a line.",
	}
	cmd.Flags().BoolVarP(&c.follow, "follow", "f", false, "go on with new events until interrupted")
	cmd.Flags().StringVar(&c.since, "since", "", "only events since a time (RFC 3339) or an age (10m)")
	return a.attach(cmd, c, noTimeout)
}

func (c *eventsCmd) Run(ctx context.Context, _ []string, stdout, _ io.Writer) error {
	since, err := parseSince(time.Now(), c.since)
	if err != nil {
		return err
	}
	cl, err := c.app.dial()
	if err != nil {
		return err
	}
	defer cl.Close()
	if !c.follow && c.app.timeout == 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, callTimeout)
		defer cancel()
	}
	if tabular := c.app.output == formatTable || c.app.output == formatWide; tabular && !c.app.noHeaders {
		if err := eventLine(stdout, "TIME", "TYPE", "NODE", "SUBJECT", "MESSAGE"); err != nil {
			return err
		}
	}
	query := api.EventQuery{Follow: c.follow, Since: since}
	if !c.follow && c.app.output == formatJSON {
		items := []api.Event{}
		err := cl.Events(ctx, query, func(e api.Event) error {
			items = append(items, e)
			return nil
		})
		if err != nil {
			return err
		}
		return listing[api.Event]{kind: "EventList"}.print(c.app, stdout, items)
	}
	err = cl.Events(ctx, query, func(e api.Event) error { return c.print(stdout, e) })
	if c.follow && errors.Is(err, context.Canceled) {
		return nil // being interrupted is how following ends
	}
	return err
}

// print writes one event at once: a follower must not wait for the next one.
func (c *eventsCmd) print(w io.Writer, e api.Event) error {
	switch c.app.output {
	case formatJSON:
		line, err := envelope("Event", e)
		if err != nil {
			return err
		}
		_, err = w.Write(append(line, '\n'))
		return err
	case formatName:
		_, err := fmt.Fprintln(w, printable(e.Subject))
		return err
	}
	return eventLine(w, timeCell(e.Time), e.Type, e.Node, e.Subject, e.Message)
}

// eventLine has fixed columns, since lines are written as they come.
func eventLine(w io.Writer, when, typ, node, subject, message string) error {
	cell := func(s string) string { return orNone(printable(s)) }
	_, err := fmt.Fprintf(w, "%-25s   %-12s   %-12s   %-24s   %s\n", cell(when), cell(typ), cell(node), cell(subject), cell(message))
	return err
}

func parseSince(now time.Time, s string) (time.Time, error) {
	if s == "" {
		return time.Time{}, nil
	}
	if d, err := time.ParseDuration(s); err == nil && d >= 0 {
		return now.Add(-d), nil
	}
	t, err := time.Parse(time.RFC3339, s)
	if err != nil {
		return time.Time{}, api.Errorf(api.CodeInvalid, "--since %q is neither a time like 2026-01-02T15:04:05Z nor an age like 10m", s)
	}
	return t, nil
}
