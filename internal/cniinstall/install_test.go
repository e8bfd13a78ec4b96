package cniinstall

import (
	"os"
	"path/filepath"
	"slices"
	"testing"
)

func TestBinDirs(t *testing.T) {
	root := t.TempDir()
	at := func(dirs ...string) (out []string) {
		for _, d := range dirs {
			out = append(out, filepath.Join(root, d))
		}
		return out
	}
	if got, want := BinDirs(root, nil), at("/opt/cni/bin"); !slices.Equal(got, want) {
		t.Errorf("of an empty machine: %q", got)
	}
	if err := os.MkdirAll(filepath.Join(root, "/usr/libexec/cni"), 0o755); err != nil {
		t.Fatal(err)
	}
	got := BinDirs(root, []string{"/opt/cni/bin", "/srv/cni"})
	if want := at("/opt/cni/bin", "/usr/libexec/cni", "/srv/cni"); !slices.Equal(got, want) {
		t.Errorf("BinDirs = %q, want %q", got, want)
	}
}

// TestIntact: any change to a configuration is seen, whatever version wrote it.
func TestIntact(t *testing.T) {
	text, err := conflist(Config{Name: "stellar", Address: "unix:///run/a.sock"})
	if err != nil || !intact(text) {
		t.Fatalf("%v\n%s", err, text)
	}
	for i := range text {
		changed := slices.Clone(text)
		changed[i] ^= 1
		if i < len(text)-1 && intact(changed) {
			t.Errorf("byte %d changed from %q to %q is not seen", i, text[i], changed[i])
		}
	}
	if intact([]byte(`{"io.stellar.sha256": ""}`)) {
		t.Error("no sum is a sum")
	}
}

func TestNames(t *testing.T) {
	for name, want := range map[string]bool{"stellar": true, "a.b-c_9": true, "9": true, "": false, ".": false, "-a": false, "a/b": false, "ä": false, "a b": false} {
		if validName(name) != want {
			t.Errorf("%q: %t", name, !want)
		}
	}
}
