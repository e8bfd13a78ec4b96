package agent

import (
	"testing"

	"stellar.io/stellar/events"
)

// TestRequestsOfAnotherBoot: after a reboot a path names another namespace, or none;
// that somebody asked for a network, and what he asked, is still true.
func TestRequestsOfAnotherBoot(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	pod := Request{Source: SourceCNI, Network: "stellar", ContainerID: "pod", NetNS: "/proc/77/ns/net", Ifname: "eth0"}
	manual := Request{Source: SourceManual, Key: events.Key{Namespace: "default", ID: "web"}, Created: 5, MTU: 1400}
	first := newRequests(dir, "boot-1")
	for _, r := range []Request{pod, manual} {
		if err := <-first.put(r); err != nil {
			t.Fatal(err)
		}
	}
	for boot, netns := range map[string]string{"boot-1": pod.NetNS, "boot-2": "", "": pod.NetNS} {
		again := newRequests(dir, boot)
		if err := again.load(); err != nil {
			t.Fatal(err)
		}
		if r, ok := again.get(pod.id()); !ok || r.NetNS != netns || r.Ifname != pod.Ifname {
			t.Errorf("boot %q: %+v, %t", boot, r, ok)
		}
		if r, ok := again.get(manual.id()); !ok || r != manual {
			t.Errorf("boot %q: %+v, %t", boot, r, ok)
		}
	}
	// Asked again after the reboot, it is a fact of this boot.
	second := newRequests(dir, "boot-2")
	if err := second.load(); err != nil {
		t.Fatal(err)
	}
	if err := <-second.put(pod); err != nil {
		t.Fatal(err)
	}
	third := newRequests(dir, "boot-2")
	if err := third.load(); err != nil {
		t.Fatal(err)
	}
	if r, _ := third.get(pod.id()); r.NetNS != pod.NetNS {
		t.Errorf("%+v", r)
	}
}
