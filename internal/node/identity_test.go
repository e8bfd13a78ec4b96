package node

import (
	"errors"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
)

func TestIdentityIsMadeOnce(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	first, err := LoadIdentity(dir, "a")
	if err != nil {
		t.Fatal(err)
	}
	if !first.ID.Valid() || first.Name != "a" {
		t.Errorf("identity %+v", first)
	}
	for _, name := range []string{"a", ""} {
		if again, err := LoadIdentity(dir, name); err != nil || !reflect.DeepEqual(again, first) {
			t.Errorf("again: %+v, %v; want %+v", again, err, first)
		}
	}
	if other, err := LoadIdentity(t.TempDir(), "a"); err != nil || other.ID == first.ID {
		t.Errorf("another directory gives %+v, %v", other, err)
	}
	if info, err := os.Stat(filepath.Join(dir, identityFile)); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("mode %v, %v", info.Mode(), err)
	}
}

func TestIdentityRefusals(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name, content, asked string
		want                 error
		text                 string
	}{
		{"renamed", `{"id":"0123456789abcdef0123456789abcdef","name":"a"}`, "b", ErrNameChanged, `"b" is configured`},
		{"cloned", `{"id":"0123456789abcdef0123456789abcdef","name":"a","machine":"00000000000000000000000000000000"}`, "a", ErrForeignMachine, "a copy must not run"},
		{"damaged", `{"id":"01234`, "a", nil, "is damaged"},
		{"bad id", `{"id":"xyz","name":"a"}`, "a", nil, "is damaged"},
	}
	machine, err := machineHash()
	if err != nil {
		t.Fatal(err)
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			if tt.want == ErrForeignMachine && machine == "" {
				return // a machine without an id binds nothing
			}
			dir := t.TempDir()
			path := filepath.Join(dir, identityFile)
			if err := os.WriteFile(path, []byte(tt.content), 0o600); err != nil {
				t.Fatal(err)
			}
			_, err := LoadIdentity(dir, tt.asked)
			if err == nil || !strings.Contains(err.Error(), tt.text) || (tt.want != nil && !errors.Is(err, tt.want)) {
				t.Errorf("error %v, want %q", err, tt.text)
			}
			if after, err := os.ReadFile(path); err != nil || string(after) != tt.content {
				t.Errorf("the file was changed: %s, %v", after, err)
			}
		})
	}
}
