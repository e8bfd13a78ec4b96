// Benchfigures compares the figures of `make bench` with those that were kept, and keeps
// them.
package main

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"

	"stellar.io/stellar/internal/testx/bench"
)

// benchstat is run as a program of its own module: its statistics are not built anew here,
// and go.mod does not grow by it.
const benchstat = "golang.org/x/perf/cmd/benchstat@v0.0.0-20260908200009-22c9c6c9d4da"

const usage = "usage: benchfigures compare|keep NEW.json KEPT.json"

func main() {
	if err := run(os.Args[1:], os.Stdout); err != nil {
		fmt.Fprintln(os.Stderr, "benchfigures:", err)
		os.Exit(1)
	}
}

func run(args []string, stdout io.Writer) error {
	if len(args) != 3 {
		return errors.New(usage)
	}
	fresh, err := bench.Read(args[1])
	if err != nil {
		return err
	}
	kept, err := bench.Read(args[2])
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	switch args[0] {
	case "keep":
		return fresh.Merge(kept).Write(args[2])
	case "compare":
		if len(kept.Sections) == 0 {
			fmt.Fprintf(stdout, "No figures in %s to compare with.\n", args[2])
			return nil
		}
		return compare(stdout, fresh, kept)
	}
	return errors.New(usage)
}

// compare prints what has changed by benchstat's judgement.
func compare(stdout io.Writer, fresh, kept bench.Report) error {
	fmt.Fprintf(stdout, "Compared with the figures that were kept:\n")
	if !fresh.Machine.Same(kept.Machine) {
		fmt.Fprintf(stdout, "  they are of another machine (%s): only ratios mean anything\n", kept.Machine)
	}
	dir, err := os.MkdirTemp("", "benchfigures-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	args := []string{"run", benchstat, "-format", "csv"}
	for name, r := range map[string]bench.Report{"1-kept": kept, "2-new": fresh} {
		var text bytes.Buffer
		if err := r.Benchstat(&text); err != nil {
			return err
		}
		if err := os.WriteFile(filepath.Join(dir, name), text.Bytes(), 0o600); err != nil {
			return err
		}
	}
	cmd := exec.Command("go", append(args, "1-kept", "2-new")...)
	cmd.Dir, cmd.Env = dir, append(os.Environ(), "GOFLAGS=")
	var out, problems bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &problems
	if err := cmd.Run(); err != nil {
		return fmt.Errorf("benchstat, which comes from the Go module proxy: %w\n%s", err, problems.String())
	}
	changes, err := fresh.Changes(&out)
	if err != nil {
		return err
	}
	worse := 0
	for _, c := range changes {
		mark := "     "
		if c.Worse {
			mark = "WORSE"
			worse++
		}
		fmt.Fprintf(stdout, "  %s %+6.0f%%  %s → %s  %s\n", mark, c.Percent, bench.Figure(c.Was, c.Row.Unit), bench.Figure(c.Row.P50, c.Row.Unit), c.Name)
	}
	fmt.Fprintf(stdout, "%d rows differ beyond the noise of their samples, %d of them are worse beyond the noise of runs.\n", len(changes), worse)
	return nil
}
