package raftstore

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"testing"

	"github.com/hashicorp/go-hclog"
)

// TestLibraryLogLevels: an error is what a person must act on.
func TestLibraryLogLevels(t *testing.T) {
	t.Parallel()
	h := &hcLogger{}
	for _, tt := range []struct {
		msg  string
		args []any
		want slog.Level
	}{
		{"failed to take snapshot", []any{"error", errors.New("no space left on device")}, slog.LevelError},
		{"failed to make preVote RPC", []any{"error", errors.New("EOF")}, slog.LevelDebug},
		{"Error when computing next state", []any{"error", fmt.Errorf("stats: %w", context.Canceled)}, slog.LevelDebug},
		{"Error when computing next state", []any{"error", errors.New("x")}, slog.LevelWarn},
		{"Failed to reconcile current state with the desired state", []any{"error", ErrNotReady}, slog.LevelWarn},
		{"failed to add raft voting peer", []any{"error", ErrNotReady}, slog.LevelWarn},
	} {
		if got := h.level(hclog.Error, tt.msg, tt.args); got != tt.want {
			t.Errorf("%q %v: %s, want %s", tt.msg, tt.args, got, tt.want)
		}
	}
}
