package main

import (
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/spf13/cobra"
)

// TestManualPages: each command that is shown has a page with its flags, and what
// troff would take for a request is text.
func TestManualPages(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	a := &app{stdin: os.Stdin, stdout: io.Discard, stderr: io.Discard, getenv: os.Getenv}
	if code := a.main(t.Context(), []string{"man", dir}); code != exitOK {
		t.Fatalf("exit code %d", code)
	}
	read := func(name string) string {
		text, err := os.ReadFile(filepath.Join(dir, name))
		if err != nil {
			t.Error(err)
		}
		return string(text)
	}
	var walk func(*cobra.Command) int
	walk = func(cmd *cobra.Command) int {
		n := 1
		text := read(pageName(cmd) + ".1")
		if !strings.Contains(text, roff(cmd.Short)) {
			t.Errorf("%s: its page does not say %q", cmd.CommandPath(), cmd.Short)
		}
		for _, sub := range cmd.Commands() {
			if documented(sub) {
				n += walk(sub)
			}
		}
		return n
	}
	root := a.root()
	root.InitDefaultCompletionCmd()
	pages := walk(root)
	if files, err := os.ReadDir(dir); err != nil || len(files) != pages+1 {
		t.Errorf("%d pages for %d commands and the file (%v)", len(files), pages, err)
	}
	if agent := read("stellar-agent.1"); !strings.Contains(agent, `\fB\-\-data\-dir\fP \fIstring\fP`) || !strings.Contains(agent, `\fBstellar agent cleanup\fP`) {
		t.Errorf("stellar-agent.1 lacks its flags or its code:\n%s", agent)
	}
	if file := read(configPage); !strings.Contains(file, `commit\-wait = "500ms"`) {
		t.Errorf("%s lacks a key:\n%s", configPage, file)
	}
	for in, want := range map[string]string{".so x": `\&.so x` + "\n", "'br": `\&'br` + "\n", "a\n.b": "a\n\\&.b\n"} {
		var p page
		if p.text(in); p.String() != want {
			t.Errorf("text(%q) = %q, want %q", in, p.String(), want)
		}
	}
}
