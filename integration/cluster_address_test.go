package integration

import (
	"errors"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"

	"stellar.io/stellar/internal/testx"
)

// refuses fails the test unless the command ends with the exit code and says want.
func (n *node) refuses(code int, want string, args ...string) {
	n.t.Helper()
	out, err := n.run(args...)
	exit, _ := errors.AsType[*exec.ExitError](err)
	if exit == nil || exit.ExitCode() != code || !strings.Contains(err.Error(), want) {
		n.t.Errorf("on %s: %v %s; want exit code %d and %q", n.name, err, out, code, want)
	}
}

// TestAddressesOfOthers: an address of another node's subnet is reserved and released
// by that node, whichever is asked; without it nothing is decided.
func TestAddressesOfOthers(t *testing.T) {
	lan := testx.NewLAN(t, 3)
	a, b, c := newNode(t, lan, 0, nodeOptions{}), newNode(t, lan, 1, nodeOptions{}), newNode(t, lan, 2, nodeOptions{})
	a.startAgent("--init")
	a.cli("status", "--wait", "--timeout", "30s")
	b.startAgent()
	b.join(a, a.token())
	c.startAgent()
	c.join(a, a.token("--role", "node"))
	const free, other = "172.16.4.50", "172.16.4.51"

	a.cli("ipam", "reserve", free, "--reason", "a printer")
	for _, n := range []*node{a, b, c} {
		n.eventually(quiet, n.name+" knows of the reservation", func() error {
			if out := n.cli("ipam", "show", free); !strings.Contains(out, "a printer") {
				return errors.New(out)
			}
			return nil
		})
	}
	if log, _ := os.ReadFile(b.log); !strings.Contains(string(log), "reserved on request") || !strings.Contains(string(log), "node=a") {
		t.Errorf("who asked is not in b's log:\n%s", log)
	}
	b.runContainer(testx.Run{ID: "static", Labels: networked("ip", free)})
	if e := b.await("static", "rejected"); !strings.Contains(e.Reason, "reserved") {
		t.Errorf("a container took the address: %+v", e)
	}
	a.refuses(2, "part of node b's subnet", "ipam", "reserve", "172.16.4.128/25")
	a.refuses(4, "", "ipam", "release", "-y", other)
	// A node's certificate speaks for that node alone.
	c.refuses(8, "may not", "ipam", "reserve", other)
	c.refuses(8, "may not", "ipam", "release", "-y", free)

	e := b.start("run")
	a.leased(e)
	c.leased(e)
	a.refuses(7, "carried by", "ipam", "release", "-y", e.Address)
	if out := a.cli("ipam", "release", "-y", free); !strings.Contains(out, "reservation") {
		t.Errorf("release: %s", out)
	}
	b.awaitLong("static", "attached")
	a.cli("ipam", "reserve", other)
	a.cli("ipam", "release", "-y", other)

	// A lease whose owner is gone while b was away: b finds that out by itself, so what
	// is left to refuse is an address without one.
	heal := b.cut("input", "output")
	a.refuses(3, "node b", "ipam", "reserve", other)
	heal()
	a.cli("ipam", "reserve", other)
	_ = b.stopAgent(syscall.SIGKILL)
	a.refuses(3, "node b", "ipam", "release", "-y", other)
	if out := a.cli("ipam", "show", other); !strings.Contains(out, "reserved") {
		t.Errorf("ipam show: %s", out)
	}
	a.leased(e) // told by a's replica
}
