package hold

import (
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// preferThread puts the calling thread before all normal ones. Where that is not
// permitted it stays as it is, and on a busy machine some inits escape.
func preferThread() {
	_ = unix.SchedSetAttr(0, &unix.SchedAttr{
		Size: unix.SizeofSchedAttr, Policy: unix.SCHED_FIFO, Priority: 1,
		Flags: unix.SCHED_FLAG_RESET_ON_FORK, // whatever this thread starts is normal
	}, 0)
}

// probe returns why ptrace will not work, "" if it should. The capability is
// demanded even where a seizure would be permitted without: a program that is
// traced without it does not get the privileges that its file gives.
func probe() string {
	status, _ := os.ReadFile("/proc/thread-self/status")
	if !hasPtrace(string(status)) {
		return "ptrace is not permitted: CAP_SYS_PTRACE is missing"
	}
	// No process has the number 0: a kernel that permits the call does not find it.
	if err := ptrace(unix.PTRACE_SEIZE, 0, 0); !errors.Is(err, unix.ESRCH) {
		return fmt.Sprintf("ptrace is not permitted: %v (seccomp?)", err)
	}
	return yama()
}

// hasPtrace reads CapEff of /proc/PID/status.
func hasPtrace(status string) bool {
	for line := range strings.Lines(status) {
		if hex, ok := strings.CutPrefix(line, "CapEff:"); ok {
			caps, err := strconv.ParseUint(strings.TrimSpace(hex), 16, 64)
			return err == nil && caps&(1<<unix.CAP_SYS_PTRACE) != 0
		}
	}
	return false
}

// yama: only its scope 3 refuses a tracer that has CAP_SYS_PTRACE.
func yama() string {
	scope, err := os.ReadFile("/proc/sys/kernel/yama/ptrace_scope")
	if err == nil && strings.TrimSpace(string(scope)) == "3" {
		return "ptrace is not permitted: kernel.yama.ptrace_scope is 3"
	}
	return ""
}

// refusal says why pid could not be seized.
func refusal(pid int, err error) string {
	status, _ := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/status")
	for line := range strings.Lines(string(status)) {
		if tracer, ok := strings.CutPrefix(line, "TracerPid:"); ok && strings.TrimSpace(tracer) != "0" {
			return fmt.Sprintf("the init is traced by process %s already", strings.TrimSpace(tracer))
		}
	}
	if reason := probe(); reason != "" {
		return reason
	}
	return fmt.Sprintf("ptrace is not permitted: %v (a security module?)", err)
}

// Permitted says why this process may not trace others, "" if it may.
func Permitted() string { return probe() }
