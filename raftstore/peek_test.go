package raftstore

import (
	"errors"
	"os"
	"path/filepath"
	"testing"

	"stellar.io/stellar/ipam"
)

// TestPeek: the state is read while a process uses the store, and nothing of the store
// changes.
func TestPeek(t *testing.T) {
	cfg := testConfig(t.TempDir())
	if _, err := Peek(cfg); !errors.Is(err, os.ErrNotExist) && !errors.Is(err, ErrNotFound) {
		t.Errorf("without a store: %v", err)
	}
	mustInit(t, cfg)
	s := mustRun(t, cfg)
	if _, err := s.Propose(t.Context(), ipam.Envelope{Commands: []ipam.Command{ipam.DrainNode{Node: testNode, Drain: true}}}); err != nil {
		t.Fatal(err)
	}
	st, err := Peek(cfg)
	if err != nil {
		t.Fatal(err)
	}
	if n, ok := st.Node(testNode); !ok || !n.Draining {
		t.Errorf("node %+v, %t", n, ok)
	}
	if err := os.Truncate(filepath.Join(cfg.Dir, logFile), 100); err != nil {
		t.Fatal(err)
	}
	if _, err := Peek(cfg); err == nil {
		t.Error("a damaged store was read")
	}
}
