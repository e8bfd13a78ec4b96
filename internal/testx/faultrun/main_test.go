package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
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
		o, _ := unit{test: test{".", "TestFaultX"}}.run(script)
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
