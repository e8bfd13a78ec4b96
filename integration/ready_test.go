package integration

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"stellar.io/stellar/api"
	"stellar.io/stellar/internal/testx"
)

// sawNetwork reports whether the probe's report of its first instruction has an
// address on eth0 and one default route.
func sawNetwork(out string) (bool, error) {
	var seen struct {
		Interfaces map[string]struct{ Addrs []string }
		Default    []string
	}
	if err := json.Unmarshal([]byte(out), &seen); err != nil {
		return false, fmt.Errorf("%w: %s", err, out)
	}
	return len(seen.Interfaces["eth0"].Addrs) > 0 && len(seen.Default) == 1, nil
}

// look runs a container whose program looks and exits, and reports whether it saw
// its network.
func (n *node) look(id string, labels map[string]string) bool {
	n.t.Helper()
	// The shim writes to a file: ctr itself can lose the output of a program that
	// ends at once.
	if err := n.containerd.Run(testx.Run{ID: id, Image: testx.ProbeName, Labels: labels, Args: []string{"probe", "now"}}); err != nil {
		n.t.Error(err)
		return false
	}
	var out string
	var saw bool
	for limit := time.Now().Add(quiet); ; time.Sleep(5 * time.Millisecond) {
		var err error
		if out, err = n.containerd.Logs("default", id); err == nil {
			if saw, err = sawNetwork(out); err == nil {
				break
			}
		}
		if time.Now().After(limit) {
			n.t.Errorf("%s has said nothing: %v", id, err)
			return false
		}
	}
	if err := n.containerd.Remove("default", id); err != nil {
		n.t.Error(err)
	}
	if !saw {
		n.t.Logf("%s saw %s\n%s", id, strings.TrimSpace(out), n.said("default/"+id+" "))
	}
	return saw
}

// said are the lines of the agent's log that have the text.
func (n *node) said(text string) string {
	n.t.Helper()
	log, err := os.ReadFile(n.log)
	if err != nil {
		n.t.Fatal(err)
	}
	var out strings.Builder
	for line := range strings.Lines(string(log)) {
		if strings.Contains(line, text) {
			out.WriteString(line)
		}
	}
	return out.String()
}

// firstInstruction returns how many of so many programs saw their network, started
// in bursts. p may be nil.
func (n *node) firstInstruction(p *progress, prefix string, total, burst int, labels map[string]string) int {
	n.t.Helper()
	var ready atomic.Int64
	for first := 0; first < total; first += burst {
		if first%50 == 0 {
			n.awaitFree(max(burst, 50))
		}
		var wg sync.WaitGroup
		for i := first; i < min(first+burst, total); i++ {
			wg.Go(func() {
				if n.look(fmt.Sprintf("%s%d", prefix, i), labels) {
					ready.Add(1)
				}
			})
		}
		wg.Wait()
		p.done(min(first+burst, total))
	}
	return int(ready.Load())
}

// awaitFree waits until as many addresses are free: some thousand programs a minute have
// a /22 cool faster than it frees.
func (n *node) awaitFree(need int) {
	n.t.Helper()
	n.eventually(2*time.Minute, "free addresses", func() error {
		out, err := n.run("ipam", "ls", "-o", "json")
		var list struct{ Items []api.Subnet }
		if err == nil {
			err = json.Unmarshal([]byte(out), &list)
		}
		if err == nil && (len(list.Items) == 0 || list.Items[0].Free < need) {
			err = errorText(out)
		}
		return err
	})
}

// holdConfig is a configuration whose hold knows where the node's containerd is.
func (n *node) holdConfig(enabled bool) string {
	return writeConfig(n.t, fmt.Sprintf("[containerd]\nstate-dir = %q\n[hold]\nenabled = %t", n.containerd.Dir+"/state", enabled))
}

// plainBuild is the agent without the race detector, for what is about time.
var plainBuild = sync.OnceValues(func() (string, error) {
	if !raceEnabled {
		return binary, nil
	}
	path := filepath.Join(filepath.Dir(binary), "stellar-plain")
	return path, buildBinary(path, "-race=false")
})

// TestHeld is the first part of TestHold in brief: ten programs, one after the other.
func TestHeld(t *testing.T) {
	n := startNode(t, nodeOptions{noAgent: true})
	n.startAgent("--init", "--config", n.holdConfig(true))
	n.cli("status", "--wait", "--timeout", "30s")
	if got := n.firstInstruction(nil, "one", 10, 1, networked()); got != 10 {
		t.Errorf("%d of 10 programs saw their network", got)
	}
}

// TestHold: with the hold a program's first instruction has its network, also when
// many start at once; without, the figure is printed beside it.
func TestHold(t *testing.T) {
	for _, version := range testx.Versions() {
		t.Run("containerd"+string(version), func(t *testing.T) {
			program, err := plainBuild()
			if err != nil {
				t.Fatal(err)
			}
			n := startNode(t, nodeOptions{version: version, noAgent: true})
			n.build = program
			n.startAgent("--init", "--config", n.holdConfig(true))
			n.cli("status", "--wait", "--timeout", "30s")
			const alone, burst, bursts = 50, 50, 4
			start := time.Now()
			if got := n.firstInstruction(nil, "one", alone, 1, networked()); got != alone {
				t.Errorf("one by one %d of %d programs saw their network", got, alone)
			}
			t.Logf("one by one: %s each", (time.Since(start) / alone).Round(time.Millisecond))
			got := n.firstInstruction(nil, "many", burst*bursts, burst, networked())
			t.Logf("in bursts of %d: %d of %d", burst, got, burst*bursts)
			if got < burst*bursts-1 {
				t.Errorf("in bursts of %d only %d of %d programs saw their network", burst, got, burst*bursts)
			}
		})
	}
}
