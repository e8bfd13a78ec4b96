package cniplugin

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// makeNamespace returns the path of a network namespace that is not this
// process's: that of a child.
func makeNamespace(t *testing.T) string {
	t.Helper()
	cmd := exec.Command("sleep", "600")
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: unix.CLONE_NEWNET, Pdeathsig: syscall.SIGKILL}
	if os.Getuid() != 0 {
		cmd.SysProcAttr.Cloneflags |= unix.CLONE_NEWUSER
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	})
	return fmt.Sprintf("/proc/%d/ns/net", cmd.Process.Pid)
}

func TestNamespaceThatIsNone(t *testing.T) {
	a := start(t)
	dir := t.TempDir()
	file := filepath.Join(dir, "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	fifo := filepath.Join(dir, "fifo")
	if err := unix.Mkfifo(fifo, 0o600); err != nil {
		t.Fatal(err)
	}
	for name, tt := range map[string]struct {
		netns, text string
		code        uint
	}{
		"none":             {"-", "CNI_NETNS", 4},
		"relative":         {"run/netns/x", "not an absolute path", 8},
		"gone":             {"/proc/4194305/ns/net", "there is no", 8},
		"a file":           {file, "not a network namespace", 8},
		"a directory":      {dir, "not a network namespace", 8},
		"a FIFO":           {fifo, "not a network namespace", 8},
		"another kind":     {strings.Replace(a.netns, "ns/net", "ns/mnt", 1), "not a network namespace", 8},
		"its own":          {"/proc/self/ns/net", "the host's", 8},
		"init's, or its":   {"/proc/1/ns/net", "", 8},
		"control sequence": {"/tmp/\x1b[2J", `\x1b`, 8},
	} {
		began := time.Now()
		e := a.run(t, call{command: "ADD", netns: tt.netns}).Error()
		if e == nil || e.Code != tt.code || !strings.Contains(e.Msg, tt.text) || strings.Contains(e.Msg, "\x1b") || time.Since(began) > 20*time.Second {
			t.Errorf("%s: %+v, want code %d", name, e, tt.code)
		}
		// A DEL does not need it.
		mustSucceed(t, a.run(t, call{command: "DEL", netns: tt.netns}))
	}
	if len(a.added) > 0 {
		t.Errorf("the agent was asked for %+v", a.added)
	}
	// The caller may lift the rule on its own namespace; the agent has rules of its own.
	for _, lifted := range []string{"1", "TRUE"} {
		mustSucceed(t, a.run(t, call{command: "ADD", netns: "/proc/self/ns/net", env: []string{"CNI_NETNS_OVERRIDE=" + lifted}}))
	}
	// An IPAM plugin does not touch the namespace.
	mustSucceed(t, a.run(t, call{plugin: "stellar-cni-ipam", command: "ADD", netns: "/proc/4194305/ns/net"}))
}
