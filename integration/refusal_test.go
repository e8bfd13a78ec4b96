package integration

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"stellar.io/stellar/internal/testx"
	"stellar.io/stellar/internal/testx/faults"
)

// fingerprint is everything of a host that Stellar must not change for a
// container that it refuses.
func (n *node) fingerprint() string {
	n.t.Helper()
	n.eventually(quiet, "IPv6 addresses are settled", func() error {
		if out := n.host.Run(n.t, "ip", "-6", "address", "show", "tentative"); out != "" {
			return fmt.Errorf("%s", out)
		}
		return nil
	})
	return n.host.Run(n.t, "sh", "-c", "ip -br link; ip -br address; ip route show table all; nft list ruleset; sysctl -a 2>/dev/null | grep -E '^net\\.(ipv4|ipv6|bridge)\\.(conf|ip_forward)'")
}

func TestRejections(t *testing.T) {
	n := startNode(t, nodeOptions{})
	holder := n.start("holder", "ip", "172.16.0.50")
	if holder.Address != "172.16.0.50" {
		t.Errorf("static address: %+v", holder)
	}
	n.cli("ipam", "reserve", "172.16.0.60")
	for id, tt := range map[string]struct{ key, value, reason string }{
		"unknown":   {"stellar.io/colour", "red", "unknown key stellar.io/colour"},
		"malformed": {"stellar.io/ip", "172.16.0.300", `stellar.io/ip="172.16.0.300" is not an IPv4 address`},
		"outside":   {"stellar.io/ip", "172.16.4.2", "address 172.16.4.2 is not in this node's subnet"},
		"taken":     {"stellar.io/ip", "172.16.0.50", "address 172.16.0.50 is taken"},
		"reserved":  {"stellar.io/ip", "172.16.0.60", "address 172.16.0.60 is reserved"},
		"gateway":   {"stellar.io/ip", "172.16.0.1", "address 172.16.0.1 is reserved"},
		"network":   {"stellar.io/network", "prod", `network "prod" does not exist`},
	} {
		labels := networked()
		labels[tt.key] = tt.value
		n.runContainer(testx.Run{ID: id, Labels: labels})
		if e := n.await(id, "rejected"); !strings.Contains(e.Reason, tt.reason) {
			t.Errorf("%s: reason %q, want %q", id, e.Reason, tt.reason)
		}
		if out, err := n.exec(id, "ip", "link", "show", "eth0"); err == nil {
			t.Errorf("%s has an interface: %s", id, out)
		}
	}
	// A cause that goes heals the container.
	if err := n.containerd.Remove("default", "holder"); err != nil {
		t.Fatal(err)
	}
	if e := n.await("taken", "attached"); e.Address != "172.16.0.50" {
		t.Errorf("freed address: %+v", e)
	}
	n.reaches("taken", "172.16.0.1")
}

// TestStrict: no container that says so stays running without its network.
func TestStrict(t *testing.T) {
	n := startNode(t, nodeOptions{})
	if e := n.start("fine", "strict", "true"); e.Ready == "" {
		t.Errorf("%+v", e)
	}
	err := n.containerd.Run(testx.Run{ID: "bad", Labels: networked("strict", "true", "ip", "198.51.100.1")})
	switch {
	case err == nil:
		n.await("bad", "rejected")
	case !strings.Contains(err.Error(), "has stopped"): // the best that can be: killed before it was started
		t.Fatal(err)
	}
	n.eventually(quiet, "its task is over", func() error {
		out, err := n.containerd.Ctr("tasks", "ls")
		if err == nil && (!strings.Contains(out, "fine") || strings.Contains(out, "bad") && !strings.Contains(out, "STOPPED")) {
			err = fmt.Errorf("%s", out)
		}
		return err
	})
	n.reaches("fine", "172.16.0.1")
}

func TestImageBringsLabel(t *testing.T) {
	img := testx.MustBusybox(t).WithLabels("docker.io/stellar/hostile:test", map[string]string{
		"stellar.io/network": "true", "stellar.io/ip": "172.16.0.99"})
	n := startNode(t, nodeOptions{images: []testx.Image{img}})
	n.runContainer(testx.Run{ID: "silent", Image: img.Name})
	if e := n.await("silent", "rejected"); !strings.Contains(e.Reason, "label comes from the image, use an annotation") {
		t.Errorf("%+v", e)
	}
	n.runContainer(testx.Run{ID: "asked", Image: img.Name, Annotations: map[string]string{"stellar.io/network": "true", "stellar.io/ip": "172.16.0.77"}})
	if e := n.await("asked", "attached"); e.Address != "172.16.0.77" || e.Source != "annotation" {
		t.Errorf("%+v", e)
	}
}

func TestHostNetwork(t *testing.T) {
	n := startNode(t, nodeOptions{})
	before := n.fingerprint()
	n.runContainer(testx.Run{ID: "spec", Labels: networked(), HostNet: true})
	n.runContainer(testx.Run{ID: "path", Labels: networked(), NetNSPath: n.host.Path})
	for _, id := range []string{"spec", "path"} {
		if e := n.await(id, "rejected"); !strings.Contains(e.Reason, "host network") || e.Address != "" {
			t.Errorf("%s: %+v", id, e)
		}
	}
	if after := n.fingerprint(); after != before {
		t.Errorf("the host changed:\n%s\nbefore:\n%s", after, before)
	}
}

func TestSharedNamespace(t *testing.T) {
	n := startNode(t, nodeOptions{})
	a := n.start("a")
	pid, err := n.containerd.TaskPID("default", "a")
	if err != nil {
		t.Fatal(err)
	}
	other := n.start("other")
	n.runContainer(testx.Run{ID: "b", Labels: networked(), NetNSPath: fmt.Sprintf("/proc/%d/ns/net", pid)})
	if b := n.await("b", "shared"); b.Address != a.Address {
		faults.Safety(t, "shares %s, want %s", b.Address, a.Address)
	}
	if out, err := n.exec("b", "ip", "-o", "link"); err != nil || strings.Count(out, "eth0") != 1 || strings.Contains(out, "stellar0") {
		t.Errorf("interfaces: %v\n%s", err, out)
	}
	// The namespace outlives the container that brought the address.
	if err := n.containerd.Remove("default", "a"); err != nil {
		t.Fatal(err)
	}
	time.Sleep(time.Second)
	n.reaches("other", a.Address)
	_ = n.stopAgent(syscall.SIGKILL)
	n.startAgent()
	if b := n.await("b", "shared"); b.Address != a.Address {
		faults.Safety(t, "after a restart: %+v", b)
	}
	n.reaches("other", a.Address)
	if err := n.containerd.Remove("default", "b"); err != nil {
		t.Fatal(err)
	}
	n.await("b", "")
	n.await("a", "")
	if out := n.cli("ipam", "show", a.Address); !strings.Contains(out, "cooling") {
		t.Errorf("after the last has left:\n%s", out)
	}
	_ = other
}

func TestContainerWithANetworkOfItsOwn(t *testing.T) {
	n := startNode(t, nodeOptions{})
	ns := testx.NewNetNS(t)
	ns.Run(t, "ip", "link", "add", "eth0", "type", "veth", "peer", "name", "far")
	ns.Run(t, "ip", "address", "add", "198.51.100.2/24", "dev", "eth0")
	ns.Run(t, "ip", "link", "set", "eth0", "up")
	ns.Run(t, "ip", "link", "set", "far", "up")
	ns.Run(t, "ip", "route", "add", "default", "via", "198.51.100.1")
	n.start("b")
	n.runContainer(testx.Run{ID: "a", Labels: networked(), NetNSPath: ns.Path})
	a := n.await("a", "attached")
	if a.Ifname != "stellar0" || a.Reason == "" {
		t.Errorf("%+v", a)
	}
	if out := ns.Run(t, "ip", "route", "show", "default"); strings.TrimSpace(out) != "default via 198.51.100.1 dev eth0" {
		t.Errorf("default route: %s", out)
	}
	n.reaches("b", a.Address)
	_ = n.stopAgent(syscall.SIGKILL)
	n.startAgent()
	if after := n.await("a", "attached"); after.Address != a.Address || after.HostIfname != a.HostIfname {
		faults.Safety(t, "after a restart %+v, was %+v", after, a)
	}
}

func TestContainerdAbsentAtStart(t *testing.T) {
	n := startNode(t, nodeOptions{noContainerd: true, noAgent: true})
	n.startAgent("--init")
	n.eventually(quiet, "a warning of containerd", func() error {
		out, _ := n.run("status")
		for line := range strings.Lines(out) {
			if strings.HasPrefix(line, "containerd") && strings.Contains(line, "WARN") {
				return nil
			}
		}
		return errors.New(out)
	})
	if err := n.containerd.Start(); err != nil {
		t.Fatal(err)
	}
	n.cli("status", "--wait", "--timeout", "30s")
	n.start("a")
}

// TestContainerdKilledDuringBurst: whatever of the burst exists afterwards has
// its network, and nothing else has anything.
func TestContainerdKilledDuringBurst(t *testing.T) {
	n := startNode(t, nodeOptions{})
	var wg sync.WaitGroup
	for i := range 20 {
		wg.Go(func() {
			_ = n.containerd.Run(testx.Run{ID: fmt.Sprintf("burst%d", i), Labels: networked()})
		})
	}
	time.Sleep(300 * time.Millisecond)
	if err := n.containerd.Kill9(); err != nil {
		t.Fatal(err)
	}
	wg.Wait()
	if err := n.containerd.Start(); err != nil {
		t.Fatal(err)
	}
	n.cli("status", "--wait", "--timeout", "30s")
	n.eventually(quiet, "what runs is attached", func() error {
		tasks, err := n.containerd.Ctr("tasks", "ls")
		if err != nil {
			return err
		}
		es := n.endpoints()
		for line := range strings.Lines(tasks) {
			f := strings.Fields(line)
			if len(f) == 3 && f[2] == "RUNNING" && es["default/"+f[0]].State != "attached" {
				return fmt.Errorf("%s runs, its endpoint is %+v", f[0], es["default/"+f[0]])
			}
		}
		return nil
	})
	seen := map[string]string{}
	for id, e := range n.endpoints() {
		if other, twice := seen[e.Address]; twice && e.Address != "" {
			faults.Safety(t, "%s and %s have %s", id, other, e.Address)
		}
		seen[e.Address] = id
	}
	n.eventually(quiet, "ipam check is content", func() error {
		_, err := n.run("ipam", "check")
		return err
	})
}

func TestAgentRefusals(t *testing.T) {
	n := startNode(t, nodeOptions{})
	refused := func(what, want string, args ...string) {
		t.Helper()
		out, err := exec.Command(binary, args...).CombinedOutput()
		if err == nil || !strings.Contains(string(out), want) {
			t.Errorf("%s: %v, %q; want %q", what, err, out, want)
		}
	}
	second := n.args()
	refused("second agent", fmt.Sprintf("%d", n.agent.Process.Pid), second...)

	foreign := filepath.Join(n.dir, "foreign")
	if err := os.Mkdir(foreign, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(foreign, "mail"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	refused("foreign directory", "foreign", "agent", "--data-dir", foreign, "--run-dir", filepath.Join(n.dir, "run2"))
	refused("directory that cannot be made", "/proc/stellar", "agent", "--data-dir", "/proc/stellar", "--run-dir", filepath.Join(n.dir, "run2"))

	file := filepath.Join(n.dir, "config.toml")
	if err := os.WriteFile(file, []byte("node-name = \"a\"\ncolour = \"red\"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	refused("unknown key", "config.toml:2", "agent", "config", "validate", file)
	refused("unknown key at start", "config.toml:2", "agent", "--config", file)
}
