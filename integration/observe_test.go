package integration

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"net"
	"net/http"
	"os"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"stellar.io/stellar/internal/testx"
)

// get asks the agent's port for metrics and health, from inside its host.
func (n *node) get(path string) (code int, body string) {
	n.t.Helper()
	dial := func(ctx context.Context, network, address string) (conn net.Conn, err error) {
		err = n.host.Do(func() error {
			conn, err = (&net.Dialer{}).DialContext(ctx, network, address)
			return err
		})
		return conn, err
	}
	client := http.Client{Transport: &http.Transport{DialContext: dial, DisableKeepAlives: true}, Timeout: 20 * time.Second}
	resp, err := client.Get("http://127.0.0.1:9642" + path)
	if err != nil {
		n.t.Fatal(err)
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		n.t.Fatal(err)
	}
	return resp.StatusCode, string(text)
}

// family is one metric as a scrape or the documentation has it.
type family struct {
	kind   string
	labels []string // sorted
}

var (
	typeLine   = regexp.MustCompile(`^# TYPE (\S+) (\S+)$`)
	sampleLine = regexp.MustCompile(`^([a-zA-Z_][a-zA-Z0-9_]*)(?:\{(.*)\})? \S+$`)
	labelPair  = regexp.MustCompile(`([a-zA-Z_]+)="((?:[^"\\]|\\.)*)"`)
	docLine    = regexp.MustCompile("^\\| `([a-z][A-Za-z0-9_]*)` \\| (\\w+) \\| (.*?) \\|")
)

// scrape adds what a node exports to all, without Go's and the process's.
func (n *node) scrape(all map[string]family) {
	n.t.Helper()
	code, text := n.get("/metrics")
	if code != http.StatusOK {
		n.t.Fatalf("/metrics: %d %s", code, text)
	}
	name, kind := "", ""
	for line := range strings.Lines(text) {
		line = strings.TrimSpace(line)
		if m := typeLine.FindStringSubmatch(line); m != nil {
			name, kind = m[1], m[2]
			continue
		}
		m := sampleLine.FindStringSubmatch(line)
		if m == nil || strings.HasPrefix(name, "go_") || strings.HasPrefix(name, "process_") {
			continue
		}
		if !strings.HasPrefix(m[1], name) {
			n.t.Fatalf("%s after # TYPE %s", m[1], name)
		}
		f := family{kind: kind, labels: all[name].labels}
		for _, l := range labelPair.FindAllStringSubmatch(m[2], -1) {
			if l[1] != "le" && l[1] != "quantile" && !slices.Contains(f.labels, l[1]) {
				f.labels = append(f.labels, l[1])
			}
			if strings.Contains(l[2], "unmistakable") || strings.Contains(l[2], "172.16.") {
				n.t.Errorf("a label tells of a container: %s", line)
			}
		}
		slices.Sort(f.labels)
		all[name] = f
	}
}

// documentedMetrics are the tables of docs/metrics.md.
func documentedMetrics(t *testing.T) map[string]family {
	t.Helper()
	page, err := os.ReadFile("../docs/metrics.md")
	if err != nil {
		t.Fatal(err)
	}
	out := map[string]family{}
	for line := range strings.Lines(string(page)) {
		if m := docLine.FindStringSubmatch(line); m != nil {
			f := family{kind: m[2]}
			for l := range strings.SplitSeq(m[3], ",") {
				if l = strings.Trim(l, "` "); l != "" {
					f.labels = append(f.labels, l)
				}
			}
			slices.Sort(f.labels)
			out[m[1]] = f
		}
	}
	return out
}

// TestMetricsAreDocumented: what the agents of a cluster export, type and labels, is
// what docs/metrics.md says, in both directions; and health says what it promises.
func TestMetricsAreDocumented(t *testing.T) {
	lan := testx.NewLAN(t, 3)
	var nodes []*node
	for i := range 3 {
		nodes = append(nodes, newNode(t, lan, i, nodeOptions{}))
		nodes[i].startAgent([][]string{{"--init"}, {}, {}}[i]...)
	}
	a := nodes[0]
	a.cli("status", "--wait", "--timeout", "30s")
	nodes[1].join(a, a.token())
	nodes[2].joinToFollow(a)
	a.start("unmistakable")
	a.runContainer(testx.Run{ID: "unmistakable-rejected", Labels: networked("mtu", "x")})
	a.await("unmistakable-rejected", "rejected")
	// The parts of Raft that only come with a snapshot from the leader, or every ten seconds.
	sometimes := []string{"raft_replication_installSnapshot", "raft_leader_oldestLogAge"}
	want := documentedMetrics(t)
	a.eventually(30*time.Second, "all metrics are there", func() error {
		got := map[string]family{}
		for _, n := range nodes {
			n.scrape(got)
		}
		var problems []error
		for _, name := range slices.Sorted(maps.Keys(want)) {
			g, ok := got[name]
			switch {
			case !ok && !slices.Contains(sometimes, name):
				problems = append(problems, fmt.Errorf("%s is documented and not exported", name))
			case ok && (g.kind != want[name].kind || !slices.Equal(g.labels, want[name].labels)):
				problems = append(problems, fmt.Errorf("%s is %v, documented as %v", name, g, want[name]))
			}
		}
		for name := range got {
			if _, ok := want[name]; !ok {
				problems = append(problems, fmt.Errorf("%s is exported and not documented", name))
			}
		}
		return errors.Join(problems...)
	})
	for path, part := range map[string]string{
		"/livez": "ok\n", "/healthz": "ok\n", "/readyz": "ready\n", "/readyz?noleader": "ready\n", "/readyz?verbose": "OK   containerd: connected for ",
	} {
		if code, body := a.get(path); code != http.StatusOK || !strings.Contains(body, part) {
			t.Errorf("%s: %d\n%s", path, code, body)
		}
	}
	if err := nodes[1].stopAgent(syscall.SIGTERM); err != nil { // with it goes the quorum, if it votes by now
		t.Error(err)
	}
	if err := a.containerd.Stop(); err != nil {
		t.Fatal(err)
	}
	a.eventually(30*time.Second, "containerd's absence is seen", func() error {
		if _, body := a.get("/readyz?verbose"); !strings.Contains(body, "WARN containerd: away for ") {
			return errors.New(body)
		}
		return nil
	})
}

// TestLogLevelAtRunTime: by the command, and by SIGHUP from the configuration.
func TestLogLevelAtRunTime(t *testing.T) {
	config := writeConfig(t, "[log]\nlevel = \"warn\"")
	n := startNode(t, nodeOptions{flags: []string{"--config", config}})
	level := func(want string) error {
		if got := strings.TrimSpace(n.cli("agent", "log-level")); got != want {
			return fmt.Errorf("log level is %s, not %s", got, want)
		}
		return nil
	}
	count := func(text string) int {
		log, err := os.ReadFile(n.log)
		if err != nil {
			t.Fatal(err)
		}
		return strings.Count(string(log), text)
	}
	write := func(text string) {
		t.Helper()
		if err := os.WriteFile(config, []byte(text+"\n"), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := n.agent.Process.Signal(syscall.SIGHUP); err != nil {
			t.Fatal(err)
		}
	}
	if err := level("warn"); err != nil {
		t.Error(err)
	}
	n.start("quiet")
	if c := count("level=INFO") + count("level=DEBUG"); c != 0 {
		t.Errorf("%d lines below warn:\n%s", c, n.tail())
	}
	if out := n.cli("agent", "log-level", "debug"); out != "debug (was warn)\n" {
		t.Errorf("log-level says %q", out)
	}
	n.start("loud")
	if count("level=DEBUG") == 0 || count(`msg="endpoint attached"`) != 1 || count(`msg="log level changed on request" level=debug before=warn`) != 1 {
		t.Errorf("the log:\n%s", n.tail())
	}
	write("[log]\nlevel = \"info\"")
	n.eventually(10*time.Second, "SIGHUP takes the level from the file", func() error { return level("info") })
	write("[log]\nlevel = \"loud\"")
	n.eventually(10*time.Second, "a bad file is told", func() error {
		if count(`msg="the configuration was not read anew"`) != 1 {
			return errors.New(n.tail())
		}
		return level("info")
	})
}
