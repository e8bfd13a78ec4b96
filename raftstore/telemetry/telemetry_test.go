package telemetry

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/hashicorp/go-metrics"
	"github.com/prometheus/client_golang/prometheus"
)

var (
	call = regexp.MustCompile(`metrics\.(IncrCounter|SetGauge|AddSample|MeasureSince)(WithLabels)?\(\[\]string\{("[^}]*)\}`)
	// saturation is given its name elsewhere.
	saturation = regexp.MustCompile(`newSaturationMetric\(\[\]string\{("[^}]*)\}`)
	types      = map[string]Type{"IncrCounter": Counter, "SetGauge": Gauge, "AddSample": Summary, "MeasureSince": Summary}
)

// unused are calls that this project's use of the libraries does not reach.
var unused = map[string]string{
	"raft-boltdb/v2/metrics.go": "BoltStore.RunMetrics is not called",
	"raft/log.go":               "EmitLogStoreMetrics is not called",
}

// TestTableIsTheLibraries: what the sources of the versions in go.mod send is in the
// table, with its type, and nothing else is.
func TestTableIsTheLibraries(t *testing.T) {
	t.Parallel()
	sent := map[string]string{}
	for _, module := range []string{"github.com/hashicorp/raft", "github.com/hashicorp/raft-boltdb/v2"} {
		out, err := exec.Command("go", "list", "-m", "-f", "{{.Dir}}", module).Output()
		if err != nil {
			t.Fatal(err)
		}
		files, err := filepath.Glob(filepath.Join(strings.TrimSpace(string(out)), "*.go"))
		if err != nil || len(files) == 0 {
			t.Fatalf("no sources of %s (%v)", module, err)
		}
		for _, file := range files {
			where := strings.TrimPrefix(module, "github.com/hashicorp/") + "/" + filepath.Base(file)
			if strings.HasSuffix(file, "_test.go") || unused[where] != "" {
				continue
			}
			text, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			for _, m := range call.FindAllStringSubmatch(string(text), -1) {
				if strings.Contains(m[3], "peer") && m[2] == "" && m[3] != `"raft", "peers"` {
					continue // the legacy form, a name for each peer: NoLegacyTelemetry is set
				}
				key := strings.ReplaceAll(strings.ReplaceAll(m[3], `"`, ""), ", ", ".")
				sent[key] = fmt.Sprint(types[m[1]], m[2] != "")
			}
			for _, m := range saturation.FindAllStringSubmatch(string(text), -1) {
				sent[strings.ReplaceAll(strings.ReplaceAll(m[1], `"`, ""), ", ", ".")] = fmt.Sprint(Summary, false)
			}
		}
	}
	if len(sent) < 40 {
		t.Fatalf("only %d metrics found in the sources", len(sent))
	}
	for _, m := range Metrics() {
		if want := fmt.Sprint(m.Type, m.Label != ""); sent[m.Key] != want {
			t.Errorf("%s is %q in the sources, %q in the table", m.Key, sent[m.Key], want)
		}
		delete(sent, m.Key)
	}
	for key, what := range sent {
		t.Errorf("%s (%s) is missing from the table", key, what)
	}
}

func TestCollector(t *testing.T) {
	t.Parallel()
	if Collector() != Collector() {
		t.Error("there are two sinks")
	}
	a, b := prometheus.NewRegistry(), prometheus.NewRegistry()
	a.MustRegister(Collector())
	b.MustRegister(Collector()) // of the node that is made anew in the same process
	metrics.IncrCounter([]string{"raft", "apply"}, 3)
	metrics.AddSampleWithLabels([]string{"raft", "replication", "heartbeat"}, 1.5, []metrics.Label{{Name: "peer_id", Value: "x"}})
	for _, reg := range []*prometheus.Registry{a, b} {
		families, err := reg.Gather()
		if err != nil {
			t.Fatal(err)
		}
		got := map[string]int{}
		for _, f := range families {
			got[f.GetName()] = len(f.GetMetric())
			if f.GetName() == "raft_apply" && f.GetMetric()[0].GetCounter().GetValue() != 3 {
				t.Errorf("raft_apply is %v", f.GetMetric())
			}
		}
		for _, m := range Metrics() {
			if m.Label == "" && got[m.Name()] != 1 {
				t.Errorf("%s has %d series", m.Name(), got[m.Name()])
			}
		}
		if got["raft_replication_heartbeat"] != 1 {
			t.Error("no series of a peer")
		}
	}
}
