package hold

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"stellar.io/stellar/internal/testx"
)

// TestCrun: a container of crun is held as well. Debian's crun 1.8.1 refuses cgroups
// in hybrid mode, so the test runs itself again where the unified hierarchy is not
// mounted; and it refuses the specifications that containerd 2.x writes ("unknown
// version specified"), so it runs under 1.6 alone.
func TestCrun(t *testing.T) {
	crun, err := exec.LookPath("crun")
	if err != nil {
		t.Fatalf("crun is missing: run `make deps`: %v", err)
	}
	const inside = "HOLD_TEST_CRUN"
	if os.Getenv(inside) == "" {
		cmd := exec.Command("unshare", "-m", "sh", "-c", `! umount /sys/fs/cgroup/unified 2>/dev/null || mount -t tmpfs none /sys/fs/cgroup/unified; exec "$0" "$@"`, os.Args[0], "-test.run=^TestCrun$", "-test.v")
		cmd.Env = append(os.Environ(), inside+"=1")
		out, err := cmd.CombinedOutput()
		t.Logf("%s", out)
		if err != nil || !strings.Contains(string(out), "--- PASS: TestCrun") {
			t.Fatalf("with crun: %v", err)
		}
		return
	}
	c, state := startContainerd(t, testx.V1)
	// crun takes what is in place of the unified hierarchy for one, and leaves files there.
	t.Cleanup(func() {
		os.RemoveAll(filepath.Join("/sys/fs/cgroup/unified", strings.ReplaceAll(strings.Trim(c.Dir, "/"), "/", "-")))
	})
	r := &releaser{after: time.Second} // long enough for all to be started
	b := newBedOf(t, state, Config{Roots: []string{state}}, func(cfg *Config) { cfg.OnHeld = r.onHeld })
	r.h, r.rec = b.h, b.rec
	burst(t, c, b, 1, 10, []string{"--runc-binary", crun})
	b.stop()
	r.wg.Wait()
	if s := b.h.Status(); r.held != 10 || s.Ends[Released] != 10 {
		t.Errorf("%d of 10 were held; %+v", r.held, s)
	}
	for _, e := range b.rec.ends {
		if !e.InTime || e.Stopped <= 0 {
			t.Errorf("end: %+v", e)
		}
	}
}

// TestRefusedByKernel: containers start as always beside a holder that may not trace.
func TestRefusedByKernel(t *testing.T) {
	onEach(t, func(t *testing.T, c *testx.Containerd, state string) {
		id := filepath.Base(c.Dir) + "-refused"
		h := startHolder(t, holderConfig{Root: state, Keys: []Key{{Namespace: "default", ID: id}}, Seccomp: true})
		if out, err := c.Output(testx.Run{ID: id, Args: first}); err != nil || out == "" {
			t.Errorf("run: %q, %v", out, err)
		}
		if s := h.status(); s.Working || s.Ends[Refused] != 1 {
			t.Errorf("status: %+v", s)
		}
	})
}
