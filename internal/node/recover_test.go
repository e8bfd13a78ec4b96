package node

import (
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"stellar.io/stellar/api"
	"stellar.io/stellar/ipam"
	"stellar.io/stellar/raftstore"
)

// TestRecoverRefusesAFollower: with the CA's key or without it, and changes nothing.
func TestRecoverRefusesAFollower(t *testing.T) {
	t.Parallel()
	n := lone(t)
	if err := os.RemoveAll(n.raftDir()); err != nil {
		t.Fatal(err)
	}
	server := map[ipam.NodeID]string{"00000000000000000000000000000009": "192.0.2.9:9640"}
	if err := raftstore.InitFollow(t.Context(), n.storeConfig(), server); err != nil {
		t.Fatal(err)
	}
	before := filesIn(t, n.opts.Config.DataDir)
	refused := func(what string) {
		t.Helper()
		for _, dryRun := range []bool{true, false} {
			if r, err := Recover(t.Context(), n.opts, dryRun); api.CodeOf(err) != api.CodeConflict || !strings.Contains(err.Error(), "follows a server") {
				t.Errorf("%s: %+v, %v", what, r, err)
			}
		}
	}
	refused("without the CA's key")
	if diff := cmp.Diff(before, filesIn(t, n.opts.Config.DataDir)); diff != "" {
		t.Errorf("files changed:\n%s", diff)
	}
	if err := n.makeCA("0123456789abcdef0123456789abcdef"); err != nil {
		t.Fatal(err)
	}
	refused("with the CA's key")
}

// filesIn lists a directory and all below it.
func filesIn(t *testing.T, dir string) (names []string) {
	t.Helper()
	err := filepath.WalkDir(dir, func(path string, _ fs.DirEntry, err error) error {
		names = append(names, path)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return names
}
