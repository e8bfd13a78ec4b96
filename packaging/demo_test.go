package packaging

import (
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

var pinged = regexp.MustCompile(`(\d+) packets transmitted, (\d+) (packets )?received`)

// TestDemo: the demo shows three nodes, loses no packet, obeys the commands that it
// names and leaves nothing behind.
func TestDemo(t *testing.T) {
	for _, mode := range []string{"", "routed"} {
		t.Run("mode="+mode, func(t *testing.T) {
			dir, err := os.MkdirTemp("/var/lib", "stellar-demo-test-") // containerd's root cannot be a tmpfs
			if err != nil {
				t.Fatal(err)
			}
			prefix := filepath.Base(dir)
			demo := func(args ...string) string {
				t.Helper()
				cmd := exec.Command("./demo.sh", args...)
				cmd.Env = append(os.Environ(), "STELLAR_DEMO_DIR="+dir, "STELLAR_DEMO_PREFIX="+prefix, "STELLAR_DEMO_MODE="+mode)
				out, err := cmd.CombinedOutput()
				if err != nil {
					t.Errorf("demo.sh %s: %v\n%s", strings.Join(args, " "), err, out)
				}
				return string(out)
			}
			down := func() {
				demo("down")
				if left, _ := filepath.Glob("/run/netns/" + prefix + "*"); len(left) > 0 {
					t.Errorf("left: %s", left)
				}
				if _, err := os.Stat(dir); !os.IsNotExist(err) {
					t.Errorf("%s is still there: %v", dir, err)
				}
			}
			t.Cleanup(down)
			out := demo("up")
			pings := pinged.FindAllStringSubmatch(out, -1)
			if len(pings) != 12 {
				t.Errorf("%d pings, want each node's three, and one during and two after the kill", len(pings))
			}
			for _, p := range pings {
				if p[1] != p[2] {
					t.Errorf("%s", p[0])
				}
			}
			for _, want := range []string{"172.16.8.0/22", "quarantined", "web-c"} {
				if !strings.Contains(out, want) {
					t.Errorf("no %q", want)
				}
			}
			if t.Failed() {
				t.Log(out)
			}
			if status := demo("on", "b", "stellar", "status"); !strings.Contains(status, "ready") {
				t.Errorf("status:\n%s", status)
			}
			demo("on", "a", "stellar", "ipam", "release", "172.16.8.0/22", "--yes")
		})
	}
}
