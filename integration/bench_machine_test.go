package integration

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"stellar.io/stellar/internal/testx/bench"
)

// machine says what is measured on.
func machine(b *testing.B) bench.Machine {
	b.Helper()
	var u unix.Utsname
	_ = unix.Uname(&u)
	m := bench.Machine{CPU: "unknown CPU", Cores: runtime.NumCPU(), Kernel: unix.ByteSliceToString(u.Release[:]), Go: runtime.Version()}
	info, _ := os.ReadFile("/proc/cpuinfo")
	for line := range strings.Lines(string(info)) {
		if name, v, ok := strings.Cut(line, ":"); ok && strings.TrimSpace(name) == "model name" {
			m.CPU = strings.TrimSpace(v)
			break
		}
	}
	var si unix.Sysinfo_t
	if unix.Sysinfo(&si) == nil {
		m.MemoryGiB = int((uint64(si.Totalram)*uint64(si.Unit) + 1<<29) >> 30)
	}
	dir := scratch(b)
	m.Filesystem = filesystem(dir)
	var took samples
	file, err := os.Create(filepath.Join(dir, "sync"))
	if err != nil {
		b.Fatal(err)
	}
	defer file.Close()
	for range 200 {
		start := time.Now()
		if _, err := file.Write(make([]byte, 256)); err != nil {
			b.Fatal(err)
		}
		if err := file.Sync(); err != nil {
			b.Fatal(err)
		}
		took.add(time.Since(start))
	}
	m.FsyncMS = bench.Thin(samples{took.quantile(0.5)})[0]
	return m
}

// filesystem is the type of what holds dir.
func filesystem(dir string) string {
	mounts, _ := os.ReadFile("/proc/self/mounts")
	kind, longest := "unknown file system", -1
	for line := range strings.Lines(string(mounts)) {
		f := strings.Fields(line)
		if len(f) < 3 || len(f[1]) <= longest {
			continue
		}
		if f[1] == "/" || dir == f[1] || strings.HasPrefix(dir, f[1]+"/") {
			kind, longest = f[2], len(f[1])
		}
	}
	return kind
}

// builtFrom is the commit that this program was built from, as commit returns it; `make
// bench` has the linker set it.
var builtFrom string

// commit is what is measured, with a mark where the work tree differs from it. It is asked
// for once, after this program and those that it measures were built: figures belong to
// them, whatever is committed meanwhile. A program that was built from something else than
// the agents is refused.
func commit(b *testing.B) string {
	b.Helper()
	now := "unknown"
	if out, err := exec.Command("git", "describe", "--always", "--dirty", "--abbrev=12", "--exclude=*").Output(); err == nil {
		now = strings.TrimSpace(string(out))
	}
	if builtFrom != "" && builtFrom != now {
		b.Fatalf("the agents that are measured are of %s, this program was built from %s: run `make bench` again", now, builtFrom)
	}
	return now
}

// load is how busy the machine was: what else ran is in every figure.
func load() string {
	data, _ := os.ReadFile("/proc/loadavg")
	f := strings.Fields(string(data))
	if len(f) < 3 {
		return "unknown"
	}
	return fmt.Sprint(strings.Join(f[:3], " "))
}
