// Package faults is what the tests of the fault suite (TestFault…, in any package)
// share: the seed of a run, the command that replays it, and the row of the table
// that `make test-faults` prints.
package faults

import (
	"fmt"
	"os"
	"strconv"
	"strings"
)

// The environment of a run.
const (
	// EnvSeed is the seed of the run's random choices; none: 1.
	EnvSeed = "STELLAR_SEED"
	// EnvLong asks, when it is not empty, for the figures of `make test-faults-long`.
	EnvLong = "STELLAR_FAULT_LONG"
	// EnvMode is the mode in which nodes attach: bridge, routed, or mixed, in which
	// every second node has a bridge; none: each test's own.
	EnvMode = "STELLAR_TEST_MODE"
)

// Bed says on what a row was measured.
type Bed string

const (
	// RealContainerd: containers of a real containerd and runc.
	RealContainerd Bed = "real containerd"
	// Namespaces: network namespaces without containers, attached by CNI's calls.
	Namespaces Bed = "namespaces alone"
	// Both: namespaces make the load, real containers run beside them.
	Both Bed = "namespaces, and real containerd"
	// InProcess: the code with its real files, without processes and kernel.
	InProcess Bed = "in process"
)

// TB is the part of testing.TB that this package uses.
type TB interface {
	Helper()
	Name() string
	Failed() bool
	Logf(format string, args ...any)
	Fatalf(format string, args ...any)
	Cleanup(func())
}

// Long reports whether the long figures are asked for.
func Long() bool { return os.Getenv(EnvLong) != "" }

// Seed returns the run's seed. When the test fails, it prints the command that
// repeats the run; pkg is its package, "./integration". The seed decides the
// choices of the test; what real processes do between them, it does not.
func Seed(t TB, pkg string) uint64 {
	t.Helper()
	seed := uint64(1)
	if s := os.Getenv(EnvSeed); s != "" {
		var err error
		if seed, err = strconv.ParseUint(s, 10, 64); err != nil {
			t.Fatalf("%s: %v", EnvSeed, err)
		}
	}
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("%s", Replay(t.Name(), pkg, seed, Long()))
		}
	})
	return seed
}

// ReplayMark begins the line that says how a run is repeated.
const ReplayMark = "replay: "

// Replay is the line with the command that repeats a test's run.
func Replay(test, pkg string, seed uint64, long bool) string {
	name, _, _ := strings.Cut(test, "/")
	extra := ""
	if long {
		extra = " " + EnvLong + "=1"
	}
	if mode := os.Getenv(EnvMode); mode != "" {
		extra += " " + EnvMode + "=" + mode
	}
	return fmt.Sprintf(ReplayMark+"%s=%d%s go test -tags hashicorpmetrics -race -v -timeout 60m -run '^%s$' %s", EnvSeed, seed, extra, name, pkg)
}

// rowMark begins the line of a log that is a row of the table.
const rowMark = "fault row: "

// Row is a line of the table.
type Row struct {
	What   string // what was done: "kill -9 under load, 3 nodes"
	Figure string // what was measured
	Bed    Bed
}

// Report notes a row for the table, after everything was looked at: a test that has
// failed has no figures.
func Report(t TB, bed Bed, what, figure string, args ...any) {
	t.Helper()
	if t.Failed() {
		return
	}
	t.Logf("%s%s | %s | %s", rowMark, bed, what, fmt.Sprintf(figure, args...))
}

// ParseRow finds a row in a line of a test's log.
func ParseRow(line string) (Row, bool) {
	_, text, ok := strings.Cut(line, rowMark)
	parts := strings.SplitN(strings.TrimSpace(text), " | ", 3)
	if !ok || len(parts) != 3 {
		return Row{}, false
	}
	return Row{Bed: Bed(parts[0]), What: parts[1], Figure: parts[2]}, true
}
