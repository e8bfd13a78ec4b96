package config

import (
	"os"
	"path/filepath"
	"slices"
	"testing"
)

func TestCNIBinDirs(t *testing.T) {
	for name, tt := range map[string]struct {
		text string
		want []string
		bad  bool
	}{
		"version 2": {"version = 2\n[plugins]\n [plugins.\"io.containerd.grpc.v1.cri\".cni]\n  bin_dir = \"/usr/lib/cni\"\n", []string{"/usr/lib/cni"}, false},
		"version 3": {"version = 3\n[plugins.'io.containerd.cri.v1.runtime'.cni]\nbin_dir = ''\nbin_dirs = ['/opt/cni/bin', '/x']\n", []string{"/opt/cni/bin", "/x"}, false},
		"both":      {"[plugins.'io.containerd.grpc.v1.cri'.cni]\nbin_dir='/x'\n[plugins.'io.containerd.cri.v1.runtime'.cni]\nbin_dirs=['/x']\n", []string{"/x"}, false},
		"silent":    {"version = 2\ndisabled_plugins = ['cri']\n", nil, false},
		"no TOML":   {"version = ", nil, true},
	} {
		path := filepath.Join(t.TempDir(), "config.toml")
		if err := os.WriteFile(path, []byte(tt.text), 0o600); err != nil {
			t.Fatal(err)
		}
		if got, err := CNIBinDirs(path); !slices.Equal(got, tt.want) || (err != nil) != tt.bad {
			t.Errorf("%s: %q, %v", name, got, err)
		}
	}
	if got, err := CNIBinDirs("/nonexistent/config.toml"); got != nil || err != nil {
		t.Errorf("no file: %q, %v", got, err)
	}
}
