package main

import (
	"path/filepath"
	"strings"
	"testing"

	"stellar.io/stellar/internal/testx/bench"
)

func TestRun(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	fresh, kept := filepath.Join(dir, "new.json"), filepath.Join(dir, "kept.json")
	for _, args := range [][]string{nil, {"keep", fresh}, {"keep", fresh, kept}, {"other", fresh, kept}} {
		if err := run(args, new(strings.Builder)); err == nil {
			t.Errorf("%q is taken", args)
		}
	}
	write := func(name string) {
		t.Helper()
		r := bench.Report{Sections: []bench.Section{{Name: name, Rows: []bench.Row{{What: "x", Unit: "ms"}}}}}
		if err := r.Write(fresh); err != nil {
			t.Fatal(err)
		}
	}
	write("A")
	var out strings.Builder
	if err := run([]string{"compare", fresh, kept}, &out); err != nil || !strings.Contains(out.String(), "No figures") {
		t.Errorf("nothing to compare with: %v, %s", err, out.String())
	}
	for _, name := range []string{"A", "B"} {
		write(name)
		if err := run([]string{"keep", fresh, kept}, &out); err != nil {
			t.Fatal(err)
		}
	}
	r, err := bench.Read(kept)
	if err != nil || len(r.Sections) != 2 {
		t.Errorf("kept %+v, %v", r.Sections, err)
	}
}
