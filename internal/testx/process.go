package testx

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"syscall"
	"time"

	"stellar.io/stellar/internal/procfs"
)

// process names a process for ever: a pid and its start time in clock ticks.
type process struct {
	PID   int    `json:"pid"`
	Start uint64 `json:"start"`
}

// processOf returns the process that has pid now; the zero process if none.
func processOf(pid int) process {
	s, err := procfs.ReadLive(pid)
	if err != nil {
		return process{}
	}
	return process{PID: pid, Start: s.Start}
}

func (p process) alive() bool {
	return p.PID != 0 && processOf(p.PID) == p
}

// end sends sig and waits until the process is gone; reaped, if not nil, is
// closed when our child was waited for. A process that is gone is no error.
func (p process) end(sig syscall.Signal, reaped <-chan struct{}) error {
	if p.alive() {
		if err := syscall.Kill(p.PID, sig); err != nil && !errors.Is(err, syscall.ESRCH) {
			return fmt.Errorf("signal %d: %w", p.PID, err)
		}
	}
	deadline := time.Now().Add(20 * time.Second)
	for p.alive() {
		if time.Now().After(deadline) {
			return fmt.Errorf("process %d does not end on %s", p.PID, sig)
		}
		time.Sleep(2 * time.Millisecond)
	}
	if reaped != nil {
		<-reaped
	}
	return nil
}

func (p process) save(path string) error {
	data, err := json.Marshal(p)
	if err != nil {
		return err
	}
	return os.WriteFile(path, data, 0o600)
}

func loadProcess(path string) (process, error) {
	var p process
	data, err := os.ReadFile(path)
	if err != nil {
		return p, err
	}
	return p, json.Unmarshal(data, &p)
}

// pids lists all processes.
func pids() []int {
	dirs, _ := filepath.Glob("/proc/[0-9]*")
	var out []int
	for _, dir := range dirs {
		if pid, err := strconv.Atoi(filepath.Base(dir)); err == nil {
			out = append(out, pid)
		}
	}
	return out
}

// withDescendants returns roots and all that descend from them, parents first.
func withDescendants(roots []int) []int {
	children := make(map[int][]int)
	for _, pid := range pids() {
		if s, err := procfs.ReadLive(pid); err == nil {
			children[s.Parent] = append(children[s.Parent], pid)
		}
	}
	out := append([]int(nil), roots...)
	for i := 0; i < len(out); i++ {
		out = append(out, children[out[i]]...)
	}
	return out
}
