package integration

import (
	"os"
	"path/filepath"
	"syscall"
	"testing"

	"stellar.io/stellar/internal/testx"
	"stellar.io/stellar/internal/testx/faults"
)

// TestClusterFromACopy: the disks of all servers are lost, and there is a copy of one
// server's data directory. Put back on its machine and recovered, it is the cluster
// again: what was given there since the copy is held, and its containers lose no packet.
// Another server, whose disk is empty, takes its own place with --replace, when what it
// had attached is cleaned up; its containers are attached anew (docs/operations/recovery.md).
func TestClusterFromACopy(t *testing.T) {
	lan := testx.NewLAN(t, 2)
	a, b := newNode(t, lan, 0, nodeOptions{}), newNode(t, lan, 1, nodeOptions{})
	a.startAgent("--init")
	a.cli("status", "--wait", "--timeout", "30s")
	b.startAgent()
	b.join(a, a.token())
	a.routed(a, b)
	b.routed(a, b)
	before := []endpoint{a.start(unique("before-a")), b.start(unique("before-b"))}
	_ = a.stopAgent(syscall.SIGTERM)
	data, kept := filepath.Join(a.dir, "data"), filepath.Join(a.dir, "copy")
	if err := os.CopyFS(kept, os.DirFS(data)); err != nil {
		t.Fatal(err)
	}
	a.startAgent()
	a.cli("status", "--wait", "--timeout", "30s")
	since := a.start(unique("since-a"))
	a.leased(before[0], since)
	watchKernels(t, a, b)
	lost := a.pinging(before[0].Container, since.Address)

	for _, n := range []*node{a, b} {
		_ = n.stopAgent(syscall.SIGKILL)
		if err := os.RemoveAll(filepath.Join(n.dir, "data")); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.CopyFS(data, os.DirFS(kept)); err != nil {
		t.Fatal(err)
	}
	if out, err := a.offline("raft", "recover", "-y"); err != nil {
		t.Fatalf("recover: %v\n%s", err, out)
	}
	a.startAgent()
	a.cli("status", "--wait", "--timeout", "30s")
	a.cli("cluster", "end-reclaim", "-y") // before it nobody joins
	if out, err := b.host.Output(binary, "agent", "cleanup", "-y", "--data-dir", filepath.Join(b.dir, "data"), "--run-dir", filepath.Join(b.dir, "run")); err != nil {
		t.Fatalf("cleanup: %v\n%s", err, out)
	}
	b.startAgent()
	if out, err := b.tryJoin(a, a.token(), "--replace", b.name); err != nil {
		t.Fatalf("b takes its place: %v\n%s", err, out)
	}
	b.cli("status", "--wait", "--timeout", "30s")
	for _, n := range []*node{a, b} {
		n.routed(a, b)
		n.leased(before[0], since)
	}
	if e := a.await(since.Container, "attached"); e.Address != since.Address {
		faults.Safety(t, "%+v, was %+v", e, since)
	}
	wantNoLoss(t, "a copy is put back", lost)
	a.reaches(since.Container, b.await(before[1].Container, "attached").Address)
	a.reaches(since.Container, b.start(unique("fresh-b")).Address)
}
