package faults

import (
	"fmt"
	"testing"
)

type recorder struct {
	testing.TB
	failed bool
	lines  []string
}

func (r *recorder) Failed() bool { return r.failed }

func (r *recorder) Logf(format string, args ...any) {
	r.lines = append(r.lines, "    x_test.go:7: "+fmt.Sprintf(format, args...)+"\n")
}

// TestRow: what a test reports is what the table's maker reads.
func TestRow(t *testing.T) {
	r := &recorder{TB: t}
	Report(r, Namespaces, "kill -9, 3 nodes", "%d kills | %d lost", 20, 0)
	got, ok := ParseRow(r.lines[0])
	if want := (Row{Bed: Namespaces, What: "kill -9, 3 nodes", Figure: "20 kills | 0 lost"}); !ok || got != want {
		t.Errorf("ParseRow(%q) = %+v, %t", r.lines[0], got, ok)
	}
	r.failed = true
	if Report(r, Namespaces, "kill -9, 3 nodes", "0 lost"); len(r.lines) > 1 {
		t.Errorf("a test that has failed reports %q", r.lines[1])
	}
	for _, line := range []string{"", "--- PASS: TestFaultX (0.00s)", "x_test.go:7: fault row: no columns"} {
		if row, ok := ParseRow(line); ok {
			t.Errorf("%q is taken for the row %+v", line, row)
		}
	}
}

// TestReplay: the command names the test whole, not a part of it.
func TestReplay(t *testing.T) {
	t.Setenv(EnvSeed, "7")
	if seed := Seed(t, "./x"); seed != 7 {
		t.Errorf("seed %d", seed)
	}
	t.Setenv(EnvMode, "mixed")
	want := "replay: STELLAR_SEED=7 STELLAR_FAULT_LONG=1 STELLAR_TEST_MODE=mixed go test -tags hashicorpmetrics -race -v -timeout 60m -run '^TestFaultX$' ./x"
	if got := Replay("TestFaultX/with_a_part", "./x", 7, true); got != want {
		t.Errorf("%s\nwant\n%s", got, want)
	}
}
