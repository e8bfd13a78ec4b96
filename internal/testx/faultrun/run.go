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
	"slices"
	"strings"
	"sync"
	"text/tabwriter"
	"time"

	"stellar.io/stellar/internal/testx/faults"
)

const (
	// shardTime is when the last unit of a shard must have ended: it has an hour.
	shardTime = 58 * time.Minute
	unitLimit = time.Hour // where there is no shard
)

// outcome is what a unit has shown.
type outcome struct {
	unit   unit
	place  int // among all units
	failed bool
	again  bool // it failed among others and passed alone
	took   time.Duration
	rows   []faults.Row
	said   string // the last line that the test logged
}

// result is the table's word for o.
func (o outcome) result() string {
	switch {
	case o.failed:
		return "FAILED"
	case o.again:
		return "UNSTABLE"
	}
	return "ok"
}

// said finds what a test logged in a line of its output.
var said = regexp.MustCompile(`^ +[a-z0-9_]+_test\.go:\d+: (.*)`)

// runAll runs units, atOnce of them at a time: most of their time they wait. Each has
// processes, namespaces and directories of its own. It prints the table.
func runAll(units []unit, l *ledger, atOnce int, out io.Writer) error {
	dir, err := os.MkdirTemp("", "faultrun-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	s := suite{units: units, ledger: l, out: out, dir: dir, built: map[string]string{}, logs: map[string]string{}, began: time.Now()}
	var workers sync.WaitGroup
	for range atOnce {
		workers.Go(s.work)
	}
	workers.Wait()
	s.again()
	if s.err != nil {
		return s.err
	}
	slices.SortFunc(s.all, func(a, b outcome) int { return a.place - b.place })
	fmt.Fprintln(out)
	err = table(out, s.all)
	fmt.Fprintf(out, "\n%d tests, %d failed, %d unstable, %d left, %d finished before; %s\n", len(s.all), s.failed, s.unstable, s.left, s.skipped, time.Since(s.began).Round(time.Second))
	if s.failed > 0 {
		err = errors.Join(err, fmt.Errorf("%d tests failed", s.failed))
	}
	if s.left > 0 {
		err = errors.Join(err, fmt.Errorf("%d units are left: the same command goes on with them", s.left))
	}
	return err
}

// suite is a run of all units.
type suite struct {
	units  []unit
	ledger *ledger
	dir    string // of the test binaries
	began  time.Time

	mu                              sync.Mutex // guards everything below
	out                             io.Writer
	next                            int
	built                           map[string]string // by package
	all                             []outcome
	logs                            map[string]string // of what failed, by unit
	failed, unstable, left, skipped int
	err                             error
}

// work runs one unit after the other until none is left.
func (s *suite) work() {
	for {
		place, bin, ok := s.take()
		if !ok {
			return
		}
		u := s.units[place]
		o, log := u.run(bin, s.limit())
		o.place = place
		s.finish(o, log)
	}
}

// take returns the next unit to run and the binary that has it.
func (s *suite) take() (place int, bin string, ok bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for ; s.next < len(s.units) && s.err == nil; s.next++ {
		u := s.units[s.next]
		if s.ledger.finished(u) {
			s.skipped++
			continue
		}
		if s.built[u.pkg] == "" {
			if s.built[u.pkg], s.err = build(s.dir, u.pkg); s.err != nil {
				break
			}
		}
		if s.limit() < u.takes() {
			s.left++
			continue
		}
		s.next++
		return s.next - 1, s.built[u.pkg], true
	}
	return 0, "", false
}

// limit is for how long a unit that begins now may run: in a shard, until its end.
func (s *suite) limit() time.Duration {
	if s.ledger.dir == "" {
		return unitLimit
	}
	return max(0, shardTime-time.Since(s.began))
}

func (s *suite) finish(o outcome, log string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.all = append(s.all, o)
	u := o.unit
	fmt.Fprintf(s.out, "%d/%d %s: %s in %s\n", len(s.all)+s.skipped, len(s.units), u, o.result(), o.took.Round(10*time.Millisecond))
	if o.failed {
		s.failed++
		s.logs[u.String()] = log
		fmt.Fprintln(s.out, log)
		if !strings.Contains(log, faults.ReplayMark) { // who draws a seed says which
			fmt.Fprintln(s.out, faults.Replay(u.name, u.pkg, max(1, u.seed), u.long))
		}
	} else if err := s.ledger.note(u); err != nil {
		s.err = errors.Join(s.err, err)
	}
}

// maxAgain is how many failures may be a busy machine's.
const maxAgain = 3

// again runs alone what failed beside others on whole nodes, where the load of a small
// machine can make a deadline pass. What passes is named as unstable. A test in one
// process has no such excuse, nor has what faults.Final finds, nor the long run.
func (s *suite) again() {
	if s.err != nil || s.failed > maxAgain || s.ledger.dir != "" {
		return
	}
	for i, o := range s.all {
		log := s.logs[o.unit.String()]
		if !o.failed || bedOf(o.unit.pkg) == faults.InProcess || faults.Final(log) {
			continue
		}
		fmt.Fprintf(s.out, "again, alone: %s\n", o.unit)
		second, log := o.unit.run(s.built[o.unit.pkg], s.limit())
		if second.failed {
			fmt.Fprintln(s.out, log)
			continue
		}
		second.place, second.again = o.place, true
		s.all[i] = second
		s.failed, s.unstable = s.failed-1, s.unstable+1
	}
}

// build compiles a package's tests with the race detector.
func build(dir, pkg string) (string, error) {
	bin := filepath.Join(dir, strings.ReplaceAll(strings.TrimPrefix(pkg, "./"), "/", "-")+".test")
	if out, err := exec.Command("go", "test", "-tags", "hashicorpmetrics", "-race", "-c", "-o", bin, pkg).CombinedOutput(); err != nil {
		return "", fmt.Errorf("build the tests of %s: %w\n%s", pkg, err, out)
	}
	return bin, nil
}

// run runs the unit, which fails when it has not ended after the limit.
func (u unit) run(bin string, limit time.Duration) (outcome, string) {
	cmd := exec.Command(bin, "-test.run", "^"+u.name+"$", "-test.v", "-test.timeout", limit.String())
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
	if o.failed {
		o.rows, o.said = nil, "no figures" // they may be of before it failed
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
			fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\n", o.unit.name, r.What, r.Figure, r.Bed, o.result())
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
