package main

import (
	"slices"
	"strings"
	"testing"
)

// shimBundle is a bundle as containerd has it.
const shimBundle = "/run/containerd/io.containerd.runtime.v2.task/default/web"

func TestParse(t *testing.T) {
	t.Parallel()
	shim := invocation{
		bundle: shimBundle, config: shimBundle + "/config.json", id: "web",
		root: "/run/containerd/runc/default", log: shimBundle + "/log.json", logFormat: "json",
	}
	cgroups := "--root /run/containerd/runc/default --log " + shimBundle + "/log.json --log-format json "
	with := func(change func(*invocation)) *invocation {
		inv := shim
		change(&inv)
		return &inv
	}
	for _, tc := range []struct {
		name, in string
		want     *invocation // nil: passed through
	}{
		// containerd-shim-runc-v2 1.6, 1.7 and 2.x, for runc and for crun
		{"shim", cgroups + "create --bundle " + shimBundle + " --pid-file " + shimBundle + "/init.pid web", &shim},
		{"systemd", cgroups + "--systemd-cgroup create --bundle " + shimBundle + " --pid-file P web", &shim},
		{"terminal", cgroups + "create --bundle " + shimBundle + " --pid-file P --console-socket /tmp/pty1/pty.sock web", &shim},
		{"no pivot, no keyring", cgroups + "create --bundle " + shimBundle + " --pid-file P --no-pivot --no-new-keyring web", &shim},
		{"debug", "--debug " + cgroups + "create --bundle " + shimBundle + " --pid-file P web", &shim},
		{"1.2: pidfd socket", cgroups + "create --bundle " + shimBundle + " --pidfd-socket S --preserve-fds 2 web", &shim},
		{"restore", cgroups + "restore --image-path I --work-path W --bundle " + shimBundle + " --pid-file P --detach web", nil},
		{"start", cgroups + "start web", nil},
		{"exec", cgroups + "exec --process /tmp/p --pid-file P --detach web", nil},
		{"kill", cgroups + "kill --all web 9", nil},
		{"delete", cgroups + "delete --force web", nil},
		{"ps", cgroups + "ps --format json web", nil},
		{"checkpoint", cgroups + "checkpoint --image-path I web", nil},

		// by hand
		{"cwd is the bundle", "create c1", &invocation{bundle: "/cwd", config: "/cwd/config.json", id: "c1", logFormat: "text"}},
		{"run", "run -d -b sub/./dir c1", &invocation{bundle: "/cwd/sub/dir", config: "/cwd/sub/dir/config.json", id: "c1", logFormat: "text"}},
		{"equals", "--root=/r --log=/l --log-format=json create --bundle=/b c1",
			&invocation{bundle: "/b", config: "/b/config.json", id: "c1", root: "/r", log: "/l", logFormat: "json"}},
		{"one dash", "-root /r create -bundle /b c1", &invocation{bundle: "/b", config: "/b/config.json", id: "c1", root: "/r", logFormat: "text"}},
		{"runc's criu and rootless", "--criu /usr/sbin/criu --rootless auto create -b /b c1",
			&invocation{bundle: "/b", config: "/b/config.json", id: "c1", logFormat: "text"}},
		{"crun", "--cgroup-manager=cgroupfs --log-format json create -f spec.json --no-subreaper -b /b c1",
			&invocation{bundle: "/b", config: "/cwd/spec.json", id: "c1", logFormat: "json"}},
		{"crun's config in full", "create --config /etc/spec.json c1", &invocation{bundle: "/cwd", config: "/etc/spec.json", id: "c1", logFormat: "text"}},
		{"end of flags", "--root /r -- create --bundle /b -- c1", &invocation{bundle: "/b", config: "/b/config.json", id: "c1", root: "/r", logFormat: "text"}},
		{"a verb's name as id", cgroups + "create --bundle /b create", with(func(i *invocation) { i.bundle, i.config, i.id = "/b", "/b/config.json", "create" })},
		{"a flag that is not known yet", cgroups + "create --bundle " + shimBundle + " --new-thing --pid-file P web", &shim},
		{"one with a value", cgroups + "create --new-thing 7 --bundle " + shimBundle + " web", &shim},
		{"global, with its value", "--new-thing=7 " + cgroups + "create --bundle " + shimBundle + " web", &shim},

		// in doubt, the runtime judges
		{"global, not known", "--new-thing create --bundle /b c1", nil},
		{"nothing", "", nil},
		{"version", "--version", nil},
		{"help", "create --help", nil},
		{"no id", "create", nil},
		{"no id, but a bundle", "create --bundle /b", nil},
		{"no value", "--root", nil},
		{"no value for the last", "create -b", nil},
		{"id like a flag", "create --bundle /b --no-pivot", nil},
		{"id with a slash", "create --bundle /b ../c1", nil},
		{"more than an id", "create --bundle /b -- c1 c2", nil},
		{"hook", hookVerb + " create c1", nil},
		{"verb after the flags' end only", "-- list create c1", nil},
	} {
		t.Run(tc.name, func(t *testing.T) {
			got, ok := parse(strings.Fields(tc.in), "/cwd")
			if ok != (tc.want != nil) || ok && got != *tc.want {
				t.Errorf("parse(%s) = %+v, %t, want %+v", tc.in, got, ok, tc.want)
			}
		})
	}
	if got, ok := parse([]string{"create", "c1"}, ""); ok {
		t.Errorf("parse without a current directory = %+v", got)
	}
	if got, ok := parse([]string{"create", "-b", "/b", ""}, "/cwd"); ok {
		t.Errorf("parse of an empty id = %+v", got)
	}
}

func TestNamespace(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct{ name, bundle, root, id, want string }{
		{name: "containerd", bundle: shimBundle, root: "/run/containerd/runc/default", id: "web", want: "default"},
		{name: "another state directory, and another root", bundle: "/var/lib/x/io.containerd.runtime.v2.task/prod/web", root: "/x/runc/prod", id: "web", want: "prod"},
		{name: "the bundle knows better", bundle: "/s/io.containerd.runtime.v2.task/prod/web", root: "/run/containerd/runc/default", id: "web", want: "prod"},
		{name: "root alone", bundle: "/b", root: "/run/containerd/runc/prod", id: "web", want: "prod"},
		{name: "id misread", bundle: shimBundle, root: "/run/containerd/runc/default", id: "other"},
		{name: "not containerd's", bundle: "/b", root: "/run/runc", id: "web"},
		{name: "no root", bundle: "/b", id: "web"},
		{name: "podman", bundle: "/var/lib/containers/storage/overlay-containers/abc/userdata", root: "/run/crun", id: "abc"},
		{name: "shallow", bundle: "/", root: "/", id: "web"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			inv := invocation{bundle: tc.bundle, root: tc.root, id: tc.id}
			if got := inv.namespace(); got != tc.want {
				t.Errorf("namespace = %q, want %q", got, tc.want)
			}
		})
	}
}

// FuzzParse: whatever is said, what is believed to create a container has a last
// argument that is its id, a verb before it, and whole paths.
func FuzzParse(f *testing.F) {
	f.Add("--root R --log L --log-format json create --bundle B --pid-file P ID")
	f.Add("--root=R create ID")
	f.Add("-- run -- ID")
	f.Add("create -b")
	f.Add("create --bundle= =")
	f.Fuzz(func(t *testing.T, line string) {
		args := strings.Split(line, " ")
		inv, ok := parse(args, "/cwd")
		if !ok {
			return
		}
		if inv.id != args[len(args)-1] || !validID(inv.id) {
			t.Errorf("id %q", inv.id)
		}
		if !slices.Contains(args[:len(args)-1], "create") && !slices.Contains(args[:len(args)-1], "run") {
			t.Error("no verb")
		}
		if inv.bundle == "" || inv.bundle[0] != '/' || inv.config == "" || inv.config[0] != '/' {
			t.Errorf("bundle %q, config %q", inv.bundle, inv.config)
		}
		if ns := inv.namespace(); strings.Contains(ns, "/") {
			t.Errorf("namespace %q", ns)
		}
	})
}
