package integration

import (
	"fmt"
	"io"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"text/tabwriter"
	"time"

	"stellar.io/stellar/internal/testx/bench"
)

// The environment of a benchmark. Everything else is the same in every run, so
// that tables can be compared.
const (
	envReport = "STELLAR_BENCH_REPORT" // 1: a missed bar does not fail the run
	envJSON   = "STELLAR_BENCH_JSON"   // file that the table is written to as well
	envQuick  = "STELLAR_BENCH_QUICK"  // 1: a tenth of everything, to see that it works
)

// samples are measurements of one thing, in any order.
type samples []float64

func (s *samples) add(d time.Duration) { *s = append(*s, ms(d)) }

func ms(d time.Duration) float64 { return float64(d) / float64(time.Millisecond) }

// quantile is the smallest sample that at least the fraction q does not exceed
// (the nearest rank); 0 for no samples.
func (s samples) quantile(q float64) float64 {
	if len(s) == 0 {
		return 0
	}
	sorted := slices.Sorted(slices.Values(s))
	rank := int(q * float64(len(sorted)))
	if float64(rank) < q*float64(len(sorted)) {
		rank++
	}
	return sorted[max(rank, 1)-1]
}

type row = bench.Row

// bar is the most, or with atLeast the least, that a figure may be.
type bar struct {
	p50, p99 float64 // 0: no bar
	atLeast  bool
	none     bool   // the one figure must be 0
	better   string // bench.Less or More, where there is no bar and the unit does not tell

	// explained is why the bar may be missed without failing the run: one sentence.
	explained string
}

// table collects rows; the benchmark fails when any of them misses its bar.
type table struct {
	Rows   []row
	commit string // what is measured
	report bench.Report
}

// spread adds a row of the samples. Its P99 is what 99 of 100 are not worse than.
func (t *table) spread(what, unit string, s samples, b bar) {
	p99 := s.quantile(0.99)
	r := row{What: what, N: len(s), Unit: unit, P50: s.quantile(0.5), P99: &p99, Samples: bench.Thin(s)}
	judgeRow(&r, b)
	if r.Better == bench.More {
		p99 = s.quantile(0.01)
	}
	if len(s) == 0 && r.Bar != "" {
		r.Verdict = bench.Miss
	}
	t.Rows = append(t.Rows, r)
}

// value adds a row of one figure that n things together have led to.
func (t *table) value(what, unit string, n int, v float64, b bar) {
	r := row{What: what, N: n, Unit: unit, P50: v}
	judgeRow(&r, b)
	t.Rows = append(t.Rows, r)
}

// ratio adds a row of the quotient of two medians. Both sides were measured in
// turns, so that what disturbs one disturbs the other.
func (t *table) ratio(what string, over, under samples, b bar) {
	v := 0.0
	if m := under.quantile(0.5); m > 0 {
		v = over.quantile(0.5) / m
	}
	t.value(what, "×", min(len(over), len(under)), v, b)
	if v == 0 { // nothing was measured
		t.Rows[len(t.Rows)-1].Verdict = bench.Miss
	}
}

// pairs adds a row of the quotients of what was measured in one turn each: where a turn is
// long, what else the machine does is the same in a pair and another in the next.
func (t *table) pairs(what string, over, under samples, b bar) {
	var quotients samples
	for i := range min(len(over), len(under)) {
		quotients = append(quotients, over[i]/under[i])
	}
	t.spread(what, "×", quotients, b)
}

// judgeRow says whether the row keeps its bar, and which direction is better.
func judgeRow(r *row, b bar) {
	sign, holds := "≤", func(v, limit float64) bool { return v <= limit }
	if b.atLeast {
		sign, holds = "≥", func(v, limit float64) bool { return v >= limit }
	}
	var bars []string
	good := true
	if b.p50 != 0 {
		bars = append(bars, fmt.Sprintf("%s %s", sign, bench.Figure(b.p50, r.Unit)))
		good = good && holds(r.P50, b.p50)
	}
	if b.p99 != 0 && r.P99 != nil {
		bars = append(bars, fmt.Sprintf("p99 %s %s", sign, bench.Figure(b.p99, r.Unit)))
		good = good && holds(*r.P99, b.p99)
	}
	if b.none {
		bars, good = append(bars, "none"), r.P50 == 0
	}
	r.Better = b.better
	if r.Better == "" {
		r.Better = betterOf(*r, b)
	}
	if len(bars) == 0 {
		return
	}
	r.Bar, r.Verdict = strings.Join(bars, ", "), bench.OK
	if !good {
		r.Verdict = bench.Miss
		if b.explained != "" {
			r.Verdict, r.Why = bench.Explained, b.explained
		}
	}
}

// betterOf tells from the bar, or else from the unit, which direction is better.
func betterOf(r row, b bar) string {
	switch {
	case b.atLeast:
		return bench.More
	case b.p50 != 0, b.p99 != 0, b.none:
		return bench.Less
	case r.Unit == "/s", r.Unit == "Gbit/s", r.Unit == "k packets/s":
		return bench.More
	case r.Unit == "ms", r.Unit == "s", r.Unit == "ns", r.Unit == "MB", r.Unit == "B", r.Unit == "kB/s":
		return bench.Less
	}
	return ""
}

func (t *table) misses() []row {
	return slices.DeleteFunc(slices.Clone(t.Rows), func(r row) bool { return r.Verdict != bench.Miss })
}

func (t *table) write(w io.Writer) error {
	tw := tabwriter.NewWriter(w, 0, 8, 2, ' ', 0)
	fmt.Fprintln(tw, "WHAT\tN\tP50\tP99\tBAR\tVERDICT")
	for _, r := range t.Rows {
		p99 := ""
		if r.P99 != nil {
			p99 = bench.Figure(*r.P99, r.Unit)
		}
		fmt.Fprintf(tw, "%s\t%d\t%s\t%s\t%s\t%s\n", r.What, r.N, bench.Figure(r.P50, r.Unit), p99, r.Bar, r.Verdict)
	}
	return tw.Flush()
}

// section runs a part of the table and keeps its rows under its name.
func (t *table) section(b *testing.B, name string, fn func(*testing.B, *table)) {
	// Each with an end of its own: what one has started does not slow the next.
	b.Run(name, func(b *testing.B) {
		b.ReportMetric(0, "ns/op") // the table says it all
		began, before, start := len(t.Rows), load(), time.Now()
		defer goesOn(name)()
		fn(b, t)
		t.report.Sections = append(t.report.Sections, bench.Section{
			Name: name, Time: start.UTC().Truncate(time.Second), Commit: t.commit, Seconds: math.Round(time.Since(start).Seconds()),
			Load: before + " → " + load(), Rows: slices.Clone(t.Rows[began:]),
		})
		t.save(b) // what follows may be interrupted
	})
}

// save writes the file, if one is asked for.
func (t *table) save(b *testing.B) {
	if path := os.Getenv(envJSON); path != "" {
		if err := t.report.Write(path); err != nil {
			b.Error(err)
		}
	}
}

// publish prints the table, and fails the benchmark for what
// was missed.
func (t *table) publish(b *testing.B) {
	b.Helper()
	if len(t.report.Sections) == 0 && !b.Failed() {
		b.Error("nothing was measured: the sections are those in BenchmarkTable")
		return
	}
	fmt.Printf("\nmachine: %s\n", t.report.Machine)
	for _, s := range t.report.Sections {
		fmt.Printf("%s: load %s over 1, 5 and 15 minutes, %.0f s\n", s.Name, s.Load, s.Seconds)
	}
	if b.Failed() {
		fmt.Println("INCOMPLETE: something failed, see below")
	}
	if err := t.write(os.Stdout); err != nil {
		b.Error(err)
	}
	fmt.Println()
	for _, r := range t.misses() {
		if os.Getenv(envReport) == "1" {
			b.Logf("missed: %s: bar %s", r.What, r.Bar)
			continue
		}
		b.Errorf("missed: %s: bar %s", r.What, r.Bar)
	}
}

// scaled is n, or a tenth of it for a quick look.
func scaled(n int) int {
	if os.Getenv(envQuick) == "1" {
		return max(n/10, 1)
	}
	return n
}

// scratch is a directory on the disk that the tests use, gone at the end.
func scratch(b *testing.B) string {
	b.Helper()
	dir, err := filepath.EvalSymlinks(b.TempDir())
	if err != nil {
		b.Fatal(err)
	}
	return dir
}
