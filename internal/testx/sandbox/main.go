// Command sandbox runs a program under the very restrictions that systemd has put
// on another one, as the kernel has them: its capability bounding set,
// no_new_privs, its seccomp filters, its limits and nice value, and what it can
// see and write of the files.
//
//	sandbox dump PID FILE
//	sandbox run FILE DIR PROGRAM [ARG…]	DIR is what the program may write
package main

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// restrictions of a process.
type restrictions struct {
	Bounding uint64              // capabilities, a bit each
	Filters  [][]unix.SockFilter // in the order in which they were installed
	Mounts   []mount             // parents before what is mounted on them
	Limits   map[int]unix.Rlimit // by resource
	Nice     int
}

// limits are the resources that an agent without CAP_SYS_RESOURCE and CAP_SYS_NICE
// can have no more of.
var limits = []int{unix.RLIMIT_NOFILE, unix.RLIMIT_CORE, unix.RLIMIT_MEMLOCK, unix.RLIMIT_NPROC, unix.RLIMIT_NICE, unix.RLIMIT_RTPRIO}

func main() {
	runtime.LockOSThread() // ptrace, capabilities, filters and mounts are one thread's
	var err error
	switch {
	case len(os.Args) == 4 && os.Args[1] == "dump":
		err = dump(os.Args[2], os.Args[3])
	case len(os.Args) > 4 && os.Args[1] == "run":
		err = run(os.Args[2], os.Args[3], os.Args[4:])
	default:
		err = fmt.Errorf("usage: sandbox dump PID FILE, or sandbox run FILE DIR PROGRAM [ARG…]")
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "sandbox:", err)
		os.Exit(1)
	}
}

func dump(process, file string) error {
	pid, err := strconv.Atoi(process)
	if err != nil {
		return err
	}
	var r restrictions
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		return err
	}
	for line := range strings.Lines(string(status)) {
		key, value, _ := strings.Cut(strings.TrimSpace(line), ":\t")
		switch {
		case key == "CapBnd":
			if r.Bounding, err = strconv.ParseUint(value, 16, 64); err != nil {
				return err
			}
		case key == "NoNewPrivs" && value != "1":
			return fmt.Errorf("process %d may gain privileges", pid)
		}
	}
	if r.Filters, err = filters(pid); err != nil {
		return err
	}
	if r.Mounts, err = mounts(pid); err != nil {
		return err
	}
	r.Limits = map[int]unix.Rlimit{}
	for _, resource := range limits {
		var l unix.Rlimit
		if err := unix.Prlimit(pid, resource, nil, &l); err != nil {
			return err
		}
		r.Limits[resource] = l
	}
	nice, err := unix.Getpriority(unix.PRIO_PROCESS, pid)
	if err != nil {
		return err
	}
	r.Nice = 20 - nice // getpriority(2)
	text, err := json.Marshal(r)
	if err != nil {
		return err
	}
	return os.WriteFile(file, text, 0o644)
}

func run(file, writable string, args []string) error {
	text, err := os.ReadFile(file)
	if err != nil {
		return err
	}
	var r restrictions
	if err := json.Unmarshal(text, &r); err != nil {
		return err
	}
	path, err := exec.LookPath(args[0])
	if err != nil {
		return err
	}
	if err := restrictFiles(r.Mounts, writable); err != nil {
		return err
	}
	for resource, l := range r.Limits {
		if err := unix.Prlimit(0, resource, &l, nil); err != nil {
			return fmt.Errorf("set limit %d: %w", resource, err)
		}
	}
	if err := unix.Setpriority(unix.PRIO_PROCESS, 0, r.Nice); err != nil {
		return fmt.Errorf("set nice value: %w", err)
	}
	for c := range uint64(64) {
		if r.Bounding&(1<<c) != 0 {
			continue
		}
		if err := unix.Prctl(unix.PR_CAPBSET_DROP, uintptr(c), 0, 0, 0); err == unix.EINVAL {
			break // the kernel's last capability was before
		} else if err != nil {
			return fmt.Errorf("drop capability %d: %w", c, err)
		}
	}
	if err := unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); err != nil {
		return err
	}
	for i, f := range r.Filters {
		if err := install(f); err != nil {
			return fmt.Errorf("install filter %d of %d: %w", i+1, len(r.Filters), err)
		}
	}
	return unix.Exec(path, args, os.Environ())
}
