package integration

import (
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"stellar.io/stellar/internal/testx"
)

// TestClusterTokens: tokens that are over are refused, and so is a name that is
// taken; nothing changes by it.
func TestClusterTokens(t *testing.T) {
	lan := testx.NewLAN(t, 3)
	a, b, c := newNode(t, lan, 0, nodeOptions{}), newNode(t, lan, 1, nodeOptions{}), newNode(t, lan, 2, nodeOptions{})
	a.startAgent("--init")
	a.cli("status", "--wait", "--timeout", "30s")
	b.startAgent()
	b.join(a, a.token())
	c.startAgent()
	refused := func(what, token, want string, flags ...string) {
		t.Helper()
		for _, at := range []*node{a, b} {
			if out, err := c.tryJoin(at, token, flags...); err == nil || !strings.Contains(err.Error(), want) {
				t.Errorf("%s, shown to %s: %v %s; want %q", what, at.name, err, out, want)
			}
		}
	}
	expired := a.token("--ttl", "1s")
	used := b.token() // b asks the leader
	before := b.cli("cluster", "token", "ls", "-o", "name")
	revoked := b.token()
	id := ""
	for line := range strings.Lines(b.cli("cluster", "token", "ls", "-o", "name")) {
		if !strings.Contains(before, line) {
			id = strings.TrimSpace(line)
		}
	}
	b.cli("cluster", "token", "revoke", "-y", id)
	refused("a revoked token", revoked, "revoked")
	time.Sleep(1100 * time.Millisecond)
	refused("an expired token", expired, "expired")
	if out := a.cli("node", "ls"); strings.Contains(out, "172.16.8.0") {
		t.Errorf("node ls:\n%s", out)
	}
	c.join(b, used) // a follower passes it on
	c.routed(a, b)
	_ = c.stopAgent(syscall.SIGKILL)
	if err := os.RemoveAll(filepath.Join(c.dir, "data")); err != nil {
		t.Fatal(err)
	}
	c.startAgent()
	refused("a used token", used, "used", "--replace", "c")
	sameState(t, []*node{a, b})
}
