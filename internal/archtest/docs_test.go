package archtest

import (
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// root is this repository.
const root = "../.."

var (
	mdLink    = regexp.MustCompile(`\]\(([^()\s]+)\)`)
	mdHeading = regexp.MustCompile(`^#{1,6} +(.*)$`)
	inSource  = regexp.MustCompile(`^(agent|api|cmd|docs|events|integration|internal|ipam|netsetup|packaging|raftstore|routes|testdata)/[\w./-]+$`)
	isMetric  = regexp.MustCompile(`^stellar_[a-z_]+$`)
	makeCall  = regexp.MustCompile(`(?:^|\W)make ([a-z-]+)`)
	navEntry  = regexp.MustCompile(`: *([\w./-]+\.md)$`)
	adrRow    = regexp.MustCompile(`^\| (D\d+) `)
)

// document is a Markdown file, without what stands in its fenced blocks.
type document struct {
	path    string // from the root
	lines   []string
	fenced  []string
	anchors []string
}

func readDocument(t *testing.T, path string) document {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(root, path))
	if err != nil {
		t.Fatal(err)
	}
	d := document{path: path}
	fence := false
	for line := range strings.Lines(string(text)) {
		line = strings.TrimRight(line, "\n")
		switch {
		case strings.HasPrefix(strings.TrimSpace(line), "```"):
			fence = !fence
		case fence:
			d.fenced = append(d.fenced, line)
		default:
			d.lines = append(d.lines, line)
			if m := mdHeading.FindStringSubmatch(line); m != nil {
				if a := anchor(m[1], false); a == anchor(m[1], true) {
					d.anchors = append(d.anchors, a)
				}
			}
		}
	}
	if fence {
		t.Errorf("%s: a fenced block has no end", path)
	}
	return d
}

// anchor is what a heading is linked by: as GitHub makes it, or as MkDocs does, which
// makes one hyphen of several.
func anchor(heading string, mkdocs bool) string {
	var b strings.Builder
	for _, r := range strings.ToLower(heading) {
		switch {
		case r == ' ', r == '-':
			b.WriteByte('-')
		case r == '_', r >= '0' && r <= '9', r >= 'a' && r <= 'z':
			b.WriteRune(r)
		}
	}
	if mkdocs {
		return regexp.MustCompile(`-+`).ReplaceAllString(b.String(), "-")
	}
	return b.String()
}

// documents returns all Markdown of the repository by path: what is in docs, and the
// files beside go.mod.
func documents(t *testing.T) map[string]document {
	t.Helper()
	all := map[string]document{}
	top, err := filepath.Glob(filepath.Join(root, "*.md"))
	if err != nil {
		t.Fatal(err)
	}
	for _, path := range top {
		all[filepath.Base(path)] = readDocument(t, filepath.Base(path))
	}
	err = fs.WalkDir(os.DirFS(root), "docs", func(path string, _ fs.DirEntry, err error) error {
		if err == nil && strings.HasSuffix(path, ".md") {
			all[path] = readDocument(t, path)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	if len(all) < 10 {
		t.Fatalf("%d documents", len(all))
	}
	return all
}

// TestDocumentLinks: each relative link leads to a file, and to a heading of it. A page
// of docs links to pages and images of docs only: as a site it has nothing else.
func TestDocumentLinks(t *testing.T) {
	t.Parallel()
	all := documents(t)
	links := 0
	for path, d := range all {
		for _, line := range d.lines {
			for _, m := range mdLink.FindAllStringSubmatch(line, -1) {
				to, head, _ := strings.Cut(m[1], "#")
				if strings.Contains(to, "://") || strings.HasPrefix(to, "mailto:") {
					continue
				}
				links++
				target := path
				if to != "" {
					target = filepath.Join(filepath.Dir(path), to)
				}
				page, ok := all[target]
				switch _, err := os.Stat(filepath.Join(root, target)); {
				case err != nil:
					t.Errorf("%s: the link to %s leads nowhere", path, m[1])
				case strings.HasPrefix(target, "docs/images/"):
				case strings.HasPrefix(path, "docs/") && (!ok || !strings.HasPrefix(target, "docs/")):
					t.Errorf("%s: %s is no page of docs, name it without a link", path, m[1])
				case head != "" && !slices.Contains(page.anchors, head):
					t.Errorf("%s: %s has no heading #%s", path, target, head)
				}
			}
		}
	}
	if links < 50 {
		t.Errorf("%d links: the pages are not read", links)
	}
}

// TestDocumentNavigation: mkdocs.yml names each page of docs once, and nothing else.
func TestDocumentNavigation(t *testing.T) {
	t.Parallel()
	text, err := os.ReadFile(filepath.Join(root, "mkdocs.yml"))
	if err != nil {
		t.Fatal(err)
	}
	var nav []string
	for line := range strings.Lines(string(text)) {
		if m := navEntry.FindStringSubmatch(strings.TrimSpace(line)); m != nil {
			if slices.Contains(nav, m[1]) {
				t.Errorf("mkdocs.yml names %s twice", m[1])
			}
			nav = append(nav, m[1])
		}
	}
	for path := range documents(t) {
		page, ok := strings.CutPrefix(path, "docs/")
		if ok && !slices.Contains(nav, page) {
			t.Errorf("mkdocs.yml does not lead to docs/%s: add it to nav, with the title that readers look for", page)
		}
	}
	for _, page := range nav {
		if _, err := os.Stat(filepath.Join(root, "docs", page)); err != nil {
			t.Errorf("mkdocs.yml names docs/%s, which is not there", page)
		}
	}
}

// TestDocumentsNameWhatIs: tests, files of the repository, metrics and targets of make
// that a document names exist.
func TestDocumentsNameWhatIs(t *testing.T) {
	t.Parallel()
	tests := testNames(t)
	makefile, err := os.ReadFile(filepath.Join(root, "Makefile"))
	if err != nil {
		t.Fatal(err)
	}
	metrics := sources(t, "agent", "internal", "raftstore", "routes")
	for path, d := range documents(t) {
		text := strings.Join(d.lines, "\n")
		for _, name := range quotedIn(text, isTest) {
			if !tests[name] {
				t.Errorf("%s: there is no %s", path, name)
			}
		}
		for _, name := range quotedIn(text, inSource) {
			if found, err := filepath.Glob(filepath.Join(root, name)); err != nil || len(found) == 0 {
				t.Errorf("%s: there is no %s", path, name)
			}
		}
		for _, name := range quotedIn(text, isMetric) {
			if !strings.Contains(metrics, `"`+name+`"`) {
				t.Errorf("%s: there is no metric %s", path, name)
			}
		}
		calls := strings.Join(d.fenced, "\n")
		for _, m := range quoted.FindAllStringSubmatch(text, -1) {
			if strings.HasPrefix(m[1], "make ") || strings.HasPrefix(m[1], "sudo make ") {
				calls += "\n" + m[1]
			}
		}
		for _, m := range makeCall.FindAllStringSubmatch(calls, -1) {
			if !strings.Contains(string(makefile), "\n"+m[1]+":") {
				t.Errorf("%s: make has no target %s", path, m[1])
			}
		}
	}
}

// sources returns what stands in the Go files below some directories, tests left out.
func sources(t *testing.T, dirs ...string) string {
	t.Helper()
	var all strings.Builder
	for _, dir := range dirs {
		err := filepath.WalkDir(filepath.Join(root, dir), func(path string, _ fs.DirEntry, err error) error {
			if err != nil || !strings.HasSuffix(path, ".go") || strings.HasSuffix(path, "_test.go") {
				return err
			}
			text, err := os.ReadFile(path)
			all.Write(text)
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	return all.String()
}

// TestDecisionsAreRecorded: each of the thirteen decisions of the design has a record,
// each record is in the table or the list of docs/adr/index.md and bears its number.
func TestDecisionsAreRecorded(t *testing.T) {
	t.Parallel()
	index := readDocument(t, "docs/adr/index.md")
	text := strings.Join(index.lines, "\n")
	var decided []string
	for _, line := range index.lines {
		if m := adrRow.FindStringSubmatch(line); m != nil {
			decided = append(decided, m[1])
			if !mdLink.MatchString(line) {
				t.Errorf("%s has no record: %s", m[1], line)
			}
			if len(quotedIn(line, isTest)) == 0 {
				t.Errorf("no test holds %s: %s", m[1], line)
			}
		}
	}
	want := []string{"D1", "D2", "D3", "D4", "D5", "D6", "D7", "D8", "D9", "D10", "D11", "D12", "D13"}
	if !slices.Equal(decided, want) {
		t.Errorf("docs/adr/index.md has %v", decided)
	}
	records, err := filepath.Glob(filepath.Join(root, "docs/adr/0*.md"))
	if err != nil || len(records) < 9 {
		t.Fatalf("%d records: %v", len(records), err)
	}
	for _, path := range records {
		name := filepath.Base(path)
		if !strings.Contains(text, "]("+name+")") {
			t.Errorf("docs/adr/index.md does not list %s", name)
		}
		d := readDocument(t, "docs/adr/"+name)
		number := strings.TrimLeft(name[:4], "0")
		if !strings.HasPrefix(d.lines[0], "# "+number+". ") {
			t.Errorf("%s begins with %q, want # %s. …", name, d.lines[0], number)
		}
	}
}

// TestFirstCommands: README and the first page that a user follows say the same; the
// tests of the package (TestInstall) type it.
func TestFirstCommands(t *testing.T) {
	t.Parallel()
	readme := commandsAfter(t, "README.md", "Five commands,")
	if len(readme) != 5 {
		t.Errorf("README has %d commands: %q", len(readme), readme)
	}
	if page := commandsAfter(t, "docs/getting-started.md", "## One machine"); !slices.Equal(page, readme) {
		t.Errorf("docs/getting-started.md begins with\n%q, README with\n%q", page, readme)
	}
}

// commandsAfter returns the lines of the first block after a line that begins with
// start, without their comments.
func commandsAfter(t *testing.T, path, start string) (commands []string) {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(root, path))
	if err != nil {
		t.Fatal(err)
	}
	_, rest, found := strings.Cut(string(text), "\n"+start)
	_, rest, begins := strings.Cut(rest, "\n```\n")
	block, _, ends := strings.Cut(rest, "\n```")
	if !found || !begins || !ends {
		t.Fatalf("%s: no block after %q", path, start)
	}
	for line := range strings.Lines(block) {
		line, _, _ = strings.Cut(line, "  #")
		commands = append(commands, strings.TrimSpace(line))
	}
	return commands
}
