package testx

import (
	"bytes"
	"crypto/rand"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"stellar.io/stellar/internal/nsx"
)

// netnsDir is where ip(8) looks for namespaces by name.
const netnsDir = "/run/netns"

// NetNS is a throw-away network namespace with lo up. It is pinned by a mount
// and by an open descriptor until the test ends.
type NetNS struct {
	Name string // for ip -n NAME
	Path string // /run/netns/NAME
	FD   int
	file *os.File
}

// NewNetNS makes a namespace that lives as long as the test.
func NewNetNS(t TB) *NetNS {
	t.Helper()
	ns, err := newNetNS(t)
	if err != nil {
		t.Fatalf("make network namespace: %v", err)
	}
	t.Cleanup(func() {
		if err := ns.Close(); err != nil {
			t.Logf("remove network namespace: %v", err)
		}
	})
	ns.Run(t, "ip", "link", "set", "lo", "up")
	return ns
}

func newNetNS(log Logger) (*NetNS, error) {
	if err := os.MkdirAll(netnsDir, 0o755); err != nil {
		return nil, err
	}
	sweepNetNS(log)
	name := fmt.Sprintf("%s%d-%s", dirPrefix, os.Getpid(), strings.ToLower(rand.Text()[:8]))
	ns := &NetNS{Name: name, Path: filepath.Join(netnsDir, name), FD: -1}
	if err := os.WriteFile(ns.Path, nil, 0o444); err != nil {
		return nil, err
	}
	own, err := nsx.Current()
	if err != nil {
		return nil, err
	}
	defer own.Close()
	// Do switches back to the namespace from which it started, so the thread
	// may leave it here.
	err = nsx.Do(int(own.Fd()), func() error {
		if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
			return err
		}
		return unix.Mount("/proc/thread-self/ns/net", ns.Path, "", unix.MS_BIND, "")
	})
	if err == nil {
		ns.file, err = os.Open(ns.Path)
	}
	if err != nil {
		return nil, errors.Join(err, ns.Close())
	}
	ns.FD = int(ns.file.Fd())
	return ns, nil
}

// Close unpins the namespace; it dies with its last process. It is idempotent.
func (ns *NetNS) Close() error {
	if ns.file != nil {
		ns.file.Close()
	}
	return removeNetNS(ns.Path)
}

func removeNetNS(path string) error {
	if err := unix.Unmount(path, unix.MNT_DETACH); err != nil && !errors.Is(err, unix.EINVAL) && !errors.Is(err, unix.ENOENT) {
		return err
	}
	if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	return nil
}

// sweepNetNS removes what dead processes have left.
func sweepNetNS(log Logger) {
	left, _ := filepath.Glob(filepath.Join(netnsDir, dirPrefix+"*"))
	for _, path := range left {
		pid, _, _ := strings.Cut(strings.TrimPrefix(filepath.Base(path), dirPrefix), "-")
		n, err := strconv.Atoi(pid)
		if err != nil || syscall.Kill(n, 0) == nil {
			continue
		}
		log.Logf("removed namespace %s: %v", path, removeNetNS(path))
	}
}

// Do runs fn with the namespace as the current one; see nsx.Do.
func (ns *NetNS) Do(fn func() error) error { return nsx.Do(ns.FD, fn) }

// Command prepares a program and returns how to start it inside the namespace.
func (ns *NetNS) Command(name string, args ...string) (cmd *exec.Cmd, start func() error) {
	cmd = exec.Command(name, args...)
	return cmd, func() error { return ns.Do(cmd.Start) }
}

// Output runs a program inside the namespace and returns all that it printed.
func (ns *NetNS) Output(name string, args ...string) (string, error) {
	cmd, start := ns.Command(name, args...)
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	err := start()
	if err == nil {
		err = cmd.Wait()
	}
	if err != nil {
		return out.String(), fmt.Errorf("%s in %s: %w: %s", cmd, ns.Name, err, strings.TrimSpace(out.String()))
	}
	return out.String(), nil
}

// Run is Output for programs that must succeed.
func (ns *NetNS) Run(t TB, name string, args ...string) string {
	t.Helper()
	out, err := ns.Output(name, args...)
	if err != nil {
		t.Fatalf("%v", err)
	}
	return out
}

// Sleeper starts a process that does nothing inside the namespace and returns
// its pid. It ends with the test.
func Sleeper(t TB, ns *NetNS) int {
	t.Helper()
	pid, _ := StartSleeper(t, ns)
	return pid
}

// StartSleeper is Sleeper that can be ended earlier; kill returns when the
// process has gone and may be called again. With a nil namespace the process is
// the only thing that holds a namespace of its own, as a container's init does.
func StartSleeper(t TB, ns *NetNS) (pid int, kill func()) {
	t.Helper()
	cmd := exec.Command("sleep", "infinity")
	start := cmd.Start
	if ns == nil {
		cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNET}
	} else {
		start = func() error { return ns.Do(cmd.Start) }
	}
	if err := start(); err != nil {
		t.Fatalf("start sleeper: %v", err)
	}
	done := make(chan struct{})
	go func() {
		_ = cmd.Wait()
		close(done)
	}()
	kill = func() {
		_ = cmd.Process.Kill()
		<-done
	}
	t.Cleanup(kill)
	return cmd.Process.Pid, kill
}

// LAN is some hosts on one Ethernet: host i has 192.0.2.(i+1)/24 on eth0 and its
// default route by Outside, which has 192.0.2.254 and knows of no other network.
type LAN struct {
	Outside *NetNS
	Hosts   []*NetNS
}

// NewLAN makes a LAN of hosts; it ends with the test.
func NewLAN(t TB, hosts int) *LAN {
	t.Helper()
	lan := &LAN{Outside: NewNetNS(t)}
	lan.Outside.Run(t, "ip", "link", "add", "lan", "type", "bridge")
	lan.Outside.Run(t, "ip", "address", "add", "192.0.2.254/24", "dev", "lan")
	lan.Outside.Run(t, "ip", "link", "set", "lan", "up")
	for i := range hosts {
		host := NewNetNS(t)
		port := "port" + strconv.Itoa(i+1)
		lan.Outside.Run(t, "ip", "link", "add", port, "type", "veth", "peer", "name", "eth0", "netns", host.Name)
		lan.Outside.Run(t, "ip", "link", "set", port, "master", "lan", "up")
		host.Run(t, "ip", "address", "add", fmt.Sprintf("192.0.2.%d/24", i+1), "dev", "eth0")
		host.Run(t, "ip", "link", "set", "eth0", "up")
		host.Run(t, "ip", "route", "add", "default", "via", "192.0.2.254")
		lan.Hosts = append(lan.Hosts, host)
	}
	for _, host := range lan.Hosts {
		waitCarrier(t, host, "eth0")
	}
	return lan
}

// waitCarrier waits until the kernel has acted on a link's carrier, which it does a
// moment after both ends are up: from then on the link looks the same.
func waitCarrier(t TB, ns *NetNS, link string) {
	t.Helper()
	for end := time.Now().Add(5 * time.Second); ; time.Sleep(time.Millisecond) {
		out := ns.Run(t, "ip", "-o", "link", "show", "dev", link)
		if strings.Contains(out, " state UP ") {
			return
		}
		if time.Now().After(end) {
			t.Fatalf("no carrier: %s", out)
		}
	}
}
