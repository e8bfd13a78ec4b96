package integration

import (
	"context"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"

	"stellar.io/stellar/api"
	"stellar.io/stellar/internal/testx"
	"stellar.io/stellar/internal/testx/faults"
)

// cniAdd is what a CNI client asks for a namespace that is no container's. It returns
// the address.
func (n *node) cniAdd(t testing.TB, id, netns string) string {
	t.Helper()
	got, err := n.client().AddAttachment(context.Background(), api.AttachmentSpec{Attachment: api.Attachment{
		Network: "stellar", ContainerID: id, Ifname: "eth0", NetNS: netns,
	}})
	if err != nil {
		t.Fatalf("ADD %s: %v\n%s", id, err, n.tail())
	}
	return got.Address.Addr().String()
}

// rebooted makes what the agent has written down that of another boot.
func (n *node) rebooted(t *testing.T) {
	t.Helper()
	boot := regexp.MustCompile(`"boot": *"[^"]+"`)
	files, err := filepath.Glob(filepath.Join(n.dir, "data", "requests", "*.json"))
	if err != nil {
		t.Fatal(err)
	}
	changed := 0
	for _, f := range append(files, filepath.Join(n.dir, "data", "contact.json")) {
		data, err := os.ReadFile(f)
		if err != nil {
			t.Fatal(err)
		}
		if boot.Match(data) {
			changed++
		}
		if err := os.WriteFile(f, boot.ReplaceAll(data, []byte(`"boot": "00000000-0000-0000-0000-00000000beef"`)), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if changed < 2 {
		t.Errorf("%d files know the boot, want contact and request", changed)
	}
}

// TestFaultReboot (real containerd): a machine starts anew: its tasks, links and
// namespaces are gone, its numbers mean something else, its records and its data
// directory are what they were. Addresses stay with their containers; nothing of what
// the kernel had is believed; the address of a container that was not started again is
// shown and never taken.
func TestFaultReboot(t *testing.T) {
	n := startNode(t, nodeOptions{})
	restarted, idle := n.start(unique("restarted")), n.start(unique("idle"))
	pod := testx.NewNetNS(t)
	watchKernels(t, n).add(t, pod)
	attached := n.cniAdd(t, "pod", "/run/netns/"+pod.Name)
	if err := n.stopAgent(syscall.SIGKILL); err != nil && !strings.Contains(err.Error(), "killed") {
		t.Error(err)
	}
	for _, e := range []endpoint{restarted, idle} {
		if err := n.containerd.KillTask("default", e.Container); err != nil {
			t.Fatal(err)
		}
	}
	for line := range strings.Lines(n.host.Run(t, "ip", "-o", "link", "show", "group", "147")) {
		name, _, _ := strings.Cut(strings.Fields(line)[1], "@")
		_, _ = n.host.Output("ip", "link", "del", strings.TrimSuffix(name, ":")) // the bridge may have gone with it
	}
	_, _ = n.host.Output("ip", "route", "flush", "proto", "147")
	// What had the pod's path is another namespace now.
	n.rebooted(t)
	n.startAgent()
	n.cli("status", "--wait", "--timeout", "30s")
	for _, e := range []endpoint{restarted, idle} {
		if now := n.await(e.Container, "bound"); now.Address != e.Address {
			faults.Safety(t, "%+v, was %+v", now, e)
		}
	}
	if now := n.await("stellar/pod", "bound"); now.Address != attached {
		faults.Safety(t, "the pod: %+v, it had %s", now, attached)
	} else if !strings.Contains(now.Reason, "started anew") {
		t.Errorf("the pod: %+v", now)
	}
	if out, err := pod.Output("ip", "link", "show", "eth0"); err == nil {
		t.Errorf("the namespace that has the pod's path now was touched:\n%s", out)
	}
	if err := n.containerd.StartTask("default", restarted.Container); err != nil {
		t.Fatal(err)
	}
	if now := n.await(restarted.Container, "attached"); now.Address != restarted.Address {
		faults.Safety(t, "%+v, was %+v", now, restarted)
	}
	other := n.start(unique("other"))
	if other.Address == idle.Address || other.Address == attached {
		faults.Safety(t, "a new container got a kept address: %+v", other)
	}
	if out := n.cli("endpoint", "ls"); !strings.Contains(out, idle.Container) || !strings.Contains(out, idle.Address) {
		t.Errorf("endpoint ls:\n%s", out)
	}
	n.cli("ipam", "check")
}
