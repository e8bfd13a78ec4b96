package main

import (
	"bytes"
	"context"
	"errors"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"stellar.io/stellar/api"
)

// reports answers with one report after the other, then the last for ever.
func reports(list ...[]api.Check) func(context.Context) (api.StatusReport, error) {
	return func(context.Context) (api.StatusReport, error) {
		r := api.StatusReport{Node: "a", Cluster: "c", Checks: list[0]}
		if len(list) > 1 {
			list = list[1:]
		}
		if r.Checks == nil {
			return r, api.Errorf(api.CodeUnreachable, "no agent")
		}
		return r, nil
	}
}

func watchFor(t *testing.T, c *statusCmd, screen bool, d time.Duration, look func(context.Context) (api.StatusReport, error)) (out string, err error) {
	synctest.Test(t, func(t *testing.T) {
		var buf bytes.Buffer
		ctx, cancel := context.WithTimeout(t.Context(), d)
		defer cancel()
		w := statusWatch{cmd: c, out: &buf, screen: screen, pause: time.Second, now: fixedTime}
		err = w.run(ctx, look)
		out = buf.String()
	})
	return out, err
}

func ok(name, reason string) api.Check { return api.Check{Name: name, State: api.OK, Reason: reason} }

func TestStatusWatchLines(t *testing.T) {
	t.Parallel()
	warn := func(reason string) api.Check { return api.Check{Name: "containerd", State: api.Warn, Reason: reason} }
	look := reports(
		[]api.Check{ok("ready", ""), ok("containerd", "connected for 3s")},
		[]api.Check{ok("ready", ""), ok("containerd", "connected for 4s")}, // what is OK may change its figures
		[]api.Check{ok("ready", ""), warn("away for 1s: refused")},
		[]api.Check{ok("ready", ""), warn("away for 1m2.5s: refused")}, // and so may what is not
		[]api.Check{ok("ready", ""), warn("away for 1m4s: no such file")},
		[]api.Check{ok("ready", ""), warn("away for 1m4s: no such file"), {Name: "disk", State: api.Err, Reason: "full"}},
		[]api.Check{ok("ready", ""), warn("away for 1m4s: no such file")},
		nil, nil, // the agent is restarted
		[]api.Check{ok("ready", ""), ok("containerd", "connected for 1s")},
	)
	got, err := watchFor(t, &statusCmd{app: &app{output: formatTable, noHeaders: true}}, false, 30*time.Second, look)
	if err != nil {
		t.Error(err)
	}
	var lines []string
	for line := range strings.Lines(got) {
		when, rest, _ := strings.Cut(strings.TrimSpace(line), " ")
		if when != timeCell(fixedTime()) {
			t.Errorf("time %q", when)
		}
		lines = append(lines, strings.Join(strings.Fields(rest), " "))
	}
	want := []string{
		"ready OK -", "containerd OK connected for 3s",
		"containerd WARN away for 1s: refused", "containerd WARN away for 1m4s: no such file",
		"disk ERR full", "disk OK no longer reported",
		"agent ERR no agent", "ready OK -", "containerd OK connected for 1s", "agent OK answers again",
	}
	if diff := cmp.Diff(want, lines); diff != "" {
		t.Error(diff)
	}
}

func TestStatusWatchFormats(t *testing.T) {
	t.Parallel()
	look := func() func(context.Context) (api.StatusReport, error) {
		return reports([]api.Check{ok("ready", "")}, []api.Check{ok("ready", "")}, []api.Check{{Name: "ready", State: api.Err, Reason: "x"}})
	}
	for _, tt := range []struct {
		name   string
		cmd    *statusCmd
		screen bool
		want   string
	}{
		{"json", &statusCmd{app: &app{output: formatJSON}}, true,
			`{"apiVersion":"stellar/v1","kind":"Status","node":"a","cluster":"c","checks":[{"name":"ready","state":"OK","reason":""}]}` + "\n" +
				`{"apiVersion":"stellar/v1","kind":"Status","node":"a","cluster":"c","checks":[{"name":"ready","state":"ERR","reason":"x"}]}` + "\n"},
		{"brief", &statusCmd{app: &app{output: formatTable}, brief: true}, false, "OK\nERR ready: x\n"},
		{"name", &statusCmd{app: &app{output: formatName}}, false, "ready\nready\n"},
	} {
		got, err := watchFor(t, tt.cmd, tt.screen, 5*time.Second, look())
		if diff := cmp.Diff(tt.want, got); diff != "" || err != nil {
			t.Errorf("%s: %v\n%s", tt.name, err, diff)
		}
	}
}

// A terminal has the present state alone: each page starts at the top and leaves
// nothing of the one before.
func TestStatusWatchScreen(t *testing.T) {
	t.Parallel()
	look := reports([]api.Check{ok("ready", ""), {Name: "disk", State: api.Err, Reason: "full"}}, []api.Check{ok("ready", "")})
	got, err := watchFor(t, &statusCmd{app: &app{output: formatTable}}, true, 1500*time.Millisecond, look)
	pages := strings.Split(got, "\x1b[H")
	if err != nil || len(pages) != 3 || pages[0] != "" {
		t.Fatalf("%d pages, %v: %q", len(pages), err, got)
	}
	if !strings.Contains(pages[1], "full") || strings.Contains(pages[2], "full") {
		t.Errorf("pages %q", pages)
	}
	for _, p := range pages[1:] {
		for line := range strings.SplitSeq(strings.TrimSuffix(p, "\x1b[J"), "\r\n") {
			if line != "" && !strings.HasSuffix(line, "\x1b[K") {
				t.Errorf("a line leaves the rest of the former one: %q", line)
			}
		}
		if !strings.HasSuffix(p, "\x1b[J") {
			t.Errorf("the rest of the screen stays: %q", p)
		}
	}
}

func TestStatusWatchWithoutAnAgent(t *testing.T) {
	t.Parallel()
	if _, err := watchFor(t, &statusCmd{app: &app{output: formatTable}}, false, 5*time.Second, reports(nil)); api.CodeOf(err) != api.CodeUnreachable {
		t.Errorf("err %v", err)
	}
	broken := errors.New("broken")
	w := statusWatch{cmd: &statusCmd{app: &app{output: formatTable}}, out: failingWriter{broken}, pause: time.Second, now: fixedTime}
	if err := w.run(t.Context(), reports([]api.Check{ok("ready", "")})); !errors.Is(err, broken) {
		t.Errorf("err %v", err)
	}
}

type failingWriter struct{ err error }

func (w failingWriter) Write([]byte) (int, error) { return 0, w.err }
