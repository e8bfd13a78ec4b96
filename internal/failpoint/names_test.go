package failpoint

import (
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
)

// use is what the sources do with a constant.
type use struct{ hit, err int }

// uses reads every source file of the module but tests and this package.
func uses(t *testing.T) map[string]use {
	t.Helper()
	out := map[string]use{}
	err := filepath.WalkDir("../..", func(path string, d fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case d.IsDir() && (d.Name() == ".cache" || d.Name() == "bin" || d.Name() == "failpoint"):
			return fs.SkipDir
		case d.IsDir(), !strings.HasSuffix(path, ".go"), strings.HasSuffix(path, "_test.go"):
			return nil
		}
		f, err := parser.ParseFile(token.NewFileSet(), path, nil, 0)
		if err != nil {
			return err
		}
		ast.Inspect(f, func(n ast.Node) bool {
			call, ok := n.(*ast.CallExpr)
			if !ok || len(call.Args) != 1 {
				return true
			}
			fn, name := selector(call.Fun), selector(call.Args[0])
			u := out[name]
			switch fn {
			case "Hit":
				u.hit++
			case "Err":
				u.err++
			default:
				return true
			}
			out[name] = u
			return true
		})
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// selector returns X of failpoint.X, "" for anything else.
func selector(e ast.Expr) string {
	s, ok := e.(*ast.SelectorExpr)
	if !ok {
		return ""
	}
	if pkg, ok := s.X.(*ast.Ident); !ok || pkg.Name != "failpoint" {
		return ""
	}
	return s.Sel.Name
}

// constants reads names.go: constant → its name, and whether a comment says what it is.
func constants(t *testing.T) (names map[string]Name, explained map[string]bool) {
	t.Helper()
	f, err := parser.ParseFile(token.NewFileSet(), "names.go", nil, parser.ParseComments)
	if err != nil {
		t.Fatal(err)
	}
	names, explained = map[string]Name{}, map[string]bool{}
	ast.Inspect(f, func(n ast.Node) bool {
		v, ok := n.(*ast.ValueSpec)
		if !ok || len(v.Values) != 1 {
			return true
		}
		text, err := strconv.Unquote(v.Values[0].(*ast.BasicLit).Value)
		if err != nil {
			t.Fatal(err)
		}
		names[v.Names[0].Name], explained[v.Names[0].Name] = Name(text), v.Comment != nil
		return true
	})
	return names, explained
}

// TestNames: every name is in All, explained, and at one place in the sources, with
// Hit or Err as All says.
func TestNames(t *testing.T) {
	names, explained := constants(t)
	used := uses(t)
	byName := map[Name]Point{}
	for _, p := range All() {
		if _, twice := byName[p.Name]; twice {
			t.Errorf("%s is twice in All", p.Name)
		}
		byName[p.Name] = p
	}
	if len(names) < 45 || len(names) != len(byName) {
		t.Errorf("%d constants, %d in All", len(names), len(byName))
	}
	form := regexp.MustCompile(`^[a-z-]+/[a-z-]+$`)
	for constant, name := range names {
		p, ok := byName[name]
		want := use{hit: 1}
		if p.Fails {
			want = use{err: 1}
		}
		switch {
		case !ok:
			t.Errorf("%s is not in All", constant)
		case !explained[constant]:
			t.Errorf("%s has no comment", constant)
		case !form.MatchString(string(name)):
			t.Errorf("%s: %q is no name", constant, name)
		case used[constant] != want:
			t.Errorf("%s is used %+v, All says %+v", constant, used[constant], want)
		}
	}
}
