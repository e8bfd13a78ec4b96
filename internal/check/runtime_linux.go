package check

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

const (
	// defaultRuntime is what containerd's shim starts unless it is told otherwise.
	defaultRuntime = "runc"
	// defaultPath is where it is looked for where containerd's environment has no PATH.
	defaultPath = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
	// versionPatience is how long a runtime may take to say its version.
	versionPatience = 5 * time.Second
)

// runtimes looks for the programs that containerd starts containers with: those that
// its configuration names, and the one that its shim takes by default. They are asked
// for their version in containerd's own environment, which is how stellar-runc is
// asked for what it becomes. Without a containerd nothing is known of either.
func (c *collector) runtimes(ctx context.Context) error {
	if c.g.Containerd.PID <= 0 {
		return nil
	}
	d, err := daemonOf(c.g.Containerd.PID)
	if err != nil {
		return err
	}
	if root := os.Getenv(rootEnv); root != "" {
		d.config = filepath.Join(root, "etc/containerd/config.toml")
	}
	text, err := os.ReadFile(d.config) // without one it has its defaults
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	c.f.Machine.Runtimes, err = d.look(ctx, named(text))
	return err
}

// daemon is a containerd, as its process says.
type daemon struct {
	root   string // its root directory, as seen from here
	path   string // PATH
	env    []string
	config string // its configuration file, as seen from here
}

func daemonOf(pid int) (daemon, error) {
	dir := "/proc/" + strconv.Itoa(pid)
	environ, err := os.ReadFile(dir + "/environ")
	if err != nil {
		return daemon{}, err
	}
	cmdline, err := os.ReadFile(dir + "/cmdline")
	if err != nil {
		return daemon{}, err
	}
	d := daemon{root: dir + "/root", path: defaultPath, env: []string{}} // nil would be our own
	for e := range bytes.SplitSeq(environ, []byte{0}) {
		if len(e) > 0 {
			d.env = append(d.env, string(e))
		}
		if p, ok := strings.CutPrefix(string(e), "PATH="); ok && p != "" {
			d.path = p
		}
	}
	d.config = filepath.Join(d.root, configOf(strings.Split(string(cmdline), "\x00")))
	return d, nil
}

// configOf returns the configuration file that a command line of containerd names.
func configOf(args []string) string {
	for i, arg := range args {
		name, value, ok := strings.Cut(strings.TrimLeft(arg, "-"), "=")
		if !strings.HasPrefix(arg, "-") || name != "config" && name != "c" {
			continue
		}
		if !ok && i+1 < len(args) {
			value = args[i+1]
		}
		if filepath.IsAbs(value) {
			return value
		}
	}
	return "/etc/containerd/config.toml"
}

var binaryName = regexp.MustCompile(`(?m)^\s*BinaryName\s*=\s*["']([^"'\n]+)["']`)

// named are the programs that a configuration of containerd names as runtimes.
func named(config []byte) (names []string) {
	for _, m := range binaryName.FindAllSubmatch(config, -1) {
		if name := string(m[1]); !slices.Contains(names, name) {
			names = append(names, name)
		}
	}
	return names
}

// look finds the programs. The shim's default is missed only where nothing else is named.
func (d daemon) look(ctx context.Context, names []string) (found []Runtime, err error) {
	for _, name := range names {
		r, e := d.runtime(ctx, name)
		found, err = append(found, r), errors.Join(err, e)
	}
	if slices.Contains(names, defaultRuntime) {
		return found, err
	}
	r, e := d.runtime(ctx, defaultRuntime)
	if r.Problem == "" || len(names) == 0 {
		found, err = append(found, r), errors.Join(err, e)
	}
	return found, err
}

// runtime looks for one. An error means that its version, or whether it is there, is not
// known: without CAP_SYS_PTRACE containerd's root directory is closed.
func (d daemon) runtime(ctx context.Context, name string) (Runtime, error) {
	r := Runtime{Name: name}
	dirs := filepath.SplitList(d.path)
	if strings.Contains(name, "/") {
		dirs = []string{""}
	}
	for _, dir := range dirs {
		file := filepath.Join(d.root, dir, name)
		st, err := os.Stat(file)
		switch {
		case err == nil && st.Mode().IsRegular() && st.Mode()&0o111 != 0:
			return d.version(ctx, r, filepath.Join("/", dir, name), file)
		case err != nil && !errors.Is(err, fs.ErrNotExist) && !errors.Is(err, unix.ENOTDIR):
			return r, err
		}
	}
	r.Problem = "is not in containerd's PATH (" + d.path + ")"
	if strings.Contains(name, "/") {
		r.Problem = "is not there, or no program"
	}
	return r, nil
}

// wrapperSays is how stellar-runc begins what it says for itself.
const wrapperSays = "stellar-runc: "

var versionLine = regexp.MustCompile(`(?m)^(runc|crun) version (\S+)`)

func (d daemon) version(ctx context.Context, r Runtime, path, file string) (Runtime, error) {
	ctx, cancel := context.WithTimeout(ctx, versionPatience)
	defer cancel()
	cmd := exec.CommandContext(ctx, file, "--version")
	cmd.Args[0], cmd.Env, cmd.WaitDelay = path, d.env, time.Second
	out, err := cmd.CombinedOutput()
	if m := versionLine.FindSubmatch(out); err == nil && m != nil {
		r.Kind, r.Version = string(m[1]), string(m[2])
		return r, nil
	}
	if why, ok := strings.CutPrefix(string(bytes.TrimSpace(out)), wrapperSays); ok && err != nil {
		r.Problem = "finds no runtime to become: " + why
		return r, nil
	}
	if err != nil {
		return r, fmt.Errorf("%s --version: %w", path, err)
	}
	return r, nil // another one: nothing is known of its versions
}
