package packaging

import (
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"
)

// firstStart is the head of the README's commands from the checkout to a container
// with an address, which says how many there are.
const firstStart = "Five commands, from the checkout to a container with an address:\n\n```\n"

// readmeCommands are those commands, as they are typed.
func readmeCommands(t *testing.T) []string {
	t.Helper()
	text, err := os.ReadFile("../README.md")
	if err != nil {
		t.Fatal(err)
	}
	_, rest, ok := strings.Cut(string(text), firstStart)
	block, _, ok2 := strings.Cut(rest, "\n```\n")
	if !ok || !ok2 {
		t.Fatalf("README.md has no %q", firstStart)
	}
	var commands []string
	for line := range strings.Lines(block) {
		commands = append(commands, strings.TrimSpace(regexp.MustCompile(`\s+# .*`).ReplaceAllString(line, "")))
	}
	if len(commands) != 5 {
		t.Errorf("README.md speaks of five commands and has %q", commands)
	}
	return commands
}

// follow types the README's commands on a machine that has a checkout, Go with the
// modules, containerd and a registry, and nothing else of this project. It returns
// what the last of them started, with its address.
func (b *bed) follow(commands []string) (container, addr, ready string) {
	b.t.Helper()
	checkout := b.checkout()
	start := time.Now()
	for _, command := range commands {
		before := time.Now()
		// An operator who is root already, where there is no sudo.
		script := `type sudo >/dev/null 2>&1 || sudo() { "$@"; }; cd "$0"; ` + command
		b.run("env", "-u", "MAKEFLAGS", "-u", "MAKELEVEL", "-u", "MAKEOVERRIDES", "-u", "MFLAGS", "-u", "VERSION", "-u", "GOFLAGS", "bash", "-c", script, checkout)
		b.t.Logf("%6.2fs  %s", time.Since(before).Seconds(), command)
	}
	last := strings.Fields(commands[len(commands)-1])
	container = last[len(last)-1]
	addr, ready = b.await(container)
	took := time.Since(start)
	b.t.Logf("%6.2fs  all of it, with a container at %s (%s)", took.Seconds(), addr, ready)
	if took > allowed {
		b.t.Errorf("from the checkout to an address in %s, want %s at most", took, allowed)
	}
	return container, addr, ready
}

// checkout copies this one's files into the bed, where git knows nothing of them.
func (b *bed) checkout() string {
	b.t.Helper()
	const dir = "/var/lib/stellar-bed/checkout"
	if err := os.MkdirAll(b.path(dir), 0o755); err != nil {
		b.t.Fatal(err)
	}
	list := exec.Command("bash", "-o", "pipefail", "-c", `git ls-files -z --cached --others --exclude-standard | tar --null -T - --ignore-failed-read -c | tar -x -C "$0"`, b.path(dir))
	list.Dir = ".."
	if out, err := list.CombinedOutput(); err != nil {
		b.t.Fatalf("copy the checkout: %v: %s", err, out)
	}
	if _, err := os.Stat(b.path(filepath.Join(dir, "Makefile"))); err != nil {
		b.t.Fatal(err)
	}
	return dir
}
