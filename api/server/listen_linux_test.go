package server

import (
	"context"
	"errors"
	"io/fs"
	"net"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"stellar.io/stellar/api"
	"stellar.io/stellar/api/apitest"
	"stellar.io/stellar/api/client"
)

// dialEnv makes this test binary a caller of the socket that it names: it prints
// the code of the answer.
const dialEnv = "STELLAR_TEST_DIAL"

func TestMain(m *testing.M) {
	if path := os.Getenv(dialEnv); path != "" {
		os.Stdout.WriteString(askVersion(path))
		os.Exit(0)
	}
	os.Exit(m.Run())
}

func askVersion(path string) string {
	c, err := client.New(path)
	if err == nil {
		defer c.Close()
		_, err = c.Version(context.Background())
	}
	if err != nil {
		return string(api.CodeOf(err))
	}
	return "ok"
}

// socketDir returns a short directory that every user may enter.
func socketDir(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "stellar-api-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	return dir
}

// serve serves b on a socket in dir until the test ends.
func serve(t *testing.T, b Backend, path, group string) (stop func()) {
	t.Helper()
	l, err := Listen(path, group)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- New(b, nil).Run(ctx, l) }()
	stopped := false
	stop = func() {
		if stopped {
			return
		}
		stopped = true
		cancel()
		if err := <-done; err != nil {
			t.Errorf("Run: %v", err)
		}
	}
	t.Cleanup(stop)
	return stop
}

// as runs askVersion in a process with these credentials.
func as(t *testing.T, path string, cred *syscall.Credential) string {
	t.Helper()
	self, err := os.ReadFile("/proc/self/exe")
	if err != nil {
		t.Fatal(err)
	}
	bin := filepath.Join(socketDir(t), "caller") // go test's own directory is closed to others
	if err := os.WriteFile(bin, self, 0o755); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(bin)
	cmd.Env = []string{dialEnv + "=" + path, "GORACE=atexit_sleep_ms=0"}
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: cred}
	out, err := cmd.Output()
	if err != nil {
		t.Fatal(err)
	}
	return string(out)
}

func needRoot(t *testing.T) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Fatal("this test changes users and needs root")
	}
}

const otherUID, otherGID = 65534, 65534

func TestOnlyRootAndTheGroupMayCall(t *testing.T) {
	needRoot(t)
	const group = "daemon"
	g, err := user.LookupGroup(group)
	if err != nil {
		t.Fatal(err)
	}
	gid, err := strconv.ParseUint(g.Gid, 10, 32)
	if err != nil {
		t.Fatal(err)
	}
	member := func(n int) []uint32 { // n groups, the last one is ours
		var out []uint32
		for i := range n - 1 {
			out = append(out, uint32(70000+i))
		}
		return append(out, uint32(gid))
	}
	path := filepath.Join(socketDir(t), "s")
	serve(t, apitest.New(nil), path, group)
	tests := []struct {
		name string
		mode fs.FileMode // of the socket; 0666: only the peer check stands
		cred syscall.Credential
		want string
	}{
		{"root", 0o660, syscall.Credential{}, "ok"},
		{"primary group", 0o660, syscall.Credential{Uid: otherUID, Gid: uint32(gid)}, "ok"},
		{"supplementary group", 0o660, syscall.Credential{Uid: otherUID, Gid: otherGID, Groups: member(1)}, "ok"},
		{"one of very many groups", 0o660, syscall.Credential{Uid: otherUID, Gid: otherGID, Groups: member(300)}, "ok"},
		{"stranger meets the mode", 0o660, syscall.Credential{Uid: otherUID, Gid: otherGID}, "denied"},
		{"stranger meets the peer check", 0o666, syscall.Credential{Uid: otherUID, Gid: otherGID}, "denied"},
		{"stranger with root's group", 0o666, syscall.Credential{Uid: otherUID, Gid: 0}, "denied"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if err := os.Chmod(path, tt.mode); err != nil {
				t.Fatal(err)
			}
			if got := as(t, path, &tt.cred); got != tt.want {
				t.Errorf("answer = %s, want %s", got, tt.want)
			}
		})
	}
}

func TestNobodyButRootWithoutTheGroup(t *testing.T) {
	needRoot(t)
	path := filepath.Join(socketDir(t), "s")
	serve(t, apitest.New(nil), path, "no-such-group-here")
	if got := mode(t, path); got != 0o600 {
		t.Errorf("mode = %04o, want 0600", got)
	}
	if err := os.Chmod(path, 0o666); err != nil {
		t.Fatal(err)
	}
	if got := as(t, path, &syscall.Credential{Uid: otherUID, Gid: otherGID}); got != "denied" {
		t.Errorf("answer = %s, want denied", got)
	}
}

func mode(t *testing.T, path string) fs.FileMode {
	t.Helper()
	info, err := os.Lstat(path)
	if err != nil {
		t.Fatal(err)
	}
	return info.Mode().Perm()
}

func TestSocketBelongsToTheGroup(t *testing.T) {
	needRoot(t)
	path := filepath.Join(socketDir(t), "new", "deeper", "s")
	l, err := Listen(path, "daemon")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	info, err := os.Lstat(path)
	if err != nil {
		t.Fatal(err)
	}
	st := info.Sys().(*syscall.Stat_t)
	if info.Mode().Perm() != 0o660 || st.Uid != 0 || int(st.Gid) != l.gid {
		t.Errorf("socket is %04o %d:%d, want 0660 0:%d", info.Mode().Perm(), st.Uid, st.Gid, l.gid)
	}
	if got := mode(t, filepath.Dir(path)); got != 0o755 {
		t.Errorf("directory is %04o, want 0755", got)
	}
	if err := errors.Join(l.Close(), l.Close()); err != nil {
		t.Errorf("close twice: %v", err)
	}
	if _, err := os.Lstat(path); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("socket is still there: %v", err)
	}
}

func TestListenReplacesOnlyItsOwnStaleSocket(t *testing.T) {
	t.Parallel()
	stale := func(t *testing.T, path string) {
		l, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
		if err != nil {
			t.Fatal(err)
		}
		l.SetUnlinkOnClose(false)
		l.Close()
	}
	tests := []struct {
		name    string
		prepare func(t *testing.T, path string)
		want    string // part of the error, "" for none
	}{
		{"nothing there", func(*testing.T, string) {}, ""},
		{"stale socket", stale, ""},
		{"served socket", func(t *testing.T, path string) {
			l, err := Listen(path, "")
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { l.Close() })
		}, ErrInUse.Error()},
		{"symbolic link to a stale socket", func(t *testing.T, path string) {
			stale(t, path+".other")
			if err := os.Symlink(path+".other", path); err != nil {
				t.Fatal(err)
			}
		}, "not a socket"},
		{"dangling symbolic link", func(t *testing.T, path string) {
			if err := os.Symlink(path+".other", path); err != nil {
				t.Fatal(err)
			}
		}, "not a socket"},
		{"regular file", func(t *testing.T, path string) {
			if err := os.WriteFile(path, []byte("x"), 0o600); err != nil {
				t.Fatal(err)
			}
		}, "not a socket"},
		{"stale socket of another user", func(t *testing.T, path string) {
			needRoot(t)
			stale(t, path)
			if err := os.Lchown(path, otherUID, -1); err != nil {
				t.Fatal(err)
			}
		}, "left alone"},
		{"directory of another user", func(t *testing.T, path string) {
			needRoot(t)
			if err := os.Chown(filepath.Dir(path), otherUID, -1); err != nil {
				t.Fatal(err)
			}
		}, "belongs to uid"},
		{"directory open to others", func(t *testing.T, path string) {
			if err := os.Chmod(filepath.Dir(path), 0o777); err != nil {
				t.Fatal(err)
			}
		}, "writable by others"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			path := filepath.Join(socketDir(t), "s")
			tt.prepare(t, path)
			before, _ := os.Lstat(path)
			l, err := Listen(path, "")
			if tt.want == "" {
				if err != nil {
					t.Fatal(err)
				}
				l.Close()
				return
			}
			if err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Fatalf("error = %v, want %q", err, tt.want)
			}
			if after, _ := os.Lstat(path); before != nil && !os.SameFile(before, after) {
				t.Error("what was there was replaced")
			}
		})
	}
	for _, path := range []string{"relative/s", "/" + strings.Repeat("x", 120)} {
		if _, err := Listen(path, ""); err == nil {
			t.Errorf("Listen(%s) made a socket", path)
		}
	}
}

// A socket that somebody else has put there in the meantime is not ours to remove.
func TestCloseLeavesWhatIsNotOurs(t *testing.T) {
	t.Parallel()
	path := filepath.Join(socketDir(t), "s")
	l, err := Listen(path, "")
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(path, path+".old"); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := l.Close(); err != nil {
		t.Error(err)
	}
	if _, err := os.Lstat(path); err != nil {
		t.Errorf("the other's file is gone: %v", err)
	}
}
