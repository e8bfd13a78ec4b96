package archtest

import (
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

var (
	quoted     = regexp.MustCompile("`([^`\n]+)`")
	isTest     = regexp.MustCompile(`^Test[A-Z]\w*$`)
	isMutation = regexp.MustCompile(`^[a-z]+(-[a-z]+)+$`)
	testFunc   = regexp.MustCompile(`(?m)^func (Test[A-Z]\w*)\(`)
)

// TestReliabilityIsHonest: every test and every mutation that docs/reliability.md
// names exists, and every promise names a test and a mutation.
func TestReliabilityIsHonest(t *testing.T) {
	tests := testNames(t)
	doc, err := os.ReadFile("../../docs/reliability.md")
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range quotedIn(string(doc), isTest) {
		if !tests[name] {
			t.Errorf("there is no %s", name)
		}
	}
	promises, reading := 0, false
	for line := range strings.Lines(string(doc)) {
		switch {
		case !strings.HasPrefix(line, "|"):
			reading = false
			continue
		case strings.HasPrefix(line, "| what happens |"):
			reading = true
			continue
		case !reading || strings.HasPrefix(line, "|---"):
			continue
		}
		promises++
		cells := strings.Split(strings.Trim(strings.TrimSpace(line), "|"), "|")
		if len(cells) != 4 {
			t.Errorf("a promise has what happens, what is promised, a test and a mutation: %s", line)
			continue
		}
		if len(quotedIn(cells[2], isTest)) == 0 {
			t.Errorf("no test proves: %s", line)
		}
		mutations := quotedIn(cells[3], isMutation)
		if len(mutations) == 0 {
			t.Errorf("under no mutation a test was seen to fail: %s", line)
		}
		for _, name := range mutations {
			if _, err := os.Stat("../../testdata/mutations/" + name + ".patch"); err != nil {
				t.Errorf("there is no mutation %s", name)
			}
		}
	}
	if promises < 10 {
		t.Errorf("%d promises: the table is not read", promises)
	}
}

// testNames returns the tests of all packages.
func testNames(t *testing.T) map[string]bool {
	t.Helper()
	tests := map[string]bool{}
	err := filepath.WalkDir("../..", func(path string, d os.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if d.IsDir() && d.Name() == ".cache" {
			return filepath.SkipDir
		}
		if !strings.HasSuffix(path, "_test.go") {
			return nil
		}
		text, err := os.ReadFile(path)
		for _, m := range testFunc.FindAllStringSubmatch(string(text), -1) {
			tests[m[1]] = true
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return tests
}

func quotedIn(text string, like *regexp.Regexp) (names []string) {
	for _, m := range quoted.FindAllStringSubmatch(text, -1) {
		if like.MatchString(m[1]) && !slices.Contains(names, m[1]) {
			names = append(names, m[1])
		}
	}
	return names
}
