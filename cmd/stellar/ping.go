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

type pingCmd struct {
	app     *app
	request api.PingRequest
	stats   pingStats
}

func (a *app) pingCommand() *cobra.Command {
	c := &pingCmd{app: a}
	cmd := &cobra.Command{
		Use: "ping TARGET", Short: "Send echo requests to a container, node or address",
		Long: "Sends ICMP echo requests from this node or, with --from, out of a container or from\n" +
			"another node, and says what came back, until it is interrupted or --count is reached.\n" +
			"TARGET is a container id, the first digits of a long one, NAMESPACE/ID, the hostname of\n" +
			"a container's label stellar.io/hostname, a node or an IPv4 address;\n" +
			"a container's id goes before a node's name, and that before a hostname. The\n" +
			"agents send, so that no privilege is needed here.\n\n" +
			"Exit code 0 when there was a reply, 1 when there was none. With -o json, one object a\n" +
			"line: a PingStart, a PingReply for each request, and PingStatistics.",
		Args: cobra.ExactArgs(1), ValidArgsFunction: a.completePlaces,
	}
	f := cmd.Flags()
	f.StringVar(&c.request.From, "from", "", "out of this container, or from this node (default this node)")
	f.IntVarP(&c.request.Count, "count", "c", 0, "end after so many requests (default none: until interrupted)")
	f.DurationVarP(&c.request.Interval, "interval", "i", time.Second, "between two requests")
	f.DurationVarP(&c.request.Wait, "wait", "W", time.Second, "for the reply to each request")
	f.IntVarP(&c.request.Size, "size", "s", 56, "payload of a request in bytes; ICMP and IP add 28")
	_ = cmd.RegisterFlagCompletionFunc("from", func(cmd *cobra.Command, _ []string, prefix string) ([]string, cobra.ShellCompDirective) {
		return a.completePlaces(cmd, nil, prefix)
	}) // fails only for a flag that is not there
	return a.attach(cmd, c, noTimeout)
}

// completePlaces offers the endpoints of this node and the nodes.
func (a *app) completePlaces(cmd *cobra.Command, args []string, prefix string) ([]string, cobra.ShellCompDirective) {
	endpoints, _ := a.completeEndpoints(cmd, args, prefix)
	nodes, directive := a.completeNodes(cmd, args, prefix)
	return append(endpoints, nodes...), directive
}

func (c *pingCmd) Run(ctx context.Context, args []string, stdout, _ io.Writer) error {
	c.request.Target = args[0]
	if err := c.request.Validate(); err != nil {
		return err
	}
	cl, err := c.app.dial()
	if err != nil {
		return err
	}
	defer cl.Close()
	begun := time.Now()
	err = cl.Ping(ctx, c.request, func(m api.PingMessage) error { return c.show(stdout, m) })
	// Being interrupted, and --timeout, are how an endless ping ends.
	if err != nil && (c.stats.start == nil || ctx.Err() == nil && !errors.Is(err, context.Canceled)) {
		return err
	}
	if c.stats.start == nil {
		return api.Errorf(api.CodeInternal, "the agent has sent nothing")
	}
	if err := c.summary(stdout, time.Since(begun)); err != nil {
		return err
	}
	if c.stats.received == 0 {
		return api.Errorf(api.CodeInternal, "no reply from %s", c.stats.start.Target).WithHint("`stellar status` on both nodes shows what is wrong; `stellar connectivity test` tries all paths")
	}
	return nil
}

// pingStats are kept while the replies come.
type pingStats struct {
	start          *api.PingStart
	sent, received int
	min, max, sum  time.Duration
}

func (s *pingStats) add(r api.PingReply) {
	s.sent++
	if r.Problem != "" {
		return
	}
	rtt := time.Duration(r.RTT)
	if s.received == 0 || rtt < s.min {
		s.min = rtt
	}
	s.max = max(s.max, rtt)
	s.sum += rtt
	s.received++
}

// loss is in percent.
func (s *pingStats) loss() float64 {
	if s.sent == 0 {
		return 0
	}
	return 100 * float64(s.sent-s.received) / float64(s.sent)
}

func (s *pingStats) avg() time.Duration { return s.sum / time.Duration(max(1, s.received)) }

// show writes one message as it comes.
func (c *pingCmd) show(w io.Writer, m api.PingMessage) error {
	if m.Start != nil {
		c.stats.start = m.Start
	}
	if m.Reply != nil {
		c.stats.add(*m.Reply)
	}
	var err error
	switch r := m.Reply; {
	case c.app.output == formatJSON:
		return c.json(w, m)
	case c.app.output == formatName:
		if r != nil && r.Problem == "" {
			_, err = fmt.Fprintln(w, r.From)
		}
	case m.Start != nil && !c.app.noHeaders:
		_, err = fmt.Fprintln(w, printable(pingHead(*m.Start, c.request.Size)))
	case r != nil:
		_, err = fmt.Fprintln(w, printable(pingLine(*r, c.stats.start)))
	}
	return err
}

func pingHead(s api.PingStart, size int) string {
	target := s.Address.String()
	if s.Target != target {
		target = s.Target + " (" + target + ")"
	}
	from := "node " + s.Node
	if s.From != "" {
		from = s.From + " on " + from
	}
	return fmt.Sprintf("PING %s from %s: %d(%d) bytes of data.", target, from, size, size+28)
}

func pingLine(r api.PingReply, s *api.PingStart) string {
	switch {
	case r.Problem == "":
		return fmt.Sprintf("%d bytes from %s: icmp_seq=%d ttl=%d time=%s ms", r.Bytes, r.From, r.Seq, r.TTL, milliseconds(time.Duration(r.RTT)))
	case r.From.IsValid():
		return fmt.Sprintf("From %s: icmp_seq=%d %s", r.From, r.Seq, r.Problem)
	}
	target := "the target"
	if s != nil {
		target = s.Address.String()
	}
	return fmt.Sprintf("To %s: icmp_seq=%d %s", target, r.Seq, r.Problem)
}

// milliseconds writes three digits that count, as ping(8) does.
func milliseconds(d time.Duration) string {
	ms := float64(d) / float64(time.Millisecond)
	switch {
	case ms < 1:
		return fmt.Sprintf("%.3f", ms)
	case ms < 10:
		return fmt.Sprintf("%.2f", ms)
	case ms < 100:
		return fmt.Sprintf("%.1f", ms)
	}
	return fmt.Sprintf("%.0f", ms)
}

func (c *pingCmd) json(w io.Writer, m api.PingMessage) error {
	for kind, v := range map[string]any{"PingStart": m.Start, "PingReply": m.Reply} {
		if kind == "PingStart" && m.Start == nil || kind == "PingReply" && m.Reply == nil {
			continue
		}
		line, err := envelope(kind, v)
		if err != nil {
			return err
		}
		if _, err := w.Write(append(line, '\n')); err != nil {
			return err
		}
	}
	return nil
}

// pingSummary is the last line of -o json.
type pingSummary struct {
	Target      string     `json:"target"`
	Transmitted int        `json:"transmitted"`
	Received    int        `json:"received"`
	LossPercent float64    `json:"lossPercent"`
	Time        api.Millis `json:"timeMs"`
	Min         api.Millis `json:"minMs"`
	Avg         api.Millis `json:"avgMs"`
	Max         api.Millis `json:"maxMs"`
}

// summary writes what ping(8) writes at its end.
func (c *pingCmd) summary(w io.Writer, took time.Duration) error {
	s := &c.stats
	if c.app.output == formatJSON {
		line, err := envelope("PingStatistics", pingSummary{
			Target: s.start.Target, Transmitted: s.sent, Received: s.received, LossPercent: s.loss(),
			Time: api.Millis(took), Min: api.Millis(s.min), Avg: api.Millis(s.avg()), Max: api.Millis(s.max),
		})
		if err != nil {
			return err
		}
		_, err = w.Write(append(line, '\n'))
		return err
	}
	if c.app.output == formatName {
		return nil
	}
	_, err := fmt.Fprintf(w, "\n--- %s ping statistics ---\n%d packets transmitted, %d received, %.4g%% packet loss, time %dms\n",
		printable(s.start.Target), s.sent, s.received, s.loss(), took.Milliseconds())
	if err == nil && s.received > 0 {
		_, err = fmt.Fprintf(w, "rtt min/avg/max = %s/%s/%s ms\n", milliseconds(s.min), milliseconds(s.avg()), milliseconds(s.max))
	}
	return err
}
