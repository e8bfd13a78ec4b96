package main

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"stellar.io/stellar/internal/testx/faults"
)

// TestParts: every unit is in exactly one part.
func TestParts(t *testing.T) {
	tests, err := find("../../..")
	if err != nil || len(tests) < 5 {
		t.Fatalf("%d tests, %v", len(tests), err)
	}
	all := long(tests)
	seen := map[unit]int{}
	for _, shard := range []string{"1/3", "2/3", "3/3"} {
		units, err := part(all, shard)
		if err != nil {
			t.Fatal(err)
		}
		for _, u := range units {
			seen[u]++
		}
	}
	for _, u := range all {
		if seen[u] != 1 {
			t.Errorf("%s is in %d parts", u, seen[u])
		}
	}
	for _, bad := range []string{"0/3", "4/3", "3", "1/0", "a/b", "1/3/4"} {
		if _, err := part(all, bad); err == nil {
			t.Errorf("shard %q was taken", bad)
		}
	}
}

// TestLedger: a noted unit is finished, its neighbours are not.
func TestLedger(t *testing.T) {
	l := &ledger{t.TempDir()}
	u := unit{test: test{"./a/b", "TestFaultX"}, seed: 1}
	if err := l.note(u); err != nil {
		t.Fatal(err)
	}
	other, longer := u, u
	other.seed, longer.long = 2, true
	if !l.finished(u) || l.finished(other) || l.finished(longer) || (&ledger{}).finished(u) {
		t.Error("the ledger is wrong")
	}
}

// TestRun: what fails, is skipped or does not exist is no success, and a failure
// prints the command that repeats it.
func TestRun(t *testing.T) {
	script := filepath.Join(t.TempDir(), "x.test")
	for _, tt := range []struct {
		name, script string
		failed       bool
	}{
		{"passes", "echo '    x_test.go:1: fault row: in process | what | 7 of 7'; echo '--- PASS: TestFaultX'", false},
		{"fails", "echo '--- FAIL: TestFaultX'; exit 1", true},
		{"is skipped", "echo '    --- SKIP: TestFaultX/part'; echo '--- PASS: TestFaultX'", true},
		{"does not exist", "echo 'testing: warning: no tests to run'", true},
	} {
		if err := os.WriteFile(script, []byte("#!/bin/sh\n"+tt.script+"\n"), 0o755); err != nil {
			t.Fatal(err)
		}
		o, _ := unit{test: test{".", "TestFaultX"}}.run(script, unitLimit)
		if o.failed != tt.failed {
			t.Errorf("a test that %s: failed = %t", tt.name, o.failed)
		}
		var b strings.Builder
		if err := table(&b, []outcome{o}); err != nil {
			t.Fatal(err)
		}
		if !tt.failed && !strings.Contains(strings.Join(strings.Fields(b.String()), " "), "TestFaultX what 7 of 7 in process ok") {
			t.Errorf("table:\n%s", b.String())
		}
	}
}

// TestRunAll: every unit runs once, whoever takes it, the table is in their order, and
// one that failed is not noted.
func TestRunAll(t *testing.T) {
	root := t.TempDir()
	t.Chdir(root)
	if err := os.MkdirAll("p", 0o755); err != nil {
		t.Fatal(err)
	}
	for name, text := range map[string]string{
		"go.mod": "module x\n\ngo 1.24\n",
		"p/p_test.go": `package p

import "testing"

FUNC TestFaultA(t *testing.T) { t.Log("a") }
FUNC TestFaultB(t *testing.T) { t.Fatal("b") }
FUNC TestFaultC(t *testing.T) { t.Log("c") }
`,
	} {
		text = strings.ReplaceAll(text, "FUNC", "func") // else they were found here as well
		if err := os.WriteFile(name, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	tests, err := find(".")
	if err != nil {
		t.Fatal(err)
	}
	l := &ledger{t.TempDir()}
	var out strings.Builder
	if err := runAll(short(tests), l, 2, &out); err == nil || !strings.Contains(err.Error(), "1 tests failed") {
		t.Errorf("%v\n%s", err, out.String())
	}
	text := out.String()[strings.LastIndex(out.String(), "TEST "):]
	a, b, c := strings.Index(text, "TestFaultA"), strings.Index(text, "TestFaultB"), strings.Index(text, "TestFaultC")
	if a < 0 || b < a || c < b || strings.Count(text, "FAILED") != 1 {
		t.Errorf("table:\n%s", text)
	}
	out.Reset()
	_ = runAll(short(tests), l, 2, &out)
	if !strings.Contains(out.String(), "1 tests, 1 failed, 0 unstable, 0 left, 2 finished before") {
		t.Errorf("again:\n%s", out.String())
	}
}

// failure is what a test's log has of a failure.
type failure struct{ log string }

func (*failure) Helper() {}

func (f *failure) Errorf(format string, args ...any) {
	f.log += "    x_test.go:1: " + fmt.Sprintf(format, args...) + "\n"
}

// safety is the log of a test that calls faults.Safety.
func safety(format string, args ...any) string {
	f := &failure{}
	faults.Safety(f, format, args...)
	return f.log
}

// TestAgain: only a failure on whole nodes is tried again, alone, and stays named; not
// one that lost an address, nor many.
func TestAgain(t *testing.T) {
	dir := t.TempDir()
	for _, tt := range []struct {
		name, pkg, first, second string
		others                   int
		long                     bool
		want                     string
	}{
		{name: "passes alone", pkg: "./integration", first: "late", second: "exit 0", want: "UNSTABLE"},
		{name: "fails alone", pkg: "./integration", first: "late", second: "exit 1", want: "FAILED"},
		{name: "in one process", pkg: "./raftstore", first: "late", second: "exit 0", want: "FAILED"},
		{name: "given twice", pkg: "./integration", first: safety("%s twice", "172.16.0.2"), second: "exit 0", want: "FAILED"},
		{name: "lost at last", pkg: "./integration", first: fmt.Sprintf("not within 30s: everything is as it was: %v", errors.Join(io.EOF, faults.Violation("a has 172.16.0.2"))), second: "exit 0", want: "FAILED"},
		{name: "race", pkg: "./integration", first: "WARNING: DATA RACE", second: "exit 0", want: "FAILED"},
		{name: "crash", pkg: "./integration", first: "x\npanic: nil", second: "exit 0", want: "FAILED"},
		{name: "many", pkg: "./integration", first: "late", second: "exit 0", others: maxAgain, want: "FAILED"},
		{name: "long", pkg: "./integration", first: "late", second: "exit 0", long: true, want: "FAILED"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			script := filepath.Join(dir, strings.ReplaceAll(tt.name, " ", "-"))
			if err := os.WriteFile(script, []byte("#!/bin/sh\necho '--- x'\n"+tt.second+"\n"), 0o755); err != nil {
				t.Fatal(err)
			}
			u := unit{test: test{tt.pkg, "TestFaultX"}}
			s := suite{ledger: &ledger{}, out: &strings.Builder{}, built: map[string]string{tt.pkg: script}, logs: map[string]string{}}
			t.Chdir("../../..")
			if tt.long {
				s.ledger.dir = dir
			}
			s.finish(outcome{unit: u, failed: true}, tt.first)
			s.failed += tt.others
			s.again()
			if got := s.all[0].result(); got != tt.want || (got == "UNSTABLE") != (s.unstable == 1) {
				t.Errorf("%s, want %s; %d failed, %d unstable", got, tt.want, s.failed, s.unstable)
			}
		})
	}
}

// TestHour: a shard begins with what takes long, begins nothing that may outlast its
// hour and nothing may run beyond it; the suite without a shard has no hour.
func TestHour(t *testing.T) {
	long, short := unit{test: test{"./p", "TestFaultLong"}, long: true}, unit{test: test{"./p", "TestFaultShort"}}
	units, err := part([]unit{short, long}, "1/1")
	if err != nil || units[0] != long {
		t.Errorf("%v, %v: the long one is not first", units, err)
	}
	for _, tt := range []struct {
		name  string
		dir   string // of the ledger
		after time.Duration
		want  []unit // are begun
	}{
		{"at the beginning", t.TempDir(), 0, []unit{long, short}},
		{"time for a short one", t.TempDir(), shardTime - usual - time.Second, []unit{short}},
		{"no time", t.TempDir(), shardTime - usual + time.Second, nil},
		{"later", t.TempDir(), 2 * shardTime, nil},
		{"no shard", "", 2 * shardTime, []unit{long, short}},
	} {
		s := suite{units: units, ledger: &ledger{tt.dir}, built: map[string]string{"./p": "bin"}, began: time.Now().Add(-tt.after)}
		var got []unit
		for place, _, ok := s.take(); ok; place, _, ok = s.take() {
			got = append(got, s.units[place])
			if limit := s.limit(); tt.dir != "" && limit > shardTime-tt.after || limit < s.units[place].takes() {
				t.Errorf("%s: %s may run for %s", tt.name, s.units[place], limit)
			}
		}
		if !slices.Equal(got, tt.want) || s.left != len(units)-len(got) {
			t.Errorf("%s: began %v, left %d; want %v", tt.name, got, s.left, tt.want)
		}
	}
	for name, r := range rounds {
		if takes := (unit{test: test{"", name}, long: r.long}).takes(); takes > shardTime/2 {
			t.Errorf("%s takes %s: too long for a shard", name, takes)
		}
	}
}
