package integration

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"

	"stellar.io/stellar/internal/testx"
)

const (
	benchRunCount = 200 // ctr run, one after the other
	benchWarm     = 10  // before anything is measured or counted
	// watchSlack is how far the agent's figure may be from a watcher's: each is told of the
	// last thing, and has to get a processor first.
	watchSlack = 0.5 // ms, at the median
)

// startBenchNode starts a node whose addresses cool for two seconds only, with or without
// the hold.
func startBenchNode(b *testing.B, hold bool) *node {
	b.Helper()
	file := writeConfig(b, fmt.Sprintf("cool-down = \"2s\"\n[hold]\nenabled = %t", hold))
	return startNode(b, nodeOptions{flags: []string{"--config", file}})
}

// runs are attaches as the agent tells them, phase by phase.
type runs struct {
	total, rest samples
	phases      map[string]*samples
	order       []string // of the phases
	ready       int      // before the program's first instruction
}

func (r *runs) add(told attachLine) {
	r.total.add(told.duration("total"))
	if g := told.attrs["grade"]; g == "early" || g == "held" {
		r.ready++
	}
	left := told.duration("total")
	for _, name := range told.phases {
		left -= told.duration(name)
		if r.phases[name] == nil {
			r.phases[name], r.order = &samples{}, append(r.order, name)
		}
		r.phases[name].add(told.duration(name))
	}
	r.rest.add(left)
}

// rows adds what the agent tells to the table.
func (r *runs) rows(t *table, what string) {
	t.spread(what, "ms", r.total, bar{p50: 4, p99: 20})
	for _, name := range r.order {
		t.spread("  phase "+name, "ms", *r.phases[name], bar{})
	}
	t.spread("  in no phase", "ms", r.rest, bar{})
	t.value("  ready before the program's first instruction", "%", len(r.total), 100*float64(r.ready)/float64(max(len(r.total), 1)), bar{})
}

// benchRuns runs containers, one after the other, and calls each, which may be nil, for
// those that count, while they run.
func benchRuns(b *testing.B, n *node, what string, each func(id string, told attachLine)) *runs {
	b.Helper()
	log := &logTail{path: n.log}
	r := &runs{phases: map[string]*samples{}}
	count := scaled(benchRunCount)
	p := newProgress("ctr run, "+what, benchWarm+count)
	for i := range benchWarm + count {
		id := fmt.Sprintf("run%d", i)
		n.runContainer(testx.Run{ID: id, Labels: networked()})
		told := log.attached(b, n, "default/"+id)
		n.mustBeLeased(id)
		if i >= benchWarm {
			r.add(told)
			if each != nil {
				each(id, told)
			}
		}
		if err := n.remove(id); err != nil {
			b.Fatal(err)
		}
		p.done(i)
	}
	return r
}

// benchByEvents measures from containerd's event to an endpoint that is up, as the agent
// tells it and as a watcher of the kernel sees it. The hold is off: with it an endpoint is
// up before the event, which then says nothing about the agent's figure.
func benchByEvents(b *testing.B, t *table) {
	n := startBenchNode(b, false)
	timeline, kernel := watchEvents(b, n.containerd), watchKernel(b, n.host)
	var seen, apart samples
	r := benchRuns(b, n, "by events alone", func(id string, told attachLine) {
		took := kernel.ready(b, told.attrs["ip"]).Sub(timeline.taskCreate(b, n, id))
		seen.add(took)
		apart.add((took - told.duration("total")).Abs())
	})
	_ = n.stopAgent(syscall.SIGTERM)
	r.rows(t, "/tasks/create → endpoint up, without the hold, by the agent")
	t.spread("/tasks/create → endpoint up, without the hold, by a watcher of the kernel", "ms", seen, bar{p50: 4, p99: 20})
	t.spread("  apart from the agent's figure, either way", "ms", apart, bar{p50: watchSlack})
}

// benchHeld measures from the moment in which the hold sees a container start.
func benchHeld(b *testing.B, t *table, n *node) {
	benchRuns(b, n, "with the hold", nil).rows(t, "start seen by the hold → endpoint up, by the agent")
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
