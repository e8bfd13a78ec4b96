package node

import (
	"context"
	"log/slog"
	"net/netip"
	"strings"
	"testing"

	"stellar.io/stellar/api"
	"stellar.io/stellar/internal/config"
	"stellar.io/stellar/internal/logs"
)

// reported is a report by the names of its files.
func reported(t *testing.T, n *Node) map[string]string {
	t.Helper()
	out := map[string]string{}
	err := n.Bugreport(t.Context(), func(f api.ReportFile) error {
		out[f.Name] = string(f.Data)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// TestBugreportOfAWedgedAgent: a lock that is held for ever does not keep from the
// report what is needed then, where each goroutine is and what was logged.
func TestBugreportOfAWedgedAgent(t *testing.T) {
	t.Parallel()
	kept := logs.New(slog.LevelInfo)
	log := slog.New(kept.Handler(slog.NewTextHandler(t.Output(), nil)))
	cfg := config.DefaultConfig()
	cfg.DataDir, cfg.NodeName, cfg.Listen = t.TempDir(), "a", netip.MustParseAddrPort("192.0.2.1:9640")
	n, err := New(Options{Config: cfg, Logger: log, Logs: kept})
	if err != nil {
		t.Fatal(err)
	}
	log.Info("the last word", "token", "hunter2")
	files := reported(t, n)
	for name, part := range map[string]string{
		"goroutines.txt": "TestBugreportOfAWedgedAgent", "log.txt": `msg="the last word" token=[redacted]`, "config.toml": `node-name = 'a'`,
		"facts.json": `"up": false`, "leases.json": "not to be had: this node belongs to no cluster", "metrics.txt": "stellar_log_messages_total",
	} {
		if !strings.Contains(files[name], part) {
			t.Errorf("%s lacks %q:\n%.1000s", name, part, files[name])
		}
	}
	n.mu.Lock()
	files = reported(t, n)
	n.mu.Unlock()
	for name, part := range map[string]string{
		"goroutines.txt": "TestBugreportOfAWedgedAgent", "log.txt": "the last word", "config.toml": "node-name",
		"facts.json": "no answer within 2s", "leases.json": "no answer within 2s", "metrics.txt": "no answer within 2s",
	} {
		if !strings.Contains(files[name], part) {
			t.Errorf("wedged: %s lacks %q:\n%.1000s", name, part, files[name])
		}
	}
}

func TestLogLevelIsRefusedOrTaken(t *testing.T) {
	t.Parallel()
	n := lone(t)
	for _, tt := range []struct{ set, now, before string }{{"", "info", "info"}, {"debug", "debug", "info"}, {"", "debug", "debug"}} {
		now, before, err := n.LogLevel(context.Background(), tt.set)
		if now != tt.now || before != tt.before || err != nil {
			t.Errorf("set %q: %q, was %q (%v)", tt.set, now, before, err)
		}
	}
	if _, _, err := n.LogLevel(context.Background(), "loud"); api.CodeOf(err) != api.CodeInvalid {
		t.Errorf("a level that is none: %v", err)
	}
}
