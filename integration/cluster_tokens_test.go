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
			a.unchanged(what+", shown to "+at.name, func() {
				t.Helper()
				if out, err := c.tryJoin(at, token, flags...); err == nil || !strings.Contains(err.Error(), want) {
					t.Errorf("%s, shown to %s: %v %s; want %q", what, at.name, err, out, want)
				}
			})
		}
	}
	expired := a.token("--ttl", "1s")
	used := b.token() // b asks the leader
	sameState(t, []*node{a, b})
	refused("a revoked token", b.revoked(), "revoked")
	time.Sleep(1100 * time.Millisecond)
	refused("an expired token", expired, "expired")
	c.join(b, used) // a follower passes it on
	c.routed(a, b)
	_ = c.stopAgent(syscall.SIGKILL)
	if err := os.RemoveAll(filepath.Join(c.dir, "data")); err != nil {
		t.Fatal(err)
	}
	c.startAgent()
	a.eventually(quiet, "c is lost", func() error {
		if out := a.cli("node", "ls"); !strings.Contains(out, "lost") {
			return errorText(out)
		}
		return nil
	})
	refused("a used token", used, "used", "--replace", "c")
	sameState(t, []*node{a, b})
}
