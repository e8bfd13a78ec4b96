package faults

import (
	"errors"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"io"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// failed notes what a test's log has of a failure.
type failed struct{ log string }

func (*failed) Helper() {}

func (f *failed) Errorf(format string, args ...any) {
	f.log += "    x_test.go:1: " + fmt.Sprintf(format, args...) + "\n"
}

// TestFinal: what Safety and Violation say is never excused, nor is a crash.
func TestFinal(t *testing.T) {
	f := &failed{}
	Safety(f, "%s twice", "172.16.0.2")
	for _, log := range []string{
		f.log, "WARNING: DATA RACE\n", "x\npanic: nil\n", "fatal error: all goroutines are asleep\n",
		fmt.Sprintf("    x_test.go:1: not within 30s: it is there: %v", errors.Join(io.EOF, Violation("not %d's: %w", 1, io.EOF))),
	} {
		if !Final(log) {
			t.Errorf("excused: %s", log)
		}
	}
	for _, log := range []string{"", "    x_test.go:1: not within 30s: the route: EOF\n", "    agent's log: a panic: is spoken of\n"} {
		if Final(log) {
			t.Errorf("not excused: %s", log)
		}
	}
	if err := Violation("x: %w", io.EOF); !errors.Is(err, io.EOF) {
		t.Errorf("%v is not the error that it wraps", err)
	}
}

// safetyWords are those of a failure that must never be, mark or not.
var safetyWords = regexp.MustCompile(`%s twice|^doubled|pings lost|packets lost|both have|has the address of|was %\+v|` +
	`^lost: %s|stale read|^impossible|had %s|it was given|of %d passed|of %d arrived|: %d passed|two states|seen in the kernels|by a node that was removed`)

// TestMarked: where tests are run again, a failure that speaks of what must never be
// has the mark.
func TestMarked(t *testing.T) {
	seen := 0
	for _, dir := range []string{"integration", "netsetup", "routes", "events", "internal/check", "internal/hold", "internal/ping"} {
		files, err := filepath.Glob(filepath.Join("../../..", dir, "*_test.go"))
		if err != nil || len(files) == 0 {
			t.Fatalf("%s: %v", dir, err)
		}
		for _, path := range files {
			fset := token.NewFileSet()
			file, err := parser.ParseFile(fset, path, nil, 0)
			if err != nil {
				t.Fatal(err)
			}
			ast.Inspect(file, func(n ast.Node) bool {
				call, ok := n.(*ast.CallExpr)
				if !ok {
					return true
				}
				name, format := failureOf(call)
				switch {
				case name == "Safety" || name == "Violation":
					seen++
				case name != "" && safetyWords.MatchString(format):
					t.Errorf("%s: %s(%q…) speaks of what must never be: faults.Safety, or faults.Violation", fset.Position(call.Pos()), name, format)
				}
				return true
			})
		}
	}
	if seen < 50 {
		t.Errorf("%d failures have the mark: the search finds nothing", seen)
	}
}

// failureOf returns the name of a function that a failing test calls, and its text.
func failureOf(call *ast.CallExpr) (name, format string) {
	sel, ok := call.Fun.(*ast.SelectorExpr)
	if !ok {
		return "", ""
	}
	switch sel.Sel.Name {
	case "Errorf", "Fatalf", "Error", "Fatal", "New", "Safety", "Violation":
	default:
		return "", ""
	}
	for _, arg := range call.Args {
		if lit, ok := arg.(*ast.BasicLit); ok && lit.Kind == token.STRING {
			return sel.Sel.Name, strings.Trim(lit.Value, "\"`")
		}
	}
	return sel.Sel.Name, ""
}
