package integration

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"log"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"stellar.io/stellar/internal/config"
	"stellar.io/stellar/internal/testx"
	"stellar.io/stellar/internal/testx/faults"
)

// binary is the agent and CLI under test, built once with the race detector
// (without it for benchmarks).
var binary string

// raceOptions: the detector otherwise sleeps for a second at each exit.
const raceOptions = "GORACE=halt_on_error=1 atexit_sleep_ms=0"

// probe is the program that tells what network it has, for use on hosts; the
// image of that name has it for containers.
var probe string

// images are built once.
var images = sync.OnceValues(func() ([]testx.Image, error) {
	busybox, err1 := testx.Busybox()
	probe, err2 := testx.Probe()
	return []testx.Image{busybox, probe}, errors.Join(err1, err2)
})

func TestMain(m *testing.M) {
	if len(os.Args) > 1 && os.Args[1] == hookVerb {
		if err := cniHook(os.Args[2:], os.Stdin); err != nil {
			log.Fatal(err)
		}
		os.Exit(0)
	}
	if len(os.Args) > 1 && os.Args[1] == manyVerb {
		if err := serveMany(); err != nil {
			log.Fatal(err)
		}
		os.Exit(0)
	}
	dir, err := os.MkdirTemp("", "stellar-test-")
	if err != nil {
		log.Fatal(err)
	}
	binary = filepath.Join(dir, "stellar")
	if err := buildBinary(binary); err != nil {
		log.Fatal(err)
	}
	probe = filepath.Join(dir, "probe")
	build := exec.Command("go", "build", "-o", probe, "stellar.io/stellar/internal/testx/probe")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		log.Fatalf("build the probe: %v\n%s", err, out)
	}
	code := m.Run()
	if err := os.RemoveAll(dir); err != nil {
		log.Print(err)
	}
	os.Exit(code)
}

// buildBinary builds the program under test.
func buildBinary(path string, flags ...string) error {
	args := append([]string{"build", "-tags", "hashicorpmetrics", "-o", path, fmt.Sprintf("-race=%t", raceEnabled)}, flags...)
	if out, err := exec.Command("go", append(args, "stellar.io/stellar/cmd/stellar")...).CombinedOutput(); err != nil {
		return fmt.Errorf("build %s: %w\n%s", path, err, out)
	}
	return nil
}

// node is one host with a containerd and an agent.
type node struct {
	t          testing.TB
	name       string // in the cluster: a, b, c, …
	host       *testx.NetNS
	outside    *testx.NetNS
	containerd *testx.Containerd
	dir        string // data and run directory of the agent
	flags      []string
	mode       string // that its agents are started in; "": none is given
	build      string // the agent's binary; "": binary
	agentEnv   []string
	mayLog     string // an error that the test brings about; "": none

	agent *exec.Cmd
	ended chan error
	log   string
}

// nodeOptions of startNode; the zero value is a host with containerd 1.x and a
// new cluster.
type nodeOptions struct {
	version      testx.Version
	flags        []string
	mode         string        // as node.mode; "": the suite's
	images       []testx.Image // besides busybox and probe
	env          []string      // of containerd
	noContainerd bool          // it is started by the test
	noAgent      bool
}

// startNode makes a host with a way out and starts both daemons on it.
func startNode(t testing.TB, o nodeOptions) *node {
	t.Helper()
	n := newNode(t, testx.NewLAN(t, 1), 0, o)
	if !o.noAgent {
		n.startAgent("--init")
		n.cli("status", "--wait", "--timeout", "30s")
	}
	return n
}

// newNode starts a containerd on a host of the LAN, and no agent yet.
func newNode(t testing.TB, lan *testx.LAN, host int, o nodeOptions) *node {
	t.Helper()
	dir, err := os.MkdirTemp("", "stl") // short: it holds a socket
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	n := &node{
		t: t, name: string(rune('a' + host)), host: lan.Hosts[host], outside: lan.Outside, dir: dir, flags: o.flags,
		log: filepath.Join(dir, "agent.log"), mode: cmp.Or(o.mode, suiteMode(host)),
	}
	imgs, err := images()
	if err != nil {
		t.Fatal(err)
	}
	n.containerd = testx.StartContainerd(t, testx.Options{
		Version: o.version, NetNS: n.host.Name, Images: append(imgs, o.images...),
		Env: append([]string{"STELLAR_ADDRESS=unix://" + filepath.Join(dir, "run", "stellar.sock")}, o.env...), // for stellar-runc
	})
	t.Cleanup(func() {
		n.stopAgent(syscall.SIGTERM)
		if t.Failed() {
			n.dump()
		}
		n.checkLog()
	})
	if o.noContainerd {
		if err := n.containerd.Stop(); err != nil {
			t.Fatal(err)
		}
	}
	return n
}

func (n *node) args(extra ...string) []string {
	args := []string{
		"agent", "--data-dir", filepath.Join(n.dir, "data"), "--run-dir", filepath.Join(n.dir, "run"), "--node-name", n.name,
		"--containerd-address", n.containerd.Address, "--metrics-listen", "127.0.0.1:9642",
	}
	if n.mode != "" {
		args = append(args, "--mode", n.mode)
	}
	return append(append(args, n.flags...), extra...)
}

// suiteMode is the mode of a host's agents, "" where the suite has none.
func suiteMode(host int) string {
	mode := os.Getenv(faults.EnvMode)
	if mode == "mixed" {
		mode = []string{config.ModeRouted, config.ModeBridge}[host%2]
	}
	return mode
}

// launch starts the agent inside the host and waits for nothing.
func (n *node) launch(extra ...string) {
	n.t.Helper()
	out, err := os.OpenFile(n.log, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		n.t.Fatal(err)
	}
	defer out.Close()
	args := append(n.through(), cmp.Or(n.build, binary))
	args = append(args, n.args(extra...)...)
	cmd, start := n.host.Command(args[0], args[1:]...)
	cmd.Stdout, cmd.Stderr = out, out
	cmd.Env = append(append(os.Environ(), raceOptions), n.agentEnv...)
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if err := start(); err != nil {
		n.t.Fatal(err)
	}
	n.agent, n.ended = cmd, make(chan error, 1)
	go func(cmd *exec.Cmd, ended chan error) { ended <- cmd.Wait() }(cmd, n.ended)
}

// through is the program, with its arguments, that starts the agent: none, unless
// the tests are run to see what an agent can do under its unit's restrictions. The
// directory that it may write is called {}.
func (n *node) through() []string {
	return strings.Fields(strings.ReplaceAll(os.Getenv("STELLAR_AGENT_THROUGH"), "{}", n.dir))
}

// startAgent starts the agent inside the host and waits until its socket answers.
func (n *node) startAgent(extra ...string) {
	n.t.Helper()
	n.launch(extra...)
	n.eventually(30*time.Second, "the agent answers", func() error {
		select {
		case err := <-n.ended:
			n.ended <- err
			n.t.Fatalf("agent ended: %v\n%s", err, n.tail())
		default:
		}
		out, err := n.run("version", "-o", "json")
		if err == nil && strings.Contains(out, `"agent": null`) {
			err = errors.New("no answer yet")
		}
		return err
	})
}

// stopAgent ends the agent with sig and returns how it ended.
func (n *node) stopAgent(sig syscall.Signal) error {
	n.t.Helper()
	if n.agent == nil {
		return nil
	}
	_ = n.agent.Process.Signal(sig)
	n.agent = nil
	select {
	case err := <-n.ended:
		return err
	case <-time.After(10 * time.Second):
		n.t.Errorf("the agent does not end:\n%s", n.tail())
		return errors.New("agent does not end")
	}
}

// run calls the CLI; the error has its exit code and what it wrote to stderr.
func (n *node) run(args ...string) (string, error) {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, binary, append([]string{"-a", "unix://" + filepath.Join(n.dir, "run", "stellar.sock")}, args...)...)
	cmd.Env = append(os.Environ(), raceOptions)
	var out, problems bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &problems
	if err := cmd.Run(); err != nil {
		return out.String(), fmt.Errorf("stellar %s: %w: %s", strings.Join(args, " "), err, strings.TrimSpace(problems.String()))
	}
	return out.String(), nil
}

// cli is run for commands that must succeed.
func (n *node) cli(args ...string) string {
	n.t.Helper()
	out, err := n.run(args...)
	if err != nil {
		n.t.Fatalf("%v\n%s", err, n.tail())
	}
	return out
}

// writeConfig writes a configuration file and returns its path.
func writeConfig(t testing.TB, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "config.toml")
	if err := os.WriteFile(path, []byte(text+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func (n *node) runContainer(r testx.Run) {
	n.t.Helper()
	if err := n.containerd.Run(r); err != nil {
		n.t.Fatal(err)
	}
}

// exec runs a program in a container of the default namespace.
func (n *node) exec(id string, args ...string) (string, error) {
	return n.containerd.Exec("default", id, args...)
}

// reaches fails the test unless the container gets an answer from addr. One of three is
// enough: answers to somebody else's pings in its namespace can fill the small buffer of
// busybox's. What is lost others count (pinging).
func (n *node) reaches(id, addr string) {
	n.t.Helper()
	if out, err := n.exec(id, "ping", "-c", "3", "-i", "0.1", "-W", "3", addr); err != nil {
		n.t.Errorf("%s does not reach %s: %v\n%s", id, addr, err, out)
	}
}

// background runs a program on a host until stop is called, or the test ends.
func (n *node) background(host *testx.NetNS, name string, args ...string) (stop func()) {
	n.t.Helper()
	cmd, start := host.Command(name, args...)
	if err := start(); err != nil {
		n.t.Fatal(err)
	}
	stop = sync.OnceFunc(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	})
	n.t.Cleanup(stop)
	return stop
}

// quiet is how long everything may take to come to rest on a busy machine.
const quiet = 30 * time.Second

func (n *node) eventually(limit time.Duration, what string, try func() error) {
	n.t.Helper()
	deadline := time.Now().Add(limit)
	for {
		err := try()
		if err == nil {
			return
		}
		if time.Now().After(deadline) {
			n.t.Fatalf("not within %s: %s: %v\n%s", limit, what, err, n.tail())
		}
		time.Sleep(20 * time.Millisecond)
	}
}

func (n *node) tail() string {
	data, _ := os.ReadFile(n.log)
	if len(data) > 6000 {
		data = data[len(data)-6000:]
	}
	return "agent's log:\n" + string(data)
}

// dump shows what a person would look at after a failure.
func (n *node) dump() {
	out, _ := n.host.Output("sh", "-c", "ip -br address; ip route; nft list ruleset")
	n.t.Logf("%s\nhost:\n%s", n.tail(), out)
}

// checkLog fails the test when the agent raced, panicked or logged an error.
func (n *node) checkLog() {
	data, err := os.ReadFile(n.log)
	if err != nil {
		return
	}
	for line := range strings.Lines(string(data)) {
		for _, crash := range []string{"DATA RACE", "panic:", "fatal error:"} {
			if strings.Contains(line, crash) {
				faults.Safety(n.t, "agent's log has %q: %s", crash, line)
			}
		}
		if strings.Contains(line, "level=ERROR") && (n.mayLog == "" || !strings.Contains(line, n.mayLog)) {
			n.t.Errorf("agent's log has an error: %s", line)
		}
	}
}
