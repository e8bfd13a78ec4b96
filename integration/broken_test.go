package integration

import (
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"stellar.io/stellar/api"
	"stellar.io/stellar/internal/testx/broken"
	"stellar.io/stellar/internal/testx/faults"
)

const (
	brokenDir = "../testdata/broken"
	brokenDoc = "../docs/broken-setups.md"
	// updateDocs has TestBroken write brokenDoc.
	updateDocs = "STELLAR_UPDATE_DOCS"
	// notice is how long daemons may take to see what was broken; a silent command is
	// typed again until patience ends.
	notice   = time.Second
	patience = 10 * time.Second
)

// outcome of one set-up.
type outcome struct {
	setup broken.Setup
	by    map[string]string // command: the code it named, "" for none
}

// verdict is right, silent or wrong.
func (o outcome) verdict() string {
	right := false
	for _, code := range o.by {
		switch code {
		case o.setup.Code:
			right = true
		case "":
		default:
			return "wrong"
		}
	}
	if right {
		return "right"
	}
	return "silent"
}

// TestBroken applies every set-up of testdata/broken to real nodes, types the commands
// and compares the cause that they name first with the right one. At least 28 of 30
// must be right, none wrong, and nothing may be found where nothing is wrong.
func TestBroken(t *testing.T) {
	t.Parallel()
	list, err := broken.Load(brokenDir)
	if err != nil {
		t.Fatal(err)
	}
	began := time.Now()
	var outcomes []outcome
	beds := map[string]*brokenBed{} // by mode, as they are needed
	bed := func(s broken.Setup) *brokenBed {
		if beds[s.Mode] == nil {
			b := newBrokenBed(t, s.Mode)
			b.healthy(t)
			b.allNodes(t)
			t.Logf("the bed of mode %q stands after %s", s.Mode, time.Since(began).Round(time.Second))
			beds[s.Mode] = b
		}
		return beds[s.Mode]
	}
	for _, s := range list.Healthy {
		if s.Bed == "single" {
			t.Run("healthy/"+s.Name, func(t *testing.T) { newSingleBed(t, s.Containers).findsNothing(t, s) })
		} else if wanted(t, "healthy/"+s.Name) {
			b := bed(s)
			t.Run("healthy/"+s.Name, func(t *testing.T) { b.findsNothing(t, s) })
		}
	}
	for _, s := range list.Broken {
		if !wanted(t, s.Name) {
			continue
		}
		b := bed(s)
		t.Run(s.Name, func(t *testing.T) {
			o := b.finds(t, s)
			outcomes = append(outcomes, o)
			switch o.verdict() {
			case "wrong":
				faults.Safety(t, "wrong: want %s, have %v", s.Code, o.by)
			case "silent":
				t.Logf("silent: want %s, have %v", s.Code, o.by)
			}
		})
	}
	count := map[string]int{}
	for _, o := range outcomes {
		count[o.verdict()]++
	}
	table := brokenTable(outcomes)
	t.Logf("%d right, %d silent, %d wrong of %d, %d healthy ones, in %s\n%s", count["right"], count["silent"], count["wrong"], len(list.Broken), len(list.Healthy),
		time.Since(began).Round(time.Second), table)
	if len(outcomes) == len(list.Broken) && (count["right"]*30 < 28*len(list.Broken) || count["wrong"] > 0) {
		t.Errorf("%d of %d are right, %d wrong; at least 28 of 30 must be right and none wrong", count["right"], len(list.Broken), count["wrong"])
	}
	if os.Getenv(updateDocs) != "" && len(outcomes) == len(list.Broken) {
		writeBrokenDoc(t, list, outcomes, count)
	}
}

// wanted reports whether -run asks for a subtest, for which a bed would be made.
func wanted(t *testing.T, name string) bool {
	t.Helper()
	_, sub, some := strings.Cut(flag.Lookup("test.run").Value.String(), "/")
	if !some {
		return true
	}
	first, _, _ := strings.Cut(sub, "/")
	whole, _, _ := strings.Cut(name, "/")
	ok, err := regexp.MatchString(first, whole)
	return err != nil || ok
}

// allNodes: one command has every node check itself.
func (b *brokenBed) allNodes(t *testing.T) {
	t.Helper()
	text, err := b.typed(b.nodes["a"], "check", "--all-nodes", "-o", "json")
	var r api.CheckReport
	if err == nil {
		err = json.Unmarshal([]byte(text), &r)
	}
	if err != nil || len(r.Items) > 0 || len(r.Nodes) != 3 || len(r.Notes) > 0 || strings.Contains(text, `"error"`) {
		t.Errorf("check --all-nodes: %v\n%s", err, text)
	}
}

// finds breaks, types and mends.
func (b *brokenBed) finds(t *testing.T, s broken.Setup) outcome {
	t.Helper()
	o := outcome{s, map[string]string{}}
	if len(s.Find) == 0 {
		return o
	}
	defer b.mend(t, s) // also of what was broken by half: the set-ups after this one need the bed
	b.wreck(t, s)
	time.Sleep(notice)
	for deadline := time.Now().Add(patience); ; time.Sleep(200 * time.Millisecond) {
		said := b.ask(t, &o)
		if o.verdict() != "silent" || time.Now().After(deadline) {
			if o.verdict() != "right" {
				t.Log(said)
			}
			return o
		}
	}
}

// ask types the commands of a set-up.
func (b *brokenBed) ask(t *testing.T, o *outcome) (said string) {
	t.Helper()
	s := o.setup
	if slices.Contains(s.Find, "check") {
		found, err := b.check(b.nodes[s.At])
		if err != nil {
			t.Errorf("check: %v", err)
		}
		o.by["check"] = ""
		if len(found) > 0 {
			o.by["check"] = found[0].Code
			if s.Subject != "" && found[0].Subject != s.Subject && found[0].Code == s.Code {
				o.by["check"] = found[0].Code + " of " + found[0].Subject
			}
			if found[0].Message == "" || found[0].Mend == "" || found[0].Node == "" {
				t.Errorf("a finding without a message or a mend: %+v", found[0])
			}
		}
		said += "check finds:" + findingsText(found) + "\n"
	}
	if slices.Contains(s.Find, "trace") {
		code, text, err := b.traced(s)
		if err != nil {
			text = err.Error()
		}
		o.by["trace"] = code
		said += "trace says: " + text
	}
	return said
}

// findsNothing types both commands in a healthy set-up.
func (b *brokenBed) findsNothing(t *testing.T, s broken.Setup) {
	if s.Bed != "" {
		b.healthy(t)
	}
	if err := b.sh(s.On, s.Setup); err != nil {
		t.Fatal(err)
	}
	defer b.mend(t, s)
	time.Sleep(2 * notice) // the agent may have something to do about it
	for _, n := range b.nodes {
		if found, err := b.check(n); err != nil {
			t.Errorf("check on %s: %v", n.name, err)
		} else if len(found) > 0 {
			faults.Safety(t, "check on %s:%s", n.name, findingsText(found))
		}
	}
	code, text, err := b.traced(s)
	if err != nil {
		t.Errorf("trace: %v\n%s", err, text)
	} else if code != "" {
		faults.Safety(t, "trace names %s:\n%s", code, text)
	}
	from := b.nodes[s.Trace[0][:1]]
	if out, err := from.exec(s.Trace[0], "ping", "-c", "2", "-i", "0.1", "-w", "3", b.eps[s.Trace[1]].Address); err != nil {
		t.Errorf("it is not healthy: %v\n%s", err, out)
	}
}

// brokenTable is the outcome as people read it.
func brokenTable(outcomes []outcome) string {
	var out strings.Builder
	out.WriteString("| set-up | what is broken | right cause | check | trace | |\n|---|---|---|---|---|---|\n")
	cell := func(o outcome, command string) string {
		code, typed := o.by[command]
		switch {
		case !typed:
			return ""
		case code == "":
			return "–"
		}
		return "`" + code + "`"
	}
	for _, o := range outcomes {
		fmt.Fprintf(&out, "| `%s` | %s | `%s` | %s | %s | %s |\n", o.setup.Name, o.setup.About, o.setup.Code, cell(o, "check"), cell(o, "trace"), o.verdict())
	}
	return out.String()
}

func writeBrokenDoc(t *testing.T, list broken.List, outcomes []outcome, count map[string]int) {
	t.Helper()
	var out strings.Builder
	fmt.Fprintf(&out, `<!-- Made by TestBroken of integration. -->
# Broken set-ups

What `+"`stellar check` and `stellar trace`"+` say when something is wrong: %d set-ups that are
broken on purpose, on three real nodes with containers, and what each command names as the
first cause. The list, testdata/broken/setups.toml, was written before the code that finds
the causes; `+"`STELLAR_UPDATE_DOCS=1 go test -tags hashicorpmetrics -run '^TestBroken$' ./integration`"+`
makes this page.

**%d of %d right, %d silent, %d wrong. %d healthy set-ups: nothing is found in any.**

An empty cell: the command is not typed for this set-up. A dash: it names no cause.

%s
## Healthy set-ups

| set-up | what is there |
|---|---|
`, len(list.Broken), count["right"], len(list.Broken), count["silent"], count["wrong"], len(list.Healthy), brokenTable(outcomes))
	for _, s := range list.Healthy {
		fmt.Fprintf(&out, "| `%s` | %s |\n", s.Name, s.About)
	}
	if err := os.WriteFile(brokenDoc, []byte(out.String()), 0o644); err != nil {
		t.Fatal(err)
	}
}
