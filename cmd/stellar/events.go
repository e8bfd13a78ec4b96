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
	app      *app
	follow   bool
	since    string
	tail     int
	types    []string
	subject  string
	nodes    []string
	allNodes bool
}

func (a *app) eventsCommand() *cobra.Command {
	c := &eventsCmd{app: a}
	cmd := &cobra.Command{
		Use: "events", Short: "Show what happened on the nodes", Args: cobra.NoArgs,
		Long: fmt.Sprintf("Shows the events that the agent remembers, oldest first; with -f those that come,\n"+
			"too, until it is interrupted. With -f and -o json, one object a line. An agent\n"+
			"remembers its last %d events, in memory, until it ends.\n\n"+
			"Filters are combined. An event of type %s says that events were forgotten\n"+
			"before they were read, for a reader that is slow does not hold up the agent; one of\n"+
			"type %s says that a node cannot be asked. Both pass all filters.", api.EventHistory, api.EventLost, api.EventUnreachable),
	}
	f := cmd.Flags()
	f.BoolVarP(&c.follow, "follow", "f", false, "go on with new events until interrupted")
	f.StringVar(&c.since, "since", "", "only events since a time (RFC 3339) or an age (10m)")
	f.IntVar(&c.tail, "tail", -1, "only the newest so many of the remembered ones (default all)")
	f.StringSliceVar(&c.types, "type", nil, "only events of this type (attached, detach, reject, repair, …); may be repeated")
	f.StringVar(&c.subject, "subject", "", "only about this: NAMESPACE/ID, an id, or a pattern with * and ?")
	f.StringSliceVar(&c.nodes, "node", nil, "those of this node, asked through the cluster; may be repeated (default this one)")
	f.BoolVar(&c.allNodes, "all-nodes", false, "those of every node of the cluster")
	cmd.MarkFlagsMutuallyExclusive("node", "all-nodes")
	f.Lookup("tail").DefValue = ""
	_ = cmd.RegisterFlagCompletionFunc("node", a.completeNodes) // fails only for a flag that is not there
	return a.attach(cmd, c, noTimeout)
}

// query reads the flags.
func (c *eventsCmd) query(now time.Time) (api.EventQuery, error) {
	q := api.EventQuery{Follow: c.follow, Types: c.types, Subject: c.subject, Nodes: c.nodes, AllNodes: c.allNodes}
	var err error
	if q.Since, err = parseSince(now, c.since); err != nil {
		return q, err
	}
	switch {
	case c.tail < -1:
		return q, api.Errorf(api.CodeInvalid, "--tail %d is less than none", c.tail)
	case c.tail == 0:
		q.Tail = -1
	case c.tail > 0:
		q.Tail = c.tail
	}
	return q, q.Validate()
}

func (c *eventsCmd) Run(ctx context.Context, _ []string, stdout, _ io.Writer) error {
	query, err := c.query(time.Now())
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
