package main

import (
	"context"
	"fmt"
	"io"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"stellar.io/stellar/api"
	"stellar.io/stellar/api/client"
)

// traceTimeout covers a node that does not answer, and the search for the path MTU.
const traceTimeout = 45 * time.Second

func (a *app) traceCommand() *cobra.Command {
	var spec api.TraceSpec
	cmd := &cobra.Command{
		Use: "trace FROM TO", Short: "Follow a packet hop by hop, and name the first broken one", Args: cobra.ExactArgs(2),
		Long: "FROM and TO are containers on any node (an id, the first digits of a long one,\n" +
			"NAMESPACE/ID, or the hostname of stellar.io/hostname), addresses or nodes; a container's\n" +
			"id goes before a node's name, and that before a hostname. TO may be an\n" +
			"address outside of the cluster. Every hop is looked at, there and back: interfaces,\n" +
			"bridge, filters, routes, neighbours, and the other node's part, for which its agent is\n" +
			"asked. STATE is OK, BROKEN (packets end there), WARN (some packets may end there) or\n" +
			"UNKNOWN (it could not be looked at). The first broken hop is the cause; it is named with\n" +
			"a command that mends it, and the exit code is 5.\n\n" +
			"Nothing is changed, and nothing is sent but an ARP request for the next hop. With --probe\n" +
			"real packets are: ICMP echo requests from FROM, small ones and then the largest that the\n" +
			"path takes. Where they vanish is told if the counters of the interfaces show it.",
	}
	cmd.Flags().BoolVar(&spec.Probe, "probe", false, "send packets, too, and find out the path's MTU")
	return a.attach(cmd, calling{a, func(ctx context.Context, cl *client.Client, args []string, stdout io.Writer) error {
		spec.From, spec.To = args[0], args[1]
		t, err := cl.Trace(ctx, spec)
		if err != nil {
			return err
		}
		if err := printTrace(a, stdout, t); err != nil {
			return err
		}
		return traceOutcome(t)
	}}, traceTimeout)
}

var hopList = listing[api.TraceHop]{
	name: func(h api.TraceHop) string { return h.What },
	columns: []column[api.TraceHop]{
		{head: "HOP", cell: func(h api.TraceHop) string { return strconv.Itoa(h.Hop) }},
		{head: "WAY", wide: true, cell: func(h api.TraceHop) string { return h.Direction }},
		{head: "NODE", cell: func(h api.TraceHop) string { return h.Node }},
		{head: "WHAT", cell: func(h api.TraceHop) string { return h.What + " " + subjectCell(h.Subject) }},
		{head: "STATE", cell: func(h api.TraceHop) string { return string(h.State) }},
		{head: "DETAIL", cell: func(h api.TraceHop) string { return h.Detail }},
		{head: "CODE", wide: true, cell: func(h api.TraceHop) string { return h.Code }},
		{head: "MEND", wide: true, cell: func(h api.TraceHop) string { return h.Mend }},
	},
}

// subjectCell shortens the container in NAMESPACE/CONTAINER as other tables do.
func subjectCell(s string) string {
	if ns, id, ok := strings.Cut(s, "/"); ok {
		return ns + "/" + idCell(id)
	}
	return s
}

func printTrace(a *app, w io.Writer, t api.Trace) error {
	if a.output == formatJSON {
		return printJSON(w, "Trace", t)
	}
	if a.output == formatName {
		if t.Cause != nil {
			_, err := fmt.Fprintln(w, printable(t.Cause.Code))
			return err
		}
		return nil
	}
	if err := hopList.print(a, w, t.Hops); err != nil {
		return err
	}
	var lines []string
	if t.Cause != nil {
		lines = append(lines, causeText("Cause", *t.Cause)...)
	}
	for _, c := range t.Further {
		lines = append(lines, causeText("Also", c)...)
	}
	if len(lines) > 0 {
		fmt.Fprintln(w)
	}
	for _, l := range lines {
		if _, err := fmt.Fprintln(w, printable(l)); err != nil {
			return err
		}
	}
	return nil
}

func causeText(head string, c api.TraceCause) []string {
	out := []string{fmt.Sprintf("%s: %s on node %s, %s: %s", head, c.Code, c.Node, c.Subject, c.Message)}
	if c.Mend != "" {
		out = append(out, "  Type: "+c.Mend)
	}
	return out
}

// traceOutcome is the command's own verdict.
func traceOutcome(t api.Trace) error {
	switch {
	case t.Cause != nil:
		e := api.Errorf(api.CodeUnhealthy, "broken at hop %d: %s: %s", t.Cause.Hop, t.Cause.Code, t.Cause.Message)
		if t.Cause.Mend != "" {
			e = e.WithHint("on node " + t.Cause.Node + ": " + t.Cause.Mend)
		}
		return e
	case t.Unjudged != "":
		return api.Errorf(api.CodeUnhealthy, "no broken hop was found, but not all could be looked at: %s", t.Unjudged)
	}
	return nil
}
