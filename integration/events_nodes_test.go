package integration

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"

	"stellar.io/stellar/api"
)

// follower is a command that goes on, and what it has printed.
type follower struct {
	cmd *exec.Cmd
	mu  sync.Mutex // guards out
	out bytes.Buffer
}

func (f *follower) Write(p []byte) (int, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.out.Write(p)
}

func (f *follower) String() string {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.out.String()
}

// follow starts a command of the CLI that does not end by itself.
func (n *node) follow(args ...string) *follower {
	n.t.Helper()
	f := &follower{cmd: exec.Command(binary, append([]string{"-a", "unix://" + filepath.Join(n.dir, "run", "stellar.sock")}, args...)...)}
	f.cmd.Env = append(os.Environ(), raceOptions)
	f.cmd.Stdout, f.cmd.Stderr = f, f
	if err := f.cmd.Start(); err != nil {
		n.t.Fatal(err)
	}
	n.t.Cleanup(func() { _ = f.cmd.Process.Kill() })
	return f
}

// interrupt is ctrl-C; the command must take it for its regular end.
func (f *follower) interrupt(t *testing.T) {
	t.Helper()
	if err := f.cmd.Process.Signal(syscall.SIGINT); err != nil {
		t.Error(err)
	}
	if err := f.cmd.Wait(); err != nil {
		t.Errorf("interrupted: %v\n%s", err, f)
	}
}

// TestWatching (real containerd): events of all nodes in the order of time, followed
// over the loss of a node; the state of a node as it changes.
func TestWatching(t *testing.T) {
	nodes := startCluster(t, 2)
	a, b := nodes[0], nodes[1]
	a.start("first")
	b.start("second")
	a.start("third")
	if out := a.cli("events", "--all-nodes", "--type", "attached", "-o", "name"); out != "default/first\ndefault/second\ndefault/third\n" {
		t.Errorf("of all nodes:\n%s", out)
	}
	if out := a.cli("events", "--node", "b", "--subject", "sec*", "--type", "attached", "--no-headers"); strings.Count(out, "\n") != 1 || !strings.Contains(out, " b ") {
		t.Errorf("of b:\n%s", out)
	}
	if out := b.cli("events", "--all-nodes", "--type", "attached", "--tail", "1", "-o", "name"); out != "default/third\n" {
		t.Errorf("the newest:\n%s", out)
	}

	all := a.follow("events", "-f", "--all-nodes", "--type", "attached", "--tail", "0", "-o", "json")
	watch := b.follow("status", "--watch")
	b.eventually(quiet, "the watch has begun", func() error { return has(watch.String(), "containerd", "OK") })
	b.start("fourth")
	a.eventually(quiet, "b's event is followed", func() error { return has(all.String(), `"node":"b"`, `"subject":"default/fourth"`) })
	_ = b.stopAgent(syscall.SIGKILL)
	a.eventually(quiet, "b is told to be away", func() error { return has(all.String(), `"type":"unreachable"`, `"subject":"b"`) })
	b.eventually(quiet, "the watch tells that the agent is away", func() error { return has(watch.String(), "agent ", "ERR") })
	if _, err := a.run("events", "--node", "b"); exitCode(err) != 3 {
		t.Errorf("events of a node that is away: %v", err)
	}
	b.startAgent()
	b.cli("status", "--wait", "--timeout", "30s")
	b.start("fifth")
	a.eventually(quiet, "b is followed again", func() error { return has(all.String(), `"subject":"default/fifth"`) })
	b.eventually(quiet, "the watch tells that it answers", func() error { return has(watch.String(), "answers again") })
	all.interrupt(t)
	watch.interrupt(t)
	for line := range strings.Lines(all.String()) {
		var e struct {
			Kind string
			api.Event
		}
		if err := json.Unmarshal([]byte(line), &e); err != nil || e.Kind != "Event" || e.Type != "attached" && e.Type != api.EventUnreachable {
			t.Errorf("%v: %s", err, line)
		}
	}
}

func has(text string, want ...string) error {
	for _, w := range want {
		if !strings.Contains(text, w) {
			return fmt.Errorf("no %q in\n%s", w, text)
		}
	}
	return nil
}
