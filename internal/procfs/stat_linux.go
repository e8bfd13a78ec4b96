// Package procfs reads what /proc says of a process.
package procfs

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

	// Flags of linux/sched.h. PF_FORKNOEXEC is set by fork and cleared by exec: no
	// process can forge it, unlike a name or a command line.
	flagExiting    = 0x4
	flagForkNoExec = 0x40
	flagKThread    = 0x200000

	// Fields of /proc/PID/stat, counted from 1 as proc(5) does.
	fieldState, fieldParent, fieldFlags, fieldStart = 3, 4, 9, 22
)

// Tick is the resolution of start times.
const Tick = time.Second / clockTicks

// Stat is what /proc/PID/stat says.
type Stat struct {
	PID, Parent int
	// Start is when the process was started, in ticks after boot, suspended time
	// included. With PID it names a process for ever.
	Start uint64
	// ForkedOnly: it has not executed a program of its own since its fork.
	ForkedOnly bool
	Kernel     bool // a thread of the kernel
	// Exiting: it runs no program any more, but may not be dead yet.
	Exiting bool
	// Dead: it has exited, and only waits to be reaped.
	Dead bool
}

// ReadStat reads what pid is now. The error of a process that does not exist is
// os.ErrNotExist, or ESRCH when it goes while it is looked at.
func ReadStat(pid int) (Stat, error) {
	b, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/stat")
	if err != nil {
		return Stat{}, err
	}
	s, err := ParseStat(b)
	s.PID = pid
	return s, err
}

// ReadLive is ReadStat for a process that has not exited; one that has is
// os.ErrProcessDone.
func ReadLive(pid int) (Stat, error) {
	s, err := ReadStat(pid)
	if err == nil && s.Dead {
		return Stat{}, os.ErrProcessDone
	}
	return s, err
}

// ParseStat decodes the file, without its PID. The second field is the name in
// parentheses, which may hold anything, so fields are counted from the last one.
func ParseStat(b []byte) (Stat, error) {
	i := bytes.LastIndexByte(b, ')')
	if i < 0 {
		return Stat{}, fmt.Errorf("stat line %q", b)
	}
	f := bytes.Fields(b[i+1:]) // f[0] is the state
	if len(f) <= fieldStart-fieldState {
		return Stat{}, fmt.Errorf("stat line of %d fields", len(f)+2)
	}
	number := func(field, bits int) (uint64, error) {
		return strconv.ParseUint(string(f[field-fieldState]), 10, bits)
	}
	parent, err := number(fieldParent, 31)
	if err != nil {
		return Stat{}, fmt.Errorf("stat parent: %w", err)
	}
	flags, err := number(fieldFlags, 32)
	if err != nil {
		return Stat{}, fmt.Errorf("stat flags: %w", err)
	}
	start, err := number(fieldStart, 63)
	if err != nil {
		return Stat{}, fmt.Errorf("stat start time: %w", err)
	}
	s := Stat{Parent: int(parent), Start: start, ForkedOnly: flags&flagForkNoExec != 0, Kernel: flags&flagKThread != 0, Exiting: flags&flagExiting != 0}
	switch f[0][0] {
	case 'Z', 'X', 'x':
		s.Dead = true
	}
	return s, nil
}

// StartedAfter reports whether the process was started later than t. Both are
// moved to the boot clock: the age of t is taken by its monotonic reading, if it
// has one, and is then immune to steps of the wall clock.
func (s Stat) StartedAfter(t time.Time) bool {
	var ts unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_BOOTTIME, &ts); err != nil {
		return true
	}
	seconds := time.Duration(s.Start/clockTicks) * time.Second
	return seconds+time.Duration(s.Start%clockTicks)*Tick > time.Duration(ts.Nano())-time.Since(t)
}
