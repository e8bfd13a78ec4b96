package testx

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
)

// Version chooses a containerd.
type Version string

const (
	// V1 is the containerd that the distribution installed (Debian: 1.6.20).
	V1 Version = "1"
	// V2 is containerd 2.x as `make deps` builds it, in .cache/containerd-2.4.2 of
	// the checkout or where STELLAR_CONTAINERD_V2 says.
	V2 Version = "2"
)

// Versions lists both, for tests that run on each.
func Versions() []Version { return []Version{V1, V2} }

const (
	envV2 = "STELLAR_CONTAINERD_V2"
	dirV2 = ".cache/containerd-2.4.2"
)

// Options of a containerd. The zero value is a private V1 in the caller's
// network namespace.
type Options struct {
	Version Version
	// NetNS is the name of a network namespace in /run/netns to run in; empty:
	// the caller's.
	NetNS string
	// Dir holds everything and is removed in the end; it must be empty or not
	// exist yet, and be short, since it holds sockets. Empty: a new directory under
	// the system's temporary one.
	Dir string
	// Images are imported into the containerd namespace "default".
	Images []Image
	// Env is added to the environment of containerd, and so of its shims and runtimes.
	Env []string
	// Keep lets the containerd live on after its starter, until Open and Close.
	Keep bool
}

// Containerd is a private containerd with a root, state, socket, runc state and
// cgroup of its own. Its methods may be called from any goroutine.
type Containerd struct {
	// Dir is the directory of everything below it, Address the socket's path.
	Dir, Address string
	Version      Version
	NetNS        string

	log    Logger
	env    []string
	bin    string // directory of the binaries, empty for the distribution's
	cgroup string // under which the containers are put

	execs atomic.Uint64

	mu   sync.Mutex // guards what follows
	proc process
	done chan struct{} // closed when proc was reaped; nil if it is not our child
}

// StartContainerd starts a containerd that ends with the test.
func StartContainerd(t TB, o Options) *Containerd {
	t.Helper()
	c, err := NewContainerd(t, o)
	if err != nil {
		t.Fatalf("start containerd: %v", err)
	}
	t.Cleanup(func() {
		if err := c.Close(); err != nil {
			t.Logf("clean up after containerd: %v", err)
		}
	})
	return c
}

// NewContainerd starts a containerd and waits until it answers. It first
// clears away what a test that died has left. The caller closes it, also if the
// containerd was killed in between.
func NewContainerd(log Logger, o Options) (*Containerd, error) {
	if os.Geteuid() != 0 {
		return nil, errors.New("containerd needs root")
	}
	sweep(log)
	c, err := newContainerd(log, o)
	if err != nil {
		return nil, err
	}
	err = c.Start()
	for _, img := range o.Images {
		if err == nil {
			err = c.Import("default", img)
		}
	}
	if err != nil {
		return nil, errors.Join(err, c.Close())
	}
	return c, nil
}

func newContainerd(log Logger, o Options) (*Containerd, error) {
	c := &Containerd{Dir: o.Dir, Version: o.Version, NetNS: o.NetNS, log: log, env: o.Env}
	if c.Version == "" {
		c.Version = V1
	}
	if c.Version == V2 {
		bin, err := findV2()
		if err != nil {
			return nil, err
		}
		c.bin = bin
	}
	if c.Dir == "" {
		dir, err := os.MkdirTemp("", dirPrefix)
		if err != nil {
			return nil, err
		}
		c.Dir = dir
	} else if held, err := os.ReadDir(c.Dir); len(held) > 0 || (err != nil && !errors.Is(err, fs.ErrNotExist)) {
		return nil, fmt.Errorf("%s is in use or not empty: %w", c.Dir, cmp.Or(err, fs.ErrExist))
	}
	c.locate()
	for _, sub := range []string{"log", "fifo"} {
		if err := os.MkdirAll(filepath.Join(c.Dir, sub), 0o700); err != nil {
			return nil, err
		}
	}
	if err := os.WriteFile(c.path("config.toml"), []byte(c.config()), 0o600); err != nil {
		return nil, err
	}
	return c, c.record(o.Keep)
}

// locate sets what follows from the directory's name.
func (c *Containerd) locate() {
	c.Address = c.path("containerd.sock")
	c.cgroup = "/" + strings.ReplaceAll(strings.Trim(c.Dir, "/"), "/", "-")
}

func (c *Containerd) path(elem ...string) string {
	return filepath.Join(append([]string{c.Dir}, elem...)...)
}

func findV2() (string, error) {
	dir := os.Getenv(envV2)
	if dir == "" {
		root, err := moduleRoot()
		if err != nil {
			return "", err
		}
		dir = filepath.Join(root, dirV2)
	}
	for _, name := range []string{"containerd", "ctr", "containerd-shim-runc-v2"} {
		if _, err := os.Stat(filepath.Join(dir, name)); err != nil {
			return "", fmt.Errorf("containerd 2.x is not built (run `make deps`, or set %s): %w", envV2, err)
		}
	}
	return dir, nil
}

// config is read by both versions; 2.x migrates it. What is off either needs
// things that a test machine lacks or would touch the machine outside Dir.
func (c *Containerd) config() string {
	off := []string{
		"io.containerd.grpc.v1.cri", "io.containerd.cri.v1.images", "io.containerd.cri.v1.runtime",
		"io.containerd.podsandbox.controller.v1.podsandbox", "io.containerd.nri.v1.nri", "io.containerd.internal.v1.opt",
		"io.containerd.internal.v1.tracing", "io.containerd.tracing.processor.v1.otlp", "io.containerd.image-verifier.v1.bindir",
		"io.containerd.snapshotter.v1.aufs", "io.containerd.snapshotter.v1.btrfs", "io.containerd.snapshotter.v1.devmapper",
		"io.containerd.snapshotter.v1.zfs", "io.containerd.snapshotter.v1.blockfile", "io.containerd.snapshotter.v1.erofs",
	}
	return fmt.Sprintf(`version = 2
root = %q
state = %q
disabled_plugins = ["%s"]

[grpc]
  address = %q

[ttrpc]
  address = %q
`, c.path("root"), c.path("state"), strings.Join(off, `", "`), c.Address, c.Address+".ttrpc")
}

// Start starts the containerd, which must not run, and waits until it answers.
func (c *Containerd) Start() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.proc.alive() {
		return fmt.Errorf("containerd runs already as %d", c.proc.PID)
	}
	args := []string{c.binary("containerd"), "--config", c.path("config.toml")}
	if c.NetNS != "" {
		// Not `ip netns exec`: its fresh /sys hides the cgroups from runc.
		args = append([]string{"nsenter", "--net=/run/netns/" + c.NetNS, "--"}, args...)
	}
	logfile, err := os.OpenFile(c.path("containerd.log"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	defer logfile.Close()
	cmd := exec.Command(args[0], args[1:]...)
	cmd.Stdout, cmd.Stderr = logfile, logfile
	cmd.Env = append(append(os.Environ(), "PATH="+c.searchPath()), c.env...)
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true} // a ^C is for the test, which cleans up
	if err := cmd.Start(); err != nil {
		return err
	}
	c.done = make(chan struct{})
	c.proc = processOf(cmd.Process.Pid)
	go func(done chan struct{}) {
		_ = cmd.Wait()
		close(done)
	}(c.done)
	if err := c.proc.save(c.path("containerd.pid")); err != nil {
		return err
	}
	if err := c.waitReady(30 * time.Second); err != nil {
		return fmt.Errorf("%w; its last lines:\n%s", err, c.logTail())
	}
	return nil
}

func (c *Containerd) waitReady(limit time.Duration) error {
	deadline := time.Now().Add(limit)
	for time.Now().Before(deadline) {
		select {
		case <-c.done:
			return errors.New("containerd has exited")
		case <-time.After(10 * time.Millisecond):
		}
		conn, err := net.Dial("unix", c.Address)
		if err != nil {
			continue
		}
		conn.Close()
		if _, err := c.Ctr("version"); err == nil {
			return nil
		}
	}
	return fmt.Errorf("containerd did not answer within %s", limit)
}

// PID is the process of the containerd, 0 if it does not run.
func (c *Containerd) PID() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.proc.alive() {
		return 0
	}
	return c.proc.PID
}

// Kill9 kills the containerd alone, as a crash does: shims and containers live on.
func (c *Containerd) Kill9() error { return c.signal(syscall.SIGKILL) }

// Stop ends the containerd alone, as a service manager does.
func (c *Containerd) Stop() error { return c.signal(syscall.SIGTERM) }

// Restart kills the containerd, if it runs, and starts it again on the same state.
func (c *Containerd) Restart() error {
	if err := c.Kill9(); err != nil {
		return err
	}
	return c.Start()
}

func (c *Containerd) signal(sig syscall.Signal) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.proc.end(sig, c.done)
}

// Ctr runs the ctr of the same version and returns its standard output. The
// error holds what it wrote on standard error.
func (c *Containerd) Ctr(args ...string) (string, error) {
	return c.CtrContext(context.Background(), args...)
}

// CtrContext is Ctr with a context that can end the command.
func (c *Containerd) CtrContext(ctx context.Context, args ...string) (string, error) {
	return c.ctr(ctx, nil, args)
}

// ctr runs ctr, by another program if through names one.
func (c *Containerd) ctr(ctx context.Context, through, args []string) (string, error) {
	argv := slices.Concat(through, []string{c.binary("ctr"), "--address", c.Address}, args)
	cmd := exec.CommandContext(ctx, argv[0], argv[1:]...)
	cmd.Env = append(os.Environ(), "PATH="+c.searchPath())
	cmd.WaitDelay = time.Second
	var stdout, stderr strings.Builder
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	if err := cmd.Run(); err != nil {
		return stdout.String(), fmt.Errorf("ctr %s: %w: %s", strings.Join(args, " "), err, strings.TrimSpace(stderr.String()))
	}
	return stdout.String(), nil
}

func (c *Containerd) binary(name string) string {
	if c.bin == "" {
		return name
	}
	return filepath.Join(c.bin, name)
}

// searchPath puts our shim first, and has runc on it: Debian keeps it in sbin.
func (c *Containerd) searchPath() string {
	path := os.Getenv("PATH") + ":/usr/local/sbin:/usr/sbin:/sbin"
	if c.bin == "" {
		return path
	}
	return c.bin + ":" + path
}

func (c *Containerd) logTail() string {
	f, err := os.Open(c.path("containerd.log"))
	if err != nil {
		return err.Error()
	}
	defer f.Close()
	const most = 2000
	if st, err := f.Stat(); err == nil && st.Size() > most {
		_, _ = f.Seek(-most, io.SeekEnd)
	}
	tail, _ := io.ReadAll(f)
	return string(tail)
}
