package packaging

import (
	"maps"
	"os"
	"regexp"
	"slices"
	"strings"
)

// traces is what a machine has, by what shows it: a purge leaves none of ours.
type traces map[string][]string

// shown are the programs that list a machine's files and the kernel's objects.
var shown = map[string]string{
	"files":     "cd /var/lib/stellar-bed/changed && find . -printf '%y /%P\\n'; find /run -xdev -printf '%y %p\\n'",
	"links":     "ip -br link show | awk '{print $1}'",
	"addresses": "ip -br -4 address show",
	"routes":    "ip route show table all | grep -v fe80:", // the kernel's own come late
	"rules":     "ip rule show",
	"nftables":  "nft list ruleset",
	"iptables":  "iptables-save | grep -v '^[#:]' || true",
	"sysctls":   "sysctl -a 2>/dev/null | grep -E '^net\\.ipv[46]\\.(ip_forward|conf\\.(all|default|eth0|lo)\\.)' || true",
	"groups":    "getent group",
	"users":     "getent passwd",
	"units":     "systemctl list-units --all --plain --no-legend 'stellar*'; systemctl list-unit-files --no-legend 'stellar*' || true",
	"processes": "ps -eo comm= | grep -i stellar || true",
}

// elsewhere is what other programs keep of an installation, or leave when they run.
var elsewhere = regexp.MustCompile(`^. (/var/lib/(dpkg|apt|containerd|systemd/(catalog|random-seed|timers|coredump))|/var/cache|/var/log|/var/lib/stellar-bed|` +
	`/run/(containerd|systemd|log|dbus|user|lock|utmp|runc|motd|netns|sudo|xtables\.lock)|/root|/usr/share/info/dir|/etc/(group|gshadow|passwd|shadow|subuid|subgid)-?|/etc/ld\.so\.cache|/etc/\.pwd\.lock)($|[/.])`)

func (b *bed) traces() traces {
	b.t.Helper()
	out := traces{}
	for what, show := range shown {
		for line := range strings.Lines(b.run("sh", "-c", show)) {
			if line = strings.TrimSpace(line); line != "" && !elsewhere.MatchString(line) && !everywhere(line) {
				out[what] = append(out[what], line)
			}
		}
	}
	return out
}

// everywhere reports whether it is a directory that the machine outside has too, in
// which something was changed.
func everywhere(line string) bool {
	dir, ok := strings.CutPrefix(line, "d ")
	if !ok {
		return false
	}
	_, err := os.Lstat(dir)
	return err == nil
}

// same fails the test for all that has come to before, or gone from it.
func (b *bed) same(before, after traces) {
	b.t.Helper()
	for _, what := range slices.Sorted(maps.Keys(shown)) {
		for _, line := range missing(before[what], after[what]) {
			b.t.Errorf("%s: the purge left %s", what, line)
		}
		for _, line := range missing(after[what], before[what]) {
			b.t.Errorf("%s: the purge took %s", what, line)
		}
	}
}

// missing are the lines of b that a has not.
func missing(a, b []string) (out []string) {
	has := map[string]bool{}
	for _, line := range a {
		has[line] = true
	}
	for _, line := range b {
		if !has[line] {
			out = append(out, line)
		}
	}
	return out
}
