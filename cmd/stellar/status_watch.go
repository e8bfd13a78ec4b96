package main

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"os"
	"regexp"
	"slices"
	"time"

	"golang.org/x/sys/unix"

	"stellar.io/stellar/api"
)

// watchPause is between two looks.
const watchPause = time.Second

// agentCheck stands in a watch for an agent that does not answer.
const agentCheck = "agent"

// statusWatch shows a node's state until it is interrupted.
type statusWatch struct {
	cmd    *statusCmd
	out    io.Writer
	screen bool // out is a terminal: it has the present state, and no history
	pause  time.Duration
	now    func() time.Time

	before []api.Check // nil: nothing was shown yet
	known  api.StatusReport
}

// run looks and shows until ctx ends, which is no error. An agent that has never
// answered is one; one that goes away is shown, and waited for.
func (w *statusWatch) run(ctx context.Context, look func(context.Context) (api.StatusReport, error)) error {
	for {
		r, err := w.look(ctx, look)
		if ctx.Err() != nil {
			return nil
		}
		if err != nil && w.before == nil {
			return err
		}
		if err != nil {
			r = api.StatusReport{Node: w.known.Node, Cluster: w.known.Cluster, Checks: []api.Check{{Name: agentCheck, State: api.Err, Reason: err.Error()}}}
		}
		if err := w.show(r); err != nil {
			return err
		}
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(w.pause):
		}
	}
}

func (w *statusWatch) look(ctx context.Context, look func(context.Context) (api.StatusReport, error)) (api.StatusReport, error) {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	return look(ctx)
}

// show writes what is new, or on a terminal everything.
func (w *statusWatch) show(r api.StatusReport) error {
	changed := w.changes(r.Checks)
	first := w.before == nil
	w.before, w.known = append([]api.Check{}, r.Checks...), r
	c := w.cmd
	switch {
	case c.app.output == formatJSON:
		if !first && len(changed) == 0 {
			return nil
		}
		line, err := envelope("Status", r)
		if err != nil {
			return err
		}
		_, err = w.out.Write(append(line, '\n'))
		return err
	case w.screen:
		return w.redraw(r)
	case c.brief:
		if !first && len(changed) == 0 {
			return nil
		}
		return c.print(w.out, r)
	}
	if first && c.app.output != formatName && !c.app.noHeaders {
		if err := checkLine(w.out, "TIME", "CHECK", "STATE", "REASON"); err != nil {
			return err
		}
	}
	for _, check := range changed {
		if c.app.output == formatName {
			if _, err := fmt.Fprintln(w.out, printable(check.Name)); err != nil {
				return err
			}
			continue
		}
		if err := checkLine(w.out, timeCell(w.now()), check.Name, string(check.State), check.Reason); err != nil {
			return err
		}
	}
	return nil
}

// redraw writes the whole over what was there, in one go: nothing flickers.
func (w *statusWatch) redraw(r api.StatusReport) error {
	var page, out bytes.Buffer
	if err := w.cmd.print(&page, r); err != nil {
		return err
	}
	const home, lineEnd, clearRest = "\x1b[H", "\x1b[K\r\n", "\x1b[J"
	out.WriteString(home)
	for line := range bytes.Lines(page.Bytes()) {
		out.Write(bytes.TrimSuffix(line, []byte("\n")))
		out.WriteString(lineEnd)
	}
	fmt.Fprintf(&out, "%s%s, each %s; ctrl-C ends it%s%s", lineEnd, w.now().Local().Format(time.TimeOnly), w.pause, lineEnd, clearRest)
	_, err := w.out.Write(out.Bytes())
	return err
}

// changes returns the checks that are not as they were shown last, those that went
// away as OK.
func (w *statusWatch) changes(now []api.Check) []api.Check {
	find := func(list []api.Check, name string) (api.Check, bool) {
		i := slices.IndexFunc(list, func(c api.Check) bool { return c.Name == name })
		if i < 0 {
			return api.Check{}, false
		}
		return list[i], true
	}
	var out []api.Check
	for _, c := range now {
		if was, ok := find(w.before, c.Name); !ok || was.State != c.State || c.State != api.OK && !sameReason(was.Reason, c.Reason) {
			out = append(out, c)
		}
	}
	if _, away := find(now, agentCheck); away {
		return out // who does not answer reports nothing
	}
	for _, was := range w.before {
		if _, ok := find(now, was.Name); ok || was.State == api.OK {
			continue
		}
		reason := "no longer reported"
		if was.Name == agentCheck {
			reason = "answers again"
		}
		out = append(out, api.Check{Name: was.Name, State: api.OK, Reason: reason})
	}
	return out
}

// figures are what changes in a reason all the time: numbers and durations.
var figures = regexp.MustCompile(`[0-9]+(\.[0-9]+)?(h|ms|m|µs|s)?([0-9.]+(h|ms|m|µs|s))*`)

// sameReason reports whether two reasons differ in nothing but figures.
func sameReason(a, b string) bool {
	return figures.ReplaceAllString(a, "#") == figures.ReplaceAllString(b, "#")
}

// checkLine has fixed columns, since lines are written as they come.
func checkLine(w io.Writer, when, name, state, reason string) error {
	_, err := fmt.Fprintf(w, "%-25s   %-12s   %-5s   %s\n", when, printable(name), state, orNone(printable(reason)))
	return err
}

// isTerminal reports whether what is written to w is seen on a terminal at once.
func isTerminal(w io.Writer) bool {
	f, ok := w.(*os.File)
	if !ok {
		return false
	}
	_, err := unix.IoctlGetTermios(int(f.Fd()), unix.TCGETS)
	return err == nil
}
