package main

import (
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

var (
	inlineCall = regexp.MustCompile("`(?:sudo )?stellar ([^`\n]+)`")
	fencedCall = regexp.MustCompile(`(?:^|sudo |[|(#] *)stellar ([a-z-][^|>;&)]*)`)
)

// TestDocumentedCommands: each `stellar …` that README and docs tell the reader to type
// is a command with these flags; where it stands in a block, also with these arguments.
func TestDocumentedCommands(t *testing.T) {
	t.Parallel()
	n := 0
	check := func(path, text string) {
		fence := false
		for line := range strings.Lines(text) {
			if strings.HasPrefix(strings.TrimSpace(line), "```") {
				fence = !fence
				continue
			}
			calls := inlineCall.FindAllStringSubmatch(line, -1)
			if fence {
				line, _, _ = strings.Cut(line, "  #") // what follows is a comment
				calls = fencedCall.FindAllStringSubmatch(strings.TrimPrefix(line, "#"), -1)
			}
			for _, m := range calls {
				n++
				if err := wouldRun(strings.Fields(m[1]), fence); err != nil {
					t.Errorf("%s: stellar %s: %v", path, m[1], err)
				}
			}
		}
	}
	root := filepath.Join("..", "..")
	pages, err := filepath.Glob(filepath.Join(root, "*.md"))
	if err != nil {
		t.Fatal(err)
	}
	err = filepath.WalkDir(filepath.Join(root, "docs"), func(path string, _ fs.DirEntry, err error) error {
		if strings.HasSuffix(path, ".md") && filepath.Base(path) != cliPage {
			pages = append(pages, path)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	for _, path := range pages {
		text, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		check(path, string(text))
	}
	if n < 100 {
		t.Errorf("%d commands: the pages are not read", n)
	}
	for _, bad := range []string{"cluster jion", "status --wiat", "endpoint ls --ip 1", "nothing"} {
		if wouldRun(strings.Fields(bad), true) == nil {
			t.Errorf("stellar %s would run", bad)
		}
	}
}

// wouldRun parses a command line as the program does, and runs nothing. "…" stands
// for what the reader knows.
func wouldRun(args []string, whole bool) error {
	var given []string
	for _, arg := range args {
		if arg != "…" {
			given = append(given, arg)
		}
	}
	root := (&app{stdin: os.Stdin, stdout: io.Discard, stderr: io.Discard, getenv: func(string) string { return "" }}).root()
	root.InitDefaultCompletionCmd()
	cmd, rest, err := root.Find(given)
	if err != nil {
		return err
	}
	if err := cmd.ParseFlags(rest); err != nil {
		return err
	}
	left := cmd.Flags().Args()
	if cmd.HasSubCommands() && len(left) > 0 {
		return cmd.RunE(cmd, left) // says which it is not
	}
	if !whole || len(given) != len(args) {
		return nil
	}
	return cmd.ValidateArgs(left)
}
