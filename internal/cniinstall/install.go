// Package cniinstall puts the CNI plugins and a network's configuration where
// container runtimes look for them, takes them away again and tells how things
// stand. Everything is idempotent. Nothing is replaced or removed but what it put
// there itself: a plugin is known by the main package in its build information, a
// configuration by a checksum that it carries.
package cniinstall

import (
	"bytes"
	"debug/buildinfo"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"

	"stellar.io/stellar/internal/atomicfile"
)

// Plugins are the programs that are installed; Needed is what nerdctl wants to
// find beside them before it uses any network of CNI's.
var (
	Plugins = []string{"stellar-cni", "stellar-cni-ipam"}
	Needed  = "bridge"
)

const mainPackage = "stellar.io/stellar/cmd/"

var (
	// ErrForeign is returned when a file that is not ours has the place.
	ErrForeign = errors.New("not a file of Stellar's")
	// ErrNoPlugins is returned when the plugins to be installed are not found.
	ErrNoPlugins = errors.New("the plugins are not there")
	// ErrName is returned for a name that no CNI network can have.
	ErrName = errors.New("a CNI network's name begins with a letter or digit and goes on with letters, digits, '_', '.' and '-'")
)

// State of a file.
type State string

const (
	OK       State = "ok"
	Written  State = "written"  // by this call
	Removed  State = "removed"  // by this call
	Missing  State = "missing"  // it is not there
	Outdated State = "outdated" // ours, of another version
	Edited   State = "edited"   // ours once, changed by somebody
	Foreign  State = "foreign"  // somebody else's
)

// File is one that matters here.
type File struct {
	Path   string `json:"file"`
	State  State  `json:"state"`
	Reason string `json:"reason"`
}

// Config says what goes where.
type Config struct {
	From    string   // directory that the plugins are copied from
	BinDirs []string // directories that they are copied to
	ConfDir string
	Name    string // of the network
	Address string // of the agent; empty: the plugins' own default
}

// Path is where the network's configuration goes. 90: whoever takes the first
// network of the directory (ctr, CRI) takes another one, if there is one.
func (c Config) Path() string { return filepath.Join(c.ConfDir, "90-"+c.Name+".conflist") }

// BinDirs are the directories under root in which runtimes look for plugins:
// /opt/cni/bin, which ctr and nerdctl know, those of other distributions that are
// there, and those of containerd's configuration.
func BinDirs(root string, containerd []string) []string {
	out := []string{filepath.Join(root, "/opt/cni/bin")}
	for _, dir := range []string{"/usr/lib/cni", "/usr/libexec/cni"} {
		if st, err := os.Stat(filepath.Join(root, dir)); err == nil && st.IsDir() {
			out = append(out, filepath.Join(root, dir))
		}
	}
	for _, dir := range containerd {
		if dir = filepath.Join(root, dir); !slices.Contains(out, dir) {
			out = append(out, dir)
		}
	}
	return out
}

// From finds the directory of the plugins: the first that has them all.
func From(dirs ...string) (string, error) {
	var errs []error
	for _, dir := range dirs {
		var missing error
		for _, name := range Plugins {
			if _, err := os.Stat(filepath.Join(dir, name)); err != nil {
				missing = errors.Join(missing, err)
			}
		}
		if missing == nil {
			return dir, nil
		}
		errs = append(errs, missing)
	}
	return "", fmt.Errorf("%w: %w", ErrNoPlugins, errors.Join(errs...))
}

// Install copies the plugins and then, so that no runtime finds a network whose
// plugin is missing, writes the configuration. Before anything is written it looks
// whether it may: ErrForeign leaves all as it was.
func Install(c Config) ([]File, error) {
	if !validName(c.Name) {
		return nil, fmt.Errorf("%q: %w", c.Name, ErrName)
	}
	text, err := conflist(c)
	if err != nil {
		return nil, err
	}
	before, err := Status(c)
	if err != nil {
		return nil, err
	}
	for _, f := range before {
		if f.State == Foreign || f.State == Edited {
			return before, fmt.Errorf("%s: %w: %s", f.Path, ErrForeign, f.Reason)
		}
	}
	var done []File
	for _, f := range before {
		name := filepath.Base(f.Path)
		switch {
		case name == Needed || f.State == OK:
		case f.Path == c.Path():
			if err := os.MkdirAll(c.ConfDir, 0o755); err != nil {
				return done, err
			}
			if err := atomicfile.Write(f.Path, text, 0o644); err != nil {
				return done, err
			}
			f.State, f.Reason = Written, ""
		default:
			if err := copyPlugin(filepath.Join(c.From, name), f.Path); err != nil {
				return done, err
			}
			f.State, f.Reason = Written, ""
		}
		done = append(done, f)
	}
	return done, nil
}

// Uninstall removes the configuration and then the plugins, those that are ours.
// What is somebody else's is listed and stays.
func Uninstall(c Config) ([]File, error) {
	if !validName(c.Name) {
		return nil, fmt.Errorf("%q: %w", c.Name, ErrName)
	}
	files, err := Status(c)
	if err != nil {
		return nil, err
	}
	slices.Reverse(files)
	var done []File
	for _, f := range files {
		if filepath.Base(f.Path) == Needed || f.State == Missing {
			continue
		}
		if f.State == OK || f.State == Outdated {
			if err := os.Remove(f.Path); err != nil && !errors.Is(err, fs.ErrNotExist) {
				return done, err
			}
			f.State, f.Reason = Removed, ""
		}
		done = append(done, f)
	}
	return done, nil
}

// Status lists the plugins in each directory and, last, the configuration. Where
// a plugin of ours is, the one that nerdctl needs beside it is listed, too, if it
// is missing.
func Status(c Config) ([]File, error) {
	var out []File
	for _, dir := range c.BinDirs {
		present := false
		for _, name := range Plugins {
			f, err := pluginState(filepath.Join(dir, name), filepath.Join(c.From, name))
			if err != nil {
				return nil, err
			}
			present = present || f.State != Missing
			out = append(out, f)
		}
		if _, err := os.Stat(filepath.Join(dir, Needed)); present && errors.Is(err, fs.ErrNotExist) {
			out = append(out, File{filepath.Join(dir, Needed), Missing, "nerdctl uses no CNI network where this plugin is not found"})
		}
	}
	f, err := confState(c)
	return append(out, f), err
}

// pluginState looks at a plugin; from is what it should be a copy of, if that is
// there.
func pluginState(path, from string) (File, error) {
	f := File{Path: path, State: OK}
	st, err := os.Lstat(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		f.State = Missing
		return f, nil
	case err != nil:
		return f, err
	case !st.Mode().IsRegular():
		f.State, f.Reason = Foreign, "it is not a regular file"
		return f, nil
	}
	have, err := os.ReadFile(path)
	if err != nil {
		return f, err
	}
	info, err := buildinfo.Read(bytes.NewReader(have))
	if err != nil || info.Path != mainPackage+filepath.Base(path) {
		f.State, f.Reason = Foreign, "another program has this name"
		return f, nil
	}
	want, err := os.ReadFile(from)
	if errors.Is(err, fs.ErrNotExist) {
		return f, nil // nothing to compare it with
	}
	if err != nil {
		return f, err
	}
	if !bytes.Equal(have, want) {
		f.State, f.Reason = Outdated, "it differs from "+from+": `stellar cni install` replaces it"
	}
	return f, nil
}

// copyPlugin installs a plugin in one step: a runtime that executes it meanwhile
// runs the old one or the new one.
func copyPlugin(from, to string) error {
	data, err := os.ReadFile(from)
	if err != nil {
		return err
	}
	info, err := buildinfo.Read(bytes.NewReader(data))
	if err != nil || info.Path != mainPackage+filepath.Base(from) {
		return fmt.Errorf("%s: %w", from, ErrForeign)
	}
	if err := os.MkdirAll(filepath.Dir(to), 0o755); err != nil {
		return err
	}
	return atomicfile.Write(to, data, 0o755)
}
