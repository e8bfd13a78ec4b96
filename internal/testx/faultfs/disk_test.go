package faultfs

import (
	"errors"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

func mount(t *testing.T) (*Disk, string) {
	t.Helper()
	backing, at := filepath.Join(t.TempDir(), "backing"), t.TempDir()
	if err := os.Mkdir(backing, 0o700); err != nil {
		t.Fatal(err)
	}
	d, err := Mount(backing, at)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := d.Close(); err != nil {
			t.Error(err)
		}
	})
	return d, at
}

func syncPath(t *testing.T, path string) error {
	t.Helper()
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	return f.Sync()
}

func write(t *testing.T, path, text string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

// TestPowerCut: what was fsynced, and its name, is all that is left.
func TestPowerCut(t *testing.T) {
	d, at := mount(t)
	for _, name := range []string{"kept", "unnamed", "changed", "old"} {
		write(t, filepath.Join(at, name), name+" 1")
		if name == "unnamed" {
			continue
		}
		if err := syncPath(t, filepath.Join(at, name)); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Remove(filepath.Join(at, "unnamed")); err != nil {
		t.Fatal(err)
	}
	if err := syncPath(t, at); err != nil {
		t.Fatal(err)
	}
	write(t, filepath.Join(at, "unnamed"), "unnamed 1")
	if err := syncPath(t, filepath.Join(at, "unnamed")); err != nil {
		t.Fatal(err)
	}
	write(t, filepath.Join(at, "changed"), "changed 2")
	write(t, filepath.Join(at, "new"), "new 2")
	if err := os.Rename(filepath.Join(at, "new"), filepath.Join(at, "old")); err != nil {
		t.Fatal(err)
	}
	if err := d.PowerCut(rand.New(rand.NewPCG(1, 1)), 0); err != nil {
		t.Fatal(err)
	}
	list, err := os.ReadDir(at)
	if err != nil || len(list) != 3 {
		t.Errorf("%v, %v", list, err)
	}
	for _, name := range []string{"kept", "changed", "old"} {
		if b, err := os.ReadFile(filepath.Join(at, name)); err != nil || string(b) != name+" 1" {
			t.Errorf("%s: %q, %v", name, b, err)
		}
	}
}

// TestDiskEndsWithItsProcess: no program that is started inherits the kernel's end.
func TestDiskEndsWithItsProcess(t *testing.T) {
	mount(t)
	out, err := exec.Command("ls", "-l", "/proc/self/fd").Output()
	if err != nil || strings.Contains(string(out), "/dev/fuse") {
		t.Errorf("%v\n%s", err, out)
	}
}

// TestFaults: each shows, and ends.
func TestFaults(t *testing.T) {
	d, at := mount(t)
	path := filepath.Join(at, "f")
	write(t, path, "x")
	d.FailSyncs(syscall.EIO)
	if err := syncPath(t, path); !errors.Is(err, unix.EIO) {
		t.Errorf("fsync: %v", err)
	}
	d.Heal()
	d.FailWrites(syscall.ENOSPC)
	if err := os.WriteFile(path, []byte("y"), 0o600); !errors.Is(err, unix.ENOSPC) {
		t.Errorf("write: %v", err)
	}
	if err := os.WriteFile(filepath.Join(at, "g"), nil, 0o600); !errors.Is(err, unix.ENOSPC) {
		t.Errorf("create: %v", err)
	}
	d.Heal()
	d.Hang()
	done := make(chan error, 1)
	go func() { done <- syncPath(t, path) }()
	select {
	case err := <-done:
		t.Errorf("fsync did not hang: %v", err)
	case <-time.After(200 * time.Millisecond):
	}
	d.Heal()
	if err := <-done; err != nil {
		t.Error(err)
	}
	d.StallSyncs(100 * time.Millisecond)
	begin := time.Now()
	if err := syncPath(t, path); err != nil || time.Since(begin) < 100*time.Millisecond {
		t.Errorf("fsync took %s, %v", time.Since(begin), err)
	}
}
