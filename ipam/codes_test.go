package ipam

import (
	"errors"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"strings"
	"testing"
)

func TestErrorCodes(t *testing.T) {
	t.Parallel()
	seen := map[uint32]bool{0: true, 1: true}
	for _, c := range codes {
		if seen[c.code] {
			t.Errorf("code %d is given twice", c.code)
		}
		seen[c.code] = true
		wrapped := fmt.Errorf("here: %w", c.err)
		if got := ErrorCode(wrapped); got != c.code {
			t.Errorf("code of %v is %d, want %d", c.err, got, c.code)
		}
		back := ErrorFromCode(c.code, wrapped.Error())
		if !errors.Is(back, c.err) || back.Error() != wrapped.Error() {
			t.Errorf("%v came back as %v", wrapped, back)
		}
		if again := fmt.Errorf("there: %w", back); ErrorCode(again) != c.code {
			t.Errorf("%v lost its code on the second way", again)
		}
		if ErrorFromCode(c.code, "") != c.err {
			t.Errorf("code %d without a text is not the sentinel", c.code)
		}
	}
}

func TestErrorCodesUnknown(t *testing.T) {
	t.Parallel()
	if ErrorCode(nil) != 0 || ErrorFromCode(0, "fine") != nil {
		t.Error("nil is not 0")
	}
	if got := ErrorCode(errors.New("any")); got != 1 {
		t.Errorf("any error has code %d", got)
	}
	newer := ErrorFromCode(4711, "from the future")
	if ErrorCode(newer) != 4711 || newer.Error() != "from the future" {
		t.Errorf("a newer code came back as %d, %v", ErrorCode(newer), newer)
	}
	if ErrorFromCode(4711, "").Error() == "" {
		t.Error("a newer code has no text")
	}
}

// TestErrorCodesComplete: every sentinel that a command can answer has a code.
func TestErrorCodesComplete(t *testing.T) {
	t.Parallel()
	f, err := parser.ParseFile(token.NewFileSet(), "errors.go", nil, 0)
	if err != nil {
		t.Fatal(err)
	}
	src, err := parser.ParseFile(token.NewFileSet(), "codes.go", nil, 0)
	if err != nil {
		t.Fatal(err)
	}
	coded := map[string]bool{"ErrEntryOrder": true, "ErrInvariant": true} // never a result
	ast.Inspect(src, func(n ast.Node) bool {
		if id, ok := n.(*ast.Ident); ok {
			coded[id.Name] = true
		}
		return true
	})
	ast.Inspect(f, func(n ast.Node) bool {
		if v, ok := n.(*ast.ValueSpec); ok {
			if name := v.Names[0].Name; !coded[name] && !strings.HasPrefix(name, "ErrSnapshot") {
				t.Errorf("%s has no code", name)
			}
		}
		return true
	})
}
