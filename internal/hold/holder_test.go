package hold

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// envMode makes the test binary a holder: it arms the keys that it is told and
// answers each line on its standard input with its status.
const envMode = "HOLD_TEST_MODE"

type holderConfig struct {
	Root    string
	Keys    []Key
	Seccomp bool // refuse ptrace by a filter first
}

func holderMain(mode string) int {
	var cfg holderConfig
	if err := json.Unmarshal([]byte(mode), &cfg); err != nil {
		panic(err)
	}
	if cfg.Seccomp {
		refusePtrace()
	}
	h := New(Config{Roots: []string{cfg.Root}, Deadline: time.Minute, Logger: slog.New(slog.NewTextHandler(os.Stderr, nil))})
	for _, k := range cfg.Keys {
		h.Arm(k, 0)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- h.Run(ctx) }()
	for in := bufio.NewScanner(os.Stdin); in.Scan(); {
		if err := json.NewEncoder(os.Stdout).Encode(h.Status()); err != nil {
			panic(err)
		}
	}
	cancel()
	if err := <-done; err != nil {
		panic(err)
	}
	return 0
}

// refusePtrace installs a filter for all threads: EPERM for ptrace, all else permitted.
func refusePtrace() {
	const (
		loadNumber = unix.BPF_LD | unix.BPF_W | unix.BPF_ABS
		jumpEqual  = unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K
		answer     = unix.BPF_RET | unix.BPF_K
	)
	filter := []unix.SockFilter{
		{Code: loadNumber},
		{Code: jumpEqual, Jf: 1, K: unix.SYS_PTRACE},
		{Code: answer, K: unix.SECCOMP_RET_ERRNO | uint32(unix.EPERM)},
		{Code: answer, K: unix.SECCOMP_RET_ALLOW},
	}
	prog := unix.SockFprog{Len: uint16(len(filter)), Filter: &filter[0]}
	_, _, errno := unix.Syscall(unix.SYS_SECCOMP, unix.SECCOMP_SET_MODE_FILTER, unix.SECCOMP_FILTER_FLAG_TSYNC, uintptr(unsafe.Pointer(&prog)))
	if errno != 0 {
		panic(errno)
	}
}

// holder is a process that holds.
type holder struct {
	t   *testing.T
	cmd *exec.Cmd
	in  *bufio.Writer
	out *bufio.Reader
}

// startHolder starts one; wrap is a command that starts it, if any. It ends with
// the test.
func startHolder(t *testing.T, cfg holderConfig, wrap ...string) *holder {
	t.Helper()
	mode, err := json.Marshal(cfg)
	must(t, err)
	args := append(wrap, os.Args[0])
	h := &holder{t: t, cmd: exec.Command(args[0], args[1:]...)}
	h.cmd.Env = append(os.Environ(), envMode+"="+string(mode))
	h.cmd.Stderr = t.Output()
	in, err := h.cmd.StdinPipe()
	must(t, err)
	out, err := h.cmd.StdoutPipe()
	must(t, err)
	must(t, h.cmd.Start())
	h.in, h.out = bufio.NewWriter(in), bufio.NewReader(out)
	t.Cleanup(func() {
		in.Close()
		_ = h.cmd.Wait()
	})
	within(t, "the holder works", func() bool { return h.status().Reason != notRunning })
	return h
}

func (h *holder) status() (s Status) {
	h.t.Helper()
	fmt.Fprintln(h.in)
	must(h.t, h.in.Flush())
	must(h.t, json.NewDecoder(newLine(h.t, h.out)).Decode(&s))
	return s
}

func newLine(t *testing.T, r *bufio.Reader) *strings.Reader {
	t.Helper()
	line, err := r.ReadString('\n')
	must(t, err)
	return strings.NewReader(line)
}

// TestHolderKilled: when the holder is killed, what it held runs on by itself.
func TestHolderKilled(t *testing.T) {
	const n = 50
	cfg := holderConfig{Root: t.TempDir()}
	var all []*parked
	for i := range n {
		cfg.Keys = append(cfg.Keys, Key{Namespace: "default", ID: fmt.Sprint(i)})
		all = append(all, park(t, 1))
	}
	h := startHolder(t, cfg)
	for i, p := range all {
		p.announce(cfg.Root, cfg.Keys[i])
	}
	within(t, "all are held", func() bool { return h.status().Holding == n })
	for _, p := range all {
		p.start()
	}
	for _, p := range all {
		waitStopped(t, p)
	}
	killed := monotonic()
	must(t, h.cmd.Process.Kill())
	var slowest time.Duration
	for _, p := range all {
		slowest = max(slowest, p.waitRan()-killed)
	}
	t.Logf("the last of %d programs ran %v after the kill", n, slowest)
	if slowest > 100*time.Millisecond && !raceEnabled {
		t.Errorf("the last of %d programs ran %v after the kill", n, slowest)
	}
}

// TestRefused: where ptrace is not permitted Status says so, and containers start.
func TestRefused(t *testing.T) {
	for _, tc := range []struct {
		name, reason string
		seccomp      bool
		wrap         []string
	}{
		{name: "capability", reason: "CAP_SYS_PTRACE", wrap: []string{"setpriv", "--bounding-set", "-sys_ptrace", "--inh-caps", "-sys_ptrace"}},
		{name: "user", reason: "CAP_SYS_PTRACE", wrap: []string{"setpriv", "--reuid", "65534", "--clear-groups"}},
		{name: "seccomp", reason: "seccomp", seccomp: true},
	} {
		t.Run(tc.name, func(t *testing.T) {
			root, err := os.MkdirTemp("", "hold-")
			must(t, err)
			t.Cleanup(func() { os.RemoveAll(root) })
			must(t, os.Chmod(root, 0o711))
			cfg := holderConfig{Root: root, Keys: []Key{one}, Seccomp: tc.seccomp}
			if tc.name == "user" {
				must(t, os.Chmod(os.Args[0], 0o755))
			}
			h := startHolder(t, cfg, tc.wrap...)
			p := park(t, 0)
			p.announce(root, one)
			if tc.name != "user" { // who cannot see the bundle
				// Before it starts: one that has ended is not counted.
				within(t, "the refusal is counted", func() bool { return h.status().Ends[Refused] == 1 })
			}
			p.start()
			p.waitRan()
			s := h.status()
			if s.Working || !strings.Contains(s.Reason, tc.reason) || s.Holds != 0 {
				t.Errorf("status: %+v", s)
			}
		})
	}
}

func TestReasons(t *testing.T) {
	for status, want := range map[string]bool{
		"Name:\tx\nCapEff:\t000001ffffffffff\n": true,
		"CapEff:\t0000000000080000\n":           true,
		"CapEff:\t000001fffff7ffff\n":           false,
		"CapEff:\tnonsense\n":                   false,
		"":                                      false,
	} {
		if got := hasPtrace(status); got != want {
			t.Errorf("hasPtrace(%q) = %v", status, got)
		}
	}
}
