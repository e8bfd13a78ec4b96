package main

import (
	"io"
	"maps"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"stellar.io/stellar/internal/config"
)

// TestReferenceIsCurrent: the pages in docs are those that the code makes.
func TestReferenceIsCurrent(t *testing.T) {
	t.Parallel()
	pages, err := referencePages((&app{stdin: os.Stdin, stdout: io.Discard, stderr: io.Discard, getenv: os.Getenv}).root())
	if err != nil {
		t.Fatal(err)
	}
	for name, want := range pages {
		path := filepath.Join("..", "..", "docs", name)
		have, err := os.ReadFile(path)
		if err != nil {
			t.Error(err)
		}
		if diff := cmp.Diff(string(have), want); diff != "" {
			t.Errorf("docs/%s is not current, run `make generate-docs` (-file +code):\n%s", name, diff)
		}
	}
}

// TestReferenceHasEverything: each command that is shown has its section, each key
// its row.
func TestReferenceHasEverything(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	a := &app{stdin: os.Stdin, stdout: io.Discard, stderr: io.Discard, getenv: os.Getenv}
	if code := a.main(t.Context(), []string{"reference", dir}); code != exitOK {
		t.Fatalf("exit code %d", code)
	}
	read := func(name string) string {
		text, err := os.ReadFile(filepath.Join(dir, name))
		if err != nil {
			t.Fatal(err)
		}
		return string(text)
	}
	cli := read(cliPage)
	for _, want := range []string{
		"\n## stellar\n", "\n## stellar cluster token create\n", "| `-o, --output string` | table, wide, json or name (default table) |\n",
		"[`stellar raft snapshot`](#stellar-raft-snapshot)", "stellar cluster join HOST:PORT [flags]", "Also: `remove`.",
	} {
		if !strings.Contains(cli, want) {
			t.Errorf("%s lacks %q", cliPage, want)
		}
	}
	if got := cell("a|b <c>"); got != `a\|b &lt;c>` {
		t.Errorf("a cell of a table: %q", got)
	}
	keys, err := config.Keys()
	if err != nil {
		t.Fatal(err)
	}
	text := read(configMDPage)
	for _, k := range keys {
		if !strings.Contains(text, "| `"+k.Name+"` | ") {
			t.Errorf("%s lacks %s", configMDPage, k.Path())
		}
	}
}

// TestWhatSetsAKey: the flags and variables that the page names set the key that it
// says and no other, and every flag of `stellar agent` that sets one is named.
func TestWhatSetsAKey(t *testing.T) {
	t.Parallel()
	values := map[string]string{
		"address": "unix:///x.sock", "data-dir": "/x", "run-dir": "/x", "node-name": "x", "listen": "192.0.2.1:1",
		"advertise": "192.0.2.1:2", "metrics-listen": "off", "containerd.address": "/x",
	}
	file := filepath.Join(t.TempDir(), "empty.toml")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	// set returns which keys a command line and an environment change.
	set := func(env map[string]string, args ...string) []string {
		t.Helper()
		resolve := func(env map[string]string, args []string) config.Config {
			a := &app{getenv: func(name string) string { return env[name] }}
			cmd, g := &cobra.Command{}, &agentFlags{}
			cmd.Flags().StringVar(&a.address, "address", "", "")
			cmd.Flags().BoolVar(&a.debug, "debug", false, "")
			g.add(cmd, "data-dir", "run-dir", "containerd-address", "node-name", "listen", "advertise", "metrics-listen", "mode")
			if err := cmd.ParseFlags(append([]string{"--config", file}, args...)); err != nil {
				t.Fatal(err)
			}
			cfg, err := g.resolve(a)
			if err != nil {
				t.Fatal(err)
			}
			return cfg
		}
		return changed("", reflect.ValueOf(resolve(nil, nil)), reflect.ValueOf(resolve(env, args)))
	}
	for key, flag := range byFlag {
		args := []string{"--" + flag, values[key]}
		switch flag {
		case "debug":
			args = args[:1]
		case "mode":
			continue // there is one value, and it is the default
		}
		if got := set(nil, args...); !cmp.Equal(got, []string{key}) {
			t.Errorf("%v sets %v, the page says %s", args, got, key)
		}
	}
	for key, name := range byEnvironment {
		if got := set(map[string]string{name: values[key]}); !cmp.Equal(got, []string{key}) {
			t.Errorf("%s sets %v, the page says %s", name, got, key)
		}
	}
	(&app{}).agentCommand().Flags().VisitAll(func(f *pflag.Flag) {
		if f.Name == "config" || f.Name == "init" || f.Name == "help" {
			return // no keys
		}
		if !slices.Contains(slices.Collect(maps.Values(byFlag)), f.Name) {
			t.Errorf("the page does not say which key --%s sets", f.Name)
		}
	})
}

// changed returns the keys of the file in which two configurations differ.
func changed(table string, a, b reflect.Value) (keys []string) {
	for i := range a.NumField() {
		key := a.Type().Field(i).Tag.Get("toml")
		switch {
		case key == "-":
		case a.Field(i).Type().PkgPath() == reflect.TypeFor[config.Config]().PkgPath() && a.Field(i).Type() != reflect.TypeFor[config.Duration]():
			keys = append(keys, changed(key+".", a.Field(i), b.Field(i))...)
		case !reflect.DeepEqual(a.Field(i).Interface(), b.Field(i).Interface()):
			keys = append(keys, table+key)
		}
	}
	return keys
}
