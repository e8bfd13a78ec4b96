package logs

import (
	"bytes"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// logger returns a logger that keeps its lines in l and writes them to buf.
func logger(l *Log, buf *bytes.Buffer) *slog.Logger {
	return slog.New(l.Handler(slog.NewTextHandler(buf, &slog.HandlerOptions{Level: l.Leveler()})))
}

func TestLevelChangesFromTheNextLineOn(t *testing.T) {
	t.Parallel()
	var buf bytes.Buffer
	l := New(slog.LevelInfo)
	log := logger(l, &buf).With("component", "x").WithGroup("g") // made before the change
	log.Debug("one")
	if err := l.SetLevel("debug"); err != nil || l.Level() != "debug" {
		t.Fatalf("level %q (%v)", l.Level(), err)
	}
	log.Debug("two", "a", 1)
	for _, name := range []string{"", "loud", "INFO", "warn+1"} {
		if l.SetLevel(name) == nil {
			t.Errorf("level %q is taken", name)
		}
	}
	if err := l.SetLevel("error"); err != nil {
		t.Fatal(err)
	}
	log.Warn("three")
	log.Error("four")
	for _, got := range []string{buf.String(), string(l.Lines())} {
		if strings.Contains(got, "msg=one") || strings.Contains(got, "three") || !strings.Contains(got, "msg=two component=x g.a=1\n") || !strings.Contains(got, "level=ERROR msg=four") {
			t.Errorf("lines:\n%s", got)
		}
	}
	if diff := cmp.Diff(map[string]uint64{"debug": 1, "info": 0, "warn": 0, "error": 1}, l.Counts()); diff != "" {
		t.Error(diff)
	}
}

func TestLinesAreBounded(t *testing.T) {
	t.Parallel()
	l := New(slog.LevelInfo)
	log := slog.New(l.Handler(slog.DiscardHandler))
	log.Info("not enabled")
	if len(l.Lines()) > 0 {
		t.Error("a line that nobody was enabled for is kept")
	}
	log = logger(l, &bytes.Buffer{})
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			for range keptLines {
				log.Info(strings.Repeat("x", 2*keptLine))
			}
		})
	}
	wg.Wait()
	if n := len(l.Lines()); n > keptLines*(keptLine+8) {
		t.Errorf("%d bytes are kept", n)
	}
	for i := range 10 {
		log.Info(fmt.Sprint("last ", i))
	}
	lines := strings.Split(strings.TrimSpace(string(l.Lines())), "\n")
	if len(lines) != keptLines {
		t.Errorf("%d lines are kept, not %d", len(lines), keptLines)
	}
	for i := range 10 {
		if got, want := lines[len(lines)-10+i], fmt.Sprintf(`msg="last %d"`, i); !strings.HasSuffix(got, want) {
			t.Errorf("line %d of the last is %q", i, got)
		}
	}
}
