package main

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"text/tabwriter"
	"time"

	"stellar.io/stellar/internal/testx/faults"
)

const (
	// shardTime is when a shard begins no further unit: it has an hour.
	shardTime = 50 * time.Minute
	unitLimit = "60m"
)

// outcome is what a unit has shown.
type outcome struct {
	unit   unit
	failed bool
	took   time.Duration
	rows   []faults.Row
	said   string // the last line that the test logged
}

// said finds what a test logged in a line of its output.
var said = regexp.MustCompile(`^ +[a-z0-9_]+_test\.go:\d+: (.*)`)

// runAll runs units one after the other, for they measure, and prints the table.
func runAll(units []unit, l *ledger, out io.Writer) error {
	dir, err := os.MkdirTemp("", "faultrun-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	began, built := time.Now(), map[string]string{}
	var all []outcome
	failed, left, skipped := 0, 0, 0
	for i, u := range units {
		if l.finished(u) {
			skipped++
			continue
		}
		if l.dir != "" && time.Since(began) > shardTime {
			left++
			continue
		}
		bin, ok := built[u.pkg]
		if !ok {
			if bin, err = build(dir, u.pkg); err != nil {
				return err
			}
			built[u.pkg] = bin
		}
		o, log := u.run(bin)
		fmt.Fprintf(out, "%d/%d %s: %s in %s\n", i+1, len(units), u, word(o.failed), o.took.Round(10*time.Millisecond))
		if o.failed {
			failed++
			fmt.Fprintf(out, "%s\n%s\n", log, faults.Replay(u.name, u.pkg, max(1, u.seed), u.long))
		} else if err := l.note(u); err != nil {
			return err
		}
		all = append(all, o)
	}
	fmt.Fprintln(out)
	err = table(out, all)
	fmt.Fprintf(out, "\n%d tests, %d failed, %d left, %d finished before; %s\n", len(all), failed, left, skipped, time.Since(began).Round(time.Second))
	if failed > 0 {
		err = errors.Join(err, fmt.Errorf("%d tests failed", failed))
	}
	if left > 0 {
		err = errors.Join(err, fmt.Errorf("%d units are left: the same command goes on with them", left))
	}
	return err
}

func word(failed bool) string {
	if failed {
		return "FAILED"
	}
	return "ok"
}

// build compiles a package's tests with the race detector.
func build(dir, pkg string) (string, error) {
	bin := filepath.Join(dir, strings.ReplaceAll(strings.TrimPrefix(pkg, "./"), "/", "-")+".test")
	if out, err := exec.Command("go", "test", "-tags", "hashicorpmetrics", "-race", "-c", "-o", bin, pkg).CombinedOutput(); err != nil {
		return "", fmt.Errorf("build the tests of %s: %w\n%s", pkg, err, out)
	}
	return bin, nil
}

func (u unit) run(bin string) (outcome, string) {
	cmd := exec.Command(bin, "-test.run", "^"+u.name+"$", "-test.v", "-test.timeout", unitLimit)
	cmd.Dir = u.pkg
	cmd.Env = append(os.Environ(), u.env()...)
	var log bytes.Buffer
	cmd.Stdout, cmd.Stderr = &log, &log
	began := time.Now()
	err := cmd.Run()
	o := outcome{unit: u, failed: err != nil, took: time.Since(began)}
	for line := range strings.Lines(log.String()) {
		if r, ok := faults.ParseRow(line); ok {
			o.rows = append(o.rows, r)
		}
		if m := said.FindStringSubmatch(line); m != nil {
			o.said = m[1]
		}
		if strings.HasPrefix(strings.TrimSpace(line), "--- SKIP") {
			o.failed = true // what was not tried was not proven
		}
	}
	if !strings.Contains(log.String(), "--- ") {
		o.failed = true // no such test
	}
	return o, log.String()
}

// table prints a row for each figure, and one for each test that measures none.
func table(out io.Writer, all []outcome) error {
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "TEST\tWHAT\tMEASURED\tON\tRESULT")
	for _, o := range all {
		rows := o.rows
		if len(rows) == 0 {
			rows = []faults.Row{{What: "-", Figure: o.said, Bed: bedOf(o.unit.pkg)}}
		}
		for _, r := range rows {
			fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\n", o.unit.name, r.What, r.Figure, r.Bed, word(o.failed))
		}
	}
	return w.Flush()
}

// bedOf is what tests that do not say it run on.
func bedOf(pkg string) faults.Bed {
	switch pkg {
	case "./integration", "./events":
		return faults.RealContainerd
	case "./netsetup", "./routes":
		return faults.Namespaces
	}
	return faults.InProcess
}
