package netsetup

import (
	"bytes"
	"fmt"
	"os"
	"strconv"
	"time"

	"golang.org/x/sys/unix"
)

const (
	// clockTicks is USER_HZ: 100 on every architecture that Go runs on.
	clockTicks = 100
	// forkNoExec is PF_FORKNOEXEC of linux/sched.h: set by fork, cleared by exec.
	// No process can forge it, unlike a name or a command line.
	forkNoExec = 0x40

	statFlags = 9  // fields of /proc/PID/stat, counted from 1
	statStart = 22 // as proc(5) does
)

// procStat is what netsetup reads from /proc/PID/stat.
type procStat struct {
	start      time.Duration // after boot, suspended time included
	forkedOnly bool
}

func readStat(pid int) (procStat, error) {
	b, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/stat")
	if err != nil {
		return procStat{}, err
	}
	return parseStat(b)
}

// parseStat decodes the file. The second field is the name in parentheses, which
// may hold anything, so fields are counted from the last parenthesis.
func parseStat(b []byte) (procStat, error) {
	i := bytes.LastIndexByte(b, ')')
	if i < 0 {
		return procStat{}, fmt.Errorf("stat line %q", b)
	}
	f := bytes.Fields(b[i+1:]) // f[0] is field 3
	if len(f) <= statStart-3 {
		return procStat{}, fmt.Errorf("stat line of %d fields", len(f)+2)
	}
	flags, err := strconv.ParseUint(string(f[statFlags-3]), 10, 32)
	if err != nil {
		return procStat{}, fmt.Errorf("stat flags: %w", err)
	}
	ticks, err := strconv.ParseUint(string(f[statStart-3]), 10, 63)
	if err != nil {
		return procStat{}, fmt.Errorf("stat start time: %w", err)
	}
	seconds := time.Duration(ticks/clockTicks) * time.Second
	return procStat{
		start:      seconds + time.Duration(ticks%clockTicks)*(time.Second/clockTicks),
		forkedOnly: flags&forkNoExec != 0,
	}, nil
}

// startedAfter reports whether the process started later than t. Both are moved
// to the boot clock: the age of t is taken by its monotonic reading, if it has one.
func (s procStat) startedAfter(t time.Time) bool {
	var ts unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_BOOTTIME, &ts); err != nil {
		return true
	}
	return s.start > time.Duration(ts.Nano())-time.Since(t)
}
