package main

import (
	"bytes"
	"context"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"stellar.io/stellar/api"
	"stellar.io/stellar/internal/config"
)

// recoverApp runs one command line with a recovery that is only told about.
func recoverApp(t *testing.T, err error, args ...string) (code int, stdout, stderr string, calls []recoverOptions) {
	t.Helper()
	var out, errs bytes.Buffer
	in, e := os.Open(os.DevNull)
	if e != nil {
		t.Fatal(e)
	}
	defer in.Close()
	a := &app{stdin: in, stdout: &out, stderr: &errs, getenv: func(string) string { return "" }}
	a.recover = func(_ context.Context, cfg config.Config, o recoverOptions) (api.Recovery, error) {
		calls = append(calls, o)
		r := api.Recovery{Cluster: "c0ffee", Node: cfg.NodeName, Term: 3, Index: 120, Servers: 3, Voters: 3, Generation: 1}
		if !o.DryRun {
			r.Generation, r.Backup, r.Done = 2, "/var/lib/stellar/raft.before-recover", true
		}
		return r, err
	}
	code = a.main(t.Context(), append([]string{"raft", "recover", "--node-name", "alpha"}, args...))
	return code, out.String(), errs.String(), calls
}

func TestRaftRecover(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	code, _, stderr, calls := recoverApp(t, nil, "--data-dir", filepath.Join(dir, "missing"))
	if code != exitNotFound || len(calls) > 0 {
		t.Errorf("no data directory: exit %d, %d calls, %s", code, len(calls), stderr)
	}

	code, stdout, _, calls := recoverApp(t, nil, "--data-dir", dir, "--dry-run", "-o", "json")
	want := `{
  "apiVersion": "stellar/v1",
  "kind": "Recovery",
  "cluster": "c0ffee",
  "node": "alpha",
  "term": 3,
  "index": 120,
  "servers": 3,
  "voters": 3,
  "generation": 1,
  "backup": "",
  "done": false
}
`
	if diff := cmp.Diff(want, stdout); code != exitOK || diff != "" || !cmp.Equal(calls, []recoverOptions{{DryRun: true}}) {
		t.Errorf("dry run: exit %d, calls %v\n%s", code, calls, diff)
	}

	code, _, stderr, calls = recoverApp(t, nil, "--data-dir", dir)
	if code != exitUsage || len(calls) != 1 || !strings.Contains(stderr, "to make node alpha, at term 3 and index 120, the only voter of cluster c0ffee") {
		t.Errorf("unasked: exit %d, %d calls, %s", code, len(calls), stderr)
	}

	code, stdout, _, calls = recoverApp(t, nil, "--data-dir", dir, "--yes")
	if code != exitOK || !cmp.Equal(calls, []recoverOptions{{DryRun: true}, {}}) || !strings.Contains(stdout, "Recovered:   yes") {
		t.Errorf("recovery: exit %d, calls %v\n%s", code, calls, stdout)
	}

	code, _, stderr, calls = recoverApp(t, api.Errorf(api.CodeConflict, "store is corrupt"), "--data-dir", dir, "--yes")
	if code != exitConflict || len(calls) != 1 {
		t.Errorf("a store that cannot be read: exit %d, %d calls, %s", code, len(calls), stderr)
	}
}

// A recovery of a node that runs would be undone by it, or worse.
func TestRaftRecoverNeedsAStoppedAgent(t *testing.T) {
	t.Parallel()
	dir := filepath.Join(t.TempDir(), "data")
	lock, err := openDataDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer func(c io.Closer) { c.Close() }(lock)
	code, _, stderr, calls := recoverApp(t, nil, "--data-dir", dir, "--yes")
	if code != exitConflict || len(calls) > 0 || !strings.Contains(stderr, "is used by the agent with pid") {
		t.Errorf("exit %d, %d calls, %s", code, len(calls), stderr)
	}
}
