package packaging

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"go.yaml.in/yaml/v3"
)

const (
	rulesFile     = "prometheus/stellar.rules.yaml"
	dashboardFile = "grafana/stellar.json"
	metricsPage   = "../docs/metrics.md"
)

// metric is a row of docs/metrics.md.
type metric struct {
	kind   string
	labels []string
}

var metricRow = regexp.MustCompile("(?m)^\\| `([a-z][A-Za-z0-9_]*)` \\| (counter|gauge|histogram|summary) \\| (.*?) \\| .+ \\|$")

// documented returns the tables of docs/metrics.md.
func documented(t *testing.T) (map[string]metric, string) {
	t.Helper()
	page, err := os.ReadFile(metricsPage)
	if err != nil {
		t.Fatal(err)
	}
	out := map[string]metric{}
	for _, m := range metricRow.FindAllStringSubmatch(string(page), -1) {
		var labels []string
		for l := range strings.SplitSeq(m[3], ", ") {
			if l = strings.Trim(l, "` "); l != "" {
				labels = append(labels, l)
			}
		}
		out[m[1]] = metric{m[2], labels}
	}
	if len(out) < 80 {
		t.Fatalf("%d metrics in %s", len(out), metricsPage)
	}
	return out, string(page)
}

var (
	inQuotes  = regexp.MustCompile(`"(?:[^"\\]|\\.)*"|'(?:[^'\\]|\\.)*'`)
	selector  = regexp.MustCompile(`([a-zA-Z_:][a-zA-Z0-9_:]*)?\s*\{([^}]*)\}`)
	matcher   = regexp.MustCompile(`([a-zA-Z_][a-zA-Z0-9_]*)\s*(?:=~|!~|!=|=)`)
	grouping  = regexp.MustCompile(`\b(by|without|on|ignoring|group_left|group_right)\s*\(([^)]*)\)`)
	duration  = regexp.MustCompile(`\[[^\]]*\]`)
	word      = regexp.MustCompile(`[a-zA-Z_:][a-zA-Z0-9_:]*`)
	operators = []string{"and", "or", "unless", "bool", "offset"}
	// target are labels that the scrape adds, le and quantile those of the types.
	target = []string{"instance", "job", "le", "quantile"}
	// foreign are metrics of the server, of Go and of the process.
	foreign = regexp.MustCompile(`^(up|go_.+|process_.+)$`)
)

// used returns the metrics that a PromQL expression names, each with the labels that
// are matched on it, and all labels that it groups by.
func used(expr string) (metrics map[string][]string, groups []string) {
	expr = inQuotes.ReplaceAllString(expr, `""`)
	expr = duration.ReplaceAllString(expr, "")
	metrics = map[string][]string{}
	for _, m := range selector.FindAllStringSubmatch(expr, -1) {
		for _, l := range matcher.FindAllStringSubmatch(m[2], -1) {
			metrics[m[1]] = append(metrics[m[1]], l[1])
		}
	}
	expr = selector.ReplaceAllString(expr, "$1 ")
	for _, g := range grouping.FindAllStringSubmatch(expr, -1) {
		groups = append(groups, word.FindAllString(g[2], -1)...)
	}
	expr = grouping.ReplaceAllString(expr, " ")
	for _, at := range word.FindAllStringIndex(expr, -1) {
		name, rest := expr[at[0]:at[1]], strings.TrimSpace(expr[at[1]:])
		number := at[0] > 0 && expr[at[0]-1] >= '0' && expr[at[0]-1] <= '9' // 1e9
		if number || strings.HasPrefix(rest, "(") || slices.Contains(operators, name) || slices.Contains([]string{"sum", "max", "min", "count"}, name) {
			continue
		}
		metrics[name] = append(metrics[name], []string{}...)
	}
	return metrics, groups
}

// judge names what of an expression is not in the tables.
func judge(expr string, tables map[string]metric) (problems []string) {
	metrics, groups := used(expr)
	if len(metrics) == 0 {
		problems = append(problems, "names no metric")
	}
	known := slices.Clone(target)
	for name, labels := range metrics {
		if foreign.MatchString(name) {
			continue
		}
		m, ok := tables[name]
		for _, suffix := range []string{"_bucket", "_sum", "_count"} {
			base, cut := strings.CutSuffix(name, suffix)
			if b := tables[base]; cut && (b.kind == "histogram" || b.kind == "summary" && suffix != "_bucket") {
				m, ok = b, true
			}
		}
		if !ok || m.kind == "histogram" && tables[name].kind != "" {
			problems = append(problems, name+" does not exist, or is a histogram's name without its suffix")
			continue
		}
		known = append(known, m.labels...)
		for _, l := range labels {
			if !slices.Contains(m.labels, l) && !slices.Contains(target, l) {
				problems = append(problems, name+" has no label "+l)
			}
		}
	}
	for _, g := range groups {
		if !slices.Contains(known, g) {
			problems = append(problems, "none of its metrics has the label "+g)
		}
	}
	return problems
}

// TestJudge: what the next tests rely on finds what they are to find.
func TestJudge(t *testing.T) {
	t.Parallel()
	tables := map[string]metric{"a_total": {"counter", []string{"x"}}, "h_seconds": {"histogram", []string{"p"}}, "g": {"gauge", nil}}
	for expr, want := range map[string]int{
		`rate(a_total{x="b{c}"}[5m]) > 0 and on (instance) g == 1`:             0,
		`histogram_quantile(0.9, sum by (le, p) (rate(h_seconds_bucket[1m])))`: 0,
		`sum(h_seconds_count) / sum(a_total) * 1e3`:                            0,
		`up == 0 or go_goroutines > 5`:                                         0,
		`a_totl > 0`:                                                           1,
		`rate(h_seconds[1m])`:                                                  1,
		`a_total{y="1"}`:                                                       1,
		`sum by (z) (a_total)`:                                                 1,
		`g_bucket`:                                                             1,
		`vector(1)`:                                                            1,
		`sum by (x) (a_total) / ignoring (q) nothing{instance="i"} > bool 0`: 2,
		`count(a_total == 0) or vector(0)`:                                   0,
	} {
		if got := judge(expr, tables); len(got) != want {
			t.Errorf("%s: %q, want %d problems", expr, got, want)
		}
	}
}

// ruleGroups is a file of rules.
type ruleGroups struct {
	Groups []struct {
		Name  string
		Rules []struct {
			Alert, Expr, For    string
			Labels, Annotations map[string]string
		}
	}
}

func rules(t *testing.T) ruleGroups {
	t.Helper()
	data, err := os.ReadFile(rulesFile)
	if err != nil {
		t.Fatal(err)
	}
	var r ruleGroups
	d := yaml.NewDecoder(bytes.NewReader(data))
	d.KnownFields(true)
	if err := d.Decode(&r); err != nil {
		t.Fatal(err)
	}
	return r
}

// TestAlertRules: each alert names metrics and labels that exist, says for how long,
// how bad it is, what is wrong, and where docs/metrics.md has what to do; and the
// page has no other alerts.
func TestAlertRules(t *testing.T) {
	t.Parallel()
	tables, page := documented(t)
	_, alerts, _ := strings.Cut(page, "\n## Alerts\n")
	seen := map[string]bool{}
	for _, g := range rules(t).Groups {
		for _, r := range g.Rules {
			for _, p := range judge(r.Expr, tables) {
				t.Errorf("%s: %s", r.Alert, p)
			}
			switch {
			case seen[r.Alert]:
				t.Errorf("%s is there twice", r.Alert)
			case r.For == "" || r.Annotations["summary"] == "":
				t.Errorf("%s lacks for or a summary", r.Alert)
			case !slices.Contains([]string{"info", "warning", "critical"}, r.Labels["severity"]):
				t.Errorf("%s has the severity %q", r.Alert, r.Labels["severity"])
			case r.Annotations["runbook"] != "/usr/share/doc/stellar/metrics.md#"+strings.ToLower(r.Alert):
				t.Errorf("%s has the runbook %q", r.Alert, r.Annotations["runbook"])
			case !strings.Contains(alerts, "\n### "+r.Alert+"\n"):
				t.Errorf("%s has no heading in %s", r.Alert, metricsPage)
			}
			seen[r.Alert] = true
		}
	}
	if n := strings.Count(alerts, "\n### "); n != len(seen) || n < 20 {
		t.Errorf("%d alerts are described, %d exist", n, len(seen))
	}
}

// dashboard is what is read of Grafana's model.
type dashboard struct {
	UID, Title    string
	SchemaVersion int
	Panels        []struct {
		ID          int
		Type, Title string
		GridPos     struct{ H, W, X, Y int }
		Targets     []struct{ RefID, Expr string }
	}
	Templating struct {
		List []struct{ Name, Definition string }
	}
}

func readDashboard(t *testing.T) dashboard {
	t.Helper()
	data, err := os.ReadFile(dashboardFile)
	if err != nil {
		t.Fatal(err)
	}
	var d dashboard
	if err := json.Unmarshal(data, &d); err != nil {
		t.Fatal(err)
	}
	return d
}

// TestDashboard: it is JSON, its panels do not overlap, each query names metrics and
// labels that exist, and no metric of ours is left out.
func TestDashboard(t *testing.T) {
	t.Parallel()
	tables, _ := documented(t)
	d := readDashboard(t)
	if d.UID != "stellar" || d.Title != "Stellar" || d.SchemaVersion == 0 || len(d.Templating.List) != 2 {
		t.Errorf("%+v", d)
	}
	ids, places, shown := map[int]bool{}, map[[2]int]string{}, map[string]bool{"stellar_build_info": true}
	for _, p := range d.Panels {
		if ids[p.ID] || p.Title == "" || p.Type != "row" && len(p.Targets) == 0 {
			t.Errorf("panel %d %q: its number is taken, or it has no title or query", p.ID, p.Title)
		}
		ids[p.ID] = true
		for x := range p.GridPos.W {
			for y := range p.GridPos.H {
				at := [2]int{p.GridPos.X + x, p.GridPos.Y + y}
				if places[at] != "" || at[0] >= 24 {
					t.Fatalf("%q lies over %q, or outside", p.Title, places[at])
				}
				places[at] = p.Title
			}
		}
		for _, q := range p.Targets {
			for _, problem := range judge(q.Expr, tables) {
				t.Errorf("%q: %s: %s", p.Title, q.Expr, problem)
			}
			metrics, _ := used(q.Expr)
			for name := range metrics {
				for _, suffix := range []string{"", "_bucket", "_sum", "_count"} {
					shown[strings.TrimSuffix(name, suffix)] = true
				}
			}
		}
	}
	for name := range tables {
		if strings.HasPrefix(name, "stellar_") && !shown[name] {
			t.Errorf("no panel shows %s", name)
		}
	}
}

// promtool is Prometheus' own judge, which `make deps` brings.
func promtool(t *testing.T, args ...string) {
	t.Helper()
	path, err := filepath.Abs("../.cache/promtool/promtool")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(path); err != nil {
		t.Fatalf("%v: run `make deps`", err)
	}
	if out, err := exec.Command(path, args...).CombinedOutput(); err != nil {
		t.Errorf("promtool %s: %v\n%s", strings.Join(args, " "), err, out)
	}
}

// TestPromtool: Prometheus takes the rules; each alert of the rules' own tests fires
// when it should and not before; and the dashboard's queries are ones.
func TestPromtool(t *testing.T) {
	t.Parallel()
	promtool(t, "check", "rules", rulesFile)
	promtool(t, "test", "rules", "prometheus/stellar.rules_test.yaml")
	file := filepath.Join(t.TempDir(), "queries.yaml")
	var b strings.Builder
	b.WriteString("groups:\n  - name: dashboard\n    rules:\n")
	n := 0
	for _, p := range readDashboard(t).Panels {
		for _, q := range p.Targets {
			expr := strings.NewReplacer("$__rate_interval", "5m", "$instance", ".*").Replace(q.Expr)
			fmt.Fprintf(&b, "      - record: q%d\n        expr: %q\n", n, expr)
			n++
		}
	}
	if err := os.WriteFile(file, []byte(b.String()), 0o600); err != nil {
		t.Fatal(err)
	}
	promtool(t, "check", "rules", file)
}

// TestEveryAlertIsTried: the tests of the rules make each alert fire.
func TestEveryAlertIsTried(t *testing.T) {
	t.Parallel()
	tests, err := os.ReadFile("prometheus/stellar.rules_test.yaml")
	if err != nil {
		t.Fatal(err)
	}
	for _, g := range rules(t).Groups {
		for _, r := range g.Rules {
			if !regexp.MustCompile(`alertname: ` + r.Alert + `\n +exp_alerts:\n +- `).Match(tests) {
				t.Errorf("no test makes %s fire", r.Alert)
			}
		}
	}
}
