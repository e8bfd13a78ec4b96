package check

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// TestRuntimes: what containerd would start is found as it would find it, and asked as
// it would ask.
func TestRuntimes(t *testing.T) {
	t.Parallel()
	root := t.TempDir()
	program := func(name, script string) {
		t.Helper()
		file := filepath.Join(root, name)
		if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(file, []byte("#!/bin/sh\n"+script+"\n"), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	program("bin/runc", `echo "runc version 1.1.5+ds1"; echo "spec: 1.0.2-dev"`)
	program("opt/crun", `echo "crun version 0.19"`)
	program("opt/stellar-runc", `[ "$STELLAR_RUNC_RUNTIME" = runc ] && exec echo "runc version 1.3.0"; echo "stellar-runc: no runtime \"runc\" in PATH" >&2; exit 1`)
	program("opt/broken", `exit 3`)
	program("opt/other", `echo "release 7"`)
	if err := os.WriteFile(filepath.Join(root, "opt/data"), nil, 0o644); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink("loop", filepath.Join(root, "loop")); err != nil {
		t.Fatal(err)
	}
	runc := Runtime{Name: "runc", Kind: "runc", Version: "1.1.5+ds1"}
	for _, tt := range []struct {
		name, path string
		env        []string
		names      []string
		want       []Runtime
		problem    string // a part of the last one's; "": it has none
		doubt      bool
	}{
		{name: "by default", path: "/sbin:/bin", want: []Runtime{runc}},
		{name: "none", path: "/sbin:/opt", want: []Runtime{{Name: "runc"}}, problem: "PATH (/sbin:/opt)"},
		{name: "another one is named", path: "/sbin", names: []string{"/opt/crun"}, want: []Runtime{{Name: "/opt/crun", Kind: "crun", Version: "0.19"}}},
		{name: "named and the default", path: "/bin:/opt", names: []string{"crun", "runc"}, want: []Runtime{{Name: "crun", Kind: "crun", Version: "0.19"}, runc}},
		{name: "named and not there", path: "/sbin", names: []string{"/opt/gone"}, want: []Runtime{{Name: "/opt/gone"}}, problem: "not there"},
		{name: "no program", path: "/sbin", names: []string{"/opt/data"}, want: []Runtime{{Name: "/opt/data"}}, problem: "no program"},
		{name: "a wrapper", path: "/sbin", env: []string{"STELLAR_RUNC_RUNTIME=runc"}, names: []string{"/opt/stellar-runc"}, want: []Runtime{{Name: "/opt/stellar-runc", Kind: "runc", Version: "1.3.0"}}},
		{name: "a wrapper of nothing", path: "/sbin", names: []string{"/opt/stellar-runc"}, want: []Runtime{{Name: "/opt/stellar-runc"}}, problem: `no runtime "runc" in PATH`},
		{name: "does not say", path: "/sbin", names: []string{"/opt/broken"}, want: []Runtime{{Name: "/opt/broken"}}, doubt: true},
		{name: "cannot be looked at", path: "/loop", want: []Runtime{{Name: "runc"}}, doubt: true},
		{name: "of another kind", path: "/sbin", names: []string{"/opt/other"}, want: []Runtime{{Name: "/opt/other"}}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			d := daemon{root: root, path: tt.path, env: append([]string{"PATH=/usr/bin:/bin"}, tt.env...)}
			got, err := d.look(t.Context(), tt.names)
			if (err != nil) != tt.doubt {
				t.Errorf("error: %v", err)
			}
			if len(got) > 0 {
				if p := &got[len(got)-1].Problem; tt.problem != "" && strings.Contains(*p, tt.problem) {
					*p = ""
				}
			}
			if !slices.Equal(got, tt.want) {
				t.Errorf("got %+v, want %+v", got, tt.want)
			}
		})
	}
}

// TestDaemon: what containerd's process and its configuration say.
func TestDaemon(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct{ args, want string }{
		{"containerd", "/etc/containerd/config.toml"},
		{"containerd --address /run/c.sock --config /srv/c.toml", "/srv/c.toml"},
		{"containerd -c=/srv/c.toml", "/srv/c.toml"},
		{"containerd -config /srv/c.toml", "/srv/c.toml"},
		{"containerd --config", "/etc/containerd/config.toml"},
	} {
		if got := configOf(strings.Fields(tt.args)); got != tt.want {
			t.Errorf("%s: %s", tt.args, got)
		}
	}
	const config = `
[plugins."io.containerd.grpc.v1.cri".containerd.runtimes.a.options]
  BinaryName = "/usr/bin/stellar-runc"
  # BinaryName = "/usr/bin/none"
[plugins."io.containerd.grpc.v1.cri".containerd.runtimes.b.options]
BinaryName='crun'
[plugins."io.containerd.grpc.v1.cri".containerd.runtimes.c.options]
  BinaryName = ""
  BinaryName = "crun"
`
	if got := named([]byte(config)); !slices.Equal(got, []string{"/usr/bin/stellar-runc", "crun"}) {
		t.Errorf("named %q", got)
	}
	d, err := daemonOf(os.Getpid())
	if err != nil || d.path != os.Getenv("PATH") || !slices.Contains(d.env, "PATH="+d.path) {
		t.Errorf("this process: %+v, %v", d, err)
	}
}
