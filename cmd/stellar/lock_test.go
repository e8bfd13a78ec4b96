package main

import (
	"bufio"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"stellar.io/stellar/api"
)

// lockEnv makes this test binary an agent that opens a data directory, says how
// that went and keeps it until it is killed.
const lockEnv = "STELLAR_TEST_LOCK"

func lockChild(dir string) {
	if _, err := openDataDir(dir); err != nil {
		fmt.Println(err)
		os.Exit(1)
	}
	fmt.Println("locked")
	time.Sleep(time.Minute)
	os.Exit(0)
}

// child starts lockChild and returns its first line.
func child(t *testing.T, bin, dir string, cred *syscall.Credential) (*exec.Cmd, string) {
	t.Helper()
	cmd := exec.Command(bin)
	cmd.Env = []string{lockEnv + "=" + dir}
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: cred}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Kill() // it may have ended
		_ = cmd.Wait()
	})
	line, err := bufio.NewReader(out).ReadString('\n')
	if err != nil {
		t.Fatal(err)
	}
	return cmd, strings.TrimSpace(line)
}

func TestDataDirIsMadeMarkedAndLocked(t *testing.T) {
	t.Parallel()
	dir := filepath.Join(t.TempDir(), "a", "b")
	for range 2 { // the second time it is ours already
		d, err := openDataDir(dir)
		if err != nil {
			t.Fatal(err)
		}
		info, err := os.Stat(dir)
		if err != nil || info.Mode().Perm() != 0o700 {
			t.Errorf("mode = %v, %v; want 0700", info.Mode(), err)
		}
		if got, err := os.ReadFile(filepath.Join(dir, formatFile)); err != nil || string(got) != dataFormat {
			t.Errorf("marker = %q, %v", got, err)
		}
		_, err = openDataDir(dir)
		if api.CodeOf(err) != api.CodeConflict || !strings.Contains(err.Error(), fmt.Sprintf("the agent with pid %d", os.Getpid())) {
			t.Errorf("second open: %v, want a conflict that names the pid", err)
		}
		if _, err := lockExisting(dir); api.CodeOf(err) != api.CodeConflict {
			t.Errorf("lockExisting while locked: %v", err)
		}
		if err := errors.Join(d.Close(), d.Close()); err != nil {
			t.Error(err)
		}
	}
	d, err := lockExisting(dir)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := openDataDir(dir); api.CodeOf(err) != api.CodeConflict {
		t.Errorf("open during cleanup: %v", err)
	}
	d.Close()
}

// TestCloseUnlocks: whoever else has the descriptor for a moment, a child that was
// forked and has not yet called exec, does not keep the lock.
func TestCloseUnlocks(t *testing.T) {
	t.Parallel()
	dir := filepath.Join(t.TempDir(), "data")
	d, err := openDataDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	other, err := unix.Dup(int(d.lock.Fd()))
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(other)
	if err := d.Close(); err != nil {
		t.Fatal(err)
	}
	if d, err = openDataDir(dir); err != nil {
		t.Fatalf("open after close: %v", err)
	}
	d.Close()
}

func TestKilledAgentLeavesNoLock(t *testing.T) {
	t.Parallel()
	dir := filepath.Join(t.TempDir(), "data")
	cmd, line := child(t, "/proc/self/exe", dir, nil)
	if line != "locked" {
		t.Fatal(line)
	}
	_, err := openDataDir(dir)
	if err == nil || !strings.Contains(err.Error(), fmt.Sprintf("pid %d", cmd.Process.Pid)) {
		t.Errorf("error = %v, want one with the pid %d", err, cmd.Process.Pid)
	}
	if err := cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = cmd.Wait() // it was killed, that is its error
	d, err := openDataDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	d.Close()
}

func TestLockExistingMakesNothing(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	for _, path := range []string{filepath.Join(dir, "missing"), dir} {
		d, err := lockExisting(path)
		if err != nil {
			t.Fatal(err)
		}
		d.Close()
	}
	if entries, err := os.ReadDir(dir); err != nil || len(entries) != 0 {
		t.Errorf("made %v, %v", entries, err)
	}
}

func TestDataDirThatIsNotOurs(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name    string
		prepare func(dir string) error
		code    api.Code
		want    string // part of the message, "" when it is taken
	}{
		{"empty", func(string) error { return nil }, "", ""},
		{"empty and open to all", func(dir string) error { return os.Chmod(dir, 0o777) }, "", ""},
		{"left by a crash before the marker", func(dir string) error {
			return errors.Join(touch(dir, lockName, ""), touch(dir, formatTemp, "stel"))
		}, "", ""},
		{"somebody's files", func(dir string) error { return touch(dir, "letter.txt", "x") }, api.CodeConflict, `"letter.txt"`},
		{"somebody's hidden file", func(dir string) error { return touch(dir, ".bashrc", "x") }, api.CodeConflict, `".bashrc"`},
		{"newer format", func(dir string) error { return touch(dir, formatFile, "stellar/9\n") }, api.CodeConflict, `"stellar/9"`},
		{"damaged marker", func(dir string) error { return touch(dir, formatFile, "") }, api.CodeConflict, "format"},
		{"another user's", func(dir string) error { return os.Chown(dir, 65534, 65534) }, api.CodeDenied, "uid 65534"},
		{"lock is a link", func(dir string) error {
			return errors.Join(touch(dir, formatFile, dataFormat), touch(dir, "victim", "x"), os.Symlink("victim", filepath.Join(dir, lockName)))
		}, api.CodeConflict, "not a regular file"},
		{"a file", func(dir string) error { return errors.Join(os.Remove(dir), os.WriteFile(dir, nil, 0o600)) }, api.CodeInternal, "not a directory"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			dir := filepath.Join(t.TempDir(), "data")
			if err := errors.Join(os.Mkdir(dir, 0o755), tt.prepare(dir)); err != nil {
				t.Fatal(err)
			}
			before := snapshot(t, dir)
			d, err := openDataDir(dir)
			if tt.want == "" {
				if err != nil {
					t.Fatal(err)
				}
				defer d.Close()
				if info, err := os.Stat(dir); err != nil || info.Mode().Perm() != 0o700 {
					t.Errorf("mode = %v, %v", info.Mode(), err)
				}
				return
			}
			if err == nil || api.CodeOf(err) != tt.code || !strings.Contains(err.Error(), tt.want) || !strings.Contains(err.Error(), dir) {
				t.Errorf("error = %v (%s), want %s with %s and the path", err, api.CodeOf(err), tt.code, tt.want)
			}
			if after := snapshot(t, dir); after != before {
				t.Errorf("a directory that was refused was changed:\n%s\n%s", before, after)
			}
		})
	}
}

func TestUnwritableDataDir(t *testing.T) {
	t.Parallel()
	if os.Geteuid() != 0 {
		t.Fatal("this test changes users and needs root")
	}
	base, err := os.MkdirTemp("", "stellar-lock-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(base) })
	self, err := os.ReadFile("/proc/self/exe")
	if err != nil {
		t.Fatal(err)
	}
	bin, dir := filepath.Join(base, "agent"), filepath.Join(base, "data")
	err = errors.Join(os.Chmod(base, 0o755), os.WriteFile(bin, self, 0o755), os.Mkdir(dir, 0o500), os.Chown(dir, 65534, 65534))
	if err != nil {
		t.Fatal(err)
	}
	_, line := child(t, bin, dir, &syscall.Credential{Uid: 65534, Gid: 65534})
	if !strings.Contains(line, dir+" cannot be written") || !strings.Contains(line, "permission denied") {
		t.Errorf("agent said %q", line)
	}
}

func touch(dir, name, text string) error {
	return os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600)
}

// snapshot describes a tree: names, modes, sizes.
func snapshot(t *testing.T, dir string) string {
	t.Helper()
	var b strings.Builder
	err := filepath.WalkDir(dir, func(path string, e fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		info, err := e.Info()
		if err != nil {
			return err
		}
		if !e.IsDir() {
			fmt.Fprintf(&b, "%s %s %d\n", path, info.Mode(), info.Size())
		} else {
			fmt.Fprintf(&b, "%s %s\n", path, info.Mode())
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return b.String()
}
