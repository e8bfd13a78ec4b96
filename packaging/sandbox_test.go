package packaging

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime/debug"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"
)

// underRestrictions are the tests of package integration that the agent must pass
// under the unit's restrictions: networks by label, by hand and by CNI, the hold,
// the FORWARD exception, repair, adoption, containerd's death, three nodes, followers, pings and throw-away
// endpoints, what looks for faults, and the page.
var underRestrictions = []string{
	"TestAttach", "TestMasquerade", "TestHeld", "TestByHand", "TestCNICalls", "TestCNITool", "TestForwardPolicyDrop", "TestRepair", "TestAgentKilled",
	"TestRuncWrapperStrict", "TestCleanup", "TestContainerdKilled", "TestSharedNamespace", "TestThreeNodes", "TestConnectivity",
	"TestTrace", "TestBugreportHasNoSecrets", "TestFollowers", "TestPing", "TestWebPage",
}

// capabilities are the numbers of those that the unit may name (capabilities(7)).
var capabilities = map[string]int{"CAP_NET_ADMIN": 12, "CAP_NET_RAW": 13, "CAP_SYS_PTRACE": 19, "CAP_SYS_ADMIN": 21, "CAP_SYS_NICE": 23}

// maxExposure is what systemd 252 may think of the unit: none of the options that
// it is made of can go unnoticed.
const maxExposure = 3.5

// TestSandbox takes the restrictions that systemd has really put on the agent,
// and runs tests of whole nodes with agents under just these.
func TestSandbox(t *testing.T) {
	b := boot(t)
	b.run("apt-get", "install", "-y", "-q", b.put(debs(t)[0]))
	b.score()
	b.scheduling()
	tool := filepath.Join(t.TempDir(), "sandbox")
	if _, err := run("..", []string{"CGO_ENABLED=0"}, "go", "build", "-o", tool, "./internal/testx/sandbox"); err != nil {
		t.Fatal(err)
	}
	restrictions := b.restrictions(tool)
	// The programs of iptables make their lock, the unit's tmpfiles.d does so for them.
	if lock, err := os.OpenFile("/run/xtables.lock", os.O_CREATE, 0o600); err == nil {
		lock.Close()
	}
	bite(t, tool, restrictions)

	start := time.Now()
	out := under(t, tool, restrictions, "^("+strings.Join(underRestrictions, "|")+")$")
	for _, name := range underRestrictions {
		passed := regexp.MustCompile(`(?m)^--- PASS: ` + name + ` .*$`).FindString(out)
		if passed == "" {
			t.Errorf("%s was not run:\n%s", name, out)
		}
		t.Log(passed)
	}
	t.Logf("%d tests of whole nodes under the unit's restrictions in %s", len(underRestrictions), time.Since(start).Round(time.Second))
}

// under runs tests of whole nodes, their agents under the restrictions.
func under(t *testing.T, tool, restrictions, pattern string) string {
	t.Helper()
	args := []string{"test", "-tags=hashicorpmetrics", "-count=1", "-timeout=20m", "-v", "-run", pattern}
	if raceEnabled() { // what the suite itself has built is used again
		args = append(args, "-race")
	}
	cmd := exec.Command("go", append(args, "./integration")...)
	cmd.Dir, cmd.Env = "..", append(os.Environ(), fmt.Sprintf("STELLAR_AGENT_THROUGH=%s run %s {}", tool, restrictions))
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("under the unit's restrictions: %v\n%s", err, out)
	}
	return string(out)
}

// restrictions reads those of the running agent into a file.
func (b *bed) restrictions(tool string) string {
	b.t.Helper()
	b.run(b.put(tool), "dump", strings.TrimSpace(b.pidOfAgent()), "/var/lib/stellar-bed/restrictions")
	text, err := os.ReadFile(b.path("/var/lib/stellar-bed/restrictions"))
	if err != nil {
		b.t.Fatal(err)
	}
	var r struct {
		Bounding uint64
		Filters  [][]any
		Mounts   []struct {
			Path             string
			ReadOnly, Hidden bool
		}
	}
	if err := json.Unmarshal(text, &r); err != nil {
		b.t.Fatal(err)
	}
	if want := named(b.t); r.Bounding != want {
		b.t.Errorf("the agent's bounding set is %#x, the unit names %#x", r.Bounding, want)
	}
	if len(r.Filters) < 4 {
		b.t.Errorf("%d seccomp filters, want those for calls, architectures, families, namespaces and memory", len(r.Filters))
	}
	var writable, hidden []string
	for _, m := range r.Mounts {
		if !m.ReadOnly {
			writable = append(writable, m.Path)
		}
		if m.Hidden {
			hidden = append(hidden, m.Path)
		}
	}
	if want := []string{"/proc", "/proc/sys/net", "/run/xtables.lock"}; !slices.Equal(writable, want) {
		b.t.Errorf("beside its own directories the agent may write %q, want %q", writable, want)
	}
	if want := []string{"/home", "/root"}; !contains(hidden, want...) {
		b.t.Errorf("the agent does not see %q, want at least %q", hidden, want)
	}
	file := filepath.Join(b.t.TempDir(), "restrictions")
	if err := os.WriteFile(file, text, 0o644); err != nil {
		b.t.Fatal(err)
	}
	return file
}

func contains(all []string, some ...string) bool {
	return !slices.ContainsFunc(some, func(s string) bool { return !slices.Contains(all, s) })
}

// bite fails the test unless the restrictions refuse and permit what the unit says.
func bite(t *testing.T, tool, restrictions string) {
	t.Helper()
	dir := t.TempDir()
	const same = `cat "$0" >/dev/null && cat "$0" | { read -r v; echo "$v" >"$0"; }` // nothing changes
	for _, refused := range [][]string{
		{"unshare", "--uts", "true"},
		{"mount", "-t", "tmpfs", "none", dir},
		{"mknod", filepath.Join(dir, "null"), "c", "1", "3"},
		{"mkfifo", filepath.Join(dir, "fifo")},
		{"sh", "-c", same, "/proc/sys/kernel/core_pattern"},
		{"touch", "/etc/stellar-sandbox"},
		{"touch", "/run/stellar-sandbox"},
		{"ls", "/root"},
		{"chown", "1:1", dir},
	} {
		if out, err := exec.Command(tool, append([]string{"run", restrictions, dir}, refused...)...).CombinedOutput(); err == nil {
			t.Errorf("%s is permitted: %s", refused, out)
		}
	}
	for _, allowed := range [][]string{
		{"sh", "-c", same, "/proc/sys/net/ipv4/ip_forward"},
		{"touch", filepath.Join(dir, "file")},
		{"chrt", "--reset-on-fork", "--fifo", "1", "true"},
	} {
		if out, err := exec.Command(tool, append([]string{"run", restrictions, dir}, allowed...)...).CombinedOutput(); err != nil {
			t.Errorf("%s: %v: %s", allowed, err, out)
		}
	}
}

// scheduling: one thread of the agent goes before all normal ones, that of the hold,
// and the others before most.
func (b *bed) scheduling() {
	b.t.Helper()
	// A kernel with realtime groups of the first version gives a unit none by itself.
	b.run("sh", "-c", `cd /sys/fs/cgroup/cpu 2>/dev/null || exit 0
for g in . system.slice system.slice/stellar.service; do [ ! -e $g/cpu.rt_runtime_us ] || echo 10000 >$g/cpu.rt_runtime_us; done`)
	b.run("stellar", "cluster", "init") // the hold begins with it
	pid := strings.TrimSpace(b.pidOfAgent())
	eventually(b.t, 10*time.Second, "one thread is SCHED_FIFO, the others have nice value -10", func() error {
		out, err := b.try("ps", "-L", "-o", "cls=,rtprio=,ni=", "-p", pid)
		if err != nil {
			return err
		}
		threads := map[string]int{}
		for line := range strings.Lines(out) {
			threads[strings.Join(strings.Fields(line), " ")]++
		}
		if threads["FF 1 -"] != 1 || len(threads) != 2 || threads["TS - -10"] == 0 {
			return fmt.Errorf("class, priority, nice value and how many threads have them: %v", threads)
		}
		return nil
	})
}

func raceEnabled() bool {
	info, ok := debug.ReadBuildInfo()
	return ok && slices.Contains(info.Settings, debug.BuildSetting{Key: "-race", Value: "true"})
}

// named is the bounding set that the unit's text asks for.
func named(t *testing.T) (set uint64) {
	t.Helper()
	unit, err := os.ReadFile("systemd/stellar.service")
	if err != nil {
		t.Fatal(err)
	}
	line := regexp.MustCompile(`(?m)^CapabilityBoundingSet=(.*)$`).FindSubmatch(unit)
	if line == nil {
		t.Fatal("the unit names no capabilities")
	}
	for _, name := range strings.Fields(string(line[1])) {
		n, ok := capabilities[name]
		if !ok {
			t.Fatalf("the test does not know %s", name)
		}
		set |= 1 << n
	}
	return set
}

// score compares what systemd thinks of the unit with docs/systemd.md. Each
// version of systemd counts in its own way.
func (b *bed) score() {
	b.t.Helper()
	out := b.run("systemd-analyze", "--offline=true", "security", "--no-pager", "/usr/lib/systemd/system/stellar.service")
	found := regexp.MustCompile(`Overall exposure level for stellar.service: ([0-9.]+)`).FindStringSubmatch(out)
	if found == nil {
		b.t.Fatalf("no score:\n%s", out)
	}
	version := strings.Fields(b.run("systemd-analyze", "--version"))[1]
	b.t.Logf("exposure level %s, by systemd %s", found[1], version)
	doc, err := os.ReadFile("../docs/systemd.md")
	if err != nil {
		b.t.Fatal(err)
	}
	if score, err := strconv.ParseFloat(found[1], 64); err != nil || version == "252" && score > maxExposure || score > maxExposure+0.5 {
		b.t.Errorf("exposure level %s (%v), want %.1f at most", found[1], err, maxExposure)
	}
	if version == "252" && !strings.Contains(string(doc), "**"+found[1]+"**") {
		b.t.Errorf("docs/systemd.md does not say that the score is %s", found[1])
	}
}
