// Command safety reads what `gotestsum --jsonfile` has written of a run with re-runs,
// and fails when a test has failed, even once, in a way that no load excuses.
//
//	safety bin/events-nodes.json
package main

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"

	"stellar.io/stellar/internal/testx/faults"
)

func main() {
	if len(os.Args) != 2 {
		fmt.Fprintln(os.Stderr, "usage: safety FILE")
		os.Exit(2)
	}
	if err := run(os.Args[1]); err != nil {
		fmt.Fprintln(os.Stderr, "safety:", err)
		os.Exit(1)
	}
}

func run(path string) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	names, err := violators(f)
	if err != nil {
		return fmt.Errorf("read %s: %w", path, err)
	}
	if len(names) > 0 {
		return fmt.Errorf("failed in a way that no second run excuses: %s", strings.Join(names, ", "))
	}
	return nil
}

// violators are the tests of a stream of `go test -json` that have failed, at whichever
// attempt, with what faults.Final finds in their output. A stream without any test is
// an error.
func violators(r io.Reader) (names []string, err error) {
	type key struct{ Package, Test string }
	said := map[key]*strings.Builder{}
	tests := 0
	for d := json.NewDecoder(bufio.NewReader(r)); ; {
		var e struct {
			key
			Action, Output string
		}
		switch err := d.Decode(&e); {
		case errors.Is(err, io.EOF) && tests == 0:
			return nil, errors.New("it has no test")
		case errors.Is(err, io.EOF):
			slices.Sort(names)
			return slices.Compact(names), nil
		case err != nil:
			return nil, err
		}
		if e.Test != "" {
			tests++
		}
		switch e.Action {
		case "run", "start":
			said[e.key] = &strings.Builder{}
		case "output":
			if said[e.key] == nil {
				said[e.key] = &strings.Builder{}
			}
			said[e.key].WriteString(e.Output)
		case "fail":
			if b := said[e.key]; b != nil && faults.Final(b.String()) {
				names = append(names, strings.TrimSpace(e.Package+" "+e.Test))
			}
		}
	}
}
