package testx

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

func TestContainerd(t *testing.T) {
	for _, v := range Versions() {
		t.Run(string(v), func(t *testing.T) {
			t.Parallel()
			c := StartContainerd(t, Options{Version: v, Images: []Image{MustProbe(t), MustBusybox(t)}})
			idle := filepath.Base(c.Dir) // unique on the machine, as Create wants it
			version, err := c.Ctr("version")
			if err != nil {
				t.Fatal(err)
			}
			t.Log(version)

			out, err := c.Output(Run{ID: "seen", Image: ProbeName, Args: []string{"probe", "now"}})
			if err != nil || !strings.Contains(out, `"lo"`) {
				t.Fatalf("probe now: %q, %v", out, err)
			}
			if err := c.Run(Run{ID: "stays", Args: []string{"sh", "-c", "echo hello; sleep 1000"}}); err != nil {
				t.Fatal(err)
			}
			before, err := c.TaskPID("default", "stays")
			if err != nil {
				t.Fatal(err)
			}
			if out, err := c.Exec("default", "stays", "echo", "from exec"); err != nil || out != "from exec\n" {
				t.Fatalf("exec: %q, %v", out, err)
			}
			if err := c.Restart(); err != nil {
				t.Fatal(err)
			}
			if after, err := c.TaskPID("default", "stays"); err != nil || after != before {
				t.Fatalf("task after a restart: %d, %v, want %d", after, err, before)
			}
			if logs, err := c.Logs("default", "stays"); err != nil || logs != "hello\n" {
				t.Fatalf("logs: %q, %v", logs, err)
			}
			if err := c.Create(Run{ID: idle}); err != nil {
				t.Fatal(err)
			}
			if err := c.StartTask("default", idle); err != nil {
				t.Fatal(err)
			}
			if err := c.Remove("default", idle); err != nil {
				t.Fatal(err)
			}
		})
	}
}

// A containerd that was killed, whose shims were killed too, and that is closed
// by another handle, leaves nothing.
func TestCloseLeavesNothing(t *testing.T) {
	for _, v := range Versions() {
		t.Run(string(v), func(t *testing.T) {
			t.Parallel()
			c := StartContainerd(t, Options{Version: v, Keep: true, Images: []Image{MustBusybox(t)}})
			for _, id := range []string{"a", "b"} {
				if err := c.Run(Run{ID: id}); err != nil {
					t.Fatal(err)
				}
			}
			// This one has its runc state and its cgroup where everybody's are.
			if err := c.Create(Run{ID: filepath.Base(c.Dir)}); err != nil {
				t.Fatal(err)
			}
			if err := c.StartTask("default", filepath.Base(c.Dir)); err != nil {
				t.Fatal(err)
			}
			pid, err := c.TaskPID("default", "a")
			if err != nil {
				t.Fatal(err)
			}
			task, sockets := processOf(pid), c.shimSockets()
			if len(sockets) == 0 {
				t.Error("no shim sockets were found")
			}
			if err := c.Kill9(); err != nil {
				t.Fatal(err)
			}
			if left := c.remains(); len(left) < 6 {
				t.Errorf("remains lists %v, want three shims and three tasks at least", left)
			}
			other, err := Open(t, c.Dir)
			if err != nil {
				t.Fatal(err)
			}
			if err := other.Close(); err != nil {
				t.Fatal(err)
			}
			if task.alive() {
				t.Error("the task lives on")
			}
			if left := c.remains(); len(left) != 0 {
				t.Errorf("processes are left: %v", left)
			}
			gone := append(sockets, c.Dir, filepath.Join("/run/containerd/runc/default", filepath.Base(c.Dir)))
			groups, _ := filepath.Glob("/sys/fs/cgroup/*/*" + c.cgroup[1:] + "*")
			for _, path := range append(gone, groups...) {
				if _, err := os.Lstat(path); err == nil {
					t.Errorf("%s is left", path)
				}
			}
		})
	}
}

func TestDirInUse(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	file := filepath.Join(dir, "precious")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := NewContainerd(t, Options{Dir: dir}); !errors.Is(err, fs.ErrExist) {
		t.Errorf("started in a directory with files: %v", err)
	}
	if _, err := os.Lstat(file); err != nil {
		t.Error(err)
	}
}

// What a test has left that died before its clean-up is cleared by the next one.
func TestSweep(t *testing.T) {
	c := StartContainerd(t, Options{Images: []Image{MustBusybox(t)}})
	if err := c.Run(Run{ID: "left"}); err != nil {
		t.Fatal(err)
	}
	sweep(t) // the owner lives: nothing happens
	if c.PID() == 0 {
		t.Fatal("sweep ended a containerd whose owner lives")
	}
	data, err := json.Marshal(note{Version: V1, Owner: process{PID: os.Getpid(), Start: 1}}) // not us: started at boot
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(c.path("testx.json"), data, 0o600); err != nil {
		t.Fatal(err)
	}
	sweep(t)
	if _, err := os.Lstat(c.Dir); err == nil || c.PID() != 0 || len(c.remains()) != 0 {
		t.Errorf("sweep left %v, containerd %d, processes %v", err, c.PID(), c.remains())
	}
}

func TestNetNS(t *testing.T) {
	name := fmt.Sprintf("stx-%d", os.Getpid())
	ip := func(args ...string) error {
		out, err := exec.Command("ip", args...).CombinedOutput()
		if err != nil {
			return fmt.Errorf("ip %v: %w: %s", args, err, out)
		}
		return nil
	}
	if err := ip("netns", "add", name); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := ip("netns", "del", name); err != nil {
			t.Error(err)
		}
	})
	if err := ip("-n", name, "link", "add", "marked", "type", "bridge"); err != nil {
		t.Fatal(err)
	}
	for _, v := range Versions() {
		t.Run(string(v), func(t *testing.T) {
			c := StartContainerd(t, Options{Version: v, NetNS: name, Images: []Image{MustProbe(t)}})
			out, err := c.Output(Run{ID: "host", HostNet: true, Image: ProbeName, Args: []string{"probe", "now"}})
			if err != nil || !strings.Contains(out, `"marked"`) {
				t.Errorf("with the host's network: %q, %v", out, err)
			}
			out, err = c.Output(Run{ID: "own", Image: ProbeName, Args: []string{"probe", "now"}})
			if err != nil || strings.Contains(out, `"marked"`) {
				t.Errorf("with a network of its own: %q, %v", out, err)
			}
		})
	}
}
