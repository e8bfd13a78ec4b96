package netsetup

import (
	"os"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// TestNoLeaks: 500 attaches and detaches leave no descriptor, and every thread is
// in the namespace that it should be in.
func TestNoLeaks(t *testing.T) {
	inModes(t, testNoLeaksIn)
}

func testNoLeaksIn(t *testing.T, mode func(*Config)) {
	b := newBed(t, mode).ensure()
	c := b.attach("172.16.0.2")
	own, err := os.Readlink("/proc/self/ns/net")
	if err != nil {
		t.Fatal(err)
	}
	fingerprint := hostFingerprint(t)
	cycle := func() {
		ns, err := b.n.OpenPID(c.pid, time.Now())
		if err != nil {
			t.Fatal(err)
		}
		defer ns.Close()
		c.spec.NS = ns
		if err := b.n.Detach(t.Context(), c.spec.Owner); err != nil {
			t.Fatal(err)
		}
		if _, _, err := b.n.Attach(t.Context(), c.spec); err != nil {
			t.Fatal(err)
		}
	}
	cycle()
	before := descriptors(t)
	for range 500 {
		cycle()
	}
	if after := descriptors(t); after > before {
		t.Errorf("%d descriptors before, %d after", before, after)
	}
	tasks, err := os.ReadDir("/proc/self/task")
	if err != nil {
		t.Fatal(err)
	}
	for _, task := range tasks {
		if ns, err := os.Readlink("/proc/self/task/" + task.Name() + "/ns/net"); err == nil && ns != own {
			t.Errorf("thread %s is in %s, the process in %s", task.Name(), ns, own)
		}
	}
	if diff := cmp.Diff(fingerprint, hostFingerprint(t)); diff != "" {
		t.Errorf("the machine's own namespace changed: %s", diff)
	}
}

func descriptors(t *testing.T) int {
	t.Helper()
	fds, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	return len(fds)
}

// hostFingerprint is what of the real host's network our code could change.
func hostFingerprint(t *testing.T) string {
	t.Helper()
	var out strings.Builder
	for _, path := range []string{"/proc/net/route", "/proc/net/fib_trie", "/proc/net/if_inet6", sysctlForward, sysctlConf4("lo", "forwarding")} {
		b, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		out.Write(b)
	}
	links, err := os.ReadDir("/proc/sys/net/ipv4/conf")
	if err != nil {
		t.Fatal(err)
	}
	for _, l := range links {
		out.WriteString(l.Name() + "\n")
	}
	return out.String()
}
