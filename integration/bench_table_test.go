package integration

import (
	"encoding/json"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"
	"text/tabwriter"
	"time"

	"golang.org/x/sys/unix"
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

// row is one line of the table: P50 and P99 in Unit, or one value in P50.
type row struct {
	What    string   `json:"what"`
	N       int      `json:"n"`
	Unit    string   `json:"unit"`
	P50     float64  `json:"p50"`
	P99     *float64 `json:"p99,omitempty"`
	Bar     string   `json:"bar,omitempty"`
	Verdict string   `json:"verdict,omitempty"` // ok, MISS, or empty without a bar
}

// bar is the most, or with atLeast the least, that a figure may be.
type bar struct {
	p50, p99 float64 // 0: no bar
	atLeast  bool
	none     bool   // the one figure must be 0
	later    string // what the bar is to become, for the reader
}

// table collects rows; the benchmark fails when any of them misses its bar.
type table struct {
	Machine []string `json:"machine"`
	Rows    []row    `json:"rows"`
}

// spread adds a row of the samples.
func (t *table) spread(what, unit string, s samples, b bar) {
	p99 := s.quantile(0.99)
	r := row{What: what, N: len(s), Unit: unit, P50: s.quantile(0.5), P99: &p99}
	r.judge(b)
	if len(s) == 0 && r.Bar != "" {
		r.Verdict = miss
	}
	t.Rows = append(t.Rows, r)
}

// value adds a row of one figure that n things together have led to.
func (t *table) value(what, unit string, n int, v float64, b bar) {
	r := row{What: what, N: n, Unit: unit, P50: v}
	r.judge(b)
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
		t.Rows[len(t.Rows)-1].Verdict = miss
	}
}

const miss = "MISS"

func (r *row) judge(b bar) {
	sign, holds := "≤", func(v, limit float64) bool { return v <= limit }
	if b.atLeast {
		sign, holds = "≥", func(v, limit float64) bool { return v >= limit }
	}
	var bars []string
	good := true
	if b.p50 != 0 {
		bars = append(bars, fmt.Sprintf("%s %s", sign, figure(b.p50, r.Unit)))
		good = good && holds(r.P50, b.p50)
	}
	if b.p99 != 0 && r.P99 != nil {
		bars = append(bars, fmt.Sprintf("p99 %s %s", sign, figure(b.p99, r.Unit)))
		good = good && holds(*r.P99, b.p99)
	}
	if b.none {
		bars, good = append(bars, "none"), r.P50 == 0
	}
	if len(bars) == 0 {
		return
	}
	r.Bar, r.Verdict = strings.Join(bars, ", "), "ok"
	if b.later != "" {
		r.Bar += " (later " + b.later + ")"
	}
	if !good {
		r.Verdict = miss
	}
}

// figure writes a value with the digits that mean something.
func figure(v float64, unit string) string {
	digits := 2
	switch {
	case v == float64(int64(v)):
		digits = 0
	case unit == "ms" && v < 10:
		digits = 3
	case v >= 100:
		digits = 0
	}
	s := fmt.Sprintf("%.*f", digits, v)
	switch unit {
	case "", "×", "%":
		return s + unit
	}
	return s + " " + unit
}

func (t *table) misses() []row {
	return slices.DeleteFunc(slices.Clone(t.Rows), func(r row) bool { return r.Verdict != miss })
}

func (t *table) write(w io.Writer) error {
	for _, line := range t.Machine {
		fmt.Fprintln(w, line)
	}
	tw := tabwriter.NewWriter(w, 0, 8, 2, ' ', 0)
	fmt.Fprintln(tw, "WHAT\tN\tP50\tP99\tBAR\tVERDICT")
	for _, r := range t.Rows {
		p99 := ""
		if r.P99 != nil {
			p99 = figure(*r.P99, r.Unit)
		}
		fmt.Fprintf(tw, "%s\t%d\t%s\t%s\t%s\t%s\n", r.What, r.N, figure(r.P50, r.Unit), p99, r.Bar, r.Verdict)
	}
	return tw.Flush()
}

// publish prints the table, writes the file, and fails the benchmark for what
// was missed.
func (t *table) publish(b *testing.B) {
	b.Helper()
	fmt.Println()
	if b.Failed() {
		fmt.Println("INCOMPLETE: something failed, see below")
	}
	if err := t.write(os.Stdout); err != nil {
		b.Error(err)
	}
	fmt.Println()
	if path := os.Getenv(envJSON); path != "" {
		data, err := json.MarshalIndent(t, "", "  ")
		if err == nil {
			err = os.WriteFile(path, append(data, '\n'), 0o644)
		}
		if err != nil {
			b.Error(err)
		}
	}
	for _, r := range t.misses() {
		if os.Getenv(envReport) == "1" {
			b.Logf("missed: %s: bar %s", r.What, r.Bar)
			continue
		}
		b.Errorf("missed: %s: bar %s", r.What, r.Bar)
	}
}

// machine says what a table was measured on.
func machine(containerd string) string {
	var u unix.Utsname
	_ = unix.Uname(&u)
	cpu := "unknown CPU"
	info, _ := os.ReadFile("/proc/cpuinfo")
	for line := range strings.Lines(string(info)) {
		if name, v, ok := strings.Cut(line, ":"); ok && strings.TrimSpace(name) == "model name" {
			cpu = strings.TrimSpace(v)
			break
		}
	}
	return fmt.Sprintf("machine: Linux %s, %s, %d cores, %s, containerd %s",
		unix.ByteSliceToString(u.Release[:]), cpu, runtime.NumCPU(), runtime.Version(), containerd)
}

// serverVersion reads what `ctr version` says of the server, not of itself.
func serverVersion(out string) string {
	_, server, _ := strings.Cut(out, "Server:")
	for line := range strings.Lines(server) {
		if name, v, ok := strings.Cut(line, ":"); ok && strings.TrimSpace(name) == "Version" {
			return strings.TrimSpace(v)
		}
	}
	return "unknown"
}

// load is how busy the machine was: what else ran is in every figure.
func load(when string) string {
	data, _ := os.ReadFile("/proc/loadavg")
	f := strings.Fields(string(data))
	if len(f) < 3 {
		return when + ": load unknown"
	}
	return fmt.Sprintf("%s: load %s over 1, 5 and 15 minutes", when, strings.Join(f[:3], " "))
}

// scaled is n, or a tenth of it for a quick look.
func scaled(n int) int {
	if os.Getenv(envQuick) == "1" {
		return max(n/10, 1)
	}
	return n
}

// progress tells on stderr how far something is, every two seconds.
type progress struct {
	what  string
	total int
	last  time.Time
}

func newProgress(what string, total int) *progress {
	p := &progress{what: what, total: total, last: time.Now()}
	fmt.Fprintf(os.Stderr, "%s: %d …\n", what, total)
	return p
}

// done is called by one goroutine.
func (p *progress) done(n int) {
	if now := time.Now(); now.Sub(p.last) >= 2*time.Second {
		p.last = now
		fmt.Fprintf(os.Stderr, "  %s: %d of %d\n", p.what, n, p.total)
	}
}

func TestTable(t *testing.T) {
	var out table
	out.spread("within", "ms", samples{1, 2, 3, 4}, bar{p50: 4, p99: 20})
	out.spread("beyond", "ms", samples{1, 30}, bar{p50: 4, p99: 20})
	out.spread("nothing measured", "ms", nil, bar{p50: 4})
	out.ratio("twice", samples{4}, samples{2}, bar{p50: 3, atLeast: true, later: "≥ 4×"})
	out.value("none", "", 1, 0, bar{none: true})
	out.value("plain", "MB", 1, 12.25, bar{})
	var got strings.Builder
	if err := out.write(&got); err != nil {
		t.Fatal(err)
	}
	const want = `WHAT              N  P50       P99    BAR                   VERDICT
within            4  2 ms      4 ms   ≤ 4 ms, p99 ≤ 20 ms   ok
beyond            2  1 ms      30 ms  ≤ 4 ms, p99 ≤ 20 ms   MISS
nothing measured  0  0 ms      0 ms   ≤ 4 ms                MISS
twice             1  2×               ≥ 3× (later ≥ 4×) MISS
none              1  0                none                  ok
plain             1  12.25 MB                               
`
	if squeeze(got.String()) != squeeze(want) {
		t.Errorf("got:\n%s\nwant:\n%s", got.String(), want)
	}
	if n := len(out.misses()); n != 3 {
		t.Errorf("%d misses, want 3", n)
	}
}

func squeeze(s string) string { return strings.Join(strings.Fields(s), " ") }

func TestQuantile(t *testing.T) {
	s := make(samples, 0, 200)
	for i := range 200 {
		s = append(s, float64(200-i))
	}
	for _, tc := range []struct{ q, want float64 }{{0.5, 100}, {0.99, 198}, {1, 200}, {0, 1}} {
		if got := s.quantile(tc.q); got != tc.want {
			t.Errorf("quantile %v = %v, want %v", tc.q, got, tc.want)
		}
	}
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
