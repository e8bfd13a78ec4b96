package integration

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"stellar.io/stellar/internal/testx"
)

// blocks are the commands below the README's sentence that begins with head, as typed.
func blocks(t *testing.T, head string) []string {
	t.Helper()
	text, err := os.ReadFile("../README.md")
	if err != nil {
		t.Fatal(err)
	}
	_, rest, ok := strings.Cut(string(text), "\n"+head)
	_, rest, ok2 := strings.Cut(rest, ":\n\n```\n")
	block, _, ok3 := strings.Cut(rest, "\n```\n")
	if !ok || !ok2 || !ok3 {
		t.Fatalf("README.md has no commands below %q", head)
	}
	return strings.Split(block, "\n")
}

// TestReadme types what the README says for three machines.
func TestReadme(t *testing.T) {
	t.Parallel()
	programs := t.TempDir()
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	must(os.WriteFile(filepath.Join(programs, "sudo"), []byte("#!/bin/sh\nexec \"$@\"\n"), 0o755))
	must(os.Symlink(binary, filepath.Join(programs, "stellar")))

	lan := testx.NewLAN(t, 3)
	nodes := make([]*node, 3)
	homes := make([]string, 3)
	for i := range nodes {
		nodes[i], homes[i] = newNode(t, lan, i, nodeOptions{}), t.TempDir()
		nodes[i].startAgent()
	}
	types := func(i int, command string) string {
		t.Helper()
		cmd := exec.Command("bash", "-e", "-c", command)
		cmd.Dir = homes[i]
		cmd.Env = append(os.Environ(), raceOptions, "PATH="+programs+":"+os.Getenv("PATH"),
			"STELLAR_ADDRESS=unix://"+filepath.Join(nodes[i].dir, "run", "stellar.sock"))
		out, err := cmd.CombinedOutput()
		if err != nil {
			t.Fatalf("%s# %s\n%v\n%s\n%s", nodes[i].name, command, err, out, nodes[i].tail())
		}
		return string(out)
	}

	types(0, "sudo stellar cluster init")
	for i, n := range nodes[1:] {
		for _, command := range blocks(t, "On the first one make a token") {
			types(0, command)
		}
		must(os.Rename(filepath.Join(homes[0], "token"), filepath.Join(homes[i+1], "token")))
		for _, command := range blocks(t, "On the second and the third") {
			types(i+1, command)
		}
		if _, err := os.Stat(filepath.Join(homes[i+1], "token")); !os.IsNotExist(err) {
			t.Errorf("the token is still there: %v", err)
		}
		id := "web-" + n.name
		n.runContainer(testx.Run{ID: id, Labels: networked()})
		types(i+1, "sudo stellar wait endpoint "+id)
	}

	shows := func(i int, want ...string) error {
		var out strings.Builder
		for _, command := range blocks(t, "On any of them") {
			out.WriteString(types(i, command))
		}
		for _, w := range want {
			if !strings.Contains(out.String(), w) {
				return fmt.Errorf("no %q in\n%s", w, out.String())
			}
		}
		return nil
	}
	for i, own := range [][]string{{"192.0.2.2"}, {"web-b", "192.0.2.1"}, {"web-c", "192.0.2.1"}} {
		nodes[i].eventually(10*time.Second, "the commands show it", func() error {
			return shows(i, append(own, "172.16.0.0/22", "172.16.4.0/22", "172.16.8.0/22")...)
		})
	}
	nodes[1].reaches("web-b", nodes[2].endpoints()["default/web-c"].Address)
}
