package raftstore

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log"
	"log/slog"
	"slices"
	"strings"

	"github.com/hashicorp/go-hclog"
	"github.com/hashicorp/raft"
)

// hcLogger lets hashicorp/raft log through slog. What raft calls info is its
// daily business (states entered, snapshots taken) and becomes debug here, so that
// a steady state is silent.
type hcLogger struct {
	log     *slog.Logger
	name    string
	implied []any
}

func newHCLog(l *slog.Logger) hclog.Logger { return &hcLogger{log: l.With("component", "raft")} }

// routine are messages of every healthy start, and those that come again and again
// while a peer is away: what an operator should hear of that, the store says once.
var routine = map[string]bool{
	"heartbeat timeout reached, starting election":                                                                   true,
	"heartbeat timeout reached, not part of a stable configuration or a non-voter, not triggering a leader election": true,
	"no known peers, aborting election":                                                                              true,
	"not part of stable configuration, aborting election":                                                            true,
	"Election timeout reached, restarting election":                                                                  true,
	"failed to heartbeat to":                                                                                         true,
	"failed to appendEntries to":                                                                                     true,
	"failed to pipeline appendEntries":                                                                               true,
	"failed to start pipeline replication to":                                                                        true,
	"failed to contact":                                                                                              true,
	"failed to make requestVote RPC":                                                                                 true,
	"failed to make preVote RPC":                                                                                     true,
	"failed to make requestPreVote RPC":                                                                              true,
	"failed to decode incoming command":                                                                              true,
	"failed to flush response":                                                                                       true,
	"failed to get previous log":                                                                                     true,
	"previous log term mis-match":                                                                                    true,
	"appendEntries rejected, sending older logs":                                                                     true,
	"rejecting vote request since we have a leader":                                                                  true,
	"rejecting pre-vote request since we have a leader":                                                              true,
	"rejecting vote request since our last index is greater":                                                         true,
	"rejecting pre-vote request since our last index is greater":                                                     true,
	"skipping application of old log":                                                                                true,
	"unable to get address for server, using fallback address":                                                       true,
	"failed to accept connection":                                                                                    true,
	"peer has newer term, stopping replication":                                                                      true,
	"clearing log suffix":                                                                                            true,
}

// retried are what autopilot calls errors and tries again a moment later: the
// leadership is being handed over, or a candidate has just gone.
var retried = map[string]bool{
	"Failed to reconcile current state with the desired state": true,
	"Error when computing next state":                          true,
	"failed to add raft voting peer":                           true,
	"failed to demote raft peer":                               true,
}

// sendsSnapshot reports whether the library says only that a peer needs entries which
// the log has no more: it then sends the snapshot instead. That is how every peer gets
// a restored state, for a restore leaves a gap in the log on purpose; with any other
// error the same message tells of a log that cannot be read.
func sendsSnapshot(msg string, args []any) bool {
	if msg != "failed to get log" {
		return false
	}
	for _, a := range args {
		if err, ok := a.(error); ok && errors.Is(err, raft.ErrLogNotFound) {
			return true
		}
	}
	return false
}

// canceled reports whether the library tells of what ended with this node's leadership.
func canceled(args []any) bool {
	return slices.ContainsFunc(args, func(a any) bool {
		err, ok := a.(error)
		return ok && errors.Is(err, context.Canceled)
	})
}

func (h *hcLogger) level(level hclog.Level, msg string, args []any) slog.Level {
	if routine[msg] || sendsSnapshot(msg, args) || canceled(args) {
		return slog.LevelDebug
	}
	switch {
	case level == hclog.Warn, retried[msg]:
		return slog.LevelWarn
	case level == hclog.Error:
		return slog.LevelError
	}
	return slog.LevelDebug
}

// Log implements hclog.Logger.
func (h *hcLogger) Log(level hclog.Level, msg string, args ...any) {
	l := h.level(level, msg, args)
	if !h.log.Enabled(context.Background(), l) {
		return
	}
	attrs := make([]any, 0, len(args))
	for i := 0; i+1 < len(args); i += 2 {
		attrs = append(attrs, slog.Any(fmt.Sprint(args[i]), plain(args[i+1])))
	}
	h.log.Log(context.Background(), l, msg, attrs...)
}

// plain turns hclog's formatting types into texts.
func plain(v any) any {
	switch v := v.(type) {
	case hclog.Format:
		if len(v) > 0 {
			if f, ok := v[0].(string); ok {
				return fmt.Sprintf(f, v[1:]...)
			}
		}
		return ""
	case error:
		return v.Error()
	case fmt.Stringer:
		return v.String()
	}
	return v
}

// Trace implements hclog.Logger.
func (h *hcLogger) Trace(msg string, args ...any) { h.Log(hclog.Trace, msg, args...) }

// Debug implements hclog.Logger.
func (h *hcLogger) Debug(msg string, args ...any) { h.Log(hclog.Debug, msg, args...) }

// Info implements hclog.Logger.
func (h *hcLogger) Info(msg string, args ...any) { h.Log(hclog.Info, msg, args...) }

// Warn implements hclog.Logger.
func (h *hcLogger) Warn(msg string, args ...any) { h.Log(hclog.Warn, msg, args...) }

// Error implements hclog.Logger.
func (h *hcLogger) Error(msg string, args ...any) { h.Log(hclog.Error, msg, args...) }

func (h *hcLogger) enabled(l slog.Level) bool { return h.log.Enabled(context.Background(), l) }

// IsTrace implements hclog.Logger.
func (h *hcLogger) IsTrace() bool { return false }

// IsDebug implements hclog.Logger.
func (h *hcLogger) IsDebug() bool { return h.enabled(slog.LevelDebug) }

// IsInfo implements hclog.Logger.
func (h *hcLogger) IsInfo() bool { return h.enabled(slog.LevelDebug) }

// IsWarn implements hclog.Logger.
func (h *hcLogger) IsWarn() bool { return h.enabled(slog.LevelWarn) }

// IsError implements hclog.Logger.
func (h *hcLogger) IsError() bool { return h.enabled(slog.LevelError) }

// ImpliedArgs implements hclog.Logger.
func (h *hcLogger) ImpliedArgs() []any { return h.implied }

// With implements hclog.Logger.
func (h *hcLogger) With(args ...any) hclog.Logger {
	c := *h
	c.log = h.log.With(args...)
	c.implied = append(append([]any(nil), h.implied...), args...)
	return &c
}

// Name implements hclog.Logger.
func (h *hcLogger) Name() string { return h.name }

// Named implements hclog.Logger.
func (h *hcLogger) Named(name string) hclog.Logger {
	return h.ResetNamed(strings.TrimPrefix(h.name+"."+name, "."))
}

// ResetNamed implements hclog.Logger.
func (h *hcLogger) ResetNamed(name string) hclog.Logger {
	c := *h
	c.name = name
	return &c
}

// SetLevel implements hclog.Logger; the level is slog's.
func (h *hcLogger) SetLevel(hclog.Level) {}

// GetLevel implements hclog.Logger.
func (h *hcLogger) GetLevel() hclog.Level {
	switch {
	case h.IsDebug():
		return hclog.Debug
	case h.IsWarn():
		return hclog.Warn
	}
	return hclog.Error
}

// StandardLogger implements hclog.Logger.
func (h *hcLogger) StandardLogger(*hclog.StandardLoggerOptions) *log.Logger {
	return slog.NewLogLogger(h.log.Handler(), slog.LevelDebug)
}

// StandardWriter implements hclog.Logger.
func (h *hcLogger) StandardWriter(o *hclog.StandardLoggerOptions) io.Writer {
	return h.StandardLogger(o).Writer()
}
