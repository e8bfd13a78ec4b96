// Package logs is what can be asked of the agent's log while it runs: its level,
// which can be changed, its last lines, and how many there were of each level.
package logs

import (
	"bytes"
	"context"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
)

const (
	// keptLines is how many lines are kept.
	keptLines = 2000
	// keptLine is how many bytes of one line are kept; with keptLines it bounds what
	// the lines take to 4 MB.
	keptLine = 2048
)

// names are the levels, from the least to the most important.
var names = []string{"debug", "info", "warn", "error"}

// Names returns the names of the levels, from the least to the most important.
func Names() []string { return slices.Clone(names) }

// Log is a log with a level. Make it with New. It is safe for concurrent use.
type Log struct {
	level slog.LevelVar
	count [4]atomic.Uint64 // as names

	mu   sync.Mutex // guards what follows
	ring [][]byte
	next int // the oldest line of a full ring
}

// New returns a log of that level without lines.
func New(level slog.Level) *Log {
	l := &Log{}
	l.level.Set(level)
	return l
}

// Leveler is what decides which lines there are, now and later.
func (l *Log) Leveler() slog.Leveler { return &l.level }

// Level returns the name of the present level.
func (l *Log) Level() string { return names[rank(l.level.Level())] }

// SetLevel changes the level, from the next line on. It refuses a word that is none
// of Names.
func (l *Log) SetLevel(name string) error {
	var level slog.Level
	if !slices.Contains(names, name) || level.UnmarshalText([]byte(name)) != nil {
		return fmt.Errorf("log level %q is not %s or %s", name, strings.Join(names[:3], ", "), names[3])
	}
	l.level.Set(level)
	return nil
}

// rank is the place in names of the greatest level that is not above lv.
func rank(lv slog.Level) int {
	switch {
	case lv >= slog.LevelError:
		return 3
	case lv >= slog.LevelWarn:
		return 2
	case lv >= slog.LevelInfo:
		return 1
	}
	return 0
}

// Counts returns how many lines there were, by the name of their level.
func (l *Log) Counts() map[string]uint64 {
	out := make(map[string]uint64, len(names))
	for i, name := range names {
		out[name] = l.count[i].Load()
	}
	return out
}

// Lines returns the last lines, oldest first, as slog's text.
func (l *Log) Lines() []byte {
	l.mu.Lock()
	defer l.mu.Unlock()
	return bytes.Join(append(slices.Clone(l.ring[l.next:]), l.ring[:l.next]...), nil)
}

// Write keeps one line. slog's text handler calls it once for each.
func (l *Log) Write(line []byte) (int, error) {
	kept := bytes.Clone(line[:min(len(line), keptLine)])
	if len(kept) < len(line) {
		kept = append(kept, "…\n"...)
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.ring) < keptLines {
		l.ring = append(l.ring, kept)
	} else {
		l.ring[l.next] = kept
		l.next = (l.next + 1) % keptLines
	}
	return len(line), nil
}

// Handler returns a handler that keeps and counts what goes on to next. What next is
// not enabled for is neither kept nor counted.
func (l *Log) Handler(next slog.Handler) slog.Handler {
	text := slog.NewTextHandler(l, &slog.HandlerOptions{Level: slog.LevelDebug - 100})
	return handler{l, next, text}
}

type handler struct {
	log        *Log
	next, kept slog.Handler
}

func (h handler) Enabled(ctx context.Context, lv slog.Level) bool { return h.next.Enabled(ctx, lv) }

func (h handler) Handle(ctx context.Context, r slog.Record) error {
	h.log.count[rank(r.Level)].Add(1)
	_ = h.kept.Handle(ctx, r.Clone()) // it writes to memory
	return h.next.Handle(ctx, r)
}

func (h handler) WithAttrs(attrs []slog.Attr) slog.Handler {
	return handler{h.log, h.next.WithAttrs(attrs), h.kept.WithAttrs(attrs)}
}

func (h handler) WithGroup(name string) slog.Handler {
	return handler{h.log, h.next.WithGroup(name), h.kept.WithGroup(name)}
}
