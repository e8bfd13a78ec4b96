package integration

import (
	bytes8 "encoding/binary" // binary is the one under test
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"stellar.io/stellar/api"
	"stellar.io/stellar/internal/testx"
	"stellar.io/stellar/internal/testx/faults"
)

// shiftSource is put into package time of the agent under test: the wall clock, and
// nothing else, is off by so many seconds as a file says at any moment. A time
// namespace cannot do that, and a preloaded library does not reach a static program.
const shiftSource = `package time

import (
	"sync/atomic"
	"syscall"
	"unsafe"
)

var shiftedBy *int64

func init() {
	path, _ := syscall.Getenv("STELLAR_TEST_CLOCK")
	fd, err := syscall.Open(path, syscall.O_RDONLY|syscall.O_CLOEXEC, 0)
	if err != nil {
		panic("STELLAR_TEST_CLOCK: " + err.Error())
	}
	page, err := syscall.Mmap(fd, 0, 8, syscall.PROT_READ, syscall.MAP_SHARED)
	if err != nil {
		panic("STELLAR_TEST_CLOCK: " + err.Error())
	}
	shiftedBy = (*int64)(unsafe.Pointer(&page[0]))
}

func shift() int64 {
	if shiftedBy == nil {
		return 0
	}
	return atomic.LoadInt64(shiftedBy)
}
`

// buildShifted builds the agent with a wall clock that the test moves.
func buildShifted(t *testing.T) string {
	t.Helper()
	out, err := exec.Command("go", "env", "GOROOT").Output()
	if err != nil {
		t.Fatal(err)
	}
	src := filepath.Join(strings.TrimSpace(string(out)), "src", "time")
	text, err := os.ReadFile(filepath.Join(src, "time.go"))
	if err != nil {
		t.Fatal(err)
	}
	const read = "func Now() Time {\n\tsec, nsec, mono := runtimeNow()\n"
	if strings.Count(string(text), read) != 1 {
		t.Fatalf("time.Now of %s reads the clock otherwise than expected", src)
	}
	dir := t.TempDir()
	write := func(name, content string) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	overlay, err := json.Marshal(map[string]map[string]string{"Replace": {
		filepath.Join(src, "time.go"):          write("time.go", strings.Replace(string(text), read, read+"\tsec += shift()\n", 1)),
		filepath.Join(src, "shift_stellar.go"): write("shift.go", shiftSource),
	}})
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(dir, "stellar")
	if err := buildBinary(path, "-overlay", write("overlay.json", string(overlay))); err != nil {
		t.Fatal(err)
	}
	return path
}

// clock gives the node's next agent a wall clock that set moves by whole seconds.
func (n *node) clock(bin string) (set func(time.Duration)) {
	n.t.Helper()
	file, script := filepath.Join(n.dir, "clock"), filepath.Join(n.dir, "agent")
	set = func(d time.Duration) {
		n.t.Helper()
		f, err := os.OpenFile(file, os.O_CREATE|os.O_WRONLY, 0o600) // never shortened: it is mapped
		if err != nil {
			n.t.Fatal(err)
		}
		defer f.Close()
		if _, err := f.Write(bytes8.NativeEndian.AppendUint64(nil, uint64(int64(d/time.Second)))); err != nil {
			n.t.Fatal(err)
		}
	}
	set(0)
	if err := os.WriteFile(script, []byte(fmt.Sprintf("#!/bin/sh\nSTELLAR_TEST_CLOCK=%s exec %s \"$@\"\n", file, bin)), 0o700); err != nil {
		n.t.Fatal(err)
	}
	n.build = script
	return set
}

// TestFaultClockJumps: the wall clock of a node, of the leader, of all nodes jumps by
// an hour, forward and back, while the agents run and while they start. Leases and
// cool-downs do not count by it, and certificates allow for it.
func TestFaultClockJumps(t *testing.T) {
	bin := buildShifted(t)
	var set []func(time.Duration)
	b := startFaults(t, 3, faultOptions{before: func(nodes []*node) {
		for _, n := range nodes {
			set = append(set, n.clock(bin))
		}
	}})
	b.load()
	jumps := 0
	for _, by := range []time.Duration{time.Hour, -time.Hour} {
		for _, who := range []string{"a node", "the leader", "all"} {
			leader, others := leaderIn(t, b.nodes, b.nodes[0])
			chosen := map[string][]*node{"a node": others[:1], "the leader": {leader}, "all": b.nodes}[who]
			since := b.hist.now()
			for _, n := range chosen {
				set[n.name[0]-'a'](by)
				jumps++
			}
			time.Sleep(2 * time.Second)
			b.shows(chosen[0], by)
			_ = chosen[0].stopAgent(syscall.SIGKILL) // every connection is made anew
			chosen[0].returns()
			b.settled()
			time.Sleep(2 * time.Second)
			for _, n := range b.nodes {
				if b.hist.acked(n.name, since) == 0 {
					t.Errorf("%s by %s: %s has acknowledged nothing", who, by, n.name)
				}
			}
			for _, n := range chosen {
				set[n.name[0]-'a'](0)
				jumps++
			}
			b.settled()
		}
	}
	faults.Report(t, faults.Both, "wall clock ± 1 h: a node's, the leader's, everyone's", "%d jumps, 6 restarts meanwhile: %s", jumps, b.finish())
}

// shows checks that the agent has the other time, or the test would prove nothing.
func (b *faultBed) shows(n *node, by time.Duration) {
	b.t.Helper()
	n.runContainer(testx.Run{ID: "wrong", Labels: networked("ip", "no address")})
	n.awaitLong("wrong", "rejected")
	var last api.Event
	if err := b.api[n].Events(b.t.Context(), api.EventQuery{}, func(e api.Event) error {
		last = e
		return nil
	}); err != nil {
		b.t.Fatal(err)
	}
	if off := time.Until(last.Time); off < by-time.Minute || off > by+time.Minute {
		b.t.Errorf("the clock of %s is off by %s, want %s", n.name, off, by)
	}
	if err := n.containerd.Remove("default", "wrong"); err != nil {
		b.t.Fatal(err)
	}
	n.awaitLong("wrong", "")
}
