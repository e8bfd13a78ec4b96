package hold

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"
	"golang.org/x/sys/unix"
)

// program is testdata/parked.c, compiled.
var program string

func TestMain(m *testing.M) {
	if mode := os.Getenv(envMode); mode != "" {
		os.Exit(holderMain(mode))
	}
	dir, err := os.MkdirTemp("", "hold-")
	if err != nil {
		panic(err)
	}
	program = filepath.Join(dir, "parked")
	if out, err := exec.Command("gcc", "-O1", "-Wall", "-Werror", "-o", program, "testdata/parked.c", "-lpthread").CombinedOutput(); err != nil {
		panic(fmt.Sprintf("compile testdata/parked.c: %v: %s", err, out))
	}
	goleak.VerifyTestMain(m, goleak.Cleanup(func(code int) {
		os.RemoveAll(dir)
		os.Exit(code)
	}))
}

// bed is a running Holder with a state directory of its own.
type bed struct {
	*testing.T
	root string
	h    *Holder
	rec  *recorder
	stop func() // ends Run and waits
}

func newBed(t *testing.T, change ...func(*Config)) *bed {
	t.Helper()
	root := t.TempDir()
	cfg := Config{Roots: []string{root}, Deadline: 20 * time.Second}
	return newBedOf(t, root, cfg, change...)
}

func newBedOf(t *testing.T, root string, cfg Config, change ...func(*Config)) *bed {
	t.Helper()
	rec := newRecorder()
	cfg.OnHeld, cfg.OnEnd = rec.onHeld, rec.onEnd
	cfg.Logger = slog.New(slog.NewTextHandler(t.Output(), nil))
	for _, c := range change {
		c(&cfg)
	}
	b := &bed{T: t, root: root, h: New(cfg), rec: rec}
	b.run()
	return b
}

// run starts Run; it must not run.
func (b *bed) run() {
	b.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- b.h.Run(ctx) }()
	b.stop = sync.OnceFunc(func() {
		cancel()
		select {
		case err := <-done:
			if err != nil {
				b.Errorf("Run: %v", err)
			}
		case <-time.After(20 * time.Second):
			b.Errorf("Run does not end")
		}
	})
	b.Cleanup(b.stop)
	within(b.T, "the holder works", func() bool { return b.h.Status().Reason != notRunning })
}

// recorder keeps what the callbacks said.
type recorder struct {
	mu   sync.Mutex
	held map[int]time.Time
	ends map[int]End
	keys map[int]Key
}

func newRecorder() *recorder {
	return &recorder{held: make(map[int]time.Time), ends: make(map[int]End), keys: make(map[int]Key)}
}

func (r *recorder) onHeld(k Key, pid int, at time.Time) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.held[pid], r.keys[pid] = at, k
}

func (r *recorder) onEnd(k Key, e End) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.ends[e.PID], r.keys[e.PID] = e, k
}

func (r *recorder) isHeld(pid int) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	_, ok := r.held[pid]
	return ok
}

func (r *recorder) end(pid int) (End, bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	e, ok := r.ends[pid]
	return e, ok
}

// waitHeld waits for the hold of p.
func (b *bed) waitHeld(p *parked) {
	b.Helper()
	within(b.T, fmt.Sprintf("process %d is held", p.pid), func() bool { return b.rec.isHeld(p.pid) })
}

// waitEnd waits for the end of p's hold.
func (b *bed) waitEnd(p *parked) End {
	b.Helper()
	within(b.T, fmt.Sprintf("the hold of %d ends", p.pid), func() bool { _, ok := b.rec.end(p.pid); return ok })
	e, _ := b.rec.end(p.pid)
	return e
}

// waitStopped waits until p stands in its exec.
func waitStopped(t *testing.T, p *parked) {
	t.Helper()
	within(t, fmt.Sprintf("process %d stands in its exec", p.pid), func() bool {
		name, _ := os.ReadFile(fmt.Sprintf("/proc/%d/comm", p.pid))
		args, _ := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", p.pid))
		return strings.TrimSpace(string(name)) == "parked" && strings.Contains(string(args), "\x00stamp\x00") && state(p.pid) == 't'
	})
}

// state is the process's state letter, 0 if it is gone.
func state(pid int) byte {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return 0
	}
	return b[strings.LastIndexByte(string(b), ')')+2]
}

func tracerOf(pid int) string {
	b, _ := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	for line := range strings.Lines(string(b)) {
		if v, ok := strings.CutPrefix(line, "TracerPid:"); ok {
			return strings.TrimSpace(v)
		}
	}
	return ""
}

func within(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(10 * time.Second); !ok(); time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("not within 10 s: %s", what)
		}
	}
}

// parked is a process that waits to execute its program, as a runtime's init does.
type parked struct {
	t     *testing.T
	pid   int
	fifo  string
	stamp string
	code  chan int // the exit code of its parent
}

// park starts one; flags are those of testdata/parked.c. With sleep it lives on for
// so many seconds after its program has begun.
func park(t *testing.T, sleep int, flags ...string) *parked {
	t.Helper()
	dir := t.TempDir()
	p := &parked{t: t, fifo: filepath.Join(dir, "fifo"), stamp: filepath.Join(dir, "stamp"), code: make(chan int, 1)}
	if err := unix.Mkfifo(p.fifo, 0o600); err != nil {
		t.Fatal(err)
	}
	args := append([]string{"parked"}, flags...)
	cmd := exec.Command(program, append(args, p.fifo, program, "stamp", p.stamp, strconv.Itoa(sleep))...)
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	line, err := bufio.NewReader(out).ReadString('\n')
	if err != nil {
		t.Fatalf("park: %v", err)
	}
	if p.pid, err = strconv.Atoi(strings.TrimSpace(line)); err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = cmd.Wait()
		p.code <- cmd.ProcessState.ExitCode()
	}()
	t.Cleanup(func() {
		// Its parent has not waited for it as long as the parent lives.
		select {
		case <-done:
		default:
			_ = unix.Kill(p.pid, unix.SIGKILL)
			<-done
		}
	})
	return p
}

// announce writes init.pid as runc does.
func (p *parked) announce(root string, k Key) {
	p.t.Helper()
	dir := bundle(root, k)
	must(p.t, os.MkdirAll(filepath.Dir(dir), 0o711))
	if err := os.Mkdir(dir, 0o700); err != nil && !errors.Is(err, os.ErrExist) {
		p.t.Fatal(err)
	}
	tmp := filepath.Join(dir, ".init.pid")
	must(p.t, os.WriteFile(tmp, []byte(strconv.Itoa(p.pid)), 0o644))
	must(p.t, os.Rename(tmp, filepath.Join(dir, pidFile)))
}

// start opens the fifo, as `runc start` does, and returns when the init has gone on.
func (p *parked) start() {
	p.t.Helper()
	f, err := os.OpenFile(p.fifo, os.O_WRONLY, 0)
	must(p.t, err)
	f.Close()
}

// ran is when the first instructions ran, in CLOCK_MONOTONIC; 0 if they did not.
func (p *parked) ran() time.Duration {
	b, _ := os.ReadFile(p.stamp)
	n, _ := strconv.ParseInt(strings.TrimSpace(string(b)), 10, 64)
	return time.Duration(n)
}

func (p *parked) waitRan() time.Duration {
	p.t.Helper()
	within(p.t, fmt.Sprintf("the program of %d runs", p.pid), func() bool { return p.ran() > 0 })
	return p.ran()
}

// exit waits for the end, which its parent learns.
func (p *parked) exit() int {
	p.t.Helper()
	select {
	case code := <-p.code:
		p.code <- code
		return code
	case <-time.After(20 * time.Second):
		p.t.Fatalf("process %d does not end", p.pid)
		return 0
	}
}

func monotonic() time.Duration {
	var ts unix.Timespec
	_ = unix.ClockGettime(unix.CLOCK_MONOTONIC, &ts)
	return time.Duration(ts.Nano())
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// settle gives a wrong hold the time to happen.
func settle() { time.Sleep(50 * time.Millisecond) }
