package main

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"os"
	"syscall"

	"stellar.io/stellar/internal/config"
	"stellar.io/stellar/internal/logs"
)

// newLogger returns the agent's logger, and what can be asked of it and changed
// while it runs. The journal is told the level of each line by a prefix and adds the
// time itself.
func newLogger(w io.Writer, cfg config.Config, getenv func(string) string) (*slog.Logger, *logs.Log) {
	kept := logs.New(cfg.LogLevel())
	opts := &slog.HandlerOptions{Level: kept.Leveler()}
	var h slog.Handler
	switch {
	case cfg.Log.Format == config.FormatJSON:
		h = slog.NewJSONHandler(w, opts)
	case cfg.Log.Format == config.FormatAuto && isJournal(w, getenv("JOURNAL_STREAM")):
		h = newJournalHandler(w, opts)
	default:
		h = slog.NewTextHandler(w, opts)
	}
	return slog.New(kept.Handler(h)), kept
}

// isJournal reports whether w is the stream that systemd names in
// JOURNAL_STREAM, "device:inode"; a child whose output goes elsewhere inherits
// the variable all the same.
func isJournal(w io.Writer, stream string) bool {
	f, ok := w.(*os.File)
	if !ok || stream == "" {
		return false
	}
	info, err := f.Stat()
	if err != nil {
		return false
	}
	st, ok := info.Sys().(*syscall.Stat_t)
	return ok && stream == fmt.Sprintf("%d:%d", st.Dev, st.Ino)
}

// syslog levels, as sd-daemon(3) prefixes have them.
var journalLevels = []struct {
	from   slog.Level
	prefix string
}{{slog.LevelError, "<3>"}, {slog.LevelWarn, "<4>"}, {slog.LevelInfo, "<6>"}, {slog.LevelDebug - 100, "<7>"}}

// journalHandler has one text handler for each level, which differ in the prefix
// of their lines.
type journalHandler struct{ handlers []slog.Handler }

func newJournalHandler(w io.Writer, opts *slog.HandlerOptions) journalHandler {
	o := *opts
	o.ReplaceAttr = func(groups []string, a slog.Attr) slog.Attr {
		if len(groups) == 0 && (a.Key == slog.TimeKey || a.Key == slog.LevelKey) {
			return slog.Attr{}
		}
		return a
	}
	var h journalHandler
	for _, l := range journalLevels {
		h.handlers = append(h.handlers, slog.NewTextHandler(prefixWriter{w, l.prefix}, &o))
	}
	return h
}

func (h journalHandler) Enabled(ctx context.Context, l slog.Level) bool {
	return h.handlers[0].Enabled(ctx, l)
}

func (h journalHandler) Handle(ctx context.Context, r slog.Record) error {
	for i, l := range journalLevels {
		if r.Level >= l.from {
			return h.handlers[i].Handle(ctx, r)
		}
	}
	return h.handlers[len(h.handlers)-1].Handle(ctx, r)
}

func (h journalHandler) WithAttrs(attrs []slog.Attr) slog.Handler {
	return h.each(func(x slog.Handler) slog.Handler { return x.WithAttrs(attrs) })
}

func (h journalHandler) WithGroup(name string) slog.Handler {
	return h.each(func(x slog.Handler) slog.Handler { return x.WithGroup(name) })
}

func (h journalHandler) each(f func(slog.Handler) slog.Handler) journalHandler {
	var out journalHandler
	for _, x := range h.handlers {
		out.handlers = append(out.handlers, f(x))
	}
	return out
}

// prefixWriter puts a prefix before each line; a slog handler writes a line at a
// time, with one call.
type prefixWriter struct {
	w      io.Writer
	prefix string
}

func (p prefixWriter) Write(line []byte) (int, error) {
	if _, err := p.w.Write(append([]byte(p.prefix), line...)); err != nil {
		return 0, err
	}
	return len(line), nil
}
