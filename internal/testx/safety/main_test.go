package main

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"stellar.io/stellar/internal/testx/faults"
)

// TestViolators: a first failure with the mark counts though the second run passes; a
// mark that a passing test prints, or one that another test prints, does not.
func TestViolators(t *testing.T) {
	event := func(action, test, output string) string {
		return fmt.Sprintf(`{"Action":%q,"Package":"p","Test":%q,"Output":%q}`+"\n", action, test, output)
	}
	attempt := func(test, output, end string) string {
		return event("run", test, "") + event("output", test, output) + event(end, test, "")
	}
	mark := "    x_test.go:1: " + faults.Mark + "172.16.0.2 twice\n"
	for _, tt := range []struct {
		name, in string
		want     []string
	}{
		{"marked, then passes", attempt("TestA", mark, "fail") + attempt("TestA", "", "pass"), []string{"p TestA"}},
		{"passes after a late one", attempt("TestA", "not within 30s", "fail") + attempt("TestA", "", "pass"), nil},
		{"late, then marked", attempt("TestA", "late", "fail") + attempt("TestA", mark, "fail"), []string{"p TestA"}},
		{"a test of the mark passes", attempt("TestA", mark, "pass") + attempt("TestB", "late", "fail"), nil},
		{"marked once, late once", attempt("TestA", mark, "pass") + attempt("TestA", "late", "fail"), nil},
		{"a part", attempt("TestA/x", mark, "fail") + attempt("TestA", "", "fail"), []string{"p TestA/x"}},
		{"in pieces", event("run", "TestA", "") + event("output", "TestA", mark[:20]) + event("output", "TestA", mark[20:]) + event("fail", "TestA", ""), []string{"p TestA"}},
		{"race", attempt("TestA", "WARNING: DATA RACE\n", "fail") + attempt("TestA", "", "pass"), []string{"p TestA"}},
	} {
		got, err := violators(strings.NewReader(tt.in))
		if err != nil || !slices.Equal(got, tt.want) {
			t.Errorf("%s: %q, %v; want %q", tt.name, got, err, tt.want)
		}
	}
	for _, bad := range []string{"", "no JSON", event("start", "", "")} {
		if _, err := violators(strings.NewReader(bad)); err == nil {
			t.Errorf("%q is taken for a run", bad)
		}
	}
}

// TestRealRun: what `go test -json` writes of a test that calls Safety is found.
func TestRealRun(t *testing.T) {
	dir := t.TempDir()
	for name, text := range map[string]string{
		"go.mod": "module x\n\ngo 1.24\n",
		"x_test.go": fmt.Sprintf("package x\n\nimport \"testing\"\n\nfunc TestA(t *testing.T) { t.Error(%q) }\n\nfunc TestB(t *testing.T) { t.Error(\"late\") }\n",
			faults.Violation("%s twice", "172.16.0.2").Error()),
	} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	cmd := exec.Command("go", "test", "-json", "./...")
	cmd.Dir = dir
	out, _ := cmd.Output() // its tests fail
	file := filepath.Join(dir, "events.json")
	if err := os.WriteFile(file, out, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := run(file); err == nil || !strings.HasSuffix(err.Error(), "excuses: x TestA") {
		t.Errorf("%v\n%s", err, out)
	}
}
