package main

import (
	"context"
	"encoding/json"
	"errors"
	"log"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"stellar.io/stellar/api"
	"stellar.io/stellar/api/apitest"
	"stellar.io/stellar/api/server"
)

// built is the program under test.
var built string

// envReport makes the test binary a runtime that says what it was given, and
// ends with exit code 7.
const (
	envReport   = "TEST_RUNTIME_REPORT"
	runtimeExit = 7
)

// report is what the runtime was given.
type report struct {
	Args, Env []string
	PID       int
	DeathSig  int32
	Ignored   string // signals, as the kernel shows them
	Blocked   string
}

func init() {
	path := os.Getenv(envReport)
	if path == "" {
		return
	}
	r := report{Args: os.Args, Env: os.Environ(), PID: os.Getpid()}
	if err := unix.Prctl(unix.PR_GET_PDEATHSIG, uintptr(unsafe.Pointer(&r.DeathSig)), 0, 0, 0); err != nil {
		log.Fatal(err)
	}
	status, err := os.ReadFile("/proc/self/status")
	if err != nil {
		log.Fatal(err)
	}
	for line := range strings.Lines(string(status)) {
		name, value, _ := strings.Cut(strings.TrimSpace(line), ":\t")
		switch name {
		case "SigIgn":
			r.Ignored = value
		case "SigBlk":
			r.Blocked = value
		}
	}
	data, err := json.Marshal(r)
	if err == nil {
		err = os.WriteFile(path, data, 0o600)
	}
	if err != nil {
		log.Fatal(err)
	}
	os.Exit(runtimeExit)
}

func TestMain(m *testing.M) {
	dir, err := os.MkdirTemp("", "stellar-runc-test-")
	if err != nil {
		log.Fatal(err)
	}
	built = filepath.Join(dir, "stellar-runc")
	build := exec.Command("go", "build", "-o", built, ".")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		log.Fatalf("build: %v\n%s", err, out)
	}
	code := m.Run()
	os.RemoveAll(dir)
	os.Exit(code)
}

// bed is a bundle of containerd's with a runtime that reports, and an address
// where there is no agent yet.
type bed struct {
	*apitest.Backend
	t                                *testing.T
	dir, bundle, log, socket, report string
	env                              []string
}

const plainConfig = `{"ociVersion": "1.0.2", "annotations": {}, "hooks": {"poststop": [{"path": "/x"}]}}`

var web = api.ContainerRef{Namespace: "default", Container: "web"}

func newBed(t *testing.T, config string) *bed {
	t.Helper()
	dir, err := os.MkdirTemp("", "srunc") // short: it holds a socket
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	b := &bed{
		Backend: apitest.New(time.Now), t: t, dir: dir, bundle: filepath.Join(dir, "io.containerd.runtime.v2.task", "default", "web"),
		socket: filepath.Join(dir, "s"), report: filepath.Join(dir, "report"),
	}
	b.log = filepath.Join(b.bundle, "log.json")
	b.env = []string{"PATH=" + os.Getenv("PATH"), "STELLAR_ADDRESS=unix://" + b.socket, envRuntime + "=" + self, envReport + "=" + b.report, "OTHER=a b", "GORACE=atexit_sleep_ms=0"}
	if err := os.MkdirAll(b.bundle, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(b.bundle, "config.json"), []byte(config), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := b.InitCluster(t.Context(), api.ClusterSpec{}); err != nil {
		t.Fatal(err)
	}
	return b
}

// serve starts the agent.
func (b *bed) serve() {
	b.t.Helper()
	l, err := server.Listen(b.socket, "")
	if err != nil {
		b.t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- server.New(b.Backend, nil).Run(ctx, l) }()
	b.t.Cleanup(func() {
		cancel()
		<-done
	})
}

// mute listens where the agent should, and says nothing. It returns how many
// have called so far.
func (b *bed) mute() func() int {
	b.t.Helper()
	l, err := net.Listen("unix", b.socket)
	if err != nil {
		b.t.Fatal(err)
	}
	var calls atomic.Int64
	b.t.Cleanup(func() { l.Close() })
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			calls.Add(1)
			defer c.Close()
		}
	}()
	return func() int { return int(calls.Load()) }
}

// refuse leaves a socket on which nobody listens.
func (b *bed) refuse() {
	b.t.Helper()
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: b.socket})
	if err != nil {
		b.t.Fatal(err)
	}
	l.SetUnlinkOnClose(false)
	l.Close()
}

// createArgs are what containerd's shim says.
func (b *bed) createArgs() []string {
	return []string{
		"--root", "/run/containerd/runc/default", "--log", b.log, "--log-format", "json",
		"create", "--bundle", b.bundle, "--pid-file", filepath.Join(b.bundle, "init.pid"), "web",
	}
}

// run runs the program and returns its exit code and what it wrote to stderr.
func (b *bed) run(args ...string) (int, string) {
	b.t.Helper()
	return b.runAs(built, args...)
}

func (b *bed) runAs(program string, args ...string) (int, string) {
	b.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, program, args...)
	cmd.Env, cmd.Dir = b.env, b.dir
	var stderr strings.Builder
	cmd.Stderr = &stderr
	err := cmd.Run()
	exit, ok := errors.AsType[*exec.ExitError](err)
	if err != nil && (!ok || ctx.Err() != nil) {
		b.t.Fatalf("%s: %v\n%s", program, err, stderr.String())
	}
	if ok {
		return exit.ExitCode(), stderr.String()
	}
	return 0, stderr.String()
}

// became returns what the runtime reports; nil: it was not reached.
func (b *bed) became() *report {
	b.t.Helper()
	data, err := os.ReadFile(b.report)
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	var r report
	if err == nil {
		err = json.Unmarshal(data, &r)
	}
	if err != nil {
		b.t.Fatal(err)
	}
	return &r
}

func (b *bed) config() string {
	b.t.Helper()
	data, err := os.ReadFile(filepath.Join(b.bundle, "config.json"))
	if err != nil {
		b.t.Fatal(err)
	}
	return string(data)
}

// hooks are the createRuntime hooks of the bundle.
func (b *bed) hooks() []hook {
	b.t.Helper()
	var c struct {
		Hooks struct{ CreateRuntime []hook }
	}
	if err := json.Unmarshal([]byte(b.config()), &c); err != nil {
		b.t.Fatal(err)
	}
	return c.Hooks.CreateRuntime
}

// lastError is what containerd's shim would tell of a failure.
func (b *bed) lastError() string {
	b.t.Helper()
	f, err := os.Open(b.log)
	if err != nil {
		return ""
	}
	defer f.Close()
	var last string
	for dec := json.NewDecoder(f); ; {
		var line struct {
			Level, Msg string
			Time       time.Time
		}
		if err := dec.Decode(&line); err != nil {
			return last
		}
		if line.Level == "error" && !line.Time.IsZero() {
			last = line.Msg
		}
	}
}
