package integration

import (
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"stellar.io/stellar/internal/testx"
)

const (
	idleEndpoints = 200
	idleTime      = 60 * time.Second
	benchAtOnce   = 4 // containers that are made or removed at the same time
	// ticksPerSecond is the unit of /proc/PID/stat: USER_HZ, the same on every
	// architecture that Go knows.
	ticksPerSecond = 100
)

// benchIdle measures an agent that has endpoints and nothing to do.
func benchIdle(b *testing.B, t *table, n *node) {
	count := scaled(idleEndpoints)
	id := func(i int) string { return fmt.Sprintf("idle%d", i) }
	each(b, "start endpoints", count, func(i int) error {
		return n.containerd.Run(testx.Run{ID: id(i), Labels: networked()})
	})
	n.eventually(quiet, "all endpoints are attached", func() error {
		attached := 0
		for _, e := range n.endpoints() {
			if e.State == "attached" {
				attached++
			}
		}
		if attached != count {
			return fmt.Errorf("%d of %d", attached, count)
		}
		return nil
	})
	pid := n.agent.Process.Pid
	rest, before := idleTime/time.Duration(idleEndpoints/count), cpuTime(b, pid)
	took := pause("idle", rest)
	used := cpuTime(b, pid) - before
	t.value(fmt.Sprintf("VmRSS with %d endpoints, after %s idle", count, rest), "MB", count, residentMB(b, pid), bar{p50: 60})
	t.value("  processor time meanwhile, of one core", "%", count, 100*used.Seconds()/took.Seconds(), bar{p50: 1})
	each(b, "remove endpoints", count, func(i int) error { return n.remove(id(i)) })
}

// each calls fn for 0 … n-1, some at once, and fails the benchmark if any fails.
func each(b *testing.B, what string, n int, fn func(i int) error) {
	b.Helper()
	p := newProgress(what, n)
	slots := make(chan struct{}, benchAtOnce)
	var wait sync.WaitGroup
	var mu sync.Mutex // guards errs
	var errs []error
	for i := range n {
		slots <- struct{}{}
		wait.Go(func() {
			defer func() { <-slots }()
			if err := fn(i); err != nil {
				mu.Lock()
				defer mu.Unlock()
				errs = append(errs, err)
			}
		})
		p.done(i)
	}
	wait.Wait()
	if err := errors.Join(errs...); err != nil {
		b.Fatalf("%s: %v", what, err)
	}
}

// remove deletes a container and its task.
func (n *node) remove(id string) error {
	_, err1 := n.containerd.Ctr("-n", "default", "tasks", "rm", "-f", id)
	_, err2 := n.containerd.Ctr("-n", "default", "containers", "rm", id)
	return errors.Join(err1, err2)
}

// cpuTime is the user and system time of a process so far.
func cpuTime(b testing.TB, pid int) time.Duration {
	b.Helper()
	data, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		b.Fatal(err)
	}
	// From field 3 on, behind the command in parentheses.
	f := strings.Fields(string(data[strings.LastIndexByte(string(data), ')')+1:]))
	if len(f) < 13 {
		b.Fatalf("/proc/%d/stat: %s", pid, data)
	}
	user, err1 := strconv.Atoi(f[11])
	system, err2 := strconv.Atoi(f[12])
	if err := errors.Join(err1, err2); err != nil {
		b.Fatal(err)
	}
	return time.Duration(user+system) * time.Second / ticksPerSecond
}

func residentMB(b testing.TB, pid int) float64 {
	b.Helper()
	data, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		b.Fatal(err)
	}
	for line := range strings.Lines(string(data)) {
		if f := strings.Fields(line); len(f) == 3 && f[0] == "VmRSS:" {
			kb, err := strconv.ParseFloat(f[1], 64)
			if err != nil {
				b.Fatal(err)
			}
			return kb / 1024
		}
	}
	b.Fatalf("no VmRSS of process %d", pid)
	return 0
}
