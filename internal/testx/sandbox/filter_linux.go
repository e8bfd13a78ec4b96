package main

import (
	"fmt"
	"unsafe"

	"golang.org/x/sys/unix"
)

// filters reads the seccomp filters of a process, which it stops for that.
func filters(pid int) (out [][]unix.SockFilter, err error) {
	if err := unix.PtraceSeize(pid); err != nil {
		return nil, fmt.Errorf("seize %d: %w", pid, err)
	}
	if err := unix.PtraceInterrupt(pid); err != nil {
		return nil, err
	}
	var status unix.WaitStatus
	if _, err := unix.Wait4(pid, &status, unix.WALL, nil); err != nil {
		return nil, err
	}
	defer unix.PtraceDetach(pid) //nolint:errcheck // it ends with this process
	for i := 0; ; i++ {
		n, errno := getFilter(pid, i, nil)
		if errno == unix.ENOENT {
			return out, nil
		}
		if errno != 0 {
			return nil, fmt.Errorf("filter %d: %w", i, errno)
		}
		f := make([]unix.SockFilter, n)
		if _, errno := getFilter(pid, i, unsafe.Pointer(&f[0])); errno != 0 {
			return nil, fmt.Errorf("filter %d: %w", i, errno)
		}
		out = append(out, f) // the kernel begins with the oldest
	}
}

func getFilter(pid, i int, to unsafe.Pointer) (int, unix.Errno) {
	n, _, errno := unix.RawSyscall6(unix.SYS_PTRACE, unix.PTRACE_SECCOMP_GET_FILTER, uintptr(pid), uintptr(i), uintptr(to), 0, 0)
	return int(n), errno
}

// install puts a filter on the calling thread.
func install(f []unix.SockFilter) error {
	p := unix.SockFprog{Len: uint16(len(f)), Filter: &f[0]}
	_, _, errno := unix.RawSyscall(unix.SYS_SECCOMP, unix.SECCOMP_SET_MODE_FILTER, 0, uintptr(unsafe.Pointer(&p)))
	if errno != 0 {
		return errno
	}
	return nil
}
