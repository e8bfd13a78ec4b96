package netsetup

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"stellar.io/stellar/internal/nsx"
	"stellar.io/stellar/internal/testx"
)

func TestOpenPID(t *testing.T) {
	b := newBed(t)
	pid, kill := testx.StartSleeper(t, nil)
	ownNS := exec.Command("sleep", "infinity") // a container with the host's network
	if err := ownNS.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = ownNS.Process.Kill(); _ = ownNS.Wait() })
	inHost := testx.Sleeper(t, b.host)
	dead, killDead := testx.StartSleeper(t, nil)
	killDead()
	zombie := makeZombie(t)
	now := time.Now()
	tests := []struct {
		name   string
		pid    int
		before time.Time
		want   error
	}{
		{"container", pid, now, nil},
		{"unchecked start", pid, time.Time{}, nil},
		{"wall clock", pid, now.Round(0), nil},
		{"pid 0", 0, now, ErrNotNamespace},
		{"negative", -1, now, ErrNotNamespace},
		{"own process", os.Getpid(), now, ErrHostNamespace},
		{"host network", ownNS.Process.Pid, now, ErrHostNamespace},
		{"the configured host", inHost, now, ErrHostNamespace},
		{"dead", dead, now, ErrProcessGone},
		{"zombie", zombie, now, ErrProcessGone},
		{"younger process", pid, now.Add(-time.Hour), ErrPIDReused},
		{"younger process by the wall clock", pid, now.Add(-time.Hour).Round(0), ErrPIDReused},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			fds := descriptors(t)
			ns, err := b.n.OpenPID(tt.pid, tt.before)
			if !errors.Is(err, tt.want) {
				t.Fatalf("OpenPID = %v, want %v", err, tt.want)
			}
			if err == nil {
				if ns.PID() != tt.pid || ns.ID() == (NSID{}) || ns.Exited() {
					t.Errorf("pid %d, id %v, exited %v", ns.PID(), ns.ID(), ns.Exited())
				}
				if err := errors.Join(ns.Close(), ns.Close()); err != nil {
					t.Error(err)
				}
			}
			if after := descriptors(t); after != fds {
				t.Errorf("%d descriptors before, %d after", fds, after)
			}
		})
	}
	kill()
}

// makeZombie returns the pid of a process that has ended and was not waited for.
func makeZombie(t *testing.T) int {
	t.Helper()
	cmd := exec.Command("true")
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = cmd.Wait() })
	eventually(t, 5*time.Second, "zombie", func() error {
		b, err := os.ReadFile("/proc/" + strconv.Itoa(cmd.Process.Pid) + "/stat")
		if err == nil && !strings.Contains(string(b), ") Z ") {
			err = fmt.Errorf("%s", b)
		}
		return err
	})
	return cmd.Process.Pid
}

func TestForbiddenPIDs(t *testing.T) {
	foreign := testx.NewNetNS(t)
	containerd := testx.Sleeper(t, foreign)
	b := newBed(t, func(c *Config) { c.ForbiddenPIDs = func() []int { return []int{1 << 30, containerd} } })
	if _, err := b.n.OpenPath(foreign.Path); !errors.Is(err, ErrHostNamespace) {
		t.Errorf("OpenPath of containerd's namespace = %v", err)
	}
	if _, err := b.n.OpenPID(testx.Sleeper(t, foreign), time.Now()); !errors.Is(err, ErrHostNamespace) {
		t.Errorf("OpenPID in containerd's namespace = %v", err)
	}
	b.container("172.16.0.2") // fails the test if it cannot be opened
}

func TestOpenPath(t *testing.T) {
	b := newBed(t)
	dir := t.TempDir()
	ns := testx.NewNetNS(t)
	pid := testx.Sleeper(t, ns)
	file := func(name string) string { return filepath.Join(dir, name) }
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	must(os.WriteFile(file("regular"), nil, 0o600))
	must(os.Symlink(ns.Path, file("link")))
	must(os.Symlink("/proc/self/ns/net", file("link-to-own")))
	must(unix.Mkfifo(file("fifo"), 0o600))
	must(os.WriteFile(file("own"), nil, 0o600))
	must(unix.Mount("/proc/self/ns/net", file("own"), "", unix.MS_BIND, ""))
	t.Cleanup(func() { _ = unix.Unmount(file("own"), unix.MNT_DETACH) })
	self, container := "/proc/"+strconv.Itoa(os.Getpid()), "/proc/"+strconv.Itoa(pid)
	tests := []struct {
		name, path string
		want       error
	}{
		{"named", ns.Path, nil},
		{"of a process", container + "/ns/net", nil},
		{"descriptor", self + "/fd/" + strconv.Itoa(ns.FD), nil},
		{"own", "/proc/self/ns/net", ErrHostNamespace},
		{"own, mounted", file("own"), ErrHostNamespace},
		{"own by pid", self + "/ns/net", ErrHostNamespace},
		{"the configured host", b.host.Path, ErrHostNamespace},
		{"user namespace", container + "/ns/user", ErrNotNamespace},
		{"mount namespace", container + "/ns/mnt", ErrNotNamespace},
		{"regular file", file("regular"), ErrNotNamespace},
		{"directory", dir, ErrNotNamespace},
		{"fifo", file("fifo"), ErrNotNamespace},
		{"device", "/dev/null", ErrNotNamespace},
		{"link", file("link"), ErrNotNamespace},
		{"link to own", file("link-to-own"), ErrNotNamespace},
		{"absent", file("absent"), os.ErrNotExist},
		{"relative up", "../../../../../../../../etc/passwd", ErrNotNamespace},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			fds := descriptors(t)
			got, err := b.n.OpenPath(tt.path)
			if !errors.Is(err, tt.want) {
				t.Fatalf("OpenPath = %v, want %v", err, tt.want)
			}
			if err == nil {
				if got.PID() != 0 || got.Exited() || got.Parked() {
					t.Errorf("pid %d, exited %v, parked %v", got.PID(), got.Exited(), got.Parked())
				}
				var inside NSID
				if err := got.Do(func() (err error) { inside, err = ownNamespace(); return err }); err != nil || inside != got.ID() {
					t.Errorf("inside it is %v, want %v, %v", inside, got.ID(), err)
				}
				got.Close()
			}
			if after := descriptors(t); after != fds {
				t.Errorf("%d descriptors before, %d after", fds, after)
			}
		})
	}
}

// ownNamespace is that of the calling thread.
func ownNamespace() (NSID, error) {
	f, err := nsx.Current()
	if err != nil {
		return NSID{}, err
	}
	defer f.Close()
	return nsx.IDOf(int(f.Fd()))
}

// TestOpenPathSwapped: somebody swaps the path between a good namespace, a link
// to the host's and a file while it is opened. Never does the host's come through.
func TestOpenPathSwapped(t *testing.T) {
	b := newBed(t)
	good := testx.NewNetNS(t)
	want, err := nsx.IDOf(good.FD)
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	path, spare := filepath.Join(dir, "ns"), filepath.Join(dir, "spare")
	ctx, cancel := context.WithCancel(t.Context())
	var wait sync.WaitGroup
	wait.Go(func() {
		for i := 0; ctx.Err() == nil; i++ {
			target := []string{"/proc/self/ns/net", "/proc/self/fd/" + strconv.Itoa(good.FD), b.host.Path}[i%3]
			_ = os.Symlink(target, spare)
			_ = os.Rename(spare, path)
		}
	})
	for range 5000 {
		ns, err := b.n.OpenPath(path)
		if err != nil {
			continue
		}
		if ns.ID() != want {
			t.Errorf("opened %v", ns.ID())
		}
		ns.Close()
	}
	cancel()
	wait.Wait()
}

func TestWaitExit(t *testing.T) {
	b := newBed(t)
	pid, kill := testx.StartSleeper(t, nil)
	ns, err := b.n.OpenPID(pid, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	defer ns.Close()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer cancel()
	if err := ns.WaitExit(ctx); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("WaitExit of a living process = %v", err)
	}
	done := make(chan error, 1)
	go func() { done <- ns.WaitExit(t.Context()) }()
	time.Sleep(10 * time.Millisecond)
	kill()
	select {
	case err := <-done:
		if err != nil || !ns.Exited() {
			t.Errorf("WaitExit = %v, exited %v", err, ns.Exited())
		}
	case <-time.After(5 * time.Second):
		t.Fatal("WaitExit does not return")
	}
	if err := ns.WaitExit(t.Context()); err != nil {
		t.Errorf("second WaitExit = %v", err)
	}
}

func TestWaitExitOfPath(t *testing.T) {
	b := newBed(t)
	ns, err := b.n.OpenPath(testx.NewNetNS(t).Path)
	if err != nil {
		t.Fatal(err)
	}
	defer ns.Close()
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := ns.WaitExit(ctx); !errors.Is(err, context.Canceled) {
		t.Errorf("WaitExit = %v", err)
	}
}

// TestParked: a process that was forked and has not executed anything is parked;
// its program is not.
func TestParked(t *testing.T) {
	b := newBed(t)
	// bash forks for ( ), and the child reads a pipe before it executes sleep.
	cmd := exec.Command("bash", "-c", "(read -r line; exec sleep infinity)")
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNET, Setpgid: true}
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL); _ = cmd.Wait() })
	var child int
	eventually(t, 5*time.Second, "child", func() error {
		out, err := os.ReadFile(fmt.Sprintf("/proc/%d/task/%[1]d/children", cmd.Process.Pid))
		if err == nil {
			child, err = strconv.Atoi(strings.TrimSpace(string(out)))
		}
		return err
	})
	ns, err := b.n.OpenPID(child, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	defer ns.Close()
	if !ns.Parked() {
		t.Error("a forked process is not parked")
	}
	if _, err := in.Write([]byte("go\n")); err != nil {
		t.Fatal(err)
	}
	eventually(t, 5*time.Second, "exec", func() error {
		if ns.Parked() {
			return errors.New("still parked")
		}
		return nil
	})
}

// TestPIDReplaced: pids come and go while they are opened. Whatever is opened is
// never the host's namespace, and what a process of another age has is refused.
func TestPIDReplaced(t *testing.T) {
	b := newBed(t)
	fingerprint := hostFingerprint(t)
	var wait sync.WaitGroup
	for range 4 {
		wait.Go(func() {
			for range 50 {
				cmd := exec.Command("sleep", "0.002")
				cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNET}
				if err := cmd.Start(); err != nil {
					t.Error(err)
					return
				}
				wait.Go(func() { _ = cmd.Wait() })
				for range 50 {
					ns, err := b.n.OpenPID(cmd.Process.Pid, time.Now())
					if err != nil {
						if !errors.Is(err, ErrProcessGone) && !errors.Is(err, ErrPIDReused) {
							t.Error(err)
						}
						break
					}
					if b.n.gate.ids[ns.ID()] {
						t.Error("host namespace came through")
					}
					ns.Close()
				}
			}
		})
	}
	wait.Wait()
	if diff := cmp.Diff(fingerprint, hostFingerprint(t)); diff != "" {
		t.Error(diff)
	}
}
