package integration

import (
	"fmt"
	"strings"
	"syscall"
	"testing"
	"time"

	"stellar.io/stellar/internal/testx/faults"
)

// TestRepair: whatever of ours others break is put right within two seconds.
func TestRepair(t *testing.T) {
	n := startNode(t, nodeOptions{})
	a, b := n.start("a"), n.start("b")
	for _, tt := range []struct {
		name, reach string
		breakIt     []string
	}{
		{"port out of the bridge", b.Address, []string{"ip", "link", "set", a.HostIfname, "nomaster"}},
		{"port down", b.Address, []string{"ip", "link", "set", a.HostIfname, "down"}},
		{"bridge down", b.Address, []string{"ip", "link", "set", "stellar0", "down"}},
		{"bridge without address", "172.16.0.1", []string{"ip", "address", "flush", "dev", "stellar0"}},
		{"bridge deleted", b.Address, []string{"ip", "link", "delete", "stellar0"}},
		{"rules flushed", "192.0.2.254", []string{"nft", "flush", "ruleset"}},
		{"forwarding off", "192.0.2.254", []string{"sysctl", "-qw", "net.ipv4.conf.stellar0.forwarding=0", "net.ipv4.conf.eth0.forwarding=0"}},
	} {
		n.host.Run(t, tt.breakIt[0], tt.breakIt[1:]...)
		start := time.Now()
		n.eventually(5*time.Second, tt.name, func() error {
			_, err := n.exec("a", "ping", "-c", "1", "-W", "1", tt.reach)
			return err
		})
		if took := time.Since(start); took > 2500*time.Millisecond { // the ping and the exec have their part
			t.Errorf("%s: repaired after %s", tt.name, took)
		}
	}
	n.host.Run(t, "ip", "route", "flush", "proto", "147")
	n.eventually(2*time.Second, "route is back", func() error {
		if out := n.host.Run(t, "ip", "route"); !strings.Contains(out, "unreachable 172.16.0.0/12") {
			return fmt.Errorf("%s", out)
		}
		return nil
	})
	n.repairsMAC("a", b.Address)
	if out := n.cli("events"); !strings.Contains(out, "repair") {
		t.Errorf("no repair among the events:\n%s", out)
	}
}

// repairsMAC: what a container sends under another hardware address does not arrive,
// and the command that `stellar trace` names for it gives it back its own.
func (n *node) repairsMAC(id, reach string) {
	n.t.Helper()
	ping := func() error {
		_, err := n.exec(id, "ping", "-c", "1", "-W", "1", reach)
		return err
	}
	pid, err := n.containerd.TaskPID("default", id)
	if err != nil {
		n.t.Fatal(err)
	}
	inside := func(args ...string) string {
		return n.host.Run(n.t, "nsenter", append([]string{"-t", fmt.Sprint(pid), "-n", "ip"}, args...)...)
	}
	before := inside("-br", "link", "show", "eth0")
	inside("link", "set", "eth0", "address", "02:00:00:00:00:99")
	if ping() == nil {
		n.t.Errorf("%s is heard under a hardware address that is not its own", id)
	}
	if out, err := n.run("trace", id, reach); err == nil || !strings.Contains(err.Error(), "stellar endpoint repair default/"+id) {
		n.t.Errorf("trace does not say what to type: %v\n%s", err, out)
	}
	n.cli("endpoint", "repair", id)
	n.eventually(quiet, "the hardware address is back", ping)
	if now := inside("-br", "link", "show", "eth0"); now != before {
		n.t.Errorf("eth0 of %s is %q, was %q", id, now, before)
	}
}

// TestForwardPolicyDrop is Docker's: FORWARD drops, and bridged packets pass it.
func TestForwardPolicyDrop(t *testing.T) {
	for _, iptables := range []string{"iptables-nft", "iptables-legacy"} {
		t.Run(iptables, func(t *testing.T) {
			n := startNode(t, nodeOptions{})
			_, b := n.start("a"), n.start("b")
			n.host.Run(t, "sysctl", "-qw", "net.bridge.bridge-nf-call-iptables=1")
			n.host.Run(t, iptables, "-P", "FORWARD", "DROP")
			for _, addr := range []string{b.Address, "192.0.2.254"} {
				n.eventually(quiet, "a reaches "+addr, func() error {
					_, err := n.exec("a", "ping", "-c", "1", "-W", "1", addr)
					return err
				})
			}
			n.stopAgent(syscall.SIGTERM)
			n.reaches("a", b.Address)
		})
	}
}

// TestCleanup takes everything down, and nothing else does.
func TestCleanup(t *testing.T) {
	n := startNode(t, nodeOptions{noAgent: true})
	before := n.fingerprint()
	n.startAgent("--init")
	a := n.start("a")
	if _, err := n.run("agent", "cleanup", "--yes", "--data-dir", n.dir+"/data"); err == nil {
		t.Error("cleanup beside a running agent")
	}
	n.stopAgent(syscall.SIGTERM)
	if n.fingerprint() == before {
		t.Error("stopping the agent took everything down")
	}
	for range 2 {
		n.host.Run(t, binary, "agent", "cleanup", "--yes", "--data-dir", n.dir+"/data", "--run-dir", n.dir+"/run")
	}
	if after := n.fingerprint(); after != before {
		t.Errorf("left behind:\n%s\nbefore:\n%s", after, before)
	}
	// The next agent attaches again what still runs.
	n.startAgent()
	if e := n.await("a", "attached"); e.Address != a.Address {
		faults.Safety(t, "address %s, want %s", e.Address, a.Address)
	}
	n.reaches("a", "172.16.0.1")
}
