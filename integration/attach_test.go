package integration

import (
	"encoding/json"
	"fmt"
	"strings"
	"sync"
	"testing"

	"stellar.io/stellar/internal/testx"
)

// TestAttach is the main job, on both containerds: address, interface, way out.
func TestAttach(t *testing.T) {
	for _, version := range testx.Versions() {
		t.Run("containerd"+string(version), func(t *testing.T) {
			n := startNode(t, nodeOptions{version: version})
			a, b := n.start("a"), n.start("b")
			if a.Address != "172.16.0.2" || b.Address != "172.16.0.3" {
				t.Errorf("addresses %s and %s, want the first two of the subnet", a.Address, b.Address)
			}
			if a.Ifname != "eth0" || a.Source != "label" || !strings.HasPrefix(a.HostIfname, "veth") {
				t.Errorf("endpoint %+v", a)
			}
			n.reaches("a", "172.16.0.1")
			n.reaches("a", b.Address)
			n.reaches("b", a.Address)
			n.reaches("a", "192.0.2.254")
			if out := n.cli("ipam", "ls"); !strings.Contains(out, "172.16.0.0/22") {
				t.Errorf("ipam ls:\n%s", out)
			}
			if err := n.containerd.Remove("default", "a"); err != nil {
				t.Fatal(err)
			}
			n.await("a", "")
			if out := n.cli("ipam", "show", a.Address); !strings.Contains(out, "cooling") {
				t.Errorf("released address:\n%s", out)
			}
			if c := n.start("c"); c.Address != "172.16.0.4" {
				t.Errorf("address %s given although others are fresher, want 172.16.0.4", c.Address)
			}
		})
	}
}

// callerIn is the address in what the probe's server answers, HOST:PORT.
func callerIn(answer string) string {
	host, _, _ := strings.Cut(strings.TrimSpace(answer), ":")
	return host
}

// TestMasquerade: outside hosts see the host's address, containers and the host
// see the container's own.
func TestMasquerade(t *testing.T) {
	n := startNode(t, nodeOptions{})
	n.runContainer(testx.Run{ID: "server", Image: testx.ProbeName, Labels: networked(), Args: []string{"probe", "serve", "0.0.0.0:7000"}})
	server := n.await("server", "attached")
	n.background(n.outside, probe, "serve", "192.0.2.254:7000")

	call := func(id, address string) string {
		t.Helper()
		// ctr loses the output of a program that exits before ctr has the pipe open, on
		// a busy machine.
		for try := 0; ; try++ {
			out, err := n.containerd.Output(testx.Run{ID: fmt.Sprint(id, try), Image: testx.ProbeName, Labels: networked(), Args: []string{"probe", "call", address}})
			if err != nil {
				t.Fatalf("%v: %s", err, out)
			}
			if out != "" || try == 4 {
				return callerIn(out)
			}
		}
	}
	if seen := call("out", "192.0.2.254:7000"); seen != "192.0.2.1" {
		t.Errorf("outside sees %s, want the host's 192.0.2.1", seen)
	}
	if seen := call("in", server.Address+":7000"); !strings.HasPrefix(seen, "172.16.0.") || seen == "172.16.0.1" {
		t.Errorf("a container sees %s, want the caller's own address", seen)
	}
	if seen := callerIn(n.host.Run(t, probe, "call", server.Address+":7000")); seen != "172.16.0.1" {
		t.Errorf("a container sees %s when the host calls, want the gateway", seen)
	}
}

// TestFirstInstruction counts how often a program that looks and exits sees its
// network. The attach by events promises nothing here; the figure is printed.
func TestFirstInstruction(t *testing.T) {
	n := startNode(t, nodeOptions{})
	const runs = 20
	ready := 0
	for i := range runs {
		id := fmt.Sprintf("look%d", i)
		out, err := n.containerd.Output(testx.Run{ID: id, Image: testx.ProbeName, Labels: networked(), Args: []string{"probe", "now"}})
		if err != nil {
			t.Fatalf("%v: %s", err, out)
		}
		var seen struct {
			Interfaces map[string]struct{ Addrs []string }
			Default    []string
		}
		if err := json.Unmarshal([]byte(out), &seen); err != nil {
			t.Fatalf("%v: %s", err, out)
		}
		if len(seen.Interfaces["eth0"].Addrs) > 0 && len(seen.Default) == 1 {
			ready++
		}
	}
	t.Logf("%d of %d programs saw address and default route at their first instruction", ready, runs)
}

// TestShortLived: 200 programs that end at once leave nothing behind.
func TestShortLived(t *testing.T) {
	n := startNode(t, nodeOptions{})
	const total, atOnce = 200, 200
	slots := make(chan struct{}, atOnce)
	var wg sync.WaitGroup
	for i := range total {
		slots <- struct{}{}
		wg.Go(func() {
			defer func() { <-slots }()
			id := fmt.Sprintf("true%d", i)
			if out, err := n.containerd.Output(testx.Run{ID: id, Labels: networked(), Args: []string{"/bin/true"}}); err != nil {
				t.Errorf("%v: %s", err, out)
			}
		})
	}
	wg.Wait()
	n.eventually(quiet, "nothing is left", func() error {
		if es := n.endpoints(); len(es) > 0 {
			return fmt.Errorf("%d endpoints, such as %v", len(es), es)
		}
		if links := n.host.Run(t, "sh", "-c", "ip -o link show type veth | grep -c alias || true"); strings.TrimSpace(links) != "0" {
			return fmt.Errorf("%s links", links)
		}
		return nil
	})
	n.checked()
}
