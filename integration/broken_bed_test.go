package integration

import (
	"bytes"
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"stellar.io/stellar/api"
	"stellar.io/stellar/internal/config"
	"stellar.io/stellar/internal/testx"
	"stellar.io/stellar/internal/testx/broken"
)

// brokenBed is what testdata/broken/README.md describes.
type brokenBed struct {
	t      *testing.T
	lan    *testx.LAN
	nodes  map[string]*node
	eps    map[string]endpoint // by container
	builds map[string]string
	mode   string
	// hostMACs are the hardware addresses of the hosts' ends, by container.
	hostMACs map[string]string
}

// brokenDisk is the size of the file systems of the data directories.
const brokenDisk = "192m"

func newBrokenBed(t *testing.T, mode string) *brokenBed {
	t.Helper()
	b := &brokenBed{t: t, mode: mode, lan: testx.NewLAN(t, 3), nodes: map[string]*node{}, eps: map[string]endpoint{}, hostMACs: map[string]string{}, builds: map[string]string{}}
	b.lan.Outside.Run(t, "ip", "address", "add", "198.51.100.1/32", "dev", "lo")
	shifted := buildShifted(t)
	for i := range 3 {
		n := b.add(newNode(t, b.lan, i, nodeOptions{mode: mode}))
		if n.name == "c" {
			n.clock(shifted)
		}
		b.builds[n.name] = n.build
	}
	a := b.nodes["a"]
	a.startAgent("--init")
	a.cli("status", "--wait", "--timeout", "30s")
	for _, name := range []string{"b", "c"} {
		b.nodes[name].startAgent()
		b.nodes[name].join(a, a.token())
	}
	for _, id := range []string{"a1", "a2", "b1", "c1"} {
		b.eps[id] = b.nodes[id[:1]].start(id)
		b.hostMACs[id] = strings.Fields(b.nodes[id[:1]].host.Run(t, "ip", "-br", "link", "show", b.eps[id].HostIfname))[2]
	}
	for _, n := range b.nodes {
		n.routed(a, b.nodes["b"], b.nodes["c"])
	}
	awaitVoters(t, []*node{a, b.nodes["b"], b.nodes["c"]})
	return b
}

// newSingleBed is one node with containers a1, a2 and more.
func newSingleBed(t *testing.T, more int) *brokenBed {
	t.Helper()
	b := &brokenBed{t: t, lan: testx.NewLAN(t, 1), nodes: map[string]*node{}, eps: map[string]endpoint{}, builds: map[string]string{}}
	n := b.add(newNode(t, b.lan, 0, nodeOptions{}))
	n.startAgent()
	if more > 0 {
		n.cli("cluster", "init", "--network", "192.168.0.0/24", "--subnet-prefix", "28")
	} else {
		n.cli("cluster", "init")
	}
	n.cli("status", "--wait", "--timeout", "30s")
	for i := range 2 + more {
		id := fmt.Sprintf("a%d", i+1)
		b.eps[id] = n.start(id)
	}
	return b
}

// add gives a node that has no agent yet a small file system for its data, and a
// directory in which network managers are looked for.
func (b *brokenBed) add(n *node) *node {
	b.t.Helper()
	data := filepath.Join(n.dir, "data")
	for _, dir := range []string{data, n.root()} {
		if err := os.Mkdir(dir, 0o700); err != nil {
			b.t.Fatal(err)
		}
	}
	if err := syscall.Mount("tmpfs", data, "tmpfs", 0, "mode=0700,size="+brokenDisk); err != nil {
		b.t.Fatal(err)
	}
	b.t.Cleanup(func() {
		_ = n.stopAgent(syscall.SIGTERM)
		if err := syscall.Unmount(data, syscall.MNT_DETACH); err != nil {
			b.t.Logf("unmount %s: %v", data, err)
		}
	})
	n.agentEnv = []string{"STELLAR_CHECK_ROOT=" + n.root()}
	n.mayLog = "level=ERROR" // a broken node may complain
	b.nodes[n.name] = n
	return n
}

func (n *node) root() string { return filepath.Join(n.dir, "root") }

// env are the variables of the set-ups' commands on a node.
func (b *brokenBed) env(n *node) []string {
	out := append(os.Environ(), "UPLINK=eth0", "BRIDGE=stellar0", "NETWORK=172.16.0.0/12", "ROUTER=192.0.2.254", "PORT=port2",
		"DATA_DIR="+filepath.Join(n.dir, "data"), "ROOT="+n.root(), "CLOCK="+filepath.Join(n.dir, "clock"))
	for i, name := range []string{"A", "B", "C"} {
		gateway := fmt.Sprintf("172.16.%d.1", 4*i)
		if b.mode == config.ModeRouted {
			gateway = routedGateway
		}
		out = append(out, fmt.Sprintf("SUBNET_%s=172.16.%d.0/22", name, 4*i), fmt.Sprintf("NODE_%s=192.0.2.%d", name, i+1), fmt.Sprintf("GATEWAY_%s=%s", name, gateway))
	}
	for id, e := range b.eps {
		up := strings.ToUpper(id)
		out = append(out, up+"="+e.Address, "MAC_"+up+"="+e.MAC, "HOST_IF_"+up+"="+e.HostIfname, "MAC_HOST_"+up+"="+b.hostMACs[id])
	}
	return out
}

// sh runs commands where a set-up says.
func (b *brokenBed) sh(on, script string) error {
	n := b.nodes[on[:1]]
	var cmd *exec.Cmd
	var start func() error
	switch {
	case on == "switch":
		n = b.nodes["b"]
		cmd, start = b.lan.Outside.Command("sh", "-ec", script)
	case len(on) > 1:
		pid, err := n.containerd.TaskPID("default", on)
		if err != nil {
			return err
		}
		cmd = exec.Command("nsenter", "-t", fmt.Sprint(pid), "-n", "sh", "-ec", script)
		start = cmd.Start
	default:
		cmd, start = n.host.Command("sh", "-ec", script)
	}
	var out bytes.Buffer
	cmd.Env, cmd.Stdout, cmd.Stderr = b.env(n), &out, &out
	if err := start(); err != nil {
		return err
	}
	if err := cmd.Wait(); err != nil {
		return fmt.Errorf("on %s: %w\n%s", on, err, out.String())
	}
	return nil
}

// typed runs a command on a node as an administrator would; it exits with 0 or 5.
func (b *brokenBed) typed(n *node, args ...string) (string, error) {
	args = append([]string{"-a", "unix://" + filepath.Join(n.dir, "run", "stellar.sock")}, args...)
	cmd, start := n.host.Command(binary, args...)
	var out, problems bytes.Buffer
	cmd.Env, cmd.Stdout, cmd.Stderr = append(os.Environ(), raceOptions, "STELLAR_CHECK_ROOT="+n.root()), &out, &problems
	if err := start(); err != nil {
		return "", err
	}
	timer := time.AfterFunc(time.Minute, func() { _ = cmd.Process.Kill() })
	defer timer.Stop()
	err := cmd.Wait()
	const problemsFound = 5
	if exit, ok := errors.AsType[*exec.ExitError](err); ok && exit.ExitCode() == problemsFound {
		err = nil
	}
	if err != nil {
		err = fmt.Errorf("stellar %s: %w: %s", strings.Join(args, " "), err, strings.TrimSpace(problems.String()))
	}
	return out.String(), err
}

// check is what `stellar check` finds on a node.
func (b *brokenBed) check(n *node) ([]api.CheckFinding, error) {
	text, err := b.typed(n, "check", "-o", "json", "--data-dir", filepath.Join(n.dir, "data"), "--run-dir", filepath.Join(n.dir, "run"),
		"--containerd-address", n.containerd.Address)
	if err != nil {
		return nil, err
	}
	var r struct {
		Kind  string
		Items []api.CheckFinding
	}
	if err := json.Unmarshal([]byte(text), &r); err != nil || r.Kind != "CheckReport" {
		return nil, fmt.Errorf("check -o json: kind %q, %v: %s", r.Kind, err, text)
	}
	return r.Items, nil
}

// traced is the code of the first broken hop, "" if none is.
func (b *brokenBed) traced(s broken.Setup) (code, said string, err error) {
	args := []string{"trace", "-o", "json"}
	if s.Probe {
		args = append(args, "--probe")
	}
	text, err := b.typed(b.nodes[s.Trace[0][:1]], append(args, s.Trace...)...)
	if err != nil {
		return "", text, err
	}
	var r struct{ Cause *struct{ Code string } }
	if err := json.Unmarshal([]byte(text), &r); err != nil {
		return "", text, fmt.Errorf("trace -o json: %w", err)
	}
	if r.Cause == nil {
		return "", text, nil
	}
	return r.Cause.Code, text, nil
}

// wreck sets a broken set-up up.
func (b *brokenBed) wreck(t *testing.T, s broken.Setup) {
	t.Helper()
	for _, name := range slices.Concat(s.Stop, s.Restart) {
		_ = b.nodes[name].stopAgent(syscall.SIGKILL)
	}
	for _, n := range b.nodes {
		if len(s.Stop) > 0 && !slices.Contains(s.Stop, n.name) {
			// The one that was stopped may have led; without a quorum there is none.
			_, _ = n.run("wait", "leader", "--timeout", "10s")
		}
	}
	for _, name := range s.Pause {
		_ = b.nodes[name].agent.Process.Signal(syscall.SIGSTOP)
	}
	for _, name := range s.Containerd {
		if err := b.nodes[name].containerd.Kill9(); err != nil {
			t.Fatal(err)
		}
	}
	for name, program := range s.Wrap {
		n := b.nodes[name]
		_ = n.stopAgent(syscall.SIGKILL)
		n.build = filepath.Join(n.dir, "wrapped")
		if err := os.WriteFile(n.build, []byte(fmt.Sprintf("#!/bin/sh\nexec %s %s \"$@\"\n", program, cmp.Or(b.builds[name], binary))), 0o700); err != nil {
			t.Fatal(err)
		}
		n.startAgent()
		n.cli("status", "--wait", "--timeout", "30s")
	}
	if err := b.sh(s.On, s.Break); err != nil {
		t.Fatal(err)
	}
	for _, name := range s.Restart {
		b.nodes[name].launch()
	}
}

// mend undoes a set-up and waits until no node finds anything any more.
func (b *brokenBed) mend(t *testing.T, s broken.Setup) {
	t.Helper()
	if err := b.sh(s.On, s.Undo); err != nil {
		t.Error(err)
	}
	for _, name := range s.Pause {
		_ = b.nodes[name].agent.Process.Signal(syscall.SIGCONT)
	}
	for _, name := range s.Containerd {
		if err := b.nodes[name].containerd.Start(); err != nil {
			t.Fatal(err)
		}
	}
	for _, name := range s.Restart {
		_ = b.nodes[name].stopAgent(syscall.SIGKILL)
	}
	again := slices.Concat(s.Stop, s.Restart)
	for name := range s.Wrap {
		_ = b.nodes[name].stopAgent(syscall.SIGKILL)
		b.nodes[name].build = b.builds[name]
		again = append(again, name)
	}
	for _, name := range again {
		b.nodes[name].startAgent()
	}
	b.healthy(t)
	for _, name := range again { // the next set-up may break what is set up last
		b.nodes[name].routed(b.nodes["a"], b.nodes["b"], b.nodes["c"])
		for id := range b.eps {
			if id[:1] == name { // adopted, and with it what was changed in it put right
				b.nodes[name].await(id, "attached")
			}
		}
	}
}

// healthy waits until no node finds anything.
func (b *brokenBed) healthy(t *testing.T) {
	t.Helper()
	var wg sync.WaitGroup
	for _, n := range b.nodes {
		wg.Go(func() {
			deadline := time.Now().Add(quiet)
			for {
				found, err := b.check(n)
				if err == nil && len(found) == 0 {
					return
				}
				if time.Now().After(deadline) {
					t.Errorf("%s does not come to rest: %v %v", n.name, err, findingsText(found))
					return
				}
				time.Sleep(100 * time.Millisecond)
			}
		})
	}
	wg.Wait()
	if t.Failed() {
		for _, n := range b.nodes {
			n.dump()
		}
		t.FailNow()
	}
}

func findingsText(found []api.CheckFinding) string {
	var out strings.Builder
	for _, f := range found {
		fmt.Fprintf(&out, "\n  %s %s %s: %s [%s]", f.Severity, f.Code, f.Subject, f.Message, f.Mend)
	}
	return out.String()
}
