package packaging

import (
	"fmt"
	"os"
	"slices"
	"strings"
	"time"
)

// installed looks at what the package brought beside the programs.
func (b *bed) installed() {
	b.t.Helper()
	if out := b.run("systemctl", "is-enabled", "stellar"); strings.TrimSpace(out) != "enabled" {
		b.t.Errorf("the unit is %s", out)
	}
	if out := b.run("ip", "route", "show", "proto", "stellar"); !strings.Contains(out, "unreachable 172.16.0.0/12") {
		b.t.Errorf("routes of proto stellar: %s", out)
	}
	if out := b.run("stat", "-c", "%a %U %G", "/run/stellar/stellar.sock", "/var/lib/stellar", "/run/stellar"); out != "660 root stellar\n700 root root\n755 root root\n" {
		b.t.Errorf("modes of socket, data and run directory:\n%s", out)
	}
	if out, err := b.try("systemd-analyze", "verify", "stellar.service"); err != nil || strings.Contains(out, "stellar") {
		b.t.Errorf("systemd-analyze verify: %v %s", err, out)
	}
	b.sampled()
	b.reloaded()
	b.members()
	b.manuals()
	b.settings()
}

// sampled: docs/operations/monitoring.md shows the checks that a node has, all of them.
func (b *bed) sampled() {
	b.t.Helper()
	page, err := os.ReadFile("../docs/operations/monitoring.md")
	if err != nil {
		b.t.Fatal(err)
	}
	_, sample, _ := strings.Cut(string(page), "\nCHECK ")
	sample, _, _ = strings.Cut(sample, "\n```")
	_, real, _ := strings.Cut(b.run("stellar", "status"), "CHECK ")
	if got, want := firstWords(sample), firstWords(real); len(want) < 10 || !slices.Equal(got, want) {
		b.t.Errorf("docs/operations/monitoring.md shows the checks %q, `stellar status` %q", got, want)
	}
}

// firstWords are those of the lines of a table but its head.
func firstWords(table string) (words []string) {
	for i, line := range strings.Split(strings.TrimSpace(table), "\n") {
		if f := strings.Fields(line); i > 0 && len(f) > 0 {
			words = append(words, f[0])
		}
	}
	return words
}

// reloaded: a reload has the running agent read its log level anew.
func (b *bed) reloaded() {
	b.t.Helper()
	const config = "/etc/stellar/config.toml"
	pid, text := b.pidOfAgent(), b.run("cat", config)
	b.run("sed", "-i", `s/^level = .*/level = "debug"/`, config)
	if b.run("cat", config) == text {
		b.t.Fatalf("no log level in %s", config)
	}
	b.run("systemctl", "reload", "stellar")
	eventually(b.t, 10*time.Second, "the level is debug", func() error {
		out, err := b.try("stellar", "agent", "log-level")
		if err == nil && !strings.Contains(out, "debug") {
			err = fmt.Errorf("it is %s", out)
		}
		return err
	})
	if now := b.pidOfAgent(); now != pid {
		b.t.Errorf("the reload started the agent anew")
	}
	if err := os.WriteFile(b.path(config), []byte(text), 0o644); err != nil {
		b.t.Fatal(err)
	}
	b.run("systemctl", "reload", "stellar")
}

// members: who is in group stellar may call the agent, another user may not.
func (b *bed) members() {
	b.t.Helper()
	gid := strings.Split(b.run("getent", "group", "stellar"), ":")[2]
	nobody := []string{"setpriv", "--reuid", "65534", "--regid", "65534"}
	if out, err := b.try(append(nobody, "--groups", gid, "stellar", "endpoint", "ls")...); err != nil || !strings.Contains(out, "172.16.") {
		b.t.Errorf("a member of group stellar is told %s (%v)", out, err)
	}
	if out, err := b.try(append(nobody, "--clear-groups", "stellar", "endpoint", "ls")...); err == nil {
		b.t.Errorf("who is not of group stellar is told %s", out)
	}
}

// manuals: every command that the program shows has its page, and each shell
// completes all of them.
func (b *bed) manuals() {
	b.t.Helper()
	var verbs []string
	for line := range strings.Lines(b.run("stellar", "__completeNoDesc", "")) {
		if line = strings.TrimSpace(line); line != "" && line != "help" && !strings.HasPrefix(line, ":") && !strings.HasPrefix(line, "Completion ended") {
			verbs = append(verbs, line)
		}
	}
	if len(verbs) < 10 {
		b.t.Errorf("the program completes %q", verbs)
	}
	pages := []string{"man1/stellar.1", "man1/stellar-cluster-join.1", "man1/stellar-runc.1", "man5/stellar.toml.5"}
	for _, verb := range verbs {
		pages = append(pages, "man1/stellar-"+verb+".1")
	}
	for _, page := range pages {
		if out, err := b.try("sh", "-c", "gzip -dc /usr/share/man/"+page+".gz | head -1"); err != nil || !strings.HasPrefix(out, ".TH ") {
			b.t.Errorf("%s: %v %s", page, err, out)
		}
	}
	out := b.run("bash", "-c", ". /usr/share/bash-completion/bash_completion; . /usr/share/bash-completion/completions/stellar; "+
		`COMP_WORDS=(stellar ""); COMP_CWORD=1; COMP_LINE="stellar "; COMP_POINT=8; COMP_TYPE=9; __start_stellar; printf '%s\n' "${COMPREPLY[@]}"`)
	for _, verb := range verbs {
		if !strings.Contains(out, verb) {
			b.t.Errorf("bash does not complete %s:\n%s", verb, out)
		}
	}
	for file, word := range map[string]string{"zsh/vendor-completions/_stellar": "#compdef stellar", "fish/vendor_completions.d/stellar.fish": "complete -c stellar"} {
		if text, err := os.ReadFile(b.path("/usr/share/" + file)); err != nil || !strings.Contains(string(text), word) {
			b.t.Errorf("%s: %v, want %q in it", file, err, word)
		}
	}
}

// settings: what systemd and udev make of the files that they read. A networkd
// that takes every link leaves ours alone, and the kernel has the larger tables.
func (b *bed) settings() {
	b.t.Helper()
	for line := range strings.Lines(b.run("cat", "/usr/lib/sysctl.d/60-stellar.conf")) {
		key, value, ok := strings.Cut(strings.TrimSpace(line), " = ")
		if !ok || strings.HasPrefix(line, "#") {
			continue
		}
		now, err := b.try("sysctl", "-n", key)
		if err != nil {
			if _, err := os.Stat("/proc/sys/" + strings.ReplaceAll(key, ".", "/")); err != nil {
				b.t.Errorf("the kernel has no %s", key)
			}
			continue // a setting of the first network alone
		}
		if strings.HasPrefix(key, "net.") && strings.TrimSpace(now) != value { // the others are not this machine's own
			b.t.Errorf("%s is %s, want %s", key, now, value)
		}
	}
	host := strings.Fields(b.run("sh", "-c", "ip -br link show master stellar0 | cut -d@ -f1"))
	if len(host) != 1 {
		b.t.Fatalf("links of the bridge: %q", host)
	}
	ours := []string{"stellar0", host[0]}
	for _, link := range ours {
		out, err := b.try("udevadm", "test-builtin", "net_setup_link", "/sys/class/net/"+link)
		if err != nil || !strings.Contains(out, "ID_NET_LINK_FILE=/usr/lib/systemd/network/10-stellar.link") {
			b.t.Errorf("udev and %s: %v %s", link, err, out)
		}
	}
	b.networkd(ours)
}
