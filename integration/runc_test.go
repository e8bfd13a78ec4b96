package integration

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"

	"stellar.io/stellar/internal/testx"
)

// wrapper is stellar-runc, built once.
var wrapper = sync.OnceValues(func() (string, error) {
	path := filepath.Join(filepath.Dir(binary), "stellar-runc")
	build := exec.Command("go", "build", "-trimpath", "-ldflags", "-s -w", "-o", path, "stellar.io/stellar/cmd/stellar-runc")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		return "", fmt.Errorf("build stellar-runc: %w\n%s", err, out)
	}
	return path, nil
})

func runcWrapper(t testing.TB) string {
	t.Helper()
	path, err := wrapper()
	if err != nil {
		t.Fatal(err)
	}
	return path
}

// seenBy runs a program that looks and exits, in a container by the given runtime
// binary, and returns what it printed. The shim writes that to a file: ctr itself
// can lose the output of a program that ends at once.
func (n *node) seenBy(runtime, id string, labels map[string]string) (out string) {
	n.t.Helper()
	n.runContainer(testx.Run{
		ID: id, Image: testx.ProbeName, Labels: labels, Flags: []string{"--runc-binary", runtime}, Args: []string{"probe", "now"},
	})
	n.eventually(quiet, id+" has looked", func() (err error) {
		if out, err = n.containerd.Logs("default", id); err == nil {
			_, err = sawNetwork(out)
		}
		return err
	})
	if err := n.containerd.Remove("default", id); err != nil {
		n.t.Fatal(err)
	}
	return out
}

// readyBehind returns how many of so many programs, one after the other, saw their
// network at their first instruction.
func (n *node) readyBehind(runtime string, runs int) (ready int) {
	n.t.Helper()
	for i := range runs {
		out := n.seenBy(runtime, fmt.Sprintf("look%d", i), networked())
		if saw, _ := sawNetwork(out); saw { // seenBy has looked at the error
			ready++
			continue
		}
		n.t.Logf("look%d saw %s", i, out)
	}
	return ready
}

// TestRuncWrapper: behind stellar-runc, each container has its network at its
// first instruction, and everything else is as with runc.
func TestRuncWrapper(t *testing.T) {
	for _, version := range testx.Versions() {
		t.Run("containerd"+string(version), func(t *testing.T) {
			runtime := runcWrapper(t)
			n := startNode(t, nodeOptions{version: version})
			const runs = 100
			if ready := n.readyBehind(runtime, runs); ready != runs {
				t.Errorf("%d of %d programs saw address and default route at their first instruction", ready, runs)
			}
			if out := n.seenBy(runtime, "plain", nil); strings.Contains(out, "eth0") {
				t.Errorf("a container that asked for nothing sees %s", out)
			}
			n.lifeBehind(runtime, "life")
			if plain, wrapped := n.checkpoint("runc"), n.checkpoint(runtime); (plain == nil) != (wrapped == nil) {
				t.Errorf("checkpoint: %v, by runc alone: %v", wrapped, plain)
			}
		})
	}
}

// checkpoint saves a container without a network, and ends it; not every machine
// has a criu that can. It could not save a veth.
func (n *node) checkpoint(runtime string) error {
	n.t.Helper()
	n.runContainer(testx.Run{ID: "saved", Flags: []string{"--runc-binary", runtime}})
	_, err := n.containerd.Ctr("task", "checkpoint", "--image-path", n.t.TempDir(), "saved")
	if err := n.containerd.Remove("default", "saved"); err != nil {
		n.t.Error(err)
	}
	return err
}

// lifeBehind starts a container by the given runtime binary and does with it what
// clients do.
func (n *node) lifeBehind(runtime, id string) {
	n.t.Helper()
	ctr := func(args ...string) string {
		n.t.Helper()
		out, err := n.containerd.Ctr(append([]string{"-n", "default"}, args...)...)
		if err != nil {
			n.t.Fatal(err)
		}
		return out
	}
	n.runContainer(testx.Run{ID: id, Labels: networked(), Flags: []string{"--runc-binary", runtime}})
	if e := n.await(id, "attached"); e.Ready != "sync" {
		n.t.Errorf("the grade of %s is %q, want sync", id, e.Ready)
	}
	n.reaches(id, "172.16.0.1")
	if out := ctr("task", "ps", id); len(strings.Split(strings.TrimSpace(out), "\n")) != 2 {
		n.t.Errorf("task ps: %s", out)
	}
	ctr("task", "pause", id)
	ctr("task", "resume", id)
	if _, err := n.exec(id, "true"); err != nil {
		n.t.Errorf("exec after pause and resume: %v", err)
	}
	if out, err := n.exec(id, "sh", "-c", "exit 3"); err == nil {
		n.t.Errorf("a failed program's exit code is lost: %s", out)
	}
	if err := n.containerd.Remove("default", id); err != nil {
		n.t.Error(err)
	}
	n.awaitLong(id, "")
}

// TestRuncWrapperStrict: where a strict container cannot have its network, its
// creation fails, and ctr says why. Others start.
func TestRuncWrapperStrict(t *testing.T) {
	for _, version := range testx.Versions() {
		t.Run("containerd"+string(version), func(t *testing.T) {
			runtime := runcWrapper(t)
			n := startNode(t, nodeOptions{version: version})
			run := func(id string, labels map[string]string) error {
				return n.containerd.Run(testx.Run{ID: id, Labels: labels, Flags: []string{"--runc-binary", runtime}})
			}
			fails := func(id, want string, labels map[string]string) {
				t.Helper()
				err := run(id, labels)
				if err == nil || !strings.Contains(err.Error(), "must not run without its network") || !strings.Contains(err.Error(), want) {
					t.Errorf("%s: %v, want %q", id, err, want)
				}
				if tasks, err := n.containerd.Ctr("task", "ls", "-q"); err != nil || strings.Contains(tasks, id+"\n") {
					t.Errorf("%s has a task: %s %v", id, tasks, err)
				}
			}
			first := n.start("first")
			fails("malformed", `stellar.io/mtu`, networked("strict", "true", "mtu", "x")) // known before the container exists
			fails("taken", first.Address, networked("strict", "true", "ip", first.Address))
			if err := run("lenient", networked("ip", first.Address)); err != nil {
				t.Errorf("a container that is not strict: %v", err)
			}
			if err := run("fine", networked("strict", "true")); err != nil {
				t.Error(err)
			}

			if err := n.stopAgent(syscall.SIGKILL); err == nil {
				t.Error("the agent was not killed")
			}
			fails("dead", "is the agent running?", networked("strict", "true"))
			if err := run("late", networked()); err != nil {
				t.Errorf("without an agent: %v", err)
			}
			if err := run("plain", nil); err != nil {
				t.Errorf("without an agent and a label: %v", err)
			}
			n.startAgent()
			n.awaitLong("late", "attached")
			n.eventually(quiet, "strict containers start again", func() error { return run("again", networked("strict", "true")) })
		})
	}
}

// TestRuncWrapperAgentDies: the agent is killed while containers ask for and wait
// for their networks. They start all the same, and get them afterwards.
func TestRuncWrapperAgentDies(t *testing.T) {
	runtime := runcWrapper(t)
	n := startNode(t, nodeOptions{})
	const containers = 30
	var wg sync.WaitGroup
	for i := range containers {
		wg.Go(func() {
			id := fmt.Sprintf("c%d", i)
			if err := n.containerd.Run(testx.Run{ID: id, Labels: networked(), Flags: []string{"--runc-binary", runtime}}); err != nil {
				t.Errorf("%s: %v", id, err)
			}
		})
	}
	n.eventually(quiet, "some have their network", func() error {
		es, err := n.list()
		if err == nil && len(es) < 3 {
			err = fmt.Errorf("%d endpoints", len(es))
		}
		return err
	})
	if err := n.stopAgent(syscall.SIGKILL); err == nil {
		t.Error("the agent was not killed")
	}
	wg.Wait()
	n.startAgent()
	for i := range containers {
		n.awaitLong(fmt.Sprintf("c%d", i), "attached")
	}
}

// crunHere returns a directory with a crun that works where the machine's cgroups
// are a hybrid of both versions, which crun refuses.
func crunHere(t *testing.T) string {
	t.Helper()
	crun, err := exec.LookPath("crun")
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	script := "#!/bin/sh\nif mountpoint -q /sys/fs/cgroup/unified; then\n\texec unshare -m sh -c 'umount /sys/fs/cgroup/unified; exec \"$@\"' sh " + crun + " \"$@\"\nfi\nexec " + crun + " \"$@\"\n"
	if err := os.WriteFile(filepath.Join(dir, "crun"), []byte(script), 0o700); err != nil {
		t.Fatal(err)
	}
	return dir
}

// TestRuncWrapperOnCrun: the same under crun, which the wrapper becomes when it
// is called by that name.
func TestRuncWrapperOnCrun(t *testing.T) {
	dir := crunHere(t)
	t.Setenv("PATH", dir+":"+os.Getenv("PATH"))
	runtime := filepath.Join(t.TempDir(), "stellar-crun")
	if err := os.Symlink(runcWrapper(t), runtime); err != nil {
		t.Fatal(err)
	}
	n := startNode(t, nodeOptions{})
	const runs = 20
	if ready := n.readyBehind(runtime, runs); ready != runs {
		t.Errorf("%d of %d programs saw address and default route at their first instruction", ready, runs)
	}
	n.lifeBehind(runtime, "life")
	first := n.start("first")
	flags := []string{"--runc-binary", runtime}
	// crun does not show what its hooks say.
	err := n.containerd.Run(testx.Run{ID: "taken", Labels: networked("strict", "true", "ip", first.Address), Flags: flags})
	if err == nil || !strings.Contains(err.Error(), "hook") {
		t.Errorf("strict with an address that is taken: %v", err)
	}
	if err := n.stopAgent(syscall.SIGKILL); err == nil {
		t.Error("the agent was not killed")
	}
	err = n.containerd.Run(testx.Run{ID: "dead", Labels: networked("strict", "true"), Flags: flags})
	if err == nil || !strings.Contains(err.Error(), "must not run without its network") {
		t.Errorf("strict without an agent: %v", err)
	}
	if err := n.containerd.Run(testx.Run{ID: "late", Labels: networked(), Flags: flags}); err != nil {
		t.Errorf("without an agent: %v", err)
	}
}
