package packaging

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

// bed is a machine with systemd that bed.sh made; it ends with the test.
type bed struct {
	t   *testing.T
	pid int // of its systemd
}

// boot starts a bed with a way out, eth0 with 192.0.2.1/24, and containerd.
func boot(t *testing.T) *bed {
	t.Helper()
	// Its name is that of the bed's control groups.
	dir, err := os.MkdirTemp("", "stellar-bed-")
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command("./bed.sh", dir)
	var log bytes.Buffer
	cmd.Stdout, cmd.Stderr = &log, &log
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL, Setpgid: true}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
		eventually(t, 10*time.Second, "the bed leaves nothing", func() error {
			if out, err := exec.Command("./bed.sh", "clean", filepath.Base(dir)).CombinedOutput(); err != nil {
				return fmt.Errorf("%w: %s", err, out)
			}
			return os.RemoveAll(dir)
		})
		if t.Failed() {
			t.Logf("the bed said:\n%s", log.String())
		}
	})
	b := &bed{t: t}
	eventually(t, time.Minute, "systemd runs", func() error {
		child, err := os.ReadFile(fmt.Sprintf("/proc/%d/task/%d/children", cmd.Process.Pid, cmd.Process.Pid))
		if err != nil {
			return err
		}
		if b.pid, err = strconv.Atoi(strings.TrimSpace(string(child))); err != nil {
			return err
		}
		if comm, err := os.ReadFile(fmt.Sprintf("/proc/%d/comm", b.pid)); err != nil || string(comm) != "systemd\n" {
			return fmt.Errorf("still %q (%v)", comm, err)
		}
		_, err = b.try("systemctl", "is-system-running")
		return err
	})
	b.run("ip", "link", "add", "eth0", "type", "veth", "peer", "name", "wire")
	b.run("ip", "address", "add", "192.0.2.1/24", "dev", "eth0")
	b.run("ip", "link", "set", "wire", "up")
	b.run("ip", "link", "set", "eth0", "up")
	b.run("ip", "route", "add", "default", "via", "192.0.2.254")
	b.run("systemctl", "start", "containerd")
	return b
}

// path is where a file of the bed is seen from outside.
func (b *bed) path(file string) string { return fmt.Sprintf("/proc/%d/root%s", b.pid, file) }

func (b *bed) command(ctx context.Context, args ...string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, "nsenter", append([]string{"--target", strconv.Itoa(b.pid), "--all", "--"}, args...)...)
	cmd.Env = append(os.Environ(), "DEBIAN_FRONTEND=noninteractive", "LC_ALL=C.UTF-8")
	cmd.Dir = "/"
	return cmd
}

// try runs a program inside and returns all that it printed.
func (b *bed) try(args ...string) (string, error) {
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Minute)
	defer cancel()
	out, err := b.command(ctx, args...).CombinedOutput()
	if err != nil {
		return string(out), fmt.Errorf("%s: %w: %s", strings.Join(args, " "), err, bytes.TrimSpace(out))
	}
	return string(out), nil
}

// run is try for what must succeed.
func (b *bed) run(args ...string) string {
	b.t.Helper()
	out, err := b.try(args...)
	if err != nil {
		journal, _ := b.try("journalctl", "-u", "stellar", "--no-pager", "-n", "50")
		b.t.Fatalf("%v\n%s", err, journal)
	}
	return out
}

// put copies a file into the bed and returns its name there.
func (b *bed) put(file string) string {
	b.t.Helper()
	data, err := os.ReadFile(file)
	if err != nil {
		b.t.Fatal(err)
	}
	name := "/var/lib/stellar-bed/" + filepath.Base(file) // systemd may clear /tmp
	if err := os.WriteFile(b.path(name), data, 0o755); err != nil {
		b.t.Fatal(err)
	}
	return name
}

// await waits for the endpoint to be attached and returns address and READY.
func (b *bed) await(id string) (addr, ready string) {
	b.t.Helper()
	eventually(b.t, 30*time.Second, id+" has a network", func() error {
		out, err := b.try("stellar", "endpoint", "ls", "-o", "wide", "--no-headers")
		for line := range strings.Lines(out) {
			// NAMESPACE CONTAINER NETWORK IP NODE STATE AGE MAC IFNAME HOST-IF READY …
			if f := strings.Fields(line); len(f) > 10 && strings.Contains(line, id) && strings.Contains(line, "attached") {
				for _, w := range f {
					if strings.HasPrefix(w, "172.16.") {
						addr = w
					}
					switch w {
					case "held", "early", "late", "sync", "adopted":
						ready = w
					}
				}
				return nil
			}
		}
		return fmt.Errorf("%w: %s", err, out)
	})
	return addr, ready
}

// pings pings from the host of the bed until stop, which returns how many were
// sent and how many answered.
func (b *bed) pings(addr string) (stop func() (sent, answered int)) {
	b.t.Helper()
	var out bytes.Buffer
	cmd := b.command(context.Background(), "ping", "-i", "0.05", "-W", "2", addr)
	cmd.Stdout, cmd.Stderr = &out, &out
	if err := cmd.Start(); err != nil {
		b.t.Fatal(err)
	}
	return func() (sent, answered int) {
		b.t.Helper()
		time.Sleep(200 * time.Millisecond) // so that some follow what was done
		_ = exec.Command("nsenter", "--target", strconv.Itoa(b.pid), "--all", "--", "pkill", "-INT", "-x", "ping").Run()
		_ = cmd.Wait()
		for line := range strings.Lines(out.String()) {
			if _, err := fmt.Sscanf(line, "%d packets transmitted, %d received", &sent, &answered); err == nil {
				return sent, answered
			}
		}
		b.t.Fatalf("ping said:\n%s", out.String())
		return 0, 0
	}
}

func eventually(t *testing.T, limit time.Duration, what string, try func() error) {
	t.Helper()
	deadline := time.Now().Add(limit)
	for {
		err := try()
		if err == nil {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("not within %s: %s: %v", limit, what, err)
		}
		time.Sleep(50 * time.Millisecond)
	}
}
