package testx

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"
)

// dirPrefix begins the name of every directory made here.
const dirPrefix = "stx-"

// note is what a directory says about itself, for those who clean up later.
type note struct {
	Version Version `json:"version"`
	NetNS   string  `json:"netns"`
	// Owner is the process that will clean up; the zero process with Options.Keep.
	Owner process `json:"owner"`
}

func (c *Containerd) record(keep bool) error {
	n := note{Version: c.Version, NetNS: c.NetNS}
	if !keep {
		n.Owner = processOf(os.Getpid())
	}
	data, err := json.Marshal(n)
	if err != nil {
		return err
	}
	return os.WriteFile(c.path("testx.json"), data, 0o600)
}

// Open returns the containerd that was started in dir, by this or another
// process, running or not.
func Open(log Logger, dir string) (*Containerd, error) {
	data, err := os.ReadFile(filepath.Join(dir, "testx.json"))
	if err != nil {
		return nil, err
	}
	var n note
	if err := json.Unmarshal(data, &n); err != nil {
		return nil, fmt.Errorf("%s: %w", dir, err)
	}
	c := &Containerd{Dir: dir, Version: n.Version, NetNS: n.NetNS, log: log}
	if c.Version == V2 {
		if c.bin, err = findV2(); err != nil {
			log.Logf("%v", err) // still good for Close
		}
	}
	c.locate()
	c.proc, err = loadProcess(c.path("containerd.pid"))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	return c, nil
}

// sweep closes what dead processes have left.
func sweep(log Logger) {
	dirs, _ := filepath.Glob(filepath.Join(os.TempDir(), dirPrefix+"*"))
	for _, dir := range dirs {
		data, err := os.ReadFile(filepath.Join(dir, "testx.json"))
		var n note
		if err != nil || json.Unmarshal(data, &n) != nil || n.Owner == (process{}) || n.Owner.alive() {
			continue
		}
		c, err := Open(log, dir)
		if err == nil {
			err = c.Close()
		}
		log.Logf("cleared %s, left by process %d: %v", dir, n.Owner.PID, err)
	}
}

// Close ends the containerd, its shims and its containers, and removes
// everything that belongs to them. It is idempotent and goes on past failures.
func (c *Containerd) Close() error {
	problems := []error{c.Kill9()}
	// Containers last started may still fork: look until nothing is found.
	for range 50 {
		found := c.remains()
		if len(found) == 0 {
			break
		}
		for _, p := range found {
			problems = append(problems, p.end(syscall.SIGKILL, nil))
		}
	}
	sockets := c.shimSockets()
	groups := append(c.foreignCgroups(), c.cgroup)
	problems = append(problems, c.removeRuncState())
	problems = append(problems, c.unmount())
	for _, socket := range sockets {
		if err := os.Remove(socket); err != nil && !errors.Is(err, fs.ErrNotExist) {
			problems = append(problems, err)
		}
	}
	for _, group := range groups {
		problems = append(problems, removeCgroups(group))
	}
	problems = append(problems, os.RemoveAll(c.Dir))
	return errors.Join(problems...)
}

// remains lists the processes of this containerd: its shims, by the address
// among their arguments, what descends from them, and what is in its cgroups.
// Shims come first, so that they do not report the end of the others.
func (c *Containerd) remains() []process {
	var roots []int
	for _, pid := range pids() {
		if c.isShim(pid) || c.inCgroup(pid) {
			roots = append(roots, pid)
		}
	}
	slices.SortStableFunc(roots, func(a, b int) int {
		switch sa, sb := c.isShim(a), c.isShim(b); {
		case sa == sb:
			return 0
		case sa:
			return -1
		}
		return 1
	})
	var found []process
	for _, pid := range withDescendants(roots) {
		if p := processOf(pid); p.alive() && pid != os.Getpid() && !slices.Contains(found, p) {
			found = append(found, p)
		}
	}
	return found
}

func (c *Containerd) isShim(pid int) bool {
	args, err := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", pid))
	if err != nil {
		return false
	}
	list := strings.Split(string(args), "\x00")
	return strings.Contains(filepath.Base(list[0]), "containerd-shim") && slices.ContainsFunc(list, func(arg string) bool {
		return arg == c.Address || arg == c.Address+".ttrpc"
	})
}

func (c *Containerd) inCgroup(pid int) bool {
	groups, err := os.ReadFile(fmt.Sprintf("/proc/%d/cgroup", pid))
	return err == nil && strings.Contains(string(groups), ":"+c.cgroup+"/")
}

// unmount detaches every mount below Dir, the innermost first.
func (c *Containerd) unmount() error {
	f, err := os.Open("/proc/self/mountinfo")
	if err != nil {
		return err
	}
	defer f.Close()
	var points []string
	lines := bufio.NewScanner(f)
	for lines.Scan() {
		if fields := strings.Fields(lines.Text()); len(fields) > 4 && strings.HasPrefix(fields[4], c.Dir+"/") {
			points = append(points, fields[4])
		}
	}
	problems := []error{lines.Err()}
	for _, point := range slices.Backward(points) {
		if err := syscall.Unmount(point, syscall.MNT_DETACH); err != nil {
			problems = append(problems, fmt.Errorf("unmount %s: %w", point, err))
		}
	}
	return errors.Join(problems...)
}

// shimSockets lists the sockets that the bundles name; shims that were killed
// leave them behind, outside Dir.
func (c *Containerd) shimSockets() []string {
	var sockets []string
	for _, name := range []string{"address", "bootstrap.json"} {
		files, _ := filepath.Glob(c.path("state", "io.containerd.runtime.v2.task", "*", "*", name))
		for _, file := range files {
			data, err := os.ReadFile(file)
			if err != nil {
				continue
			}
			address := string(data)
			var bootstrap struct{ Address string }
			if json.Unmarshal(data, &bootstrap) == nil {
				address = bootstrap.Address
			}
			if path, ok := strings.CutPrefix(strings.TrimSpace(address), "unix://"); ok && filepath.IsAbs(path) {
				sockets = append(sockets, path)
			}
		}
	}
	return sockets
}

// removeRuncState removes what runc keeps, in the place that all containerds
// share, of containers that were made without a runc root of their own.
func (c *Containerd) removeRuncState() error {
	var problems []error
	bundles, _ := filepath.Glob(c.path("state", "io.containerd.runtime.v2.task", "*", "*"))
	for _, bundle := range bundles {
		dir := filepath.Join("/run/containerd/runc", filepath.Base(filepath.Dir(bundle)), filepath.Base(bundle))
		state, err := os.ReadFile(filepath.Join(dir, "state.json"))
		if err == nil && strings.Contains(string(state), `"bundle=`+bundle+`"`) {
			problems = append(problems, os.RemoveAll(dir))
		}
	}
	return errors.Join(problems...)
}

// foreignCgroups lists the groups that our containers have outside our own.
func (c *Containerd) foreignCgroups() []string {
	var groups []string
	specs, _ := filepath.Glob(c.path("state", "io.containerd.runtime.v2.task", "*", "*", "config.json"))
	for _, file := range specs {
		data, err := os.ReadFile(file)
		if err != nil {
			continue
		}
		var spec struct {
			Linux struct{ CgroupsPath string }
		}
		group := ""
		if json.Unmarshal(data, &spec) == nil {
			group = filepath.Clean(spec.Linux.CgroupsPath)
		}
		// Two elements at least: /namespace/id, never a whole tree.
		if strings.Count(group, "/") >= 2 && !strings.HasPrefix(group, c.cgroup+"/") {
			groups = append(groups, group)
		}
	}
	return groups
}

// removeCgroups removes a group and those below it in every hierarchy.
func removeCgroups(group string) error {
	roots, _ := filepath.Glob("/sys/fs/cgroup/*" + group) // cgroup v1 and hybrid
	roots = append(roots, "/sys/fs/cgroup"+group)         // cgroup v2
	var problems []error
	for _, root := range roots {
		var dirs []string
		_ = filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
			if err == nil && d.IsDir() {
				dirs = append(dirs, path)
			}
			return nil
		})
		for _, dir := range slices.Backward(dirs) {
			problems = append(problems, removeCgroup(dir))
		}
	}
	return errors.Join(problems...)
}

// removeCgroup waits a moment: the kernel takes its time to see a group empty.
func removeCgroup(dir string) error {
	var err error
	for range 100 {
		err = syscall.Rmdir(dir)
		if err == nil || errors.Is(err, syscall.ENOENT) {
			return nil
		}
		time.Sleep(10 * time.Millisecond)
	}
	return fmt.Errorf("remove %s: %w", dir, err)
}
