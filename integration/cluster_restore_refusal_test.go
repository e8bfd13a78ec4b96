package integration

import (
	"hash/crc32"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"stellar.io/stellar/internal/testx"
)

// TestRestoreRefusals: a snapshot that is not whole, not of this cluster, or of a
// later version is refused on every node, and changes nothing.
func TestRestoreRefusals(t *testing.T) {
	lan := testx.NewLAN(t, 3)
	a, b, x := newNode(t, lan, 0, nodeOptions{}), newNode(t, lan, 1, nodeOptions{}), newNode(t, lan, 2, nodeOptions{})
	for _, n := range []*node{a, x} {
		n.startAgent("--init")
		n.cli("status", "--wait", "--timeout", "30s")
	}
	b.startAgent()
	b.join(a, a.token())
	dir := t.TempDir()
	good, foreign := filepath.Join(dir, "good"), filepath.Join(dir, "foreign")
	a.cli("raft", "snapshot", "save", good)
	x.cli("raft", "snapshot", "save", foreign)
	data, err := os.ReadFile(good)
	if err != nil {
		t.Fatal(err)
	}
	write := func(name string, data []byte) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, data, 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	// A restore would take this away again.
	const later = "later than the snapshots"
	a.cli("ipam", "reserve", "172.30.0.0/22", "--reason", later)
	sameState(t, []*node{a, b})
	damaged := append([]byte(nil), data...)
	damaged[len(damaged)/2] ^= 1
	for _, tt := range []struct{ path, want string }{
		{write("truncated", data[:len(data)-7]), "truncated"},
		{write("empty", nil), "truncated"},
		{write("damaged", damaged), "checksum"},
		{write("text", []byte(strings.Repeat("no snapshot ", 20))), "not a stellar snapshot"},
		{write("newer", newerFormat(data)), "newer"},
		{foreign, "cluster"},
	} {
		for _, n := range []*node{a, b} {
			what := filepath.Base(tt.path) + " on " + n.name
			a.unchanged(what, func() {
				out, err := n.run("raft", "snapshot", "restore", "-y", tt.path)
				if err == nil || !strings.Contains(err.Error(), tt.want) {
					t.Errorf("%s: %v %s; want %q", what, err, out, tt.want)
				}
			})
		}
	}
	if g := a.generation(); g != 1 {
		t.Errorf("generation %d", g)
	}
	for _, n := range []*node{a, b} {
		if out := n.cli("ipam", "show", "--linearizable", "172.30.0.1"); !strings.Contains(out, later) {
			t.Errorf("on %s a refused restore has taken away what came after the snapshot:\n%s", n.name, out)
		}
	}
	sameState(t, []*node{a, b})
}

// newerFormat returns a snapshot file as a later version would write it: the version
// is in bytes 8 to 11 of the header, which ends with its CRC-32C.
func newerFormat(data []byte) []byte {
	const end = 108
	out := slices.Clone(data)
	out[11] = 2
	sum := crc32.Checksum(out[:end], crc32.MakeTable(crc32.Castagnoli))
	copy(out[end:], []byte{byte(sum >> 24), byte(sum >> 16), byte(sum >> 8), byte(sum)})
	return out
}
