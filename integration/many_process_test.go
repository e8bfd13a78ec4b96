package integration

import (
	"bytes"
	"fmt"
	"io"
	"net/rpc"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"runtime/pprof"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// manyVerb makes the test's binary one process of a large cluster: a server, or some
// hundreds of followers. It is told what to do on its standard input, and ends with it.
const manyVerb = "many-nodes"

// serveMany is such a process.
func serveMany() error {
	s := rpc.NewServer()
	for name, service := range map[string]any{"Server": &manyServer{}, "Crowd": &manyCrowd{}, "Process": &manyProcess{}} {
		if err := s.RegisterName(name, service); err != nil {
			return err
		}
	}
	s.ServeConn(struct {
		io.Reader
		io.WriteCloser
	}{os.Stdin, os.Stdout})
	return nil
}

// monotonic is a clock that all processes of the machine share, in ns.
func monotonic() int64 {
	var t unix.Timespec
	_ = unix.ClockGettime(unix.CLOCK_MONOTONIC, &t)
	return t.Nano()
}

// manyProcess is what each of the processes can do.
type manyProcess struct{}

// Profile is where the processor's time goes; ProfileArgs says for how long it looks,
// and which file it writes.
func (*manyProcess) Profile(a ProfileArgs, _ *None) error {
	f, err := os.Create(a.Path)
	if err != nil {
		return err
	}
	defer f.Close()
	if a.For == 0 {
		runtime.GC()
		return pprof.WriteHeapProfile(f)
	}
	if err := pprof.StartCPUProfile(f); err != nil {
		return err
	}
	time.Sleep(a.For)
	pprof.StopCPUProfile()
	return nil
}

// None is no argument, or no answer.
type None struct{}

// ProfileArgs are the arguments of Process.Profile; For 0: a profile of the heap.
type ProfileArgs struct {
	Path string
	For  time.Duration
}

// process is one of them, as the test sees it.
type process struct {
	t    testing.TB
	name string
	cmd  *exec.Cmd
	rpc  *rpc.Client
	log  string

	mu    sync.Mutex // guards ended
	ended bool
}

// startProcess starts the test's binary once more. It is killed at the test's end.
func startProcess(t testing.TB, name, log string) *process {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	p := &process{t: t, name: name, cmd: exec.Command(self, manyVerb), log: log}
	stderr, err := os.OpenFile(log, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	defer stderr.Close()
	p.cmd.Stderr = stderr
	in, err := p.cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := p.cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := p.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	p.rpc = rpc.NewClient(struct {
		io.Reader
		io.WriteCloser
	}{out, in})
	t.Cleanup(p.kill)
	return p
}

func (p *process) pid() int { return p.cmd.Process.Pid }

// kill ends the process at once, as a crash does.
func (p *process) kill() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.ended {
		return
	}
	p.ended = true
	_ = p.cmd.Process.Kill()
	_ = p.cmd.Wait()
	_ = p.rpc.Close()
}

func (p *process) signal(s syscall.Signal) {
	p.t.Helper()
	if err := p.cmd.Process.Signal(s); err != nil {
		p.t.Fatalf("%s: %v", p.name, err)
	}
}

// try has the process do something, within a limit.
func (p *process) try(method string, args, answer any, limit time.Duration) error {
	call := p.rpc.Go(method, args, answer, make(chan *rpc.Call, 1))
	select {
	case <-call.Done:
		if call.Error != nil {
			return fmt.Errorf("%s: %s: %w", p.name, method, call.Error)
		}
		return nil
	case <-time.After(limit):
		return fmt.Errorf("%s: %s: no answer within %s", p.name, method, limit)
	}
}

func (p *process) call(method string, args, answer any, limit time.Duration) {
	p.t.Helper()
	if err := p.try(method, args, answer, limit); err != nil {
		p.t.Fatalf("%v\n%s", err, p.tail())
	}
}

// tail is the end of what the process has logged.
func (p *process) tail() string {
	data, err := os.ReadFile(p.log)
	if err != nil {
		return err.Error()
	}
	return string(data[max(0, len(data)-4096):])
}

// written is how many bytes the process has written so far, to connections and files.
func (p *process) written() int64 {
	p.t.Helper()
	data, err := os.ReadFile(fmt.Sprintf("/proc/%d/io", p.pid()))
	if err != nil {
		p.t.Fatal(err)
	}
	var n int64
	for line := range bytes.Lines(data) {
		if rest, ok := bytes.CutPrefix(line, []byte("wchar: ")); ok {
			if _, err := fmt.Sscan(string(rest), &n); err != nil {
				p.t.Fatal(err)
			}
		}
	}
	return n
}

// envProfiles is a directory that profiles of the measured moments go to.
const envProfiles = "STELLAR_BENCH_PROFILES"

// profile looks for a while where the processor's time goes, if somebody asked for it.
func (p *process) profile(when string, d time.Duration) (wait func()) {
	dir := os.Getenv(envProfiles)
	if dir == "" {
		return func() {}
	}
	done := make(chan error, 1)
	path := filepath.Join(dir, strings.ReplaceAll(when+"-"+p.name, " ", "-"))
	go func() { done <- p.try("Process.Profile", ProfileArgs{path, d}, &None{}, d+quiet) }()
	return func() {
		if err := <-done; err != nil {
			p.t.Error(err)
		}
	}
}
