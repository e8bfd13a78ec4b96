package bench

import (
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

var update = flag.Bool("update", false, "write docs/performance.md's tables anew")

var root = filepath.Join("..", "..", "..")

// The tables of the page are those of the figures that were kept.
func TestDocumentation(t *testing.T) {
	t.Parallel()
	report, err := Read(filepath.Join(root, "testdata", "bench", "last.json"))
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(root, "docs", "performance.md")
	page, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	want, err := report.Document(string(page))
	if err != nil {
		t.Fatal(err)
	}
	if *update {
		if err := os.WriteFile(file, []byte(want), 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	if diff := cmp.Diff(want, string(page)); diff != "" {
		t.Errorf("not the figures of testdata/bench/last.json (`make generate-docs` if they are meant):\n%s", diff)
	}
}

func sample() Report {
	p99 := 2.5
	return Report{Schema: Schema, Machine: Machine{CPU: "c", Cores: 2, Filesystem: "ext4", FsyncMS: 0.05, Go: "go1"}, Sections: []Section{
		{Name: "A", Time: time.Unix(1700000000, 0).UTC(), Commit: "abc", Rows: []Row{
			{What: "one", N: 4, Unit: "ms", P50: 1.5, P99: &p99, Better: Less, Bar: "≤ 2 ms", Verdict: OK, Samples: []float64{1, 1.5, 2, 2.5}},
			{What: "  of that", N: 1, Unit: "×", P50: 2, Bar: "≤ 1×", Verdict: Explained, Why: "it is | so"},
			{What: "two", N: 4, Unit: "/s", P50: 200, Better: More, Samples: []float64{200, 201}},
			{What: "  of that", N: 1, Unit: "×", P50: 2},
		}},
		{Name: "B", Time: time.Unix(1700000000, 0).UTC()},
	}}
}

func TestFile(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "f.json")
	if err := sample().Write(path); err != nil {
		t.Fatal(err)
	}
	got, err := Read(path)
	if err != nil {
		t.Fatal(err)
	}
	want := sample()
	want.Sections[1].Rows = []Row{}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
	if err := os.WriteFile(path, []byte(`{"schema": 99}`), 0o644); err != nil {
		t.Fatal(err)
	}
	if _, err := Read(path); err == nil || !strings.Contains(err.Error(), "schema 99") {
		t.Errorf("of another schema: %v", err)
	}
}

func TestNames(t *testing.T) {
	t.Parallel()
	want := []string{"A: one", "A: one: of that", "A: two", "A: two: of that"}
	if diff := cmp.Diff(want, sample().Sections[0].Names()); diff != "" {
		t.Error(diff)
	}
	twice := Section{Name: "A", Rows: []Row{{What: "x"}, {What: "x"}}}
	if diff := cmp.Diff([]string{"A: x", "A: x (2)"}, twice.Names()); diff != "" {
		t.Error(diff)
	}
}

func TestMerge(t *testing.T) {
	t.Parallel()
	old, fresh := sample(), sample()
	fresh.Sections = []Section{{Name: "B", Commit: "new"}, {Name: "C"}}
	var got []string
	for _, s := range fresh.Merge(old).Sections {
		got = append(got, s.Name+s.Commit)
	}
	if diff := cmp.Diff([]string{"Aabc", "Bnew", "C"}, got); diff != "" {
		t.Error(diff)
	}
	fresh.Machine.CPU = "another"
	if got := fresh.Merge(old); len(got.Sections) != 2 {
		t.Errorf("figures of two machines are in one file: %+v", got.Sections)
	}
}

// The table is what benchstat printed of two reports.
func TestChanges(t *testing.T) {
	t.Parallel()
	r := sample()
	var text strings.Builder
	if err := r.Benchstat(&text); err != nil {
		t.Fatal(err)
	}
	if want := "BenchmarkA__one_ 1 1 ms\n"; !strings.HasPrefix(text.String(), want) || strings.Count(text.String(), "\n") != 6 {
		t.Errorf("got %q", text.String())
	}
	for _, tc := range []struct {
		name, ms, rate string
		want           []Change
	}{
		{"as noisy as before", "~", "~", nil},
		{"better", "-40.00%", "+50.00%", []Change{{Name: "A: one", Was: 1, Percent: -40}, {Name: "A: two", Was: 100, Percent: 50}}},
		{"worse", "+40.00%", "-50.00%", []Change{{Name: "A: one", Was: 1, Percent: 40, Worse: true}, {Name: "A: two", Was: 100, Percent: -50, Worse: true}}},
		{"worse within the noise of runs", "+9.00%", "-9.00%", []Change{{Name: "A: one", Was: 1, Percent: 9}, {Name: "A: two", Was: 100, Percent: -9}}},
	} {
		table := ",old.txt,,new.txt,,,\n,ms,CI,ms,CI,vs base,P\nA__one_,1,3%,1.5,2%," + tc.ms + ",p=0.000 n=40\ngeomean,1,,1,,+0.40%,\n\n" +
			",per-s,CI,per-s,CI,vs base,P\nA__two_,100,3%,200,2%," + tc.rate + ",p=0.000 n=40\n"
		got, err := r.Changes(strings.NewReader(table))
		if err != nil {
			t.Fatal(err)
		}
		for i := range got {
			got[i].Row = Row{}
		}
		if diff := cmp.Diff(tc.want, got); diff != "" {
			t.Errorf("%s: %s", tc.name, diff)
		}
	}
}

func TestDocument(t *testing.T) {
	t.Parallel()
	r := sample()
	r.Sections = r.Sections[:1]
	const page = "x\n<!-- bench machine -->\n<!-- end -->\ny\n<!-- bench A -->\nold\n<!-- end -->\nz\n"
	got, err := r.Document(page)
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"c, 2 cores", "| one | 4 | 1.500 ms | 2.500 ms | ≤ 2 ms |", "| … of that | 1 | 2× |  | ≤ 1×: missed, it is \\| so |", "2023-11-14, commit abc; load", "<!-- end -->\nz\n"} {
		if !strings.Contains(got, want) {
			t.Errorf("no %q in:\n%s", want, got)
		}
	}
	if again, err := r.Document(got); err != nil || again != got {
		t.Errorf("a second time: %v\n%s", err, cmp.Diff(got, again))
	}
	if got, err := r.Document(page + "<!-- bench B -->\n<!-- end -->"); err != nil || !strings.Contains(got, "SECTION=B") {
		t.Errorf("of a section without figures: %v\n%s", err, got)
	}
	for _, bad := range []string{"no table", "<!-- bench A -->\n"} {
		if _, err := r.Document(bad); err == nil {
			t.Errorf("%q is taken", bad)
		}
	}
}

func TestThin(t *testing.T) {
	t.Parallel()
	if diff := cmp.Diff([]float64{1.235, 2}, Thin([]float64{1.23456, 2})); diff != "" {
		t.Error(diff)
	}
	many := make([]float64, 1000)
	for i := range many {
		many[i] = float64(i)
	}
	if got := Thin(many); len(got) != KeptSamples || got[1] != 25 || got[39] != 975 {
		t.Error(got)
	}
}
