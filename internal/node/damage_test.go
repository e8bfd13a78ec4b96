package node

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"stellar.io/stellar/api"
)

// spoil flips a bit of the last entry's data.
func spoil(t *testing.T, dir string) {
	t.Helper()
	path := filepath.Join(dir, "raft", "raft.db")
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	at := strings.LastIndex(string(data), "0123456789abcdef0123456789abcdef")
	if at < 0 {
		t.Fatal("the cluster's id is not in the log")
	}
	for i := range data { // in each page that has it
		if strings.HasPrefix(string(data[i:min(len(data), i+32)]), "0123456789abcdef0123456789abcdef") {
			data[i] ^= 1
		}
	}
	if err := os.WriteFile(path, data, 0o600); err != nil {
		t.Fatal(err)
	}
}

// TestDamagedStoreIsSetAside: nothing is removed, the node is another incarnation that
// knows what it was, and it does not take itself for a new node, whatever it is told.
func TestDamagedStoreIsSetAside(t *testing.T) {
	t.Parallel()
	n := lone(t)
	dir, was := n.opts.Config.DataDir, n.id
	for _, name := range []string{"journal", "tls/ca.key"} {
		path := filepath.Join(dir, name)
		if err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o700), os.WriteFile(path, []byte(name), 0o600)); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.WriteFile(filepath.Join(dir, peersFile), []byte(`["192.0.2.7:9640"]`), 0o600); err != nil {
		t.Fatal(err)
	}
	spoil(t, dir)
	again, err := New(n.opts)
	if err != nil {
		t.Fatal(err)
	}
	for round := range 3 {
		if again.id.ID == was.ID || again.id.Name != was.Name || !again.id.former(was.ID.Short()) || again.id.Damaged == nil {
			t.Fatalf("round %d: identity %+v, was %+v", round, again.id, was)
		}
		suffix := ".damaged-" + again.id.Damaged.Suffix
		for _, name := range []string{"raft" + suffix + "/raft.db", "journal" + suffix, "tls" + suffix + "/ca.key"} {
			if _, err := os.Stat(filepath.Join(dir, name)); err != nil {
				t.Error(err)
			}
		}
		if _, err := os.Stat(filepath.Join(dir, "raft")); err == nil {
			t.Error("the damaged store is still in its place")
		}
		if _, err := again.InitCluster(t.Context(), api.ClusterSpec{}); api.CodeOf(err) != api.CodeConflict || !strings.Contains(hintOf(err), "stellar cluster join 192.0.2.7:9640 --token-file FILE --replace a") {
			t.Errorf("cluster init: %v, %q", err, hintOf(err))
		}
		report, err := again.Status(t.Context())
		if err != nil || !strings.Contains(reasonOf(report, storeCheck), "--replace a") {
			t.Errorf("status %+v, %v", report, err)
		}
		again.opts.Config.Init = true
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		if err := again.awaitCluster(ctx); !errors.Is(err, context.Canceled) {
			t.Errorf("--init: %v", err)
		}
		id := again.id
		if round == 1 { // a crash before the store was moved
			if err := os.Rename(filepath.Join(dir, "raft"+suffix), filepath.Join(dir, "raft")); err != nil {
				t.Fatal(err)
			}
		}
		if again, err = New(n.opts); err != nil {
			t.Fatal(err)
		}
		if again.id.ID != id.ID {
			t.Errorf("round %d: another incarnation again", round)
		}
	}
}

// TestDamagedLoneStoreStays: there is nobody to join, so nothing is moved.
func TestDamagedLoneStoreStays(t *testing.T) {
	t.Parallel()
	n := lone(t)
	dir, was := n.opts.Config.DataDir, n.id.ID
	if err := os.WriteFile(filepath.Join(dir, peersFile), []byte("[]"), 0o600); err != nil {
		t.Fatal(err)
	}
	spoil(t, dir)
	again, err := New(n.opts)
	if err != nil {
		t.Fatal(err)
	}
	if again.id.ID != was {
		t.Error("another incarnation")
	}
	if _, err := os.Stat(filepath.Join(dir, "raft", "raft.db")); err != nil {
		t.Error(err)
	}
	for what, err := range map[string]error{
		"init": func() error { _, err := again.InitCluster(t.Context(), api.ClusterSpec{}); return err }(),
		"list": func() error { _, err := again.Endpoints(t.Context()); return err }(),
	} {
		if api.CodeOf(err) != api.CodeConflict || !strings.Contains(err.Error(), "restore the data directory from a backup") {
			t.Errorf("%s: %v", what, err)
		}
	}
}

func reasonOf(r api.StatusReport, check string) string {
	for _, c := range r.Checks {
		if c.Name == check && c.State == api.Err {
			return c.Reason
		}
	}
	return ""
}
