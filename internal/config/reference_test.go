package config

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestKeys(t *testing.T) {
	t.Parallel()
	got, err := keysOf("# About the file.\n\n# One.\n# More of it.\na = 1\n\n[t]\n# Two, in\n# a table.\nb = [\"x\", \"y\"]\n")
	want := []Key{{"", "a", "1", "One. More of it."}, {"t", "b", `["x", "y"]`, "Two, in a table."}}
	if diff := cmp.Diff(want, got); diff != "" || err != nil {
		t.Errorf("%v (-want +got):\n%s", err, diff)
	}
	for in, want := range map[string]string{
		"# x\n\na = 1\n":      "what a means",
		"[t]\n# x\n\nb = 1\n": "what t.b means",
		"# x\na = 1\nb = 2\n": "what b means",
		"# x\na\n":            "neither a comment",
	} {
		if _, err := keysOf(in); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("keysOf(%q): %v, want one with %q", in, err, want)
		}
	}
}

// TestKeysOfDefaultFile: every key of the file is found, and with its table.
func TestKeysOfDefaultFile(t *testing.T) {
	t.Parallel()
	keys, err := Keys()
	if err != nil {
		t.Fatal(err)
	}
	if n := strings.Count(DefaultFile(), " = "); len(keys) != n {
		t.Errorf("%d keys, the file has %d", len(keys), n)
	}
	for _, k := range keys {
		cfg := DefaultConfig()
		text := k.Name + " = " + k.Default + "\n"
		if k.Table != "" {
			text = "[" + k.Table + "]\n" + text
		}
		if err := Decode("key", []byte(text), &cfg); err != nil {
			t.Errorf("%s: %v", k.Path(), err)
		}
	}
}
