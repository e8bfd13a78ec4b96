package main

import (
	"path/filepath"
	"strings"
)

// invocation is what a command line of runc or crun that creates a container
// says, as far as it matters here.
type invocation struct {
	bundle string // absolute
	config string // absolute; config.json of the bundle unless crun was told another
	id     string

	root           string // empty: the runtime's default
	log, logFormat string
}

// Flags of runc (1.0 to 1.4) and crun that take a value as the next argument.
// The others take none, or bring it with "=".
var (
	globalValues = set("root", "log", "log-format", "criu", "rootless", "cgroup-manager")
	createValues = set("bundle", "b", "config", "f", "console-socket", "pid-file", "pidfd-socket", "preserve-fds")
	globalBools  = set("debug", "systemd-cgroup")
)

func set(names ...string) map[string]bool {
	m := make(map[string]bool, len(names))
	for _, n := range names {
		m[n] = true
	}
	return m
}

// parse reads the arguments after the program's name; cwd is the default bundle.
// It reports false for every other verb, and when it is not sure what the
// arguments mean: the real runtime is to judge them then.
func parse(args []string, cwd string) (invocation, bool) {
	inv := invocation{bundle: cwd, logFormat: "text"}
	args, ok := inv.global(args)
	if !ok || len(args) < 2 || args[0] != "create" && args[0] != "run" {
		return inv, false
	}
	id, ok := inv.create(args[1:])
	if !ok || !validID(id) {
		return inv, false
	}
	inv.id = id
	for _, p := range []*string{&inv.bundle, &inv.config} {
		if *p != "" && !filepath.IsAbs(*p) {
			*p = filepath.Join(cwd, *p)
		}
	}
	inv.bundle = filepath.Clean(inv.bundle)
	if inv.config == "" {
		inv.config = filepath.Join(inv.bundle, "config.json")
	}
	return inv, filepath.IsAbs(inv.bundle)
}

// global reads the flags before the verb and returns what follows them. An
// unknown flag without "=" may be followed by its value: not sure.
func (inv *invocation) global(args []string) ([]string, bool) {
	for len(args) > 0 {
		f := readFlag(args, globalValues)
		switch {
		case !f.is:
			return args, true
		case f.end:
			return args[1:], true
		case f.missing || !f.inline && !globalValues[f.name] && !globalBools[f.name]:
			return nil, false
		}
		switch f.name {
		case "root":
			inv.root = f.value
		case "log":
			inv.log = f.value
		case "log-format":
			inv.logFormat = f.value
		}
		args = args[f.took:]
	}
	return nil, false
}

// create reads what follows the verb. The id is the last argument, whatever
// unknown flags stand before it.
func (inv *invocation) create(args []string) (id string, ok bool) {
	flags, id := args[:len(args)-1], args[len(args)-1]
	for len(flags) > 0 {
		f := readFlag(flags, createValues)
		switch {
		case !f.is: // the value of an unknown flag
			flags = flags[1:]
			continue
		case f.end:
			return id, len(flags) == 1
		case f.missing: // the last argument is no id, but this flag's value
			return "", false
		}
		switch f.name {
		case "bundle", "b":
			inv.bundle = f.value
		case "config", "f":
			inv.config = f.value
		}
		flags = flags[f.took:]
	}
	return id, true
}

// flagArg is one flag at the beginning of a command line.
type flagArg struct {
	is      bool // it is a flag, or the end of them
	end     bool // "--"
	missing bool // its value should follow, and does not
	inline  bool // the value came with "="
	name    string
	value   string
	took    int // arguments
}

// readFlag reads -name, --name, --name=value and --name value. One dash is as
// good as two, as runc has it.
func readFlag(args []string, values map[string]bool) flagArg {
	s := args[0]
	if len(s) < 2 || s[0] != '-' {
		return flagArg{}
	}
	if s == "--" {
		return flagArg{is: true, end: true, took: 1}
	}
	name, value, inline := strings.Cut(strings.TrimPrefix(s[1:], "-"), "=")
	f := flagArg{is: true, name: name, value: value, inline: inline, took: 1}
	if values[name] && !inline {
		if len(args) < 2 {
			f.missing = true
			return f
		}
		f.value, f.took = args[1], 2
	}
	return f
}

// validID keeps out what neither containerd nor a runtime would take.
func validID(id string) bool {
	const most = 1024
	return id != "" && len(id) <= most && id[0] != '-' && id != "." && id != ".." && !strings.ContainsAny(id, "/\x00")
}

// bundles is the directory that containerd keeps its bundles in, below its state
// directory: bundles/NAMESPACE/ID.
const bundles = "io.containerd.runtime.v2.task"

// namespace returns containerd's namespace, which is in the path of the bundle,
// and in that of the runtime's root: …/containerd/runc/NAMESPACE. Empty: it was
// not containerd that called.
func (inv invocation) namespace() string {
	above, id := filepath.Split(inv.bundle)
	above, ns := filepath.Split(filepath.Clean(above))
	if filepath.Base(above) == bundles {
		if id != inv.id {
			return "" // the id was misread
		}
		return ns
	}
	above, ns = filepath.Split(filepath.Clean(inv.root))
	if strings.HasSuffix(filepath.Clean(above), "/containerd/runc") {
		return ns
	}
	return ""
}
