package integration

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"stellar.io/stellar/internal/testx"
)

const (
	benchRuns = 200 // ctr run, one after the other
	benchWarm = 10  // before anything is measured or counted
	// watchSlack is how much earlier than a watcher sees it the agent may say that
	// an endpoint is ready: the watcher is told, and has to get a processor first.
	watchSlack = 0.5 // ms, at the median
)

// startBenchNode starts a node whose addresses cool for two seconds only.
func startBenchNode(b *testing.B) *node {
	b.Helper()
	file := filepath.Join(scratch(b), "agent.toml")
	if err := os.WriteFile(file, []byte("cool-down = \"2s\"\n"), 0o600); err != nil {
		b.Fatal(err)
	}
	return startNode(b, nodeOptions{flags: []string{"--config", file}})
}

// benchRun measures from containerd's event to an endpoint that is up, as the
// agent tells it and as a watcher of the kernel sees it.
func benchRun(b *testing.B, t *table, n *node) {
	log := &logTail{path: n.log}
	timeline := watchEvents(b, n.containerd)
	kernel := watchKernel(b, n.host)
	var total, seen, ahead, rest samples
	phases := map[string]*samples{}
	var order []string
	ready := 0
	runs := scaled(benchRuns)
	p := newProgress("ctr run", benchWarm+runs)
	for i := range benchWarm + runs {
		id := fmt.Sprintf("run%d", i)
		n.runContainer(testx.Run{ID: id, Labels: networked()})
		told := log.attached(b, n, "default/"+id)
		n.mustBeLeased(id)
		created := timeline.taskCreate(b, n, id)
		up := kernel.ready(b, told.attrs["ip"])
		if err := n.remove(id); err != nil {
			b.Fatal(err)
		}
		p.done(i)
		if i < benchWarm {
			continue
		}
		total.add(told.duration("total"))
		seen.add(up.Sub(created))
		ahead.add(up.Sub(created) - told.duration("total"))
		if g := told.attrs["grade"]; g == "early" || g == "held" {
			ready++
		}
		left := told.duration("total")
		for _, name := range told.phases {
			left -= told.duration(name)
			if phases[name] == nil {
				phases[name], order = &samples{}, append(order, name)
			}
			phases[name].add(told.duration(name))
		}
		rest.add(left)
	}
	t.spread("/tasks/create → endpoint up, by the agent", "ms", total, bar{p50: 4, p99: 20})
	for _, name := range order {
		t.spread("  phase "+name, "ms", *phases[name], bar{})
	}
	t.spread("  in no phase", "ms", rest, bar{})
	t.spread("/tasks/create → endpoint up, by a watcher of the kernel", "ms", seen, bar{p50: 4, p99: 20})
	t.spread("  watcher − agent: what the agent leaves out", "ms", ahead, bar{p50: watchSlack})
	t.value("  ready before the program's first instruction", "%", len(total), 100*float64(ready)/float64(max(len(total), 1)), bar{})
}

// mustBeLeased fails the benchmark unless the lease is committed: a provisional
// one would be half of what is measured.
func (n *node) mustBeLeased(id string) {
	n.t.Helper()
	var e struct {
		State        string
		Provisional  bool
		DefaultRoute bool
	}
	out := n.cli("endpoint", "inspect", id, "-o", "json")
	if err := json.Unmarshal([]byte(out), &e); err != nil || e.State != "attached" || e.Provisional || !e.DefaultRoute {
		n.t.Fatalf("endpoint %s is not attached by a committed lease with a default route: %v\n%s", id, err, out)
	}
}

// logTail reads what an agent adds to its log.
type logTail struct {
	path   string
	offset int64
	rest   []byte
	told   map[string]attachLine
	bound  map[string]time.Duration // by container, what the lease took; at log level debug only
}

// attachLine is one line "endpoint attached".
type attachLine struct {
	attrs  map[string]string
	phases []string // in their order, without total
}

var attrPattern = regexp.MustCompile(`(\w+)=("(?:[^"\\]|\\.)*"|\S+)`)

// attached waits for the line about a container.
func (l *logTail) attached(b *testing.B, n *node, container string) attachLine {
	b.Helper()
	n.eventually(quiet, container+" is attached", func() error {
		if err := l.read(); err != nil {
			return err
		}
		if _, ok := l.told[container]; !ok {
			return fmt.Errorf("the log has no such line")
		}
		return nil
	})
	return l.told[container]
}

func (l *logTail) read() error {
	f, err := os.Open(l.path)
	if err != nil {
		return err
	}
	defer f.Close()
	var more bytes.Buffer
	if _, err := f.Seek(l.offset, 0); err != nil {
		return err
	}
	read, err := more.ReadFrom(f)
	l.offset += read
	l.rest = append(l.rest, more.Bytes()...)
	for {
		line, rest, whole := bytes.Cut(l.rest, []byte("\n"))
		if !whole {
			return err
		}
		l.rest = rest
		l.line(string(line))
	}
}

func (l *logTail) line(line string) {
	if strings.Contains(line, `msg="address bound"`) {
		a := attachLine{attrs: map[string]string{}}
		for _, m := range attrPattern.FindAllStringSubmatch(line, -1) {
			a.attrs[m[1]] = strings.Trim(m[2], `"`)
		}
		if l.bound == nil {
			l.bound = map[string]time.Duration{}
		}
		l.bound[a.attrs["container"]] = a.duration("took")
	}
	if !strings.Contains(line, `msg="endpoint attached"`) {
		return
	}
	a := attachLine{attrs: map[string]string{}}
	after := false
	for _, m := range attrPattern.FindAllStringSubmatch(line, -1) {
		a.attrs[m[1]] = strings.Trim(m[2], `"`)
		if after {
			a.phases = append(a.phases, m[1])
		}
		after = after || m[1] == "total"
	}
	if l.told == nil {
		l.told = map[string]attachLine{}
	}
	l.told[a.attrs["container"]] = a
}

// duration is an attribute; one that is missing is so long that it misses every bar.
func (a attachLine) duration(name string) time.Duration {
	d, err := time.ParseDuration(a.attrs[name])
	if err != nil {
		return time.Hour
	}
	return d
}
